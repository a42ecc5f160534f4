package main

import (
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// packets counts what reaches the only places that a test's processes know: a name server, and a hub by its name.
type packets struct {
	lookups, connections atomic.Int64
}

// countedListener is a listener that counts its connections.
type countedListener struct {
	net.Listener
	n *atomic.Int64
}

func (c countedListener) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

// watched is an environment whose hub has a name that only a name server of the test knows.
func watched(t *testing.T) (environ []string, p *packets) {
	t.Helper()
	p = &packets{}
	srv := httptest.NewUnstartedServer(sampleHub())
	srv.Listener = countedListener{srv.Listener, &p.connections}
	srv.Start()
	t.Cleanup(srv.Close)
	names, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var answering sync.WaitGroup
	answering.Go(func() { answerLookups(t, names, &p.lookups) })
	t.Cleanup(func() {
		_ = names.Close()
		answering.Wait()
	})
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"HOME=" + t.TempDir(), "HF_ENDPOINT=http://hub.test:" + port, "EMA_RETRY_OPTIMIZATION__MAX_RETRIES=0",
		"EMA_NETWORK_OPTIMIZATION__USE_SYSTEM_RESOLVER=false", "EMA_NETWORK_OPTIMIZATION__CUSTOM_DNS_SERVERS=" + names.LocalAddr().String(),
	}, p
}

// answerLookups answers that every name is this machine, until the socket is closed.
func answerLookups(t *testing.T, names net.PacketConn, n *atomic.Int64) {
	buf := make([]byte, 4096)
	for {
		size, from, err := names.ReadFrom(buf)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
			return
		}
		n.Add(1)
		var m dnsmessage.Message
		if err := m.Unpack(buf[:size]); err != nil {
			t.Error(err)
			continue
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		for _, q := range m.Questions {
			if q.Type == dnsmessage.TypeA {
				m.Answers = append(m.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
				})
			}
		}
		raw, err := m.Pack()
		if err != nil {
			t.Error(err)
			continue
		}
		_, _ = names.WriteTo(raw, from) // whoever asked may be gone
	}
}

func TestOfflineNoPacketLeavesThisMachine(t *testing.T) {
	environ, p := watched(t)
	ema := func(args ...string) (code int, stdout, stderr string) {
		var out, err strings.Builder
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &err, environ: environ}
		code = run(a, rootCommand(a), args)
		return code, out.String(), err.String()
	}
	code, path, said := ema("pull", "acme/tiny", "--quiet")
	if code != 0 || p.lookups.Load() == 0 || p.connections.Load() == 0 {
		t.Fatalf("online: exit code %d after %d lookups and %d connections: %s", code, p.lookups.Load(), p.connections.Load(), said)
	}
	ema("pull", "acme/other", "--dry-run") // the hub's answer is kept, its files are not here
	p.lookups.Store(0)
	p.connections.Store(0)
	environ = append(environ, "HF_HUB_OFFLINE=1")
	for _, args := range [][]string{{"pull", "acme/tiny"}, {"pull", "acme/tiny@main", "--quiet"}, {"verify"}} {
		code, got, said := ema(args...)
		if code != 0 || args[0] == "pull" && got != path {
			t.Errorf("ema %v: exit code %d, %q: %s", args, code, got, said)
		}
	}
	for _, id := range []string{"acme/other", "acme/tiny@dev", "acme/none"} {
		model, _, _ := strings.Cut(id, "@")
		want := "ema: pull " + model + ": it is not available on this machine and offline mode forbids the network; pull it once without --offline\n"
		if code, _, said := ema("pull", id, "--quiet"); code != 1 || said != want {
			t.Errorf("ema pull %s: exit code %d, %q, want %q", id, code, said, want)
		}
	}
	if l, c := p.lookups.Load(), p.connections.Load(); l != 0 || c != 0 {
		t.Errorf("offline, there were %d lookups of names and %d connections", l, c)
	}
}
