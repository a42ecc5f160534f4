package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	profiles "runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/pprof/profile"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ema/client"
	"ema/internal/host"
	"ema/internal/model"
)

// A profiling is the command line of ema profile.
type profiling struct {
	kind    string // client.ProfileCPU or client.ProfileHeap
	seconds int
	output  string // the file that is kept; empty = one in this folder
	top     int
}

func profileCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "profile",
		Short: "See what takes time and memory",
		Long: "Profiles the daemon that runs, or with -- one command of ema: prints the functions that take most and how much memory the\n" +
			"process has, and keeps the profile for \"go tool pprof\".",
		Example: "  ema profile cpu --seconds 30\n  ema profile heap\n  ema profile cpu -- verify org/name",
	}
	cmd.AddCommand(
		a.profileKind(profiling{kind: client.ProfileCPU}, "See which functions take the processors",
			"Watches the daemon for some seconds, or with -- one command of ema from its begin to its end."),
		a.profileKind(profiling{kind: client.ProfileHeap}, "See which functions take the memory",
			"Tells what the memory of the daemon holds now, or with -- what one command of ema has asked for in all."),
	)
	return cmd
}

func (a *app) profileKind(p profiling, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   p.kind + " [-- CMD ARG...]",
		Short: short,
		Long: long + "\nA command that leaves its work to a daemon does little itself: then profile the daemon. Other output of the command goes\n" +
			"to stderr, and the exit code is its own. Ctrl-C ends the command, and the profile is of what it did.",
		Example: "  ema profile " + p.kind + "\n  ema profile " + p.kind + " -- pull org/name",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return fmt.Errorf("put -- before the command: %s -- %s; see \"%[1]s --help\"", cmd.CommandPath(), args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			named := commandOf(args)
			switch {
			case p.seconds < 1 || p.seconds > 300:
				return &usageError{fmt.Errorf("--seconds %d: want 1 to 300", p.seconds)}
			case p.top < 1:
				return &usageError{fmt.Errorf("--top %d: want 1 or more", p.top)}
			case named == "run" || named == "profile":
				return &usageError{fmt.Errorf("\"ema %s\" cannot be profiled; profile the command that it leads to, such as pull", named)}
			case len(args) > 0 && cmd.Flags().Changed("seconds"):
				return &usageError{errors.New("--seconds is for the daemon; a command is watched until it ends")}
			}
			return a.profile(cmd, p, args)
		},
	}
	p.seconds = 10
	if p.kind == client.ProfileCPU {
		cmd.Flags().IntVar(&p.seconds, "seconds", 10, "`number` of seconds to watch the daemon, up to 300")
	}
	cmd.Flags().StringVarP(&p.output, "output", "o", "", "`file` to keep the profile in, which must not exist (default: ema-"+p.kind+"-TIME.pprof in this folder)")
	cmd.Flags().IntVar(&p.top, "top", 20, "`number` of functions to print")
	return cmd
}

// profile takes a profile, keeps it, and prints what it says.
func (a *app) profile(cmd *cobra.Command, p profiling, command []string) error {
	kept, err := p.create(time.Now()) // before anything is watched: what was seen can be kept
	if err != nil {
		return err
	}
	var r profileReport
	var failed error // of the command; it was printed
	if len(command) == 0 {
		r, err = a.profileDaemon(cmd.Context(), p, kept)
	} else {
		r, failed, err = a.profileCommand(cmd.Context(), p, kept, append(globals(cmd), command...))
	}
	if err = errors.Join(err, kept.Close()); err != nil {
		return errors.Join(err, os.Remove(kept.Name()))
	}
	if err := r.read(kept.Name(), p); err != nil {
		return err
	}
	if err := a.result(r, r.print); err != nil {
		return err
	}
	return failed
}

// create makes the file that is to be kept, and never takes one that is there.
func (p profiling) create(now time.Time) (*os.File, error) {
	name := cmp.Or(p.output, fmt.Sprintf("ema-%s-%s.pprof", p.kind, now.Format("20060102-150405")))
	for again := 2; ; again++ {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		switch {
		case errors.Is(err, fs.ErrExist) && p.output == "" && again < 100:
			name = fmt.Sprintf("ema-%s-%s-%d.pprof", p.kind, now.Format("20060102-150405"), again)
		case errors.Is(err, fs.ErrExist):
			return nil, &model.Error{Op: "keep the profile", Class: model.Usage, File: name, Err: errors.New("it exists"), Hint: "name another file with --output"}
		case err != nil:
			return nil, &model.Error{Op: "keep the profile", Class: model.DiskError, File: name, Err: err, Hint: "name a file in a folder where you may write with --output"}
		default:
			return f, nil
		}
	}
}

