package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/api/live"
	"ema/internal/event"
	"ema/internal/model"
)

// An order says what the hub is to tell.
type order struct {
	Rate, Progress int
	Time           time.Duration
}

// told is the answer to an order.
type told struct {
	Changes int64       // since the hub began
	CPU     float64     // seconds of it, for this order
	Peak    model.Bytes // most memory that was ever resident
}

// hub is the process that is measured: it prints its address, follows orders, and ends when there are no more.
func hub(ctx context.Context, orders io.Reader, answers io.Writer) error {
	if err := files(0); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	bus := event.New(0)
	h := live.New(bus, live.Settings{})
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error { return h.Run(ctx) })
	g.Go(func() error { return srv.Serve(l) })
	if _, err := fmt.Fprintf(answers, "ws://%s/ws\n", l.Addr()); err != nil {
		return err
	}
	t := teller{bus: bus}
	in, out := json.NewDecoder(orders), json.NewEncoder(answers)
	for {
		var o order
		if err := in.Decode(&o); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		begin, err := usage()
		if err != nil {
			return err
		}
		if err := t.tell(ctx, o); err != nil {
			return err
		}
		end, err := usage()
		if err != nil {
			return err
		}
		if err := out.Encode(told{t.changes, end.CPU - begin.CPU, end.Peak}); err != nil {
			return err
		}
	}
	cancel()
	if err := srv.Close(); err != nil {
		return err
	}
	if err := g.Wait(); !errors.Is(err, context.Canceled) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// usage is what this process has used.
func usage() (told, error) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return told{CPU: float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, Peak: model.Bytes(u.Maxrss) * model.KiB}, err
}

// A teller tells on a bus.
type teller struct {
	bus     *event.Bus
	changes int64
}

// tell tells evenly for a time.
func (t *teller) tell(ctx context.Context, o order) error {
	const downloads = 4
	var changes, progress int
	tick := time.NewTicker(time.Second / time.Duration(max(o.Rate, o.Progress, 1)))
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < o.Time; {
		gone := time.Since(begin).Seconds()
		for ; float64(changes) < gone*float64(o.Rate); changes++ {
			t.bus.Tell(event.Event{
				Kind: event.KindState, Download: "dl_0123456789abcdef", Model: model.ID{Name: "acme/some-model-of-usual-name"},
				Data: event.Change{From: model.Queued, To: model.Downloading, Reason: fmt.Sprintf("%s%d %d", mark, t.changes, time.Now().UnixNano())},
			})
			t.changes++
		}
		for ; float64(progress) < gone*float64(o.Progress); progress++ {
			t.bus.Tell(event.Event{
				Kind: event.KindProgress, Download: fmt.Sprintf("dl_%d", progress%downloads), Model: model.ID{Name: "acme/some-model-of-usual-name"},
				Data: event.Progress{State: model.Downloading, Done: model.Bytes(progress), Total: 1 << 40, Rate: 1e8, ETA: time.Hour, Connections: 8},
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// A process is the hub as its parent sees it.
type process struct {
	url     string
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
}

// start starts the hub. It comes before anything that takes memory, since Linux counts for a child what its parent had.
func start(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, self, "-hub")}
	p.cmd.Stderr = os.Stderr
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.answers = bufio.NewReader(answers)
	if _, err := fmt.Fscanln(p.answers, &p.url); err != nil {
		return nil, errors.Join(fmt.Errorf("the hub does not say where it is: %w", err), p.stop())
	}
	return p, nil
}

// tell lets the hub tell, and returns when it has.
func (p *process) tell(l load) (t told, err error) {
	if err := json.NewEncoder(p.orders).Encode(order{l.rate, l.progress, l.time}); err != nil {
		return t, err
	}
	line, err := p.answers.ReadBytes('\n')
	if err != nil {
		return t, fmt.Errorf("the hub does not say what it has told: %w", err)
	}
	return t, json.Unmarshal(line, &t)
}

func (p *process) stop() error { return errors.Join(p.orders.Close(), p.cmd.Wait()) }

// files lets this process have as many files as it may, and fails when that is too few for so many clients.
func files(clients int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if need := uint64(clients) + 50; limit.Max < need {
		return fmt.Errorf("%d clients need %d open files and %d are allowed; raise the hard limit (ulimit -Hn)", clients, need, limit.Max)
	}
	return nil
}
