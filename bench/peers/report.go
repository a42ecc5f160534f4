package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A figure is one number of a run, in the unit in which it is shown.
type figure func(result) float64

func wall(r result) float64    { return r.Wall }
func durable(r result) float64 { return r.Durable }
func cpu(r result) float64     { return r.CPU }
func memory(r result) float64  { return float64(r.RSS) / float64(mib) }
func tail(r result) float64    { return r.Tail }
func first(r result) float64   { return r.First }
func again(r result) float64   { return float64(r.Again) / float64(mib) }

// partOf is how much of a rate in bytes per second was reached.
func partOf(rate float64) figure {
	return func(r result) float64 { return float64(r.Size) / rate / r.Wall }
}

// A statistic draws one number from all results of a case; false when what it needs is missing.
type statistic func([]result) (float64, bool)

// A target is what ema is to reach.
type target struct {
	text  string
	bound float64
	least bool // the value is to be at least the bound, instead of at most
	value statistic
}

func atMost(text string, bound float64, s statistic) target  { return target{text, bound, false, s} }
func atLeast(text string, bound float64, s statistic) target { return target{text, bound, true, s} }

// median is the middle of a figure over ema's runs.
func median(f figure) statistic {
	return func(results []result) (float64, bool) { return middle(values(results, "ema", f)) }
}

// highest is the largest figure of ema's runs.
func highest(f figure) statistic {
	return func(results []result) (float64, bool) {
		all := values(results, "ema", f)
		if len(all) == 0 {
			return 0, false
		}
		return slices.Max(all), true
	}
}

// ratio is ema's figure as a part of a peer's: the median over the rounds, each compared with itself, since runs
// that follow one another share the machine's mood.
func ratio(peer string, f figure) statistic {
	return func(results []result) (float64, bool) {
		var all []float64
		for _, mine := range results {
			for _, theirs := range results {
				if mine.is("ema") && theirs.is(peer) && mine.Round == theirs.Round {
					all = append(all, f(mine)/f(theirs))
				}
			}
		}
		return middle(all)
	}
}

// is reports whether r counts as a run of a peer; ema's commands count as ema.
func (r result) is(peer string) bool {
	return r.Problem == "" && (r.Peer == peer || peer == "ema" && r.Peer == "ema ls")
}

func values(results []result, peer string, f figure) []float64 {
	var all []float64
	for _, r := range results {
		if r.is(peer) {
			all = append(all, f(r))
		}
	}
	return all
}

func middle(all []float64) (float64, bool) {
	if len(all) == 0 {
		return 0, false
	}
	all = slices.Sorted(slices.Values(all))
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2, true
}

// table is the case in Markdown, and how many of its targets were missed; they are judged only when asked for.
func (c testCase) table(results []result, judge bool) (text string, missed int) {
	var out strings.Builder
	fmt.Fprintf(&out, "\n## %s: %s\n\n", c.name, c.title)
	columns := []column{
		{"wall s", spread(wall)},
		{"durable s", one("%.2f", durable)},
		{"MB/s", one("%.0f", func(r result) float64 { return float64(r.Size) / 1e6 / r.Wall })},
		{"CPU s", one("%.2f", cpu)},
		{"of it sys", one("%.2f", func(r result) float64 { return r.System })},
		{"origin CPU s", one("%.2f", func(r result) float64 { return r.OriginCPU })},
		{"elsewhere CPU s", one("%.2f", func(r result) float64 { return r.Elsewhere })},
		{"RSS MiB", resident},
		{"conns", one("%.0f", func(r result) float64 { return float64(r.Conns) })},
		{"requests", one("%.0f", func(r result) float64 { return float64(r.Requests) })},
	}
	switch {
	case c.kind == listing:
		columns = []column{{"wall s", spreadBy("%.3f", wall)}, {"CPU s", one("%.3f", cpu)}, {"RSS MiB", resident}}
	case c.kind == resume:
		columns = append(columns, column{"first request s", spread(first)}, column{"again MiB", spread(again)})
	case c.watch:
		columns = append(columns, column{"after last byte s", spread(tail)})
	}
	var names []string
	for _, r := range results {
		if !slices.Contains(names, r.Peer) {
			names = append(names, r.Peer)
		}
	}
	compare := len(names) > 1 && slices.Contains(names, "ema")
	fmt.Fprint(&out, "| peer | right |")
	for _, col := range columns {
		fmt.Fprintf(&out, " %s |", col.head)
	}
	if compare {
		fmt.Fprint(&out, " ema ÷ it | durable ema ÷ it |")
		columns = append(columns, column{}, column{})
	}
	fmt.Fprintf(&out, "\n|---|---|%s\n", strings.Repeat("---|", len(columns)))
	var problems []string
	for _, name := range names {
		var runs []result
		total, busy := 0, 0
		for _, r := range results {
			switch {
			case r.Peer != name:
				continue
			case r.Problem != "":
				problems = append(problems, fmt.Sprintf("%s, round %d: %s", name, r.Round+1, r.Problem))
			default:
				runs = append(runs, r)
			}
			total++
			if !r.Quiet {
				busy++
			}
		}
		fmt.Fprintf(&out, "| %s | %d/%d |", name, len(runs), total)
		for _, col := range columns {
			switch {
			case col.show == nil:
			case len(runs) == 0:
				fmt.Fprint(&out, " – |")
			default:
				fmt.Fprintf(&out, " %s |", col.show(runs))
			}
		}
		if compare {
			for _, f := range []figure{wall, durable} {
				if v, ok := ratio(name, f)(results); ok {
					fmt.Fprintf(&out, " %.2f |", v)
				} else {
					fmt.Fprint(&out, " – |")
				}
			}
		}
		fmt.Fprintln(&out)
		if busy > 0 {
			problems = append(problems, fmt.Sprintf("%s: %d of %d runs began on a busy machine", name, busy, total))
		}
	}
	for _, p := range problems {
		fmt.Fprintf(&out, "\n- %s", p)
	}
	fmt.Fprintln(&out)
	for _, t := range c.targets {
		line, kept := t.verdict(results)
		if !judge {
			break
		}
		fmt.Fprintf(&out, "\n- %s", line)
		if !kept {
			missed++
		}
	}
	fmt.Fprintln(&out)
	return out.String(), missed
}