// profileDaemon has the daemon profile itself.
func (a *app) profileDaemon(ctx context.Context, p profiling, to io.Writer) (profileReport, error) {
	c, err := a.daemon(ctx, "profile")
	if err != nil {
		return profileReport{}, err
	}
	defer c.Close()
	v, err := c.Version(ctx)
	if err != nil {
		return profileReport{}, err
	}
	if p.kind == client.ProfileCPU && !a.quiet {
		fmt.Fprintf(a.stderr, "ema: watching the daemon for %d s\n", p.seconds)
	}
	told, err := c.Profile(ctx, p.kind, time.Duration(p.seconds)*time.Second, to)
	return profileReport{
		Of: "the daemon (process " + strconv.Itoa(v.PID) + ")", sample: map[string]string{client.ProfileCPU: "cpu", client.ProfileHeap: "inuse_space"}[p.kind],
		Memory: told.MemoryBytes, MemoryPeak: told.MemoryPeakBytes,
	}, err
}

// profileCommand does one command in this process, and profiles it. failed is how the command ended, and was printed.
func (a *app) profileCommand(ctx context.Context, p profiling, to io.Writer, args []string) (r profileReport, failed, err error) {
	inner := &app{stdin: a.stdin, stdout: a.stderr, stderr: a.stderr, environ: a.environ, cpus: a.cpus}
	root := rootCommand(inner)
	if slices.Contains([]string{"pull", "verify", "repair", "rm", "gc"}, commandOf(args)) {
		a.noteDaemon(ctx)
	}
	// A profile is written when it ends: until then nothing of the disk is part of it.
	var taken bytes.Buffer
	if p.kind == client.ProfileCPU {
		if err := profiles.StartCPUProfile(&taken); err != nil {
			return r, nil, &model.Error{Op: "profile", Err: err}
		}
		defer profiles.StopCPUProfile() // if it panics
	}
	failed = perform(ctx, inner, root, args)
	if p.kind == client.ProfileCPU {
		profiles.StopCPUProfile()
	} else {
		runtime.GC() // the profile is as of the last collection
		if err := profiles.Lookup("heap").WriteTo(&taken, 0); err != nil {
			return r, failed, &model.Error{Op: "profile", Err: err}
		}
	}
	now, peak, err := host.New("", 0).Resident()
	if err != nil {
		return r, failed, &model.Error{Op: "read the memory of this process", Err: err}
	}
	if _, err := to.Write(taken.Bytes()); err != nil {
		return r, failed, &model.Error{Op: "keep the profile", Class: model.DiskError, Err: err}
	}
	return profileReport{
		Of: shellLine(append([]string{"ema"}, args...)), sample: map[string]string{client.ProfileCPU: "cpu", client.ProfileHeap: "alloc_space"}[p.kind],
		Memory: int64(now), MemoryPeak: int64(peak),
	}, failed, nil
}

// noteDaemon says that a daemon does the work, if there is one: then this process has little to profile.
func (a *app) noteDaemon(ctx context.Context) {
	if c, found, err := a.remote(ctx); err == nil && found {
		c.Close()
		fmt.Fprintln(a.stderr, "ema: note: a daemon runs, and does the work of this command: profile the daemon meanwhile, without --")
	}
}

// commandOf is the command of ema that a command line names; empty for none.
func commandOf(args []string) string {
	if len(args) == 0 {
		return ""
	}
	found, _, err := rootCommand(&app{}).Find(args)
	if err != nil {
		return ""
	}
	for found.HasParent() && found.Parent().HasParent() {
		found = found.Parent()
	}
	return found.Name()
}

