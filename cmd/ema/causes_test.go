package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"ema/client"
	"ema/internal/api"
	"ema/internal/demohub"
	"ema/internal/host"
	"ema/internal/ledger/pgserver"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
	"ema/internal/throttle"
	"ema/internal/tune"
)

// A cause is something that makes downloads slow on purpose.
type cause struct {
	hub     []demohub.Option // besides its models
	bend    demohub.Fault    // of all answers with bytes
	environ []string
	// begin makes it slow, for as long as ctx lasts; endpoint is the hub's, and what it returns replaces it. nil does nothing.
	begin func(ctx context.Context, t *testing.T, endpoint string) (instead string, more []string)
	after func(ctx context.Context, t *testing.T, url string) // the downloads have begun; nil does nothing
	quick bool                                                // much is needed for it to last
	pull  []string                                            // models; nil is the large one
	where string                                              // a part of the verdict
	first tune.Component
}

// causes are those that can be made anywhere.
func causes() map[string]cause {
	slow := demohub.Rate(512 * model.KiB)
	return map[string]cause{
		"a server that sends slowly": {hub: []demohub.Option{slow}, first: tune.OfServer, where: "sends no faster"},
		"a server that answers late": {
			hub: []demohub.Option{demohub.Latency(1500 * time.Millisecond)}, pull: []string{"acme/many"}, first: tune.OfServer, where: "takes long to begin",
		},
		"a server that answers 429": {first: tune.OfServer, where: "holds requests back", bend: demohub.Status(http.StatusTooManyRequests)},
		"a limit":                   {environ: []string{"EMA_BANDWIDTH_MANAGEMENT__GLOBAL_LIMIT_MBPS=2"}, first: tune.OfLimiter, where: "2.0 MiB/s"},
		"a limit of each download": {
			environ: []string{"EMA_BANDWIDTH_MANAGEMENT__PER_DOWNLOAD_LIMIT_MBPS=2"}, first: tune.OfLimiter, where: "each download",
		},
		"a queue that is full": {
			hub: []demohub.Option{slow}, environ: []string{"EMA_DOWNLOADS__MAX_CONCURRENT_DOWNLOADS=1", "EMA_DOWNLOADS__QUEUE_SIZE=2"},
			pull: []string{"acme/large", "acme/second", "acme/third"}, first: tune.OfQueue, where: "the queue is full",
		},
		"one slow connection": {
			hub: []demohub.Option{slow}, environ: []string{"EMA_CONNECTION_SETTINGS__MAX_CONNECTIONS_PER_HOST=1"}, first: tune.OfNetwork, where: "only one connection",
		},
		"names that take two seconds": {first: tune.OfDNS, pull: []string{"acme/small"}, where: "names are slow", begin: slowNames},
		"a disk that is full":         {environ: []string{"EMA_CLEANUP__MIN_FREE_GB=100000"}, first: tune.OfDisk, where: "space"},
		"a database that is slow":     {first: tune.OfDatabase, pull: []string{"acme/small"}, where: "PostgreSQL is slow", begin: slowDatabase, after: useOften},
	}
}

// slowNames has names found by a server that takes two seconds.
func slowNames(ctx context.Context, t *testing.T, endpoint string) (string, []string) {
	t.Helper()
	c, err := new(net.ListenConfig).ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it is closed with ctx
	context.AfterFunc(ctx, func() { _ = c.Close() })
	go func() {
		for {
			buf := make([]byte, 1500)
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return // it was closed
			}
			time.AfterFunc(2*time.Second, func() {
				var m dnsmessage.Message
				if m.Unpack(buf[:n]) != nil {
					return
				}
				m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
				if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
					m.Answers = []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
					}}
				}
				if b, err := m.Pack(); err == nil {
					_, _ = c.WriteTo(b, from) // who asked may be gone
				}
			})
		}
	}()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = "hub.test:" + u.Port()
	return u.String(), []string{"EMA_NETWORK_OPTIMIZATION__USE_SYSTEM_RESOLVER=false", "EMA_NETWORK_OPTIMIZATION__CUSTOM_DNS_SERVERS=" + c.LocalAddr().String()}
}

