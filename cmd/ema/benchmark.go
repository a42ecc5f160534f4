package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/internal/bench"
	"ema/internal/config"
	"ema/internal/model"
	"ema/internal/store"
)

// A benchmark is the command line of ema benchmark.
type benchmark struct {
	full, generate bool
	compare        string
	reports        []string // files
	suites         []string
	size           int64 // MiB
	repeats        int
}

// keptBaseline is the value of --compare that names the baseline in the state folder.
const keptBaseline = "baseline"

func benchmarkCommand(a *app) *cobra.Command {
	var b benchmark
	cmd := &cobra.Command{
		Use:   "benchmark",
		Short: "Measure downloads, the API, the disks and this machine, and compare with a baseline",
		Long: "Measures as users see it: it runs this program, with a store of its own and settings nobody has changed, against an origin\n" +
			"on this machine. It works in a temporary folder inside the folder of each tier, never takes more than a tenth of what is\n" +
			"free there, takes at most three minutes, and removes all it has made, on Ctrl-C too. The exit code is 6 when something is\n" +
			"more than 20 % worse than in the baseline, and by more than the repeats differ.",
		Example: "  ema benchmark --full-assessment --generate-baseline --output-report baseline_performance.json\n" +
			"  ema benchmark --full-assessment --compare\n" +
			"  ema benchmark --suite storage,system --json | jq .metrics",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && b.compare == keptBaseline { // the file of "--compare FILE"
				return nil
			}
			return noArguments(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				b.compare = args[0]
			}
			return a.benchmark(cmd.Context(), b)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&b.full, "full-assessment", false, "all suites, with larger files")
	flags.BoolVar(&b.generate, "generate-baseline", false, "keep the report as the baseline of this store")
	flags.StringVar(&b.compare, "compare", "", "compare with the report in this `file`; without one with the kept baseline")
	flags.Lookup("compare").NoOptDefVal = keptBaseline
	flags.StringArrayVar(&b.reports, "output-report", nil, "write the report to this `file`: a page with plots if it ends in .html, else JSON; may be repeated")
	flags.IntVar(&b.repeats, "repeats", 0, "repeat everything so many `times`, instead of until the medians are sure")
	flags.StringSliceVar(&b.suites, "suite", nil, "only these `suites`: downloads, api, storage, system")
	flags.Int64Var(&b.size, "size", 0, "`MiB` of the file by which disks are measured; a download is a quarter (default: 256, 512 with --full-assessment)")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("suite", cobra.FixedCompletions(bench.Suites(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// A measurement is a benchmark that may begin.
type measurement struct {
	bench.AssessSettings
	kept     string // the file of the baseline of the store
	generate bool   // to write that one

	from   string // the file that before was read from
	before *bench.Assessment
}

// prepare finds out what to measure, and where, for the daemon and for the command.
func (b benchmark) prepare(environ []string, e *config.Effective, st *store.Store) (m measurement, err error) {
	program, err := os.Executable()
	if err != nil {
		return m, err
	}
	m.kept, m.generate = filepath.Join(st.StateDir(), baselineFile), b.generate
	m.AssessSettings = bench.AssessSettings{
		Suites: b.suites, Full: b.full, Repeats: b.repeats, Size: model.Bytes(b.size) * model.MiB, Program: program, Name: os.Args[0],
		// The service manager is to hear of its own daemon alone.
		Environ: slices.DeleteFunc(slices.Clone(environ), func(pair string) bool { return strings.HasPrefix(pair, "NOTIFY_SOCKET=") }),
		Course:  &bench.Course{},
	}
	seen := map[string]bool{}
	for _, p := range []bench.Place{
		{Tier: "hot", Dir: cmp.Or(e.StorageTiers.Hot.Path, st.Path())}, {Tier: "warm", Dir: e.StorageTiers.Warm.Path}, {Tier: "cold", Dir: e.StorageTiers.Cold.Path},
	} {
		if p.Dir == "" {
			continue
		}
		p.Dir = realFolder(p.Dir) // one that is not there yet will lie on the same disk as the one above it
		if !seen[p.Dir] {
			seen[p.Dir] = true
			m.Places = append(m.Places, p)
		}
	}
	if m.from = b.compare; m.from == keptBaseline {
		m.from = m.kept
	}
	if m.from == "" {
		return m, nil
	}
	if m.before, err = readBaseline(m.from); err != nil {
		return m, err
	}
	if m.before.Size != m.FileSize() {
		return m, &model.Error{
			Op: "compare", Class: model.Usage, File: m.from, Err: fmt.Errorf("it was measured with files of %s, and this would be with %s", m.before.Size, m.FileSize()),
			Hint: "measure with the same size, and a full assessment if that was one",
		}
	}
	return m, nil
}

// inOrder are the suites that run, in the order in which they do.
func (m measurement) inOrder() []string {
	return slices.DeleteFunc(bench.Suites(), func(name string) bool { return len(m.Suites) > 0 && !slices.Contains(m.Suites, name) })
}

// measure does it, compares, and keeps the report as the baseline if it is to. Where Seconds is 0 nothing is worth telling but the error.
func (m measurement) measure(ctx context.Context) (bench.Assessment, error) {
	found, err := bench.Assess(ctx, m.AssessSettings)
	if found.Seconds == 0 {
		return found, err
	}
	found.Version = currentBuild().String()
	if m.before != nil {
		found.Comparison = bench.CompareWith(m.from, *m.before, found)
	}
	if err == nil && m.generate {
		err = writeReport(m.kept, found)
	}
	return found, err
}

// check refuses flags that make no sense.
func (b benchmark) check() error {
	switch {
	case b.full && len(b.suites) > 0:
		return &usageError{errors.New("--full-assessment is of all suites; leave --suite out, or it")}
	case b.repeats < 0 || b.repeats > 1000:
		return &usageError{fmt.Errorf("--repeats %d: want 1 to 1000, or 0 for as many as it takes", b.repeats)}
	case b.size < 0 || b.size > 1<<20:
		return &usageError{fmt.Errorf("--size %d: want a number of MiB", b.size)}
	}
	return nil
}

// measure does it, says beforehand how long that takes, after what turn says, and shows how far it is.
func (a *app) measure(ctx context.Context, m measurement, turn string) (bench.Assessment, error) {
	least, most, err := m.Estimate()
	if err != nil {
		return bench.Assessment{}, err
	}
	if !a.quiet {
		fmt.Fprintf(a.stderr, "%sthis takes %s\n", turn, estimate(least, most))
	}
	m.Course = &bench.Course{} // m may have been measured before
	bar := a.startBar(m.inOrder(), m.Course)
	defer bar.stop()
	m.Progress = bar.show
	return m.measure(ctx)
}

func (a *app) benchmark(ctx context.Context, b benchmark) error {
	if err := b.check(); err != nil {
		return err
	}
	st, err := a.store()
	if err != nil {
		return err
	}
	e, err := a.settings()
	if err != nil {
		return err
	}
	m, err := b.prepare(a.environ, e, st)
	if err != nil {
		return err
	}
	found, err := a.measure(ctx, m, "")
	if found.Seconds == 0 {
		return err
	}
	for _, name := range b.reports {
		err = errors.Join(err, writeReport(name, found))
	}
	err = errors.Join(err, a.result(found, func(w io.Writer) error { return printBenchmark(w, found) }))
	if err != nil {
		return err
	}
	if c := found.Comparison; c != nil && len(c.Regressions) > 0 {
		err := fmt.Errorf("benchmark: %w %s: %s", errRegression, c.Baseline, regressed(*c))
		if a.json {
			return &reportedError{err} // the document says it
		}
		return err
	}
	return nil
}

// estimate says how long it takes.
func estimate(least, most time.Duration) string {
	return fmt.Sprintf("%s to %s, depending on how noisy this machine is", duration(least), duration(most))
}

func regressed(c bench.Comparison) string {
	words := make([]string, len(c.Regressions))
	for i, r := range c.Regressions {
		words[i] = fmt.Sprintf("%s by %.0f %%", r.Metric, r.Worse*100)
	}
	return strings.Join(words, ", ")
}

func readBaseline(name string) (*bench.Assessment, error) {
	raw, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &model.Error{Op: "compare", Class: model.NotFound, File: name, Err: errors.New("there is no baseline"), Hint: "make one with: ema benchmark --generate-baseline"}
	}
	if err != nil {
		return nil, err
	}
	var found bench.Assessment
	if err := json.Unmarshal(raw, &found); err != nil || found.Metrics == nil {
		return nil, &model.Error{Op: "compare", Class: model.Usage, File: name, Err: errors.Join(errors.New("this is no report of ema benchmark"), err)}
	}
	return &found, nil
}

// writeReport writes a report in the form that the file's name asks for.
func writeReport(name string, found bench.Assessment) (err error) {
	var raw bytes.Buffer
	if ext := strings.ToLower(filepath.Ext(name)); ext == ".html" || ext == ".htm" {
		err = bench.WritePage(&raw, found)
	} else {
		e := json.NewEncoder(&raw)
		e.SetIndent("", "  ")
		err = e.Encode(found)
	}
	if err != nil {
		return err
	}
	return writeWhole(name, raw.Bytes())
}

// writeWhole writes a file that is whole, and durable, before it takes its name.
func writeWhole(name string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".report-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// printBenchmark is a report for people.
func printBenchmark(w io.Writer, r bench.Assessment) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MEASURED\tMEDIAN\tUNIT\tSURE TO\tREPEATS")
	for _, name := range slices.Sorted(maps.Keys(r.Metrics)) {
		m, sure := r.Metrics[name], "unknown"
		if s := m.Spread(); !math.IsInf(s, 1) {
			sure = fmt.Sprintf("%.1f %%", 100*s)
		}
		fmt.Fprintf(table, "%s\t%.4g\t%s\t%s\t%d\n", name, m.Median, m.Unit, sure, m.Repeats)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(r.Unknown)) {
		if r.Unknown[name] != "not asked for" {
			fmt.Fprintf(w, "not measured: %s: %s\n", name, r.Unknown[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Noisy)) {
		fmt.Fprintf(w, "noisy: %s: %s\n", name, r.Noisy[name])
	}
	for _, text := range r.Recommendations {
		fmt.Fprintln(w, text)
	}
	if c := r.Comparison; c != nil {
		fmt.Fprintf(w, "compared with %s: %s, %s\n", c.Baseline, count(c.Compared, "metric", "metrics"), count(len(c.Regressions), "regression", "regressions"))
		for _, g := range c.Regressions {
			fmt.Fprintf(w, "  %s: %.4g, was %.4g %s: %.0f %% worse\n", g.Metric, g.Now, g.Baseline, g.Unit, g.Worse*100)
		}
		for _, name := range slices.Sorted(maps.Keys(c.NotJudged)) {
			fmt.Fprintf(w, "  %s is not judged: %s\n", name, c.NotJudged[name])
		}
		for _, text := range c.Warnings {
			fmt.Fprintln(w, "  "+text)
		}
	}
	_, err := fmt.Fprintf(w, "took %s\n", duration(time.Duration(r.Seconds*float64(time.Second))))
	return err
}
