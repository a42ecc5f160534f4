// Command peers measures ema side by side with other downloaders, in one run and from one origin on this machine.
//
// Every round runs every peer once, each into an empty folder; the tables show medians over the rounds. See
// bench/README.md for one command per target.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	cases   []string
	peers   []string
	runs    int
	dir     string
	json    string
	ema     string
	emaArgs []string
	scale   float64
	timeout time.Duration
	idle    time.Duration
	check   bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, parse()); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func parse() options {
	var o options
	chosen := flag.String("case", "A", "what to measure, separated by commas: "+strings.Join(caseNames(), ", ")+", or all")
	peers := flag.String("peers", "", "who takes part, separated by commas (default: those that the case's targets name): "+strings.Join(peerNames(), ", "))
	emaArgs := flag.String("ema-args", "", "more arguments of ema pull, separated by spaces")
	flag.IntVar(&o.runs, "runs", 5, "rounds; each runs every peer once")
	flag.StringVar(&o.dir, "dir", filepath.Join(os.TempDir(), "ema-bench"), "folder for data files, programs and results; data files are kept and used again")
	flag.StringVar(&o.json, "json", "", "also write every single run to this file, as JSON")
	flag.StringVar(&o.ema, "ema", "", "the ema binary to measure (default: built from this checkout)")
	flag.Float64Var(&o.scale, "scale", 1, "shrinks large files by this factor, to try things out; targets are not judged then")
	flag.DurationVar(&o.timeout, "timeout", 3*time.Minute, "most time of one run; a peer that takes longer is killed, and the run counts as failed")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "most time to wait before a run until the machine is idle; a run on a busy machine is marked")
	flag.BoolVar(&o.check, "check", false, "fail when a target is missed")
	flag.Parse()
	o.emaArgs = strings.Fields(*emaArgs)
	o.cases, o.peers = list(*chosen), list(*peers)
	if *chosen == "all" {
		o.cases = caseNames()
	}
	if flag.NArg() > 0 || o.runs < 1 || o.scale <= 0 || o.scale > 1 {
		flag.Usage()
		os.Exit(2)
	}
	return o
}

func list(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(one string) bool { return one == "" })
}

func run(ctx context.Context, o options) error {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	o.dir = dir
	var cases []testCase
	for _, name := range o.cases {
		c, ok := caseOf(name, o.scale)
		if !ok {
			return fmt.Errorf("case %q: there are %s", name, strings.Join(caseNames(), ", "))
		}
		cases = append(cases, c)
	}
	tools, err := build(ctx, o)
	if err != nil {
		return err
	}
	report := newReport(ctx, o, tools)
	fmt.Print(report.head())
	missed := 0
	for _, c := range cases {
		b := bench{options: o, testCase: c, tools: tools}
		if b.peers, err = choose(c, o.peers, tools); err != nil {
			return err
		}
		results, err := b.measure(ctx)
		report.add(results)
		text, n := c.table(results, err == nil && o.scale == 1)
		fmt.Print(text)
		if err != nil {
			return errors.Join(err, report.write(o.json))
		}
		missed += n
	}
	if err := report.write(o.json); err != nil {
		return err
	}
	if o.check && missed > 0 {
		return fmt.Errorf("%d targets missed", missed)
	}
	return nil
}
