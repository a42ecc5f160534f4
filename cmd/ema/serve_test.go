package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ema/internal/demohub"
	"ema/internal/model"
)

// patient is how long a test waits for another process before it gives up.
const patient = time.Minute

// TestScriptsWithADaemon runs the scripts about the daemon. Besides what scripts with a hub have, there is:
//
//	daemon ARG…              start "ema serve ARG…", and wait until it says that it is ready
//	daemon-stop              stop it politely; it must end by itself, in time and without an error
//	daemon-kill              kill it
//	daemon-signal NAME       send it HUP
//	daemon-says PATTERN      wait until its stderr matches
//	daemon-store             set $HF_HUB_CACHE to the daemon's store
//	daemon-url               set $URL to where the daemon listens on the network
//	until PATTERN ema ARG…   repeat a command until its stdout matches
//	hub-rate BYTES           send so many bytes per second on each connection from now on; 0 is as fast as it goes
func TestScriptsWithADaemon(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "daemon"),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exit-code":     exitsWith,
			"hub-fault":     hubFault,
			"hub-reset":     hubReset,
			"hub-served":    hubServed,
			"hub-rate":      hubRate,
			"flip":          flip,
			"daemon":        startDaemon,
			"daemon-stop":   stopDaemon,
			"daemon-kill":   killDaemon,
			"daemon-signal": signalDaemon,
			"daemon-says":   daemonSays,
			"daemon-url":    daemonURL,
			"daemon-store":  daemonStore,
			"until":         until,
		},
		Setup: func(env *testscript.Env) error {
			env.Values[daemonKey{}] = &daemonOf{}
			return withHub(env)
		},
	})
}

// daemonKey finds the script's daemon.
type daemonKey struct{}

type daemonOf struct{ process *process }

func theDaemon(ts *testscript.TestScript) *process {
	p := ts.Value(daemonKey{}).(*daemonOf).process
	if p == nil {
		ts.Fatalf("no daemon was started")
	}
	return p
}

func startDaemon(ts *testscript.TestScript, neg bool, args []string) {
	self, err := os.Executable()
	ts.Check(err)
	p := &process{
		Cmd:    exec.Command(self),
		stdout: transcript{wrote: make(chan struct{}, 1)}, stderr: transcript{wrote: make(chan struct{}, 1)},
	}
	p.Args, p.Dir = append([]string{"ema", "serve"}, args...), ts.MkAbs(".")
	for _, name := range []string{"HOME", "HF_ENDPOINT", "HF_TOKEN", "GORACE", "PATH"} {
		p.Env = append(p.Env, name+"="+ts.Getenv(name))
	}
	p.Env = append(p.Env, "EMA_RETRY_OPTIMIZATION__BASE_DELAY_SECONDS=0.01", anyPort, anyMetricsPort)
	p.Env = append(p.Env, strings.Fields(ts.Getenv("DAEMON_ENV"))...)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	ts.Check(p.Start())
	ts.Defer(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill() // it may have ended
			_ = p.Wait()         // killed
		}
		ts.Logf("the daemon said:\n%s", p.stderr.String())
	})
	if neg {
		if p.Wait() == nil {
			ts.Fatalf("the daemon ended without an error")
		}
		return
	}
	ts.Value(daemonKey{}).(*daemonOf).process = p
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	ts.Check(p.stderr.contains(ctx, "ema: serving the store "))
}

// stopDaemon relies on the daemon's own clock: it ends with an error when it takes too long.
func stopDaemon(ts *testscript.TestScript, _ bool, _ []string) {
	p := theDaemon(ts)
	ts.Check(p.Process.Signal(syscall.SIGTERM))
	if err := p.Wait(); err != nil {
		ts.Fatalf("the daemon ends with %v: %s", err, p.stderr.String())
	}
}

func killDaemon(ts *testscript.TestScript, _ bool, _ []string) {
	p := theDaemon(ts)
	ts.Check(p.Process.Kill())
	if p.Wait() == nil {
		ts.Fatalf("the daemon survived")
	}
}

func signalDaemon(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 || args[0] != "HUP" {
		ts.Fatalf("usage: daemon-signal HUP")
	}
	ts.Check(theDaemon(ts).Process.Signal(syscall.SIGHUP))
}

func daemonSays(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: daemon-says PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	p := theDaemon(ts)
	giveUp := time.After(patient)
	for !pattern.MatchString(p.stderr.String()) {
		select {
		case <-p.stderr.wrote:
		case <-giveUp:
			ts.Fatalf("the daemon never said %s, but: %s", args[0], p.stderr.String())
		}
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN PROGRAM ARG…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	giveUp, tick := time.After(patient), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		ts.Check(ts.Exec(args[1], args[2:]...))
		if said := ts.ReadFile("stdout"); pattern.MatchString(said) {
			return
		}
		select {
		case <-tick.C:
		case <-giveUp:
			ts.Fatalf("%v never says %s", args[1:], args[0])
		}
	}
}

func hubRate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hub-rate BYTES")
	}
	n, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	hubOf(ts).Set(demohub.Rate(model.Bytes(n)))
}

