// Command daemon measures "ema serve" from outside: how exactly bandwidth limits hold on the wire, how
// soon a change acts, what the queue takes, and what an idle daemon costs.
//
//	go run ./bench/daemon                 # everything, about four minutes
//	go run ./bench/daemon -only limits
//	go run ./bench/daemon -only queue
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
)

func main() {
	only := flag.String("only", "", "limits or queue; default: both")
	dir := flag.String("dir", "", "an empty `folder` to work in; default: a temporary one")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *only, *dir)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "daemon:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only, dir string) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "ema-daemon-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	ema := filepath.Join(dir, "ema")
	if text, err := exec.CommandContext(ctx, "go", "build", "-o", ema, "./cmd/ema").CombinedOutput(); err != nil {
		return fmt.Errorf("build ema (run this from the top of the checkout): %w\n%s", err, text)
	}
	b := bench{ema: ema, dir: dir}
	if only == "" || only == "limits" {
		if err := b.limits(ctx); err != nil {
			return err
		}
	}
	if only == "" || only == "queue" {
		return b.queue(ctx)
	}
	return nil
}
