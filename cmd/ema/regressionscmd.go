package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ema/client"
)

func regressionsCommand(a *app) *cobra.Command {
	var set bool
	var hours float64
	cmd := &cobra.Command{
		Use:   "regressions",
		Short: "List what has become slower, against a baseline and the last two weeks",
		Long: "Lists the figures of the daemon that are worse than they were, by more than monitoring.regression_threshold and by more than\n" +
			"they differ without a reason: against the baseline, if one was taken, and against the two weeks before. The daemon looks\n" +
			"every monitoring.interval_seconds, and tells of each once.",
		Example: "  ema regressions --set-baseline\n  ema regressions\n  ema regressions --json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if hours < 0.1 || hours > 24*365 {
				return &usageError{fmt.Errorf("--hours %g: want 0.1 to 8760", hours)}
			}
			return a.regressions(cmd.Context(), set, hours)
		},
	}
	cmd.Flags().BoolVar(&set, "set-baseline", false, "take how the figures were lately for the baseline")
	cmd.Flags().Float64Var(&hours, "hours", 24, "of --set-baseline: over so many `hours`")
	return cmd
}

func (a *app) regressions(ctx context.Context, set bool, hours float64) error {
	c, err := a.daemon(ctx, "regressions")
	if err != nil {
		return err
	}
	if set {
		b, err := c.SetBaseline(ctx, hours)
		if err != nil {
			return err
		}
		return a.result(b, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "the baseline is of the last %g hours, with %s\n", b.Hours, count(len(b.Figures), "figure", "figures"))
			return err
		})
	}
	r, err := c.Regressions(ctx)
	if err != nil {
		return err
	}
	return a.result(r, func(w io.Writer) error { return printRegressions(w, r) })
}

func printRegressions(w io.Writer, r client.PerformanceRegressions) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	switch {
	case r.Checked == nil:
		fmt.Fprintln(t, "not looked at yet")
	case len(r.Regressions) == 0:
		fmt.Fprintf(t, "nothing is more than %.0f %% worse than before\n", 100*r.Threshold)
	default:
		fmt.Fprintln(t, "FIGURE\tAGAINST\tBEFORE\tNOW\tWORSE BY")
		for _, g := range r.Regressions {
			fmt.Fprintf(t, "%s\t%s\t%.4g\t%.4g\t%.0f %%\n", g.Metric, g.Against, g.Before, g.Now, g.Worse)
		}
	}
	for _, i := range r.Incidents {
		fmt.Fprintf(t, "%s  %s\n", i.Since.Local().Format("2006-01-02 15:04"), i.Message)
	}
	if r.BaselineAt == nil {
		fmt.Fprintln(t, `no baseline was taken: "ema regressions --set-baseline"`)
	}
	for _, name := range slices.Sorted(maps.Keys(r.NotJudged)) {
		fmt.Fprintf(t, "not judged: %s: %s\n", name, r.NotJudged[name])
	}
	return t.Flush()
}
