package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/ledger"
	"ema/internal/model"
)

// usage is what "ema usage" is asked.
type usage struct {
	client.AnalyticsQuery
	csv, cleanup, preload, performance bool
	most                               float64
}

func usageCommand(a *app) *cobra.Command {
	var u usage
	cmd := &cobra.Command{
		Use:   "usage [MODEL...]",
		Short: "See how models were used, when, and what follows from that",
		Long: "Tells how often models were used, how long that took, and at which hours of the day: the most used ones, or those that are\n" +
			"named. Uses are noticed by the daemon, or told to it by programs; nothing leaves the machine. --performance tells which models\n" +
			"became slower, --cleanup which could go, --preload which will be wanted soon: these need a daemon that runs.",
		Example:           "  ema usage\n  ema usage --period week --timezone Europe/Berlin\n  ema usage org/name --from 2026-03-01 --csv > usage.csv\n  ema usage --cleanup",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.usage(cmd.Context(), args, u)
		},
	}
	f := cmd.Flags()
	f.StringVar(&u.Period, "period", "", "the last `day`, week, month or year, today included (default: month)")
	f.StringVar(&u.From, "from", "", "the first `DAY`, as in 2026-03-29, instead of a period")
	f.StringVar(&u.To, "to", "", "the last `DAY` (default: today)")
	f.StringVar(&u.Zone, "timezone", "", "`ZONE` whose days and hours are meant, such as Europe/Berlin (default: the machine's)")
	f.IntVar(&u.Limit, "limit", 0, "how many `models` are told of (default: 100)")
	f.BoolVar(&u.csv, "csv", false, "a line for each model and day, as CSV")
	f.BoolVar(&u.performance, "performance", false, "which models became faster or slower")
	f.BoolVar(&u.cleanup, "cleanup", false, "which models could go")
	f.Float64Var(&u.most, "target-gb", 0, "with --cleanup: what models may take, in `GiB`")
	f.BoolVar(&u.preload, "preload", false, "which models will be wanted soon")
	cmd.MarkFlagsMutuallyExclusive("performance", "cleanup", "preload", "csv")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("period", cobra.FixedCompletions([]string{"day", "week", "month", "year"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func (a *app) usage(ctx context.Context, names []string, u usage) error {
	ids := make([]model.ID, len(names))
	for i, name := range names {
		id, err := model.ParseID(name)
		if err != nil {
			return &model.Error{Op: "see the uses", Class: model.Usage, Err: err}
		}
		ids[i] = id
	}
	daemon, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	if found {
		defer daemon.Close()
	}
	if u.cleanup || u.preload || u.performance {
		if !found {
			return &model.Error{Op: "see the uses", Class: model.Usage, Err: errors.New("no daemon runs that knows"), Hint: `start one: "ema serve"`}
		}
		return a.conclusions(ctx, daemon, u)
	}
	if u.csv && len(ids) > 0 {
		return &model.Error{Op: "see the uses", Class: model.Usage, Err: errors.New("--csv is about all models"), Hint: "leave the models out"}
	}
	if u.csv && found {
		return daemon.ExportAnalytics(ctx, u.AnalyticsQuery, a.stdout)
	}
	ask := func(ctx context.Context, model string) (client.Analytics, error) {
		return daemon.Analytics(ctx, model, u.AnalyticsQuery)
	}
	if !found {
		if ask, err = a.usageHere(u); err != nil {
			return err
		}
	}
	all := client.Analytics{Models: map[string]client.ModelAnalytics{}}
	if len(ids) == 0 {
		ids = append(ids, model.ID{})
	}
	for _, id := range ids {
		name := ""
		if !id.IsZero() {
			name = id.Public()
		}
		one, err := ask(ctx, name)
		if err != nil {
			return err
		}
		for name, m := range one.Models {
			all.Models[name] = m
		}
		all.Summary = one.Summary
	}
	if len(ids) > 1 { // each of the others was about one alone
		all.Summary = together(all)
	}
	if u.csv {
		return usageCSV(a.stdout, all)
	}
	return a.result(all, func(w io.Writer) error { return printUsage(w, all) })
}

// together sums up the models of an answer.
func together(a client.Analytics) client.AnalyticsSummary {
	s := client.AnalyticsSummary{From: a.Summary.From, To: a.Summary.To, Zone: a.Summary.Zone}
	var failures int64
	for _, m := range mostUsed(a) {
		if m.Uses == 0 {
			continue
		}
		s.Models++
		s.Uses += m.Uses
		failures += m.Failures
		if s.Most == nil {
			s.Most = new(m.Model)
		}
		s.Least = new(m.Model)
	}
	if s.Uses > 0 {
		s.SuccessRate = new(float64(s.Uses-failures) / float64(s.Uses))
	}
	return s
}

// mostUsed are the models of an answer, the most used first.
func mostUsed(a client.Analytics) []client.ModelAnalytics {
	all := make([]client.ModelAnalytics, 0, len(a.Models))
	for _, m := range a.Models {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b client.ModelAnalytics) int {
		return cmp.Or(cmp.Compare(b.Uses, a.Uses), cmp.Compare(a.Model, b.Model))
	})
	return all
}

// usageHere asks the database without a daemon.
func (a *app) usageHere(u usage) (func(context.Context, string) (client.Analytics, error), error) {
	question, err := questionOf(u.AnalyticsQuery, time.Now())
	if err != nil {
		return nil, &model.Error{Op: "see the uses", Class: model.Usage, Err: err}
	}
	limit := cmp.Or(u.Limit, 100)
	if u.csv {
		question.Daily, limit = question.First.Until(question.Last)+1, math.MaxInt32
	}
	path, address, err := a.database()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, name string) (all client.Analytics, err error) {
		db, err := openDatabase(ctx, path, address)
		if err != nil {
			return all, err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		if name != "" {
			id, err := model.ParseID(name)
			if err != nil {
				return all, err
			}
			question.Models = []model.ID{id}
		}
		return usageOf(ctx, db, question, limit, 0)
	}, nil
}

// questionOf is what a query means now.
func questionOf(q client.AnalyticsQuery, now time.Time) (ledger.UsageQuestion, error) {
	zone := now.Location()
	if q.Zone != "" {
		var err error
		if zone, err = time.LoadLocation(q.Zone); err != nil {
			return ledger.UsageQuestion{}, fmt.Errorf("there is no time zone %q; name one as Europe/Berlin", q.Zone)
		}
	}
	all := ledger.UsageQuestion{Zone: zone, Last: ledger.DateOf(now.In(zone)), Daily: 30}
	days, known := map[string]int{"day": 1, "week": 7, "": 30, "month": 30, "year": 365}[q.Period]
	if !known {
		return all, fmt.Errorf("there is no period %q; want day, week, month or year", q.Period)
	}
	for text, to := range map[*string]*ledger.Date{&q.To: &all.Last, &q.From: &all.First} {
		if *text == "" {
			continue
		}
		t, err := time.Parse(time.DateOnly, *text)
		if err != nil {
			return all, fmt.Errorf("%q is no day; want one as in 2026-03-29", *text)
		}
		*to = ledger.DateOf(t)
	}
	if q.From == "" {
		all.First = all.Last.Add(1 - days)
	}
	return all, nil
}

func usageCSV(w io.Writer, a client.Analytics) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"model_id", "date", "uses", "avg_time_seconds"}}
	for _, m := range mostUsed(a) {
		for _, d := range m.Days {
			taken := ""
			if d.AverageTime != nil {
				taken = strconv.FormatFloat(*d.AverageTime, 'g', 6, 64)
			}
			rows = append(rows, []string{m.Model, d.Date, strconv.FormatInt(d.Uses, 10), taken})
		}
	}
	return out.WriteAll(rows)
}

