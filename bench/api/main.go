// Command api measures how many requests about models the daemon answers, how soon, and what that costs, beside others
// who send the same bytes: nginx from a file, and a bare net/http handler.
//
//	go run ./bench/api                       # everything, about five minutes
//	go run ./bench/api -only many,start
//	go run ./bench/api -rounds 3 -seconds 2
//
// It needs wrk, ab and nginx. All of them, and the daemon, share the processors.
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
	"time"

	"ema/bench/table"
)

// A load is how much is measured.
type load struct {
	rounds int
	time   time.Duration // of each run of wrk; whole seconds
	models int           // that the larger store has
	file   int           // MiB of the download beside which requests are answered
}

// parts are what can be measured, in this order.
func parts() []string { return []string{"many", "few", "ab", "download", "start"} }

func main() {
	var l load
	bareFile := flag.String("bare", "", "be the bare handler and answer with this `file`: what this command starts itself with")
	only := flag.String("only", "", strings.Join(parts(), ", ")+": the `parts` to measure, separated by commas; default: all")
	flag.IntVar(&l.rounds, "rounds", 5, "how often each is measured; the medians count")
	seconds := flag.Int("seconds", 3, "how long each run of wrk takes")
	flag.IntVar(&l.models, "models", 1000, "how many models the larger store has")
	flag.IntVar(&l.file, "file", 2048, "MiB of the download beside which requests are answered")
	dir := flag.String("dir", "", "an empty `folder` to work in; default: a temporary one")
	ema := flag.String("ema", "", "a `binary` to measure instead of the one that is built")
	check := flag.Bool("check", false, "fail when a target is missed")
	flag.Parse()
	l.time = time.Duration(*seconds) * time.Second
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if *bareFile != "" {
		err = bare(*bareFile, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, l, *only, *dir, *ema, *check)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(1)
	}
}

// A bench is where and what is measured.
type bench struct {
	load
	ema, dir string
	table    table.Table
}

func run(ctx context.Context, l load, only, dir, ema string, check bool) (err error) {
	wanted := parts()
	if only != "" {
		wanted = strings.Split(only, ",")
	}
	for _, part := range wanted {
		if !slices.Contains(parts(), part) {
			return fmt.Errorf("there is no part %q; there are %s", part, strings.Join(parts(), ", "))
		}
	}
	for _, tool := range []string{"wrk", "ab", "nginx"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing; on Debian: apt-get install wrk apache2-utils nginx", tool)
		}
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "ema-api-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	b := &bench{load: l, ema: ema, dir: dir}
	if ema == "" {
		b.ema = filepath.Join(dir, "ema")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", b.ema, "./cmd/ema").CombinedOutput(); err != nil {
			return fmt.Errorf("build ema (run this from the top of the checkout): %w\n%s", err, text)
		}
	}
	if err := b.scripts(); err != nil {
		return err
	}
	missed, err := b.measure(ctx, wanted)
	if err == nil && check && missed {
		return errors.New("a target is missed")
	}
	return err
}

// measure measures these parts and prints their tables as soon as they are known.
func (b *bench) measure(ctx context.Context, wanted []string) (missed bool, err error) {
	stores := stores{b: b}
	defer func() { err = errors.Join(err, stores.close()) }()
	for _, part := range parts() {
		if !slices.Contains(wanted, part) {
			continue
		}
		models := b.models
		if part == "few" || part == "download" {
			models = few
		}
		s, err := stores.of(ctx, models)
		if err != nil {
			return missed, err
		}
		b.table = table.Table{}
		switch part {
		case "many":
			err = b.many(ctx, s)
		case "few":
			err = b.few(ctx, s)
		case "ab":
			var small *store
			if small, err = stores.of(ctx, few); err == nil {
				err = b.impatient(ctx, small, s)
			}
		case "download":
			err = b.beside(ctx, s)
		case "start":
			err = b.start(ctx, s)
		}
		if err != nil {
			return missed, fmt.Errorf("%s: %w", part, err)
		}
		if err := b.table.Print(os.Stdout, part); err != nil {
			return missed, err
		}
		missed = missed || b.table.Missed()
	}
	return missed, nil
}
