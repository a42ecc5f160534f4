package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/internal/model"
	"ema/internal/store"
)

func gcCommand(a *app) *cobra.Command {
	var dryRun bool
	var olderThan time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what nobody needs any more, and say first what that frees",
		Long: "Removes contents that no revision uses, files of pulls that were interrupted, and what a crash has left, and makes one\n" +
			"file of equal contents of different models, where the file system gives a file several names. No model that\n" +
			"\"ema ls\" shows as available is touched, and nothing that is being fetched now. Files of interrupted pulls stay as long as\n" +
			"cache_optimization.download_cache says, and those of downloads that wait in the daemon's queue always.",
		Example: "  ema gc --dry-run\n  ema gc --older-than 1h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if olderThan < 0 {
				return &model.Error{Op: "gc", Class: model.Usage, Err: errors.New("--older-than is negative")}
			}
			s, err := a.store()
			if err != nil {
				return err
			}
			e, err := a.settings()
			if err != nil {
				return err
			}
			rule := partialRuleOf(e.Config)
			if cmd.Flags().Changed("older-than") {
				rule.age = olderThan
			}
			plan := func() (store.Removal, error) {
				r, err := a.garbage(cmd.Context(), s, olderThan, rule)
				if err == nil && !a.json {
					err = a.print(func(w io.Writer) error { return printCollection(w, r) })
				}
				return r, err
			}
			return a.remove(cmd.Context(), s, removing{command: "ema gc", name: "all models", plan: plan, dryRun: dryRun, share: true})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would go")
	cmd.Flags().DurationVar(&olderThan, "older-than", 24*time.Hour, "only what has not changed for so long, e.g. 90m, 24h (files of interrupted pulls: as configured)")
	return cmd
}

// garbage is what nobody needs: files of interrupted pulls by their own rule, which the settings make, all else by its age.
func (a *app) garbage(ctx context.Context, s *store.Store, olderThan time.Duration, rule partialRule) (store.Removal, error) {
	waits, err := a.waited(ctx, s)
	if err != nil {
		return store.Removal{}, err
	}
	return collectable(s, olderThan, rule, waits)
}

// collectable is that, but for the models that a download waits for.
func collectable(s *store.Store, olderThan time.Duration, rule partialRule, waits map[model.ID]bool) (store.Removal, error) {
	r, err := s.PlanCollect(olderThan, time.Now())
	if err != nil {
		return r, err
	}
	partials, err := rule.plan(s, waits)
	return sparing(r.WithPartials(partials), waits), err
}

// printCollection is a table of what goes, without the checksums that go with it.
func printCollection(w io.Writer, r store.Removal) error {
	if len(r.Items) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KIND\tMODEL\tNAME\tSIZE")
	for _, d := range r.Items {
		if d.Kind == store.KindSidecar {
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%.16s\t%s\n", d.Kind, d.Model.Public(), d.Name, d.Bytes)
	}
	return t.Flush()
}