// perhaps is a figure in some form, or a dash when nobody knows it.
func perhaps(v *float64, form string, times float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(form, *v*times)
}

func printUsage(w io.Writer, a client.Analytics) error {
	s := a.Summary
	if s.Uses == 0 && len(a.Models) == 0 {
		_, err := fmt.Fprintf(w, "no uses from %s to %s\n", s.From, s.To)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODEL\tUSES\tPER DAY\tSUCCEEDED\tSECONDS\tBUSY AT")
	for _, m := range mostUsed(a) {
		hours := make([]string, len(m.Peaks))
		for i, h := range slices.Sorted(slices.Values(m.Peaks)) {
			hours[i] = fmt.Sprintf("%d", h)
		}
		busy := "-"
		if len(hours) > 0 {
			busy = strings.Join(hours, ", ") + " h"
		}
		fmt.Fprintf(table, "%s\t%d\t%.1f\t%s\t%s\t%s\n", m.Model, m.Uses, m.PerDay, perhaps(m.SuccessRate, "%.1f %%", 100), perhaps(m.AverageTime, "%.2f", 1), busy)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s of %s from %s to %s (%s)\n", count(int(s.Uses), "use", "uses"), count(s.Models, "model", "models"), s.From, s.To, s.Zone)
	return err
}

// conclusions prints what follows from the uses.
func (a *app) conclusions(ctx context.Context, daemon *client.Client, u usage) error {
	switch {
	case u.cleanup:
		advice, err := daemon.CleanupAdvice(ctx, u.most)
		if err != nil {
			return err
		}
		return a.result(advice, func(w io.Writer) error {
			table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			for _, r := range advice.Recommendations {
				fmt.Fprintf(table, "%s\t%s\t%.0f %% sure\t%s\n", r.Model, model.Bytes(r.SizeMB*float64(model.MiB)), 100*r.Confidence, r.Reason)
			}
			if err := table.Flush(); err != nil {
				return err
			}
			_, err := fmt.Fprintf(w, "%s could be freed of %s\n", model.Bytes(advice.SavingsGB*float64(model.GiB)), model.Bytes(advice.CurrentGB*float64(model.GiB)))
			return err
		})
	case u.preload:
		advice, err := daemon.PreloadAdvice(ctx, u.Zone)
		if err != nil {
			return err
		}
		return a.result(advice, func(w io.Writer) error {
			if len(advice.Suggestions) == 0 {
				_, err := fmt.Fprintln(w, "no model that is not near is likely to be wanted within three hours")
				return err
			}
			for _, s := range advice.Suggestions {
				if _, err := fmt.Fprintf(w, "%s: %s, %.0f %% sure\n  -> %s\n", s.Model, s.Reason, 100*s.Confidence, s.Action); err != nil {
					return err
				}
			}
			return nil
		})
	}
	trends, err := daemon.Performance(ctx)
	if err != nil {
		return err
	}
	return a.result(trends, func(w io.Writer) error { return printPerformance(w, trends) })
}

func printPerformance(w io.Writer, p client.PerformanceTrends) error {
	names := make([]string, 0, len(p.Models))
	for name := range p.Models {
		names = append(names, name)
	}
	slices.Sort(names)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODEL\tTREND\tSCORE\t7 DAYS\t30 DAYS")
	for _, name := range names {
		t := p.Models[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", name, t.Trend, perhaps(t.Score, "%.0f %%", 100), perhaps(t.Lately, "%.2f s", 1), perhaps(t.Month, "%.2f s", 1))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, name := range names {
		t := p.Models[name]
		for _, line := range slices.Concat(t.Issues, t.Recommendations) {
			if _, err := fmt.Fprintf(w, "%s: %s\n", name, line); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "downloads: %s succeed, %s MiB/s; full checks: %s find the model well\n",
		perhaps(p.System.Downloads, "%.1f %%", 100), perhaps(p.System.DownloadMBps, "%.1f", 1), perhaps(p.System.HealthSuccess, "%.1f %%", 100))
	return err
}