// slowDatabase keeps history in PostgreSQL, behind a way on which each packet takes 100 ms.
func slowDatabase(ctx context.Context, t *testing.T, endpoint string) (string, []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pg") // the server's user must get there, which t.TempDir does not let everybody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s, err := pgserver.New(ctx, dir)
	if errors.Is(err, pgserver.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // it may be down
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			to, err := new(net.Dialer).DialContext(ctx, "tcp", server)
			if err != nil {
				_ = from.Close()
				return
			}
			context.AfterFunc(ctx, func() { _, _ = from.Close(), to.Close() })
			go func() { _, _ = io.Copy(from, to) }() // until one of them is closed
			go func() {
				for buf := make([]byte, 1<<16); ; {
					n, err := from.Read(buf)
					if err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond) // it is what a slow way does
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	u.Host = l.Addr().String()
	return endpoint, []string{"EMA_DATABASE__URL=" + u.String()}
}

// useOften has something to remember all the time.
func useOften(ctx context.Context, t *testing.T, address string) {
	go func() {
		for ctx.Err() == nil {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, address+client.Base+"/models/usage", strings.NewReader(`{"model_id":"acme/small"}`))
			if err != nil {
				return
			}
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

// shown starts a daemon with a cause, begins its downloads and returns what ema analyze-bottlenecks says of it, once that is what is
// wanted, or when it never is.
func (c cause) shown(t *testing.T) client.PerformanceAnalysis {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	var small []demohub.Entry
	for i := range 64 {
		small = append(small, demohub.File(fmt.Sprintf("part-%02d.bin", i), 300*model.KiB))
	}
	size := 128 * model.MiB
	if c.quick {
		size = 2 * model.GiB
	}
	hub := demohub.New(append(c.hub,
		demohub.Repo("acme/large", demohub.File("weights.bin", size)), demohub.Repo("acme/second", demohub.File("weights.bin", 9*model.MiB)),
		demohub.Repo("acme/third", demohub.File("weights.bin", 9*model.MiB)), demohub.Repo("acme/small", demohub.File("weights.bin", 300*model.KiB)),
		demohub.Repo("acme/many", parts(small)...))...)
	if c.bend.String() != "" {
		hub.Fault(demohub.Match{Kind: demohub.Bulk}, c.bend, -1)
	}
	listen := "127.0.0.1:0"
	if c.first == tune.OfNetwork && c.begin != nil {
		listen = linkHere + ":0"
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: hub}}
	srv.Start()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	endpoint, more := srv.URL, []string(nil)
	if c.begin != nil {
		endpoint, more = c.begin(ctx, t, srv.URL)
	}
	environ := append([]string{"HOME=" + t.TempDir(), "HF_ENDPOINT=" + endpoint, "GORACE=" + noRest, "PATH=" + os.Getenv("PATH"), anyPort, anyMetricsPort}, append(c.environ, more...)...)
	daemon := serving(ctx, t, environ)
	defer daemon.ends(t)
	pull := c.pull
	if pull == nil {
		pull = []string{"acme/large"}
	}
	for _, name := range pull {
		if p := begin(t, environ, "pull", name, "--detach"); p.Wait() != nil {
			t.Fatal(p.stderr.String())
		}
	}
	if c.after != nil {
		c.after(ctx, t, daemon.address(t))
	}
	var a client.PerformanceAnalysis
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		args := []string{"analyze-bottlenecks", "--json"}
		if c.first == tune.OfDNS { // it is over soon
			args = append(args, pull[0])
		}
		p := begin(t, environ, args...)
		if err := p.Wait(); err != nil && !strings.Contains(p.stderr.String(), "no download of it is known") {
			t.Fatal(p.stderr.String())
		} else if err == nil {
			if err := json.Unmarshal([]byte(p.stdout.String()), &a); err != nil {
				t.Fatal(err)
			}
		}
		if (a.Finished || a.Seconds > shortest.Seconds()) && len(a.Bottlenecks) > 0 && a.Bottlenecks[0].Component == string(c.first) && strings.Contains(a.Bottlenecks[0].Verdict, c.where) {
			return a
		}
		select {
		case <-ctx.Done():
			return a
		case <-tick.C:
		}
	}
}

func parts(entries []demohub.Entry) []demohub.Part {
	all := make([]demohub.Part, len(entries))
	for i, e := range entries {
		all[i] = e
	}
	return all
}

func (c cause) holds(t *testing.T) {
	t.Helper()
	a := c.shown(t)
	if len(a.Bottlenecks) == 0 || a.Bottlenecks[0].Component != string(c.first) || !strings.Contains(a.Bottlenecks[0].Verdict, c.where) {
		said, _ := json.MarshalIndent(a, "", "  ") //nolint:errcheck // it has no channels
		t.Errorf("it says %s", said)
		return
	}
	if f := a.Bottlenecks[0]; len(f.Evidence) == 0 || f.Share < tune.Worth && c.first != tune.OfDNS {
		t.Errorf("it has no evidence, or not enough: %+v", f)
	}
	for _, b := range a.Bottlenecks {
		if b.Setting != "" && !strings.HasPrefix(b.Setting, "net.") && b.Current == "" {
			t.Errorf("there is no key %s", b.Setting)
		}
	}
	t.Logf("%.0f %% %s", 100*a.Bottlenecks[0].Share, a.Bottlenecks[0].Verdict)
}

// unshared skips a test that says nothing where other tests have the processors: then these are what is waited for, and that is what it
// would be told. "make causes" runs them by themselves, as a part of "make test".
func unshared(t *testing.T) {
	t.Helper()
	if os.Getenv("EMA_TEST_CAUSES") == "" {
		t.Skip("it needs a machine of its own: make causes")
	}
}

func TestWhatIsSlowedOnPurposeIsNamedFirst(t *testing.T) {
	unshared(t)
	for name, c := range causes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.holds(t)
		})
	}
}

