package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ema/client"
	"ema/internal/demohub"
)

type bench struct{ ema, dir string }

// inFlight is the send buffer of the origin's connections: what waits there counts as sent.
const inFlight = 64 << 10

// origin serves models on loopback until stop.
func origin(ctx context.Context, opts ...demohub.Option) (hub *demohub.Hub, url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", nil, err
	}
	hub = demohub.New(opts...)
	if err := hub.Warm(ctx); err != nil {
		return nil, "", nil, errors.Join(err, l.Close())
	}
	srv := &http.Server{
		Handler: hub, ReadHeaderTimeout: time.Minute,
		ConnState: func(c net.Conn, s http.ConnState) {
			if tcp, ok := c.(*net.TCPConn); ok && s == http.StateNew {
				_ = tcp.SetWriteBuffer(inFlight) //nolint:errcheck // then the first window shows it
			}
		},
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = srv.Serve(l) //nolint:errcheck // it ends by Close
	}()
	return hub, "http://" + l.Addr().String(), func() {
		_ = srv.Close() //nolint:errcheck // nothing is left to do about it
		<-ended
	}, nil
}

// A daemon is a running "ema serve".
type daemon struct {
	*client.Client
	cmd    *exec.Cmd
	config string
	log    bytes.Buffer
}

// serve starts a daemon on a store and waits until it answers.
func (b bench) serve(ctx context.Context, store, url, settings string) (*daemon, time.Duration, error) {
	d := &daemon{config: filepath.Join(b.dir, "ema.yaml")}
	if err := d.configure(settings); err != nil {
		return nil, 0, err
	}
	state := store + "-state"
	d.cmd = exec.CommandContext(ctx, b.ema, "serve", "--store", store, "--endpoint", url, "--config", d.config)
	d.cmd.Env = append(os.Environ(), "EMA_STORE__STATE_DIR="+state, "EMA_SERVER__LISTEN=127.0.0.1:0", "EMA_SERVER__METRICS_LISTEN=127.0.0.1:0", "HF_HUB_CACHE="+store, "HF_ENDPOINT="+url, "HF_TOKEN=")
	d.cmd.Stderr = &d.log
	begun := time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, 0, err
	}
	d.Client = client.Local(state)
	for {
		_, err := d.Version(ctx)
		if err == nil {
			return d, time.Since(begun), nil
		}
		if time.Since(begun) > 20*time.Second || !errors.Is(err, client.ErrNoDaemon) {
			return nil, 0, errors.Join(fmt.Errorf("the daemon does not answer: %w\n%s", err, d.log.String()), d.cmd.Process.Kill(), d.cmd.Wait())
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return nil, 0, err
		}
	}
}

// configure writes the daemon's settings.
func (d *daemon) configure(settings string) error {
	return os.WriteFile(d.config, []byte(settings), 0o600)
}

// stop ends the daemon as a service manager does, and says how long that took.
func (d *daemon) stop() (time.Duration, error) {
	begun := time.Now()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	if err := d.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("the daemon ended badly: %w\n%s", err, d.log.String())
	}
	return time.Since(begun), nil
}

// start asks the daemon for a model.
func (d *daemon) start(ctx context.Context, model, priority string) error {
	_, err := d.Manage(ctx, client.Manage{Action: "start", Model: model, Priority: priority})
	return err
}

// cost is what a process has used so far: CPU time, context switches that it asked for, and what is resident now.
type cost struct {
	cpu      time.Duration
	switches int64
	resident int64
}

func (d *daemon) cost() (c cost, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.cmd.Process.Pid))
	if err != nil {
		return c, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			return c, err
		}
		c.switches += field(text, "voluntary_ctxt_switches:")
		c.resident = field(text, "VmRSS:") << 10
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return c, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	for _, f := range fields[11:13] { // utime and stime (proc(5)), in ticks of 10 ms
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return c, err
		}
		c.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	return c, nil
}

// field is the number in a line of a status file.
func field(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
