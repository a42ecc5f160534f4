package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/model"
)

func optimizationsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "optimizations",
		Short: "See which settings the daemon has changed to go faster, and take them back",
		Long: "Lists the settings that the daemon has changed by itself, why, and what was measured, and what may help besides. It changes\n" +
			"settings only with monitoring.auto_apply; else it recommends. What somebody has set is never changed.",
		Example: "  ema optimizations\n  ema config set monitoring.auto_apply true\n  ema optimizations undo 7",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.optimizations(cmd.Context()) },
	}
	cmd.AddCommand(&cobra.Command{
		Use: "undo ID", Short: "Put a setting back as it was before the daemon changed it",
		Long: "Puts a setting back exactly as it was before the daemon changed it, and keeps the daemon from trying that again for 90 days. What\n" +
			"somebody has changed since stays, and that is an error.",
		Example: "  ema optimizations undo 7",
		Args:    exactly(1, `name one change by its id; "ema optimizations" lists them`),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.undoOptimization(cmd.Context(), args[0]) },
	})
	return cmd
}

// tuner is the daemon, which these commands need.
func (a *app) tuner(ctx context.Context) (*client.Client, error) {
	daemon, found, err := a.remote(ctx)
	if err == nil && !found {
		err = &model.Error{Op: "ask what was optimized", Class: model.Usage, Err: errors.New("no daemon runs on this store, and only one changes settings by itself"), Hint: "start one with ema serve"}
	}
	return daemon, err
}

func (a *app) optimizations(ctx context.Context) error {
	daemon, err := a.tuner(ctx)
	if err != nil {
		return err
	}
	defer daemon.Close()
	all, err := daemon.Optimizations(ctx)
	if err != nil {
		return err
	}
	return a.result(all, func(w io.Writer) error { return printOptimizations(w, all) })
}

func printOptimizations(w io.Writer, all client.Optimizations) error {
	if !all.AutoApply {
		fmt.Fprintln(w, "monitoring.auto_apply is off: nothing is changed by itself")
	} else if len(all.Optimizations) == 0 {
		fmt.Fprintln(w, "nothing was changed so far")
	}
	if len(all.Optimizations) > 0 {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tSETTING\tFROM\tTO\tSTATUS\tSINCE\tEFFECT\tWHY")
		for _, o := range all.Optimizations {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.ID, o.Setting, o.From, o.To, o.Status, o.Since.Local().Format(time.DateTime), effect(o), o.Why)
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	for _, r := range all.Recommendations {
		fmt.Fprintf(w, "\n%s: set %s from %s to %s\n  %s\n", r.Reason, r.Setting, r.Current, r.Advised, r.Command)
		if r.Held != "" {
			fmt.Fprintf(w, "  not done by itself: %s\n", r.Held)
		}
	}
	return nil
}

// effect is what a change has brought.
func effect(o client.Optimization) string {
	if o.Better == nil {
		return "-"
	}
	return fmt.Sprintf("%+.0f %%", *o.Better)
}

func (a *app) undoOptimization(ctx context.Context, id string) error {
	daemon, err := a.tuner(ctx)
	if err != nil {
		return err
	}
	defer daemon.Close()
	done, err := daemon.UndoOptimization(ctx, id)
	if err != nil {
		return err
	}
	return a.result(done, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, done.Message)
		return err
	})
}