// serving starts a daemon beside the test, and returns when it is ready.
func serving(ctx context.Context, t *testing.T, environ []string) *process {
	t.Helper()
	p := begin(t, environ, "serve")
	if err := p.stderr.contains(ctx, "ema: serving the store "); err != nil {
		t.Fatal(err)
	}
	return p
}

// ends stops a daemon politely.
func (p *process) ends(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("the daemon ends with %v: %s", err, p.stderr.String())
	}
}

func TestADownloadGoesOnWhereTheDaemonWasStopped(t *testing.T) {
	hub, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	watcher := begin(t, environ, "pull", "acme/slow")
	if err := sent(ctx, hub, 3*model.MiB); err != nil {
		t.Fatal(err)
	}
	daemon.ends(t)
	if err := watcher.Wait(); err == nil || !strings.Contains(watcher.stderr.String(), "the download goes on when the daemon is started again with: ema serve") {
		t.Errorf("the watcher: %v, %s", err, watcher.stderr.String())
	}
	hub.ResetStats()
	hub.Set(demohub.Rate(0))
	daemon = serving(ctx, t, environ)
	if !strings.Contains(daemon.stderr.String(), "1 download queued, 0 paused") {
		t.Errorf("it says %s", daemon.stderr.String())
	}
	again := begin(t, environ, "pull", "acme/slow")
	if err := again.Wait(); err != nil || !strings.Contains(again.stdout.String(), "/snapshots/") {
		t.Errorf("%v: %s", err, again.stderr.String())
	}
	if fetched := model.Bytes(hub.Stats().Body); fetched > 6*model.MiB {
		t.Errorf("%v fetched again after 3 of 8 MiB were here", fetched)
	}
	daemon.ends(t)
}

func TestTwoPullsOfOneModelAreOneDownload(t *testing.T) {
	hub, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	first := begin(t, environ, "pull", "acme/slow")
	if err := sent(ctx, hub, model.MiB); err != nil {
		t.Fatal(err)
	}
	second := begin(t, environ, "pull", "acme/slow")
	if err := second.stderr.contains(ctx, "acme/slow: the daemon has this download already, downloading"); err != nil {
		t.Error(err)
	}
	hub.Set(demohub.Rate(0))
	for _, p := range []*process{first, second} {
		if err := p.Wait(); err != nil || !strings.Contains(p.stdout.String(), "/snapshots/") {
			t.Errorf("%v: stdout %q, stderr %q", err, p.stdout.String(), p.stderr.String())
		}
	}
	if first.stdout.String() != second.stdout.String() {
		t.Errorf("%q and %q", first.stdout.String(), second.stdout.String())
	}
	// What was on its way when the hub grew faster may have been asked for anew, on a better connection.
	if fetched := model.Bytes(hub.Stats().Body); fetched > 12*model.MiB {
		t.Errorf("%v were sent of 8 MiB", fetched)
	}
	list := begin(t, environ, "ps", "--all", "--json")
	if err := list.Wait(); err != nil || strings.Count(list.stdout.String(), `"download_id"`) != 1 {
		t.Errorf("%v: %s", err, list.stdout.String())
	}
	daemon.ends(t)
}

func TestCtrlCStopsWatchingAndNotTheDownload(t *testing.T) {
	hub, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	p := begin(t, environ, "pull", "acme/slow")
	if err := sent(ctx, hub, model.MiB); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := p.Wait()
	if code := p.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d (%v), want 130", code, err)
	}
	want := "ema: pull acme/slow: no longer watched, but the download goes on in the daemon; see it with \"ema ps\", cancel it with \"ema cancel acme/slow\"\n"
	if !strings.Contains(p.stderr.String(), want) {
		t.Errorf("it says %q", p.stderr.String())
	}
	if err := sent(ctx, hub, model.Bytes(hub.Stats().Body)+model.MiB); err != nil {
		t.Error(err)
	}
	daemon.ends(t)
}

func TestTheSecondSignalEndsTheDaemonAtOnce(t *testing.T) {
	_, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	for range 2 { // the first may have ended it already: then the second finds nobody
		if err := daemon.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	_ = daemon.Wait() // with the signal, or without
	again := serving(ctx, t, environ)
	again.ends(t)
}

func TestTheServiceManagerIsToldHowItStands(t *testing.T) {
	_, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	dir, err := os.MkdirTemp("", "ema") // short: the address of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	told := func() string {
		t.Helper()
		if err := manager.SetReadDeadline(time.Now().Add(patient)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	daemon := serving(ctx, t, append(environ, "NOTIFY_SOCKET="+socket))
	if got := told(); got != "READY=1" {
		t.Errorf("told %q when ready", got)
	}
	daemon.ends(t)
	if got := told(); got != "STOPPING=1" {
		t.Errorf("told %q when stopping", got)
	}
}

func TestASecondDaemonSaysWhoHasTheStore(t *testing.T) {
	_, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	second := begin(t, environ, "serve")
	err := second.Wait()
	if want := fmt.Sprintf("in use by process %d on ", daemon.Process.Pid); err == nil || !strings.Contains(second.stderr.String(), want) {
		t.Errorf("a second daemon: %v, %s, want %q", err, second.stderr.String(), want)
	}
	daemon.ends(t)
}