// Programs that have all processors are told from a server that is slow, and from work of our own.
func TestProcessorsThatOthersHaveAreNamedFirst(t *testing.T) {
	unshared(t)
	for range 3 * runtime.NumCPU() {
		hog := exec.CommandContext(t.Context(), "/bin/sh", "-c", "while :; do :; done")
		if err := hog.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = hog.Process.Kill(), hog.Wait() }) // it was killed
	}
	cause{quick: true, first: tune.OfCPU, where: "other programs have the processors"}.holds(t)
}

// Without the instructions for it, the hash is what a fast origin waits for.
func TestAHashThatIsTheSlowestStepIsNamedFirst(t *testing.T) {
	unshared(t)
	cause{quick: true, environ: []string{"GODEBUG=cpu.all=off"}, first: tune.OfCPU, where: "the hash is the slowest step"}.holds(t)
}

func TestMemoryThatIsTooSmallIsNamedFirst(t *testing.T) {
	unshared(t)
	cause{quick: true, environ: []string{"EMA_MEMORY_MANAGEMENT__HEAP_SIZE_GB=0.001"}, first: tune.OfMemory, where: "memory"}.holds(t)
}

// A window that is smaller than what a long way holds is found by what the kernel tells of the connections.
func TestAWindowThatIsTooSmallIsNamedFirst(t *testing.T) {
	unshared(t)
	const inside = "EMA_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		if _, err := os.Stat("/dev/net/tun"); err != nil || os.Getuid() != 0 {
			t.Skip("a link of its own needs root and /dev/net/tun")
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "by the receive window") {
			t.Errorf("%v\n%s", err, out)
		}
		t.Log(string(out))
		return
	}
	distance(t, 80*time.Millisecond)
	there := func(_ context.Context, _ *testing.T, endpoint string) (string, []string) {
		return strings.Replace(endpoint, linkHere, linkThere, 1), []string{"EMA_CONNECTION_SETTINGS__SOCKET_BUFFER_SIZE=65536"}
	}
	cause{begin: there, first: tune.OfNetwork, where: "by the receive window"}.holds(t)
}

// A lazyDisk takes its time to write.
type lazyDisk struct{ store.Disk }

type lazyFile struct{ store.File }

func (d lazyDisk) OpenFile(name string, flag int, perm os.FileMode) (store.File, error) {
	f, err := d.Disk.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return lazyFile{f}, nil
}

func (f lazyFile) WriteAt(p []byte, off int64) (int, error) {
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(8*model.MiB)) // it is what a slow disk does
	return f.File.WriteAt(p, off)
}

func TestADiskThatIsSlowIsNamedFirst(t *testing.T) {
	unshared(t)
	hub := demohub.New(demohub.Repo("acme/large", demohub.File("weights.bin", 24*model.MiB)))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	a := &app{stdout: io.Discard, stderr: io.Discard, environ: []string{"HOME=" + t.TempDir(), "HF_ENDPOINT=" + srv.URL}}
	l, err := a.line("test", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.end(); err != nil {
			t.Error(err)
		}
	}()
	stored, err := storeSettings(l.settings.Config)
	if err != nil {
		t.Fatal(err)
	}
	stored.Disk = lazyDisk{store.OS{}}
	l.Store = store.New(stored)
	id, p := model.ID{Name: "acme/large"}, &pipeline.Progress{}
	from := l.look(t.Context(), host.New("", 0))
	if _, err := l.Pull(t.Context(), pipeline.Request{ID: id}, p); err != nil {
		t.Fatal(err)
	}
	l.timed(t.Context(), a, id, from, p, 0)
	found, err := a.analysis(t.Context(), id)
	if err != nil || !found.Finished || len(found.Bottlenecks) == 0 || found.Bottlenecks[0].Component != string(tune.OfDisk) {
		t.Errorf("%v: %+v", err, found)
	}
}

// A request that hangs is found while it does.
func TestAnAPIThatHangsIsNamedFirst(t *testing.T) {
	unshared(t)
	d, _ := quietDaemon(t)
	d.limiter, d.host, d.gauge = throttle.New(), host.New("", 0), newGauge(d)
	entered, leave := make(chan struct{}), make(chan struct{})
	d.api = &api.Server{Log: d.log, Version: d.version()}
	d.api.Ready = func(context.Context) error { close(entered); <-leave; return nil }
	srv := httptest.NewServer(d.api.Handler())
	defer srv.Close()
	var asked sync.WaitGroup
	asked.Go(func() {
		res, err := http.Get(srv.URL + "/readyz")
		if err == nil {
			res.Body.Close()
		}
	})
	defer asked.Wait()
	defer close(leave)
	<-entered
	time.Sleep(1100 * time.Millisecond) // what hangs for a second is no chance
	a, err := d.gauge.Analysis(t.Context(), model.ID{})
	if err != nil || len(a.Bottlenecks) == 0 || a.Bottlenecks[0].Component != string(tune.OfAPI) {
		t.Errorf("%v: %+v", err, a)
	}
}
