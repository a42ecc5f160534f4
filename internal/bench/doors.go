package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// DownloadResults are of downloads from an origin in this process, on loopback, by this program as it is started by
// users, with settings nobody has changed. Times are in seconds and have the start of the program in them.
type DownloadResults struct {
	Single     *float64     `json:"single_download_time"`      // median
	Concurrent []float64    `json:"concurrent_download_times"` // of each download of the last repeat, all of which ran at once
	Retry      *RetryResult `json:"retry_performance"`

	Bytes           model.Bytes `json:"bytes"` // of each download
	SingleRate      *float64    `json:"single_mb_per_second"`
	ConcurrentTotal *float64    `json:"concurrent_total_time"` // until the last one is there; median
}

// A RetryResult is of a download whose origin fails.
type RetryResult struct {
	Seconds   float64 `json:"download_time"`   // median
	Extra     float64 `json:"extra_time"`      // more than without faults
	Faults    int     `json:"faults"`          // that the origin made in the last repeat: an answer of 503, connections that break
	Succeeded float64 `json:"success_rate"`    // 0 to 1
	SentAgain float64 `json:"sent_again_part"` // what the origin sent beyond the file, by its size; in the last repeat
}

// together is how many downloads run at once.
const together = 4

// An origin is a hub in this process on loopback.
type origin struct {
	hub    *demohub.Hub
	url    string
	server *http.Server
	ended  sync.WaitGroup
}

func newOrigin(ctx context.Context, hub *demohub.Hub) (*origin, error) {
	if err := hub.Warm(ctx); err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	o := &origin{hub: hub, url: "http://" + l.Addr().String(), server: &http.Server{Handler: hub, ReadHeaderTimeout: time.Minute}}
	o.ended.Go(func() { _ = o.server.Serve(l) }) //nolint:errcheck // it ends by close
	return o, nil
}

func (o *origin) close() error {
	err := o.server.Close()
	o.ended.Wait()
	return err
}

// command is this program with a store of its own in folder, and nothing of the user's settings.
func (r *assessor) command(ctx context.Context, folder, url string, args ...string) (*exec.Cmd, error) {
	file := filepath.Join(folder, "settings.json")
	if err := os.WriteFile(file, []byte("{}\n"), 0o600); err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, r.Program, append([]string{"--config", file}, args...)...)
	c.Args[0] = r.Name
	c.Env = slices.DeleteFunc(slices.Clone(r.Environ), func(pair string) bool {
		return strings.HasPrefix(pair, "EMA_") || strings.HasPrefix(pair, "HF_") || strings.HasPrefix(pair, "HUGGING")
	})
	c.Env = append(c.Env, "HOME="+folder, "XDG_CONFIG_HOME="+folder, "XDG_CACHE_HOME="+folder, "XDG_STATE_HOME="+folder,
		"EMA_STORE__PATH="+filepath.Join(folder, "hub"), "EMA_STORE__STATE_DIR="+filepath.Join(folder, "state"),
		"EMA_SERVER__LISTEN=127.0.0.1:0", "EMA_SERVER__METRICS_LISTEN=", "EMA_RATE_LIMIT__REQUESTS_PER_MINUTE=0", "EMA_OPTIMIZATION_PROFILE="+r.Profile, "HF_ENDPOINT="+url, "HF_TOKEN=")
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	return c, nil
}

// pull downloads a model, and returns the seconds that it took.
func (r *assessor) pull(ctx context.Context, folder, url string, models ...string) (float64, error) {
	c, err := r.command(ctx, folder, url, append([]string{"pull", "--quiet"}, models...)...)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if said, err := c.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pull %s: %w: %s", strings.Join(models, " "), err, strings.TrimSpace(string(said)))
	}
	return time.Since(begun).Seconds(), nil
}