// globals are the flags of every command that were given to this one, for another; --json is about what this one prints.
func globals(cmd *cobra.Command) (args []string) {
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed && f.Name != "json" {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// A profileReport is what a profile says.
type profileReport struct {
	Kind       string          `json:"kind"`
	Of         string          `json:"of"`
	Seconds    float64         `json:"seconds,omitempty"` // that it is of
	Unit       string          `json:"unit"`              // of the total and of the functions: nanoseconds or bytes
	Total      int64           `json:"total"`
	Functions  []functionShare `json:"functions"` // those that take most
	Memory     int64           `json:"memory_bytes"`
	MemoryPeak int64           `json:"memory_peak_bytes"` // since the process began
	File       string          `json:"file"`
	Further    string          `json:"further"` // the command that shows more

	sample string // which of the profile's values counts
}

// A functionShare is what one function takes.
type functionShare struct {
	Name        string  `json:"function"`
	Flat        int64   `json:"flat"` // by itself
	FlatPercent float64 `json:"flat_percent"`
	Cum         int64   `json:"cum"` // with what it calls
	CumPercent  float64 `json:"cum_percent"`
}

// read fills in what the file says.
func (r *profileReport) read(file string, p profiling) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	found, err := profile.Parse(f)
	if err != nil {
		return &model.Error{Op: "read the profile", File: file, Err: err, Hint: "it was kept; take another one"}
	}
	at := slices.IndexFunc(found.SampleType, func(t *profile.ValueType) bool { return t.Type == r.sample })
	if at < 0 {
		return &model.Error{Op: "read the profile", File: file, Err: fmt.Errorf("it tells nothing of %s", r.sample), Hint: "it was kept; compare \"ema version\" on both sides"}
	}
	r.Kind, r.Unit, r.Seconds, r.File = p.kind, found.SampleType[at].Unit, time.Duration(found.DurationNanos).Seconds(), file
	r.Further = shellLine([]string{"go", "tool", "pprof", "-sample_index=" + r.sample, file})
	r.Total, r.Functions = topOf(found, at, p.top)
	return nil
}

// topOf are the functions that take most of the profile's values of that index by themselves, and the sum of all.
func topOf(p *profile.Profile, at, most int) (total int64, all []functionShare) {
	flat, cum := map[string]int64{}, map[string]int64{}
	for _, s := range p.Sample {
		v := s.Value[at]
		total += v
		seen := map[string]bool{} // a function that calls itself counts once
		for i, l := range s.Location {
			for j, line := range l.Line { // the innermost of those that were inlined comes first
				if line.Function == nil {
					continue
				}
				name := line.Function.Name
				if i == 0 && j == 0 {
					flat[name] += v
				}
				if !seen[name] {
					seen[name] = true
					cum[name] += v
				}
			}
		}
	}
	all = []functionShare{}
	for name, c := range cum {
		if c != 0 {
			all = append(all, functionShare{Name: name, Flat: flat[name], FlatPercent: percentOf(flat[name], total), Cum: c, CumPercent: percentOf(c, total)})
		}
	}
	slices.SortFunc(all, func(x, y functionShare) int {
		return cmp.Or(cmp.Compare(y.Flat, x.Flat), cmp.Compare(y.Cum, x.Cum), strings.Compare(x.Name, y.Name))
	})
	return total, all[:min(most, len(all))]
}

func percentOf(part, of int64) float64 {
	if of == 0 {
		return 0
	}
	return 100 * float64(part) / float64(of)
}

// amount is a value of the profile in words.
func (r profileReport) amount(v int64) string {
	if r.Unit == "bytes" {
		return model.Bytes(v).String()
	}
	return fmt.Sprintf("%.2f s", time.Duration(v).Seconds())
}

// print is the report for people.
func (r profileReport) print(w io.Writer) error {
	what := map[string]string{"cpu": "of processor time", "inuse_space": "in use", "alloc_space": "asked for in all"}[r.sample]
	fmt.Fprintf(w, "%s: %s %s", r.Of, r.amount(r.Total), what)
	if r.Kind == client.ProfileCPU {
		fmt.Fprintf(w, " in %s", duration(time.Duration(r.Seconds*float64(time.Second))))
	}
	fmt.Fprint(w, "\n\n")
	if len(r.Functions) == 0 {
		fmt.Fprintln(w, "nothing was seen: it did next to nothing meanwhile")
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, f := range r.Functions {
		if i == 0 {
			fmt.Fprintln(table, "FLAT\tFLAT %\tCUM\tCUM %\t  FUNCTION") // the last cell stands left
		}
		fmt.Fprintf(table, "%s\t%.1f\t%s\t%.1f\t  %s\n", r.amount(f.Flat), f.FlatPercent, r.amount(f.Cum), f.CumPercent, f.Name)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nmemory: %s now, %s at most since the process began\nkept: %s\nlook further with: %s\n",
		model.Bytes(r.Memory), model.Bytes(r.MemoryPeak), r.File, r.Further)
	return err
}
