package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/internal/bench"
	"ema/internal/model"
)

// A loadTest is the command line of ema load-test.
type loadTest struct {
	bench.LoadSettings
	wait, mix, failOn string
	only              []string
}

func loadTestCommand(a *app) *cobra.Command {
	var l loadTest
	cmd := &cobra.Command{
		Use:   "load-test --url URL",
		Short: "Load the API of a daemon and measure its answers",
		Long: "Sends the usual mix of requests to a daemon: three looks at the state of all models to one start of a download and one\n" +
			"look at the analytics. By default users wait for their answers (--users); with --rate requests leave at a constant\n" +
			"rate, and a late answer counts from when its request was due. Endpoints that the server has not are left out. The\n" +
			"download that the test has started is cancelled in the end. Ctrl-C stops early and prints what there is.",
		Example: "  ema load-test --url http://127.0.0.1:8000\n" +
			"  ema load-test --url http://127.0.0.1:8000 --users 50 --wait 1s-3s --duration 1m\n" +
			"  ema load-test --url http://127.0.0.1:8000 --rate 200 --fail-on 'p95>5ms,errors>1%'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := l.settings(a)
			if err != nil {
				return err
			}
			return a.loadTest(cmd.Context(), settings)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&l.URL, "url", "", "`URL` of the daemon, e.g. http://127.0.0.1:8000")
	flags.BoolVar(&l.AllowRemote, "allow-remote", false, "the URL may be another machine, whose owner agrees")
	flags.StringVar(&l.Key, "key", "", "`key` of the API (default: $EMA_API_KEY, which other users of this machine cannot read)")
	flags.IntVar(&l.Users, "users", 0, "`number` of users, each of whom waits for its answer (default: 10)")
	flags.StringVar(&l.wait, "wait", "", "how long a user thinks between two requests: a `duration`, or two of them as in 1s-3s")
	flags.DurationVar(&l.Expected, "expected-interval", 0, "also print latencies that are corrected for what a stall kept users from asking, by this `interval`")
	flags.Float64Var(&l.Rate, "rate", 0, "requests per `second` that leave whatever the server does")
	flags.DurationVar(&l.Duration, "duration", 0, "how long to measure (default: 10s, or until --requests were made)")
	flags.Int64Var(&l.Requests, "requests", 0, "`number` of requests to measure")
	flags.DurationVar(&l.Warmup, "warmup", 0, "how long to load before measuring")
	flags.IntVar(&l.Connections, "connections", 0, "most connections at once (default: as many as users, 64 with --rate)")
	flags.DurationVar(&l.Timeout, "timeout", 10*time.Second, "of one request")
	flags.StringVar(&l.Model, "model", "test-model", "whose download is started, again and again")
	flags.BoolVar(&l.Keep, "keep", false, "do not cancel the download that the test has started")
	flags.StringVar(&l.mix, "mix", "", "how often each endpoint is called, by `weights` (default: status=3,start=1,analytics=1)")
	flags.StringSliceVar(&l.only, "only", nil, "call only these `endpoints`: status, start, analytics")
	flags.Uint64Var(&l.Seed, "seed", 1, "of the order of requests and of the waits")
	flags.StringVar(&l.failOn, "fail-on", "", "exit with 1 when one of these `limits` is not kept, as in p95>5ms,errors>1%")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{"status", "start", "analytics"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// settings are what the command line says.
func (l loadTest) settings(a *app) (bench.LoadSettings, error) {
	s := l.LoadSettings
	if s.URL == "" {
		return s, &usageError{errors.New(`name the daemon with --url, e.g. --url http://127.0.0.1:8000; see "ema load-test --help"`)}
	}
	if s.Key == "" {
		s.Key = a.getenv("EMA_API_KEY")
	}
	var err error
	if s.WaitMin, s.WaitMax, err = parseWait(l.wait); err != nil {
		return s, &usageError{err}
	}
	if l.mix != "" {
		if s.Mix, err = bench.ParseMix(l.mix); err != nil {
			return s, &usageError{fmt.Errorf("--mix: %w", err)}
		}
	}
	if len(l.only) > 0 {
		if s.Mix, err = s.Mix.Only(l.only...); err != nil {
			return s, &usageError{fmt.Errorf("--only: %w", err)}
		}
	}
	if l.failOn != "" {
		if s.FailOn, err = bench.ParseLimits(l.failOn); err != nil {
			return s, &usageError{fmt.Errorf("--fail-on: %w", err)}
		}
	}
	return s, nil
}

// parseWait reads "2s" or "1s-3s"; empty is no wait.
func parseWait(s string) (least, most time.Duration, err error) {
	if s == "" {
		return 0, 0, nil
	}
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		to = from
	}
	least, err = time.ParseDuration(from)
	if err == nil {
		most, err = time.ParseDuration(to)
	}
	if err != nil || most < least {
		return 0, 0, fmt.Errorf("--wait %q: want a duration, or the shortest and the longest as in 1s-3s", s)
	}
	return least, most, nil
}

func (a *app) loadTest(ctx context.Context, s bench.LoadSettings) error {
	line := a.loadProgress(s)
	s.Progress = line.show
	report, err := bench.Load(ctx, s)
	line.end()
	switch {
	case errors.Is(err, bench.ErrRemote):
		return &usageError{fmt.Errorf("%w; with its owner's consent, pass --allow-remote", err)}
	case err != nil && !report.Interrupted:
		return err
	}
	if printed := a.result(report, func(w io.Writer) error { return printLoad(w, report) }); printed != nil {
		return printed
	}
	switch {
	case err != nil:
		fmt.Fprintf(a.stderr, "ema: load test: interrupted after %s\n", duration(time.Duration(report.Seconds*float64(time.Second))))
		return &reportedError{err}
	case len(report.Violations) > 0:
		err := fmt.Errorf("load test: %s not kept: %s", count(len(report.Violations), "limit is", "limits are"), strings.Join(report.Violations, ", "))
		if a.json {
			return &reportedError{err} // the document says it
		}
		return err
	}
	return nil
}

// A loadLine shows on stderr how a test stands: one live line on a terminal, a line every few seconds where there is
// none, nothing with --quiet.
type loadLine struct {
	out   io.Writer // nil = quiet
	live  bool
	total string // how long it takes, in words; empty while nobody knows
	lines time.Duration
}

func (a *app) loadProgress(s bench.LoadSettings) *loadLine {
	l := &loadLine{out: a.stderr, live: interactive(a.stderr) && a.getenv("TERM") != "dumb"}
	if a.quiet {
		l.out = nil
	}
	if s.Duration > 0 {
		l.total = " of " + duration(s.Duration)
	}
	return l
}

func (l *loadLine) show(p bench.LoadProgress) {
	l.lines += time.Second
	if l.out == nil || !l.live && l.lines%lineEvery != 0 {
		return
	}
	text := fmt.Sprintf("%s%s: %s, %.0f per second, %s", duration(p.Elapsed), l.total,
		count(int(p.Requests), "request", "requests"), p.PerSecond, count(int(p.Errors), "error", "errors"))
	if p.Warmup {
		text = "warming up for " + duration(p.Elapsed)
	}
	if l.live {
		fmt.Fprint(l.out, "\r\x1b[K"+text)
		return
	}
	fmt.Fprintln(l.out, text)
}

// end takes the live line away.
func (l *loadLine) end() {
	if l.out != nil && l.live {
		fmt.Fprint(l.out, "\r\x1b[K")
	}
}

// printLoad is a report for people.
func printLoad(w io.Writer, r bench.LoadReport) error {
	how := count(r.Users, "user", "users")
	if r.WaitMax > 0 {
		how += fmt.Sprintf(" who think for %g to %g s", r.WaitMin, r.WaitMax)
	}
	if r.Mode == "rate" {
		how = fmt.Sprintf("%g requests per second", r.Rate)
	}
	fmt.Fprintf(w, "%s: %s over at most %s, measured for %s\n\n", r.URL, how, count(r.Connections, "connection", "connections"), duration(time.Duration(r.Seconds*float64(time.Second))))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "ENDPOINT \tREQUESTS\tERRORS\tPER S\tAVG MS\tMIN\tMEDIAN\tP90\tP95\tP99\tP99.9\tMAX\tBODIES\t")
	for _, e := range r.Endpoints {
		loadRow(table, e.Name, e.Figures)
	}
	loadRow(table, "all", r.Total)
	if err := table.Flush(); err != nil {
		return err
	}
	return printRemarks(w, r)
}

