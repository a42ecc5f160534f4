package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// An origin is the hub from which all peers fetch, a process of its own.
type origin struct {
	url    string
	cmd    *exec.Cmd
	client *http.Client
}

// counters are what the origin has seen since the last reset.
type counters struct {
	Body int64 `json:"body"` // content bytes handed to connections
	Hub  struct {
		Requests    int64 `json:"requests"`
		Connections int   `json:"connections"`
	} `json:"hub"`
	MaxTransfers int `json:"max_transfers"` // contents on the way at once
}

// launch starts the origin and returns when it answers. It ends with close, or with this process.
func launch(ctx context.Context, program string, d dataSet, shape []string) (*origin, error) {
	args := append([]string{"--once-ready-print"}, shape...)
	for _, m := range d.Models {
		args = append(args, "--dir", m+"="+d.folder(m))
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	o := &origin{cmd: cmd, client: &http.Client{Timeout: 10 * time.Second}}
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ready := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ready {
		return nil, errors.Join(fmt.Errorf("the origin said %q instead of being ready", line), err, o.close())
	}
	o.url = url
	return o, nil
}

// close ends the process and waits for it.
func (o *origin) close() error {
	o.client.CloseIdleConnections()
	if err := o.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return o.cmd.Wait()
}

func (o *origin) reset(ctx context.Context) error { return o.ask(ctx, http.MethodPost, "/_reset", nil) }

func (o *origin) counters(ctx context.Context) (c counters, err error) {
	return c, o.ask(ctx, http.MethodGet, "/_stats", &c)
}

// firstContent is when the first request for content came since the last reset; zero if none did.
func (o *origin) firstContent(ctx context.Context) (time.Time, error) {
	var rows []struct {
		At     time.Time `json:"at"`
		Kind   string    `json:"kind"`
		Method string    `json:"method"`
	}
	if err := o.ask(ctx, http.MethodGet, "/_log", &rows); err != nil {
		return time.Time{}, err
	}
	for _, r := range rows {
		if r.Kind == "bulk" && r.Method == http.MethodGet {
			return r.At, nil
		}
	}
	return time.Time{}, nil
}

func (o *origin) ask(ctx context.Context, method, path string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, o.url+path, nil)
	if err != nil {
		return err
	}
	res, err := o.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("origin: %s %s: %s", method, path, res.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(answer)
}

// watch asks every few milliseconds how much the origin has sent, until ctx ends or until says that it is enough, and
// returns the last moment at which it was known to be less. So a time counted from there to the end of a download is
// never too short, and too long by some 5 ms.
func (o *origin) watch(ctx context.Context, until func(sent int64) bool) (time.Time, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var sent int64
	var less, asked time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return less, nil // being stopped is how a watch usually ends
		}
		before := asked
		asked = time.Now()
		c, err := o.counters(ctx)
		if ctx.Err() != nil {
			return less, nil
		}
		if err != nil {
			return less, err
		}
		if c.Body > sent {
			sent, less = c.Body, before
		}
		if until != nil && until(sent) {
			return less, nil
		}
	}
}
