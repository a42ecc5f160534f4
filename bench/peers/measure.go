package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// A result is one run of one peer. Times are in seconds, sizes in bytes.
type result struct {
	Case      string  `json:"case"`
	Peer      string  `json:"peer"`
	Round     int     `json:"round"`
	Wall      float64 `json:"wall_s"`      // from the start of the process to its end
	Sync      float64 `json:"sync_s"`      // what syncfs took after that
	Durable   float64 `json:"durable_s"`   // Wall for peers that promise durable files, Wall and Sync for others
	CPU       float64 `json:"cpu_s"`       // user and system time of the peer
	System    float64 `json:"cpu_sys_s"`   // the system's part of it
	OriginCPU float64 `json:"origin_s"`    // CPU of the origin meanwhile
	Elsewhere float64 `json:"elsewhere_s"` // CPU of everything else meanwhile: the kernel's own threads, and noise
	Stolen    float64 `json:"stolen_s"`    // CPU that the host gave to others meanwhile
	RSS       int64   `json:"rss_bytes"`   // most memory resident
	Masked    bool    `json:"rss_masked"`  // it may have been less than that, see ownPeak
	Size      int64   `json:"size_bytes"`  // of all files
	Sent      int64   `json:"sent_bytes"`  // content handed to the peer's connections
	Requests  int64   `json:"requests"`
	Conns     int     `json:"connections"` // distinct ones
	AtOnce    int     `json:"at_once"`     // most contents on the way at once
	Tail      float64 `json:"tail_s"`      // from the origin's last byte to the end, if watched
	First     float64 `json:"first_s"`     // from the start to the first request for content, in a resume
	Again     int64   `json:"again_bytes"` // sent twice because of the kill, in a resume
	Quiet     bool    `json:"quiet"`       // the machine was idle before
	Problem   string  `json:"problem"`     // why the run does not count; empty: files are right
}

// bench runs the peers of one case.
type bench struct {
	options
	testCase
	tools  programs
	peers  []peer
	origin *origin
	data   dataSet
}

// measure runs all rounds. It returns what it has when ctx ends.
func (b *bench) measure(ctx context.Context) (results []result, err error) {
	fmt.Fprintf(os.Stderr, "case %s: %s\n", b.name, b.title)
	if b.data, err = prepare(ctx, b.testCase, b.dir); err != nil {
		return nil, fmt.Errorf("make data: %w", err)
	}
	if b.origin, err = launch(ctx, b.tools.origin, b.data, b.testCase.origin); err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := b.origin.close(); err == nil && ctx.Err() == nil {
			err = closeErr
		}
	}()
	if b.kind == listing {
		return b.list(ctx)
	}
	for round := range b.runs {
		for i := range b.peers {
			p := b.peers[(i+round)%len(b.peers)] // nobody always follows the same one
			r, err := b.once(ctx, p, round)
			if err != nil {
				return results, err
			}
			note(r)
			results = append(results, r)
		}
	}
	return results, nil
}

// note shows on stderr how it goes on.
func note(r result) {
	fmt.Fprintf(os.Stderr, "  round %d %s: %.2f s, cpu %.2f s %s\n", r.Round+1, r.Peer, r.Wall, r.CPU, r.Problem)
}

// once runs a peer in a folder of its own. What goes wrong with the peer is the result's problem, everything else an
// error.
func (b *bench) once(ctx context.Context, p peer, round int) (r result, err error) {
	r = result{Case: b.name, Peer: p.name, Round: round, Size: b.data.bytes()}
	e, remove, err := b.errand()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	argv, list := p.argv(e)
	if err := os.WriteFile(e.scratch("list"), []byte(list), 0o666); err != nil {
		return r, err
	}
	program := p.program(b.tools)

	var half int64
	if b.kind == resume {
		if half, err = b.killHalfway(ctx, e, program, argv); err != nil {
			return r, err
		}
	}
	if r.Quiet, err = awaitIdle(ctx, b.idle); err != nil {
		return r, err
	}
	path, err := b.timed(ctx, e, program, argv, &r)
	if err != nil {
		return r, err
	}
	r.Durable = r.Wall
	if !p.durable {
		r.Durable += r.Sync
	}
	if b.kind == resume {
		r.Again = half + r.Sent - r.Size
	}
	if r.Problem != "" {
		return r, nil
	}
	if p.name != "ema" {
		path = e.out()
	}
	if err := b.data.check(ctx, path); err != nil {
		r.Problem = err.Error()
	}
	return r, ctx.Err()
}

// errand makes a folder with the same empty folders for everybody.
func (b *bench) errand() (e errand, remove func() error, err error) {
	folder, err := os.MkdirTemp(b.dir, "run")
	if err != nil {
		return e, nil, err
	}
	e = errand{
		programs: b.tools, endpoint: b.origin.url, model: b.data.Models[0], files: b.data.Files, folder: folder,
		emaArgs: append(append([]string{}, b.testCase.ema...), b.emaArgs...),
	}
	for _, f := range e.files {
		if err := os.MkdirAll(filepath.Dir(e.target(f)), 0o777); err != nil {
			return e, nil, errors.Join(err, os.RemoveAll(folder))
		}
	}
	return e, func() error {
		err := os.RemoveAll(folder)
		_, syncErr := syncFolder(b.dir) // what the disk has to forget must not slow down the next one
		return errors.Join(err, syncErr)
	}, nil
}