func (r *assessor) downloads(ctx context.Context) (err error) {
	size := r.AssessSettings.Size / 4
	parts := make([]demohub.Option, 0, together)
	for i := range together {
		parts = append(parts, demohub.Repo(fmt.Sprintf("bench/model-%d", i), demohub.SeededFile("model.bin", size, uint64(i)+1)))
	}
	o, err := newOrigin(ctx, demohub.New(parts...))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	res := &DownloadResults{Bytes: size}
	r.Results.Downloads = res

	r.Progress("downloads: one")
	var single, rates []float64
	err = r.repeat(ctx, r.lasting("downloads")/4, func() bool { return tightEnough(single) }, func(int) error {
		return within(r.Places[0].Dir, func(folder string) error {
			took, err := r.pull(ctx, folder, o.url, "bench/model-0")
			if err == nil {
				single, rates = append(single, took), append(rates, float64(size)/1e6/took)
			}
			return err
		})
	})
	res.Single = r.note("downloads.single_download_time", single, "s", Lower)
	if len(rates) > 0 {
		res.SingleRate = new(Median(rates))
	}
	if err != nil {
		return err
	}

	r.Progress(fmt.Sprintf("downloads: %d at once", together))
	var totals []float64
	err = r.repeat(ctx, r.lasting("downloads")/4, func() bool { return tightEnough(totals) }, func(int) error {
		return within(r.Places[0].Dir, func(folder string) error {
			took, total, err := r.atOnce(ctx, folder, o.url)
			if err == nil {
				res.Concurrent, totals = took, append(totals, total)
			}
			return err
		})
	})
	res.ConcurrentTotal = r.note("downloads.concurrent_total_time", totals, "s", Lower)
	if err != nil {
		return err
	}

	r.Progress("downloads: an origin that fails")
	retry := &RetryResult{}
	var times []float64
	tried := 0
	var last error
	err = r.repeat(ctx, r.lasting("downloads")/2, func() bool { return tightEnough(times) }, func(int) error {
		o.hub.ClearFaults()
		o.hub.ResetStats()
		o.hub.Next(demohub.Status(http.StatusServiceUnavailable))
		o.hub.Fault(demohub.Match{Kind: demohub.Bulk}, demohub.ResetAfter(256*model.KiB), 2)
		return within(r.Places[0].Dir, func(folder string) error {
			took, err := r.pull(ctx, folder, o.url, "bench/model-0")
			tried++
			if err != nil {
				last = err // a download that fails here is a result
				return cleanup(err)
			}
			retry.Faults = 0
			for _, asked := range o.hub.Log() {
				if asked.Fault != "" {
					retry.Faults++
				}
			}
			retry.SentAgain = max(float64(o.hub.Stats().Body)/float64(size)-1, 0)
			times = append(times, took)
			return nil
		})
	})
	o.hub.ClearFaults()
	if err != nil {
		return err
	}
	if len(times) == 0 {
		return fmt.Errorf("no download from an origin that fails came to an end: %w", last)
	}
	retry.Seconds, retry.Succeeded = *r.note("downloads.retry_download_time", times, "s", Lower), float64(len(times))/float64(tried)
	retry.Extra = retry.Seconds - *res.Single
	res.Retry = retry
	return nil
}

// atOnce runs several downloads into stores of their own, and returns the seconds of each and of all.
func (r *assessor) atOnce(ctx context.Context, folder, url string) (took []float64, total float64, err error) {
	took = make([]float64, together)
	failed := make([]error, together)
	var running sync.WaitGroup
	begun := time.Now()
	for i := range together {
		running.Go(func() {
			own := filepath.Join(folder, fmt.Sprint(i))
			if failed[i] = os.Mkdir(own, 0o700); failed[i] == nil {
				took[i], failed[i] = r.pull(ctx, own, url, fmt.Sprintf("bench/model-%d", i))
			}
		})
	}
	running.Wait()
	return took, time.Since(begun).Seconds(), errors.Join(failed...)
}

// An EndpointResult is what 100 requests, one after the other, have taken: the first three are medians over the rounds, and
// the last two are of all.
type EndpointResult struct {
	Average  float64 `json:"average_ms"`
	Median   float64 `json:"median_ms"`
	P95      float64 `json:"p95_ms"`
	Min      float64 `json:"min_ms"`
	Max      float64 `json:"max_ms"`
	Requests int     `json:"requests"` // of a round
	Rounds   int     `json:"rounds"`
}

