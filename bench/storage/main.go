// Command storage measures how models move between tiers and into memory, beside cp and sha256sum on the same files.
//
//	go run ./bench/storage                    # everything, about five minutes
//	go run ./bench/storage -only move -rounds 3 -size 1024
//
// It takes five times the size of the model of free disk, and memory for it once. The folders of both tiers lie in -dir, and
// -cold puts the other one on another disk.
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
	"slices"
	"strings"

	"ema/bench/table"
)

// A bench is where and what is measured.
type bench struct {
	ema, dir, cold string
	rounds         int
	size           int64 // bytes of the model
	table          table.Table
}

// parts are what can be measured, in this order.
func parts() []string { return []string{"move", "beside", "preload", "watch"} }

func main() {
	var b bench
	only := flag.String("only", "", strings.Join(parts(), ", ")+": the `parts` to measure, separated by commas; default: all")
	flag.IntVar(&b.rounds, "rounds", 5, "how often each is measured; the medians count")
	size := flag.Int64("size", 4096, "MiB of the model that moves")
	flag.StringVar(&b.dir, "dir", "", "an empty `folder` to work in; default: a temporary one")
	flag.StringVar(&b.cold, "cold", "", "`folder` of the cold tier; default: beside the hot one")
	flag.StringVar(&b.ema, "ema", "", "a `binary` to measure instead of the one that is built")
	check := flag.Bool("check", false, "fail when a target is missed")
	flag.Parse()
	b.size = *size << 20
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := b.run(ctx, *only, *check)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "storage:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, only string, check bool) (err error) {
	wanted := parts()
	if only != "" {
		wanted = strings.Split(only, ",")
	}
	for _, part := range wanted {
		if !slices.Contains(parts(), part) {
			return fmt.Errorf("there is no part %q; there are %s", part, strings.Join(parts(), ", "))
		}
	}
	for _, tool := range []string{"cp", "sha256sum", "dd", "fincore"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing; on Debian: apt-get install coreutils util-linux-extra", tool)
		}
	}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "ema-storage-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if b.cold == "" {
		b.cold = filepath.Join(b.dir, "cold")
	}
	if b.ema == "" {
		b.ema = filepath.Join(b.dir, "ema")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", b.ema, "./cmd/ema").CombinedOutput(); err != nil {
			return fmt.Errorf("build ema (run this from the top of the checkout): %w\n%s", err, text)
		}
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	missed := false
	for _, part := range parts() {
		if !slices.Contains(wanted, part) {
			continue
		}
		b.table = table.Table{}
		measure := map[string]func(context.Context) error{"move": b.move, "beside": b.beside, "preload": b.preload, "watch": b.watch}[part]
		if err := measure(ctx); err != nil {
			return err
		}
		if err := b.table.Print(os.Stdout, part); err != nil {
			return err
		}
		missed = missed || b.table.Missed()
	}
	if check && missed {
		return errors.New("a target is missed")
	}
	return nil
}