// command is a peer's process. It sees nothing of the user's settings.
func (b *bench) command(ctx context.Context, e errand, program string, argv []string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	cmd = exec.CommandContext(ctx, program, argv...)
	cmd.Dir = e.folder
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.folder, "LC_ALL=C", "RCLONE_CONFIG="}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	return cmd, stdout, stderr
}

// timed runs one process and fills in the result. It returns the last line that the process printed.
func (b *bench) timed(ctx context.Context, e errand, program string, argv []string, r *result) (string, error) {
	if err := b.origin.reset(ctx); err != nil {
		return "", err
	}
	originBefore, err := processUsage(b.origin.cmd.Process.Pid)
	if err != nil {
		return "", err
	}
	before, err := machineUsage()
	if err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	cmd, stdout, stderr := b.command(limited, e, program, argv)
	masked := ownPeak()

	var lastByte time.Time
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g, watching := errgroup.WithContext(watching)
	if b.watch {
		g.Go(func() (err error) {
			lastByte, err = b.origin.watch(watching, nil)
			return err
		})
	}
	begin := time.Now()
	runErr := cmd.Run()
	end := time.Now()
	stop()
	if err := g.Wait(); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	after, err := machineUsage()
	if err != nil {
		return "", err
	}
	originAfter, err := processUsage(b.origin.cmd.Process.Pid)
	if err != nil {
		return "", err
	}
	synced, err := syncFolder(e.folder)
	if err != nil {
		return "", err
	}
	seen, err := b.origin.counters(ctx)
	if err != nil {
		return "", err
	}

	r.Wall, r.Sync = end.Sub(begin).Seconds(), synced.Seconds()
	r.OriginCPU = (originAfter - originBefore).Seconds()
	r.Sent, r.Requests, r.Conns, r.AtOnce = seen.Body, seen.Hub.Requests, seen.Hub.Connections, seen.MaxTransfers
	r.Stolen = (after.stolen - before.stolen).Seconds()
	r.charge(cmd.ProcessState, masked)
	r.Elsewhere = max(0, (after.busy-before.busy).Seconds()-r.CPU-r.OriginCPU)
	if !lastByte.IsZero() {
		r.Tail = end.Sub(lastByte).Seconds()
	}
	if b.kind == resume {
		first, err := b.origin.firstContent(ctx)
		if err != nil {
			return "", err
		}
		if !first.IsZero() {
			r.First = first.Sub(begin).Seconds()
		}
	}
	switch {
	case limited.Err() != nil:
		r.Problem = fmt.Sprintf("killed after %s", b.timeout)
	case runErr != nil:
		r.Problem = fmt.Sprintf("%v: %s", runErr, lastLine(stderr.String()))
	}
	return lastLine(stdout.String()), nil
}

// killHalfway runs a peer until the origin has sent half of the files, kills it, and returns what was sent.
func (b *bench) killHalfway(ctx context.Context, e errand, program string, argv []string) (int64, error) {
	if err := b.origin.reset(ctx); err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	cmd, _, stderr := b.command(limited, e, program, argv)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	watching, stop := context.WithCancel(limited)
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		stop() // whoever has ended sends no more requests
	}()
	half := b.data.bytes() / 2
	_, watchErr := b.origin.watch(watching, func(sent int64) bool { return sent >= half })
	killErr := cmd.Process.Kill()
	if errors.Is(killErr, os.ErrProcessDone) {
		killErr = nil
	}
	waitErr := <-ended
	if err := errors.Join(ctx.Err(), watchErr, killErr); err != nil {
		return 0, err
	}
	if limited.Err() != nil {
		return 0, fmt.Errorf("%s had not fetched half of the files after %s", filepath.Base(program), b.timeout)
	}
	if killed, ok := errors.AsType[*exec.ExitError](waitErr); !ok || killed.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		return 0, fmt.Errorf("%s ended before half of the files were here: %v: %s", filepath.Base(program), waitErr, lastLine(stderr.String()))
	}
	seen, err := b.origin.counters(ctx)
	return seen.Body, err
}

// charge fills in what a process has used; own is the memory of this one.
func (r *result) charge(s *os.ProcessState, own int64) {
	if s == nil { // it never started
		return
	}
	r.CPU, r.System = (s.UserTime() + s.SystemTime()).Seconds(), s.SystemTime().Seconds()
	if used, ok := s.SysUsage().(*syscall.Rusage); ok {
		r.RSS = used.Maxrss << 10
		r.Masked = r.RSS <= own
	}
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndex(s, "\n")+1:]
}