// verdict says whether a target was kept; what could not be measured was not.
func (t target) verdict(results []result) (string, bool) {
	word := "at most"
	if t.least {
		word = "at least"
	}
	want := fmt.Sprintf("ema: %s %g %s", word, t.bound, t.text)
	v, ok := t.value(results)
	switch {
	case !ok:
		return want + ": **not measured**", false
	case t.least && v >= t.bound || !t.least && v <= t.bound:
		return fmt.Sprintf("%s: kept, %.3g", want, v), true
	}
	return fmt.Sprintf("%s: **missed**, %.3g", want, v), false
}

// A column shows something of the runs of one peer.
type column struct {
	head string
	show func([]result) string
}

func pick(runs []result, f figure) []float64 {
	all := make([]float64, len(runs))
	for i, r := range runs {
		all[i] = f(r)
	}
	return all
}

func one(format string, f figure) func([]result) string {
	return func(runs []result) string {
		m, _ := middle(pick(runs, f))
		return fmt.Sprintf(format, m)
	}
}

func spread(f figure) func([]result) string { return spreadBy("%.2f", f) }

func spreadBy(format string, f figure) func([]result) string {
	return func(runs []result) string {
		all := pick(runs, f)
		m, _ := middle(all)
		return fmt.Sprintf(format+" ("+format+"–"+format+")", m, slices.Min(all), slices.Max(all))
	}
}

func resident(runs []result) string {
	below := ""
	for _, r := range runs {
		if r.Masked {
			below = "≤ "
		}
	}
	return below + one("%.0f", memory)(runs)
}

// A report is all that a run of this program found.
type report struct {
	Began   time.Time `json:"began"`
	Machine string    `json:"machine"`
	Tools   []string  `json:"tools"`
	Runs    int       `json:"runs"`
	Scale   float64   `json:"scale"`
	Results []result  `json:"results"`
}

func newReport(ctx context.Context, o options, p programs) *report {
	r := &report{Began: time.Now().UTC(), Runs: o.runs, Scale: o.scale}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Machine = fmt.Sprintf("Linux %s, %d CPUs, %s", unix.ByteSliceToString(name.Release[:]), runtime.NumCPU(), runtime.GOARCH)
	}
	for program, flag := range map[string]string{p.ema: "version", p.rclone: "version", p.aria2c: "--version", p.curl: "--version"} {
		if program == "" {
			continue
		}
		b, err := exec.CommandContext(ctx, program, flag).Output()
		if err != nil {
			b = []byte(program + " " + flag + ": " + err.Error())
		}
		version, _, _ := strings.Cut(string(b), "\n")
		if words := strings.Fields(version); program != p.ema && len(words) > 3 {
			version = strings.Join(words[:3], " ")
		}
		r.Tools = append(r.Tools, version)
	}
	slices.Sort(r.Tools)
	return r
}

func (r *report) head() string {
	shrunk := ""
	if r.Scale != 1 {
		shrunk = fmt.Sprintf(" Large files are shrunk to %g of their size, so targets are not judged.", r.Scale)
	}
	return fmt.Sprintf("%s, %s. %s. Medians of %d runs (least–most).%s\n",
		r.Began.Format(time.DateOnly), r.Machine, strings.Join(r.Tools, "; "), r.Runs, shrunk)
}

func (r *report) add(results []result) { r.Results = append(r.Results, results...) }

// write saves every run; an empty path is nowhere.
func (r *report) write(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}