func loadRow(w io.Writer, name string, f bench.Figures) {
	row := func(name string, l bench.Latency, more ...any) {
		fmt.Fprintf(w, "%-9s\t", name) // names stand left, figures right
		for _, v := range more {
			fmt.Fprintf(w, "%v\t", v)
		}
		for _, ms := range []float64{l.Avg, l.Min, l.Median, l.P90, l.P95, l.P99, l.P999, l.Max} {
			fmt.Fprintf(w, "%.2f\t", ms)
		}
	}
	row(name, f.Latency, f.Requests, f.Errors, fmt.Sprintf("%.1f", f.PerSecond))
	fmt.Fprintf(w, "%s\t\n", model.Bytes(f.Bytes))
	if f.Corrected != nil {
		row("corrected", *f.Corrected, "", "", "")
		fmt.Fprint(w, "\t\n")
	}
}

// printRemarks are the lines below the table: what it does not say.
func printRemarks(w io.Writer, r bench.LoadReport) error {
	var all []string
	for _, e := range r.Endpoints {
		if e.Errors > 0 {
			all = append(all, fmt.Sprintf("errors of %s: %s; answers: %s", e.Name, tallied(e.Kinds), tallied(e.Statuses)))
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Examples)) {
		all = append(all, fmt.Sprintf("the first %s: %s", kind, r.Examples[kind]))
	}
	if r.Missed > 0 {
		all = append(all, fmt.Sprintf("the server did not keep up: %s due and never sent, since every connection was busy", count(int(r.Missed), "request was", "requests were")))
	}
	for _, left := range r.LeftOut {
		all = append(all, fmt.Sprintf("left out: %s; %s", left.Endpoint, left.Reason))
	}
	if d := r.Download; d != nil {
		all = append(all, traceWords(*d))
	}
	if len(all) == 0 {
		return nil
	}
	_, err := fmt.Fprintln(w, "\n"+strings.Join(all, "\n"))
	return err
}

// tallied lists what was counted: "12 timeout, 3 server_error", the most first.
func tallied[K ~string](counts map[K]int64) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(x, y K) int {
		if d := counts[y] - counts[x]; d != 0 {
			return int(max(min(d, 1), -1))
		}
		return strings.Compare(string(x), string(y))
	})
	words := make([]string, len(keys))
	for i, k := range keys {
		words[i] = fmt.Sprintf("%d %s", counts[k], k)
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// traceWords say what has become of the download.
func traceWords(d bench.Trace) string {
	name := "the download of " + d.Model
	switch d.Outcome {
	case "existed":
		return name + " was there before, and goes on"
	case "cancelled":
		return name + " was cancelled"
	case "kept":
		return name + " is kept"
	case "over":
		return name + " is over"
	case "unknown":
		return name + " is left alone, since nobody can tell whether it was there before: " + d.Why
	}
	return name + " could not be cancelled: " + d.Why
}
