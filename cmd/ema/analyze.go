package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/source"
	"ema/internal/tune"
)

// An analyzing is the command line of ema analyze-bottlenecks.
type analyzing struct{ all, recommend bool }

func analyzeCommand(a *app) *cobra.Command {
	var how analyzing
	cmd := &cobra.Command{
		Use:   "analyze-bottlenecks [MODEL]",
		Short: "Say what downloads and this machine wait for, and what to change",
		Long: "Says where the time of downloads goes, which part is what everything waits for, by which evidence, and which setting\n" +
			"would change that. With a MODEL it is about its download: the one that the daemon brings, or else the last one. Without\n" +
			"it, it is about all that the daemon does now, or where no daemon runs about the last download of the last hour, or else\n" +
			"about this machine.",
		Example:           "  ema analyze-bottlenecks\n  ema analyze-bottlenecks org/name\n  ema analyze-bottlenecks --check-all-components --generate-recommendations",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			var id model.ID
			if len(args) > 0 {
				var err error
				if id, _, err = model.ParseRef(args[0]); err != nil {
					return &usageError{err}
				}
			}
			found, err := a.analysis(cmd.Context(), id)
			if err != nil {
				return err
			}
			return a.result(found, func(w io.Writer) error { return printAnalysis(w, found, how, time.Now()) })
		},
	}
	cmd.Flags().BoolVar(&how.all, "check-all-components", false, "also tell of the parts that nobody waits for, and what each can do at most")
	cmd.Flags().BoolVar(&how.recommend, "generate-recommendations", false, "also tell what to change, as commands")
	return cmd
}

// analysis asks the daemon, or looks by itself where none runs.
func (a *app) analysis(ctx context.Context, id model.ID) (found client.PerformanceAnalysis, err error) {
	c, runs, err := a.remote(ctx)
	if err != nil {
		return found, err
	}
	if runs {
		name := ""
		if !id.IsZero() {
			name = id.Public()
		}
		return c.Analysis(ctx, name)
	}
	l, err := a.line("analyze-bottlenecks", false, nil)
	if err != nil {
		return found, err
	}
	defer func() {
		if ended := l.end(); err == nil {
			err = ended
		}
	}()
	last, err := lastDownload(l.Store.StateDir(), id)
	switch {
	case err == nil && (!id.IsZero() || time.Since(last.At) < time.Hour):
		last.Evidence.HashSpeed = hashSpeed()()
		found = analysed(last.Evidence, last.At, l.settings)
		found.Model, found.Finished = last.Model, true
		return found, nil
	case err != nil && (!id.IsZero() || model.ClassOf(err) != model.NotFound):
		return found, err
	}
	h := host.New("", a.processors())
	from := l.look(ctx, h)
	if err := pause(ctx, time.Second); err != nil {
		return found, err
	}
	to := l.look(ctx, h)
	e := l.evidence(h, l.settings.Config, from, to)
	e.HashSpeed = hashSpeed()()
	return analysed(e, to.at, l.settings), nil
}

// timed keeps what a download waited for that this process has brought, from the look before it.
func (l *line) timed(ctx context.Context, a *app, id model.ID, from look, p *pipeline.Progress, limit float64) {
	now := lookAt(p)
	if now.received == 0 && time.Since(from.at) < time.Second {
		return
	}
	h := host.New("", a.processors())
	to := l.look(context.WithoutCancel(ctx), h)
	e := l.evidence(h, l.settings.Config, from, to)
	one := now.since(progressLook{}, id.Public(), to.at.Sub(from.at))
	one.Limit = limit
	if plan, err := schedule(l.settings.BandwidthManagement); err == nil {
		node, why, _ := plan.At(to.at)
		e.Limit, e.LimitWhy = float64(node), why
	}
	e.Downloads = []tune.DownloadEvidence{one}
	e.Received = float64(one.Received) / max(one.Lasted.Seconds(), 0.001)
	if err := keepTiming(l.Store.StateDir(), id, e); err != nil {
		l.log.Info("what a download waited for is not kept", "model", id.Public(), "error", err.Error())
	}
}

func printAnalysis(w io.Writer, a client.PerformanceAnalysis, how analyzing, now time.Time) error {
	about := fmt.Sprintf("over the last %s", duration(time.Duration(a.Seconds*float64(time.Second))))
	switch {
	case a.Finished:
		about = fmt.Sprintf("the download of %s, which ended %s ago and took %s", a.Model, duration(now.Sub(a.At)), duration(time.Duration(a.Seconds*float64(time.Second))))
	case a.Model != "":
		about = a.Model + ", " + about
	}
	fmt.Fprintf(w, "%s\n(%s)\n", a.Verdict, about)
	if len(a.Bottlenecks) > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "SHARE\tPART\tWHAT")
		for _, b := range a.Bottlenecks {
			fmt.Fprintf(t, "%s\t%s\t%s\n", shareOf(b.Share), b.Component, b.Verdict)
			for _, e := range b.Evidence {
				fmt.Fprintf(t, "\t\t  %s\n", e)
			}
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if how.all {
		if err := printComponents(w, a); err != nil {
			return err
		}
	}
	if how.recommend {
		return printAdvice(w, a)
	}
	return nil
}

// printComponents tells of the parts that nobody waits for, of the ceilings and of where the time went.
func printComponents(w io.Writer, a client.PerformanceAnalysis) error {
	fmt.Fprintln(w, "\nNobody waits for:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range tune.Components() {
		if text, there := a.Components[string(c)]; there {
			fmt.Fprintf(t, "  %s\t%s\n", c, text)
		}
	}
	fmt.Fprintln(t, "\nAt most:\t")
	for _, c := range a.Ceilings {
		if c.Value == nil {
			fmt.Fprintf(t, "  %s\tnot known: %s\n", c.Name, a.Unknown["ceilings."+c.Name])
			continue
		}
		reached := ""
		if c.Reached != nil {
			reached = ", " + shareOf(*c.Reached) + " of it reached"
		}
		fmt.Fprintf(t, "  %s\t%.0f %s%s (%s)\n", c.Name, *c.Value, c.Unit, reached, c.Source)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(a.Times) > 0 {
		fmt.Fprintln(w, "\nWhere the time of the connections went, in seconds:")
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		for _, p := range source.Phases() {
			fmt.Fprintf(t, "%.2f\t %s\t\n", a.Times[p.String()], strings.ReplaceAll(p.String(), "_", " "))
		}
		return t.Flush()
	}
	return nil
}

// printAdvice tells what to change.
func printAdvice(w io.Writer, a client.PerformanceAnalysis) error {
	commands := map[string]bool{}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, b := range a.Bottlenecks {
		if b.Command == "" || commands[b.Command] {
			continue
		}
		if len(commands) == 0 {
			fmt.Fprintln(t, "\nTo change that:\t")
		}
		commands[b.Command] = true
		what := ""
		if b.Setting != "" {
			what = "# " + b.Setting + ": "
			if b.Current != "" {
				what += b.Current + " -> "
			}
			what += b.Advised
		}
		fmt.Fprintf(t, "  %s\t%s\n", b.Command, what)
	}
	if len(commands) == 0 {
		fmt.Fprintln(t, "\nThere is nothing to change.\t")
	}
	return t.Flush()
}