// api asks a daemon of its own, which has a few models.
func (r *assessor) api(ctx context.Context) (err error) {
	r.Progress("api: a daemon with a few models")
	const models = 8
	var repos []demohub.Option
	var names []string
	for i := range models {
		names = append(names, fmt.Sprintf("bench/small-%d", i))
		repos = append(repos, demohub.Repo(names[i], demohub.SeededFile("model.bin", 64*model.KiB, uint64(i)+1)))
	}
	o, err := newOrigin(ctx, demohub.New(repos...))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	return within(r.Places[0].Dir, func(folder string) (err error) {
		if _, err := r.pull(ctx, folder, o.url, names...); err != nil {
			return err
		}
		url, stop, err := r.serve(ctx, folder, o.url)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
		client := &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		if err := awaitAnswers(ctx, client, url); err != nil {
			return err
		}
		r.Results.API = map[string]*EndpointResult{}
		for _, endpoint := range []string{endpointStatus, endpointHealth, endpointAnalytics} {
			r.Progress("api: " + endpoint)
			if err := r.askEndpoint(ctx, client, url, endpoint); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *assessor) askEndpoint(ctx context.Context, client *http.Client, url, endpoint string) error {
	var averages, medians, p95s, all []float64
	err := r.repeat(ctx, r.lasting("api")/3, func() bool { return tightEnough(medians) }, func(int) error {
		took := make([]float64, 0, requests)
		for range requests {
			ms, err := ask(ctx, client, url+endpoint)
			if err != nil {
				return err
			}
			took = append(took, ms)
		}
		averages, medians, p95s, all = append(averages, mean(took)), append(medians, Median(took)), append(p95s, Quantile(took, 0.95)), append(all, took...)
		return nil
	})
	if err != nil {
		return err
	}
	r.Results.API[endpoint] = &EndpointResult{
		Average: Median(averages), Median: *r.note("api."+endpoint+".median_ms", medians, "ms", Lower), P95: *r.note("api."+endpoint+".p95_ms", p95s, "ms", Lower),
		Min: slices.Min(all), Max: slices.Max(all), Requests: requests, Rounds: len(medians),
	}
	return nil
}

// ask asks once, and returns the milliseconds until all of the answer is there.
func ask(ctx context.Context, client *http.Client, url string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	answer, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	took := milliseconds(time.Since(begun))
	if err = errors.Join(err, answer.Body.Close()); err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return took, err
}

// awaitAnswers waits until the daemon has its database, which it opens in the background.
func awaitAnswers(ctx context.Context, client *http.Client, url string) error {
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	for {
		_, err := ask(ctx, client, url+endpointAnalytics)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serve runs a daemon until stop is called.
func (r *assessor) serve(ctx context.Context, folder, hub string) (url string, stop func() error, err error) {
	c, err := r.command(ctx, folder, hub, "serve")
	if err != nil {
		return "", nil, err
	}
	said, err := c.StderrPipe()
	if err != nil {
		return "", nil, err
	}
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	lines := bufio.NewScanner(said)
	listens := regexp.MustCompile(` and (http://\S+): `)
	var log []string
	for url == "" && lines.Scan() {
		log = append(log, lines.Text())
		if at := listens.FindStringSubmatch(lines.Text()); at != nil {
			url = at[1]
		}
	}
	if url == "" {
		return "", nil, fmt.Errorf("the daemon does not start: %w: %s", c.Wait(), strings.Join(log, "; "))
	}
	var drained sync.WaitGroup
	drained.Go(func() { _, _ = io.Copy(io.Discard, said) }) //nolint:errcheck // it ends with the daemon
	return url, func() error {
		err := c.Process.Signal(syscall.SIGTERM)
		drained.Wait()
		if errors.Is(err, os.ErrProcessDone) {
			err = nil
		}
		return errors.Join(err, c.Wait())
	}, nil
}
