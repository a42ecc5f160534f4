package main

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// A process is ema running beside the test. What it writes can be read at any time.
type process struct {
	*exec.Cmd
	stdout, stderr transcript
}

// A transcript is a buffer that tells of every write.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.wrote <- struct{}{}:
	default:
	}
	return t.text.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// contains waits until the text was written.
func (t *transcript) contains(ctx context.Context, text string) error {
	for !strings.Contains(t.String(), text) {
		select {
		case <-t.wrote:
		case <-ctx.Done():
			return errors.New("never said " + text + ", but: " + t.String())
		}
	}
	return nil
}

// begin starts ema.
func begin(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		Cmd:    exec.CommandContext(t.Context(), self),
		stdout: transcript{wrote: make(chan struct{}, 1)}, stderr: transcript{wrote: make(chan struct{}, 1)},
	}
	p.Args, p.Env = append([]string{"ema"}, args...), environ
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// slowHub serves two models of 8 MiB at one MiB per second.
func slowHub(t *testing.T) (hub *demohub.Hub, environ []string) {
	t.Helper()
	hub = demohub.New(demohub.Rate(256*model.KiB),
		demohub.Repo("acme/slow", demohub.File("weights.bin", 8*model.MiB)),
		demohub.Repo("acme/other", demohub.File("other.bin", 8*model.MiB)))
	srv := httptest.NewServer(hub)
	t.Cleanup(srv.Close)
	return hub, []string{"HOME=" + t.TempDir(), "HF_ENDPOINT=" + srv.URL, "GORACE=" + noRest, anyPort, anyMetricsPort}
}

// sent waits until the hub has sent so many bytes.
func sent(ctx context.Context, hub *demohub.Hub, n model.Bytes) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for model.Bytes(hub.Stats().Body) < n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.New("the hub never sent so much")
		}
	}
	return nil
}

func TestAnInterruptedPullKeepsWhatItHasAndSaysHowToGoOn(t *testing.T) {
	hub, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := begin(t, environ, "pull", "acme/slow", "--exclude", "a b")
	if err := sent(ctx, hub, 3*model.MiB); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := p.Wait()
	if code := p.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d (%v), want 130", code, err)
	}
	said := p.stderr.String()
	if !strings.Contains(said, "ema: pull acme/slow: interrupted; ") || !strings.Contains(said, " of 8.0 MiB are here and are kept; go on with: ema pull acme/slow --exclude 'a b'\n") {
		t.Errorf("it says %q", said)
	}
	if p.stdout.String() != "" {
		t.Errorf("stdout has %q of a model that is not available", p.stdout.String())
	}

	hub.ResetStats()
	hub.Set(demohub.Rate(0))
	again := begin(t, environ, "pull", "acme/slow", "--exclude", "a b")
	if err := again.Wait(); err != nil {
		t.Fatalf("%v: %s", err, again.stderr.String())
	}
	if fetched := model.Bytes(hub.Stats().Body); fetched > 6*model.MiB {
		t.Errorf("%v fetched again after 3 of 8 MiB were here", fetched)
	}
	if !strings.Contains(again.stdout.String(), "/snapshots/") {
		t.Errorf("stdout %q", again.stdout.String())
	}
}

func TestWhoWaitsForTheStoreSaysForWhom(t *testing.T) {
	hub, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first := begin(t, environ, "pull", "acme/slow")
	if err := sent(ctx, hub, model.MiB); err != nil {
		t.Fatal(err)
	}
	second := begin(t, environ, "pull", "acme/other", "--quiet")
	if err := second.stderr.contains(ctx, "(ema pull acme/slow), since "); err != nil {
		t.Error(err)
	}
	busy := begin(t, environ, "doctor")
	if err := busy.Wait(); err != nil {
		t.Errorf("doctor: %v", err)
	}
	if !strings.Contains(busy.stdout.String(), "in use by process ") {
		t.Errorf("doctor says %q", busy.stdout.String())
	}
	hub.Set(demohub.Rate(0)) // for what is asked for from now on
	for _, p := range []*process{first, second} {
		if err := p.Wait(); err != nil || !strings.Contains(p.stdout.String(), "/snapshots/") {
			t.Errorf("%v: stdout %q, stderr %q", err, p.stdout.String(), p.stderr.String())
		}
	}
}
