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
	"ema/internal/api"
	"ema/internal/model"
)

func fallbackCommand(a *app) *cobra.Command {
	ask := client.FallbackRequest{}
	var wait bool
	cmd := &cobra.Command{
		Use:   "fallback MODEL",
		Short: "See which models could stand in for another one",
		Long: "Suggests models that are here and could stand in for one that is not, by descent, architecture, parameters, precision, name,\n" +
			"library and licence, as far as these are known on this machine: nobody is asked. With --wait it waits until the model\n" +
			"itself is available, which needs a daemon.",
		Example:           "  ema fallback org/name\n  ema fallback org/name --wait && ./serve",
		Args:              exactly(1, "name one model"),
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := model.ParseID(args[0])
			if err != nil {
				return &model.Error{Op: "find fallbacks", Class: model.Usage, Err: err}
			}
			if wait {
				return a.awaitModel(cmd.Context(), id)
			}
			ask.Model = id.String()
			return a.fallback(cmd.Context(), id, ask)
		},
	}
	f := cmd.Flags()
	f.IntVar(&ask.Most, "most", 5, "how many `models` are suggested")
	f.StringVar(&ask.Task, "task", "", "only models for this `task`, such as text-generation (default: the model's)")
	f.Float64Var(&ask.MaxSizeGB, "max-size-gb", 0, "only models up to so many `GiB`")
	f.BoolVar(&ask.AlsoAway, "all", false, "also models that are on their way, and will be here sooner")
	f.BoolVar(&wait, "wait", false, "wait until the model is available")
	return cmd
}

func (a *app) fallback(ctx context.Context, id model.ID, ask client.FallbackRequest) error {
	if ask.Most < 1 || ask.Most > 100 {
		return &model.Error{Op: "find fallbacks", Class: model.Usage, Err: errors.New("--most is a number from 1 to 100")}
	}
	daemon, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	var all client.Fallbacks
	if found {
		defer daemon.Close()
		all, err = daemon.SuggestFallbacks(ctx, ask)
	} else {
		all, err = a.fallbackHere(ctx, id, ask)
	}
	if err != nil {
		return err
	}
	return a.result(all, func(w io.Writer) error { return printFallbacks(w, all) })
}

// fallbackHere finds them without a daemon.
func (a *app) fallbackHere(ctx context.Context, id model.ID, ask client.FallbackRequest) (all client.Fallbacks, err error) {
	l, err := a.line("ema fallback", true, nil)
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w := api.Wanted{Model: id, Most: ask.Most, AlsoAway: ask.AlsoAway, Task: ask.Task, MaxSize: model.Bytes(ask.MaxSizeGB * float64(model.GiB))}
	return l.suggest(ctx, w, map[model.ID]readFacts{}, func(model.ID) (string, *time.Duration) { return client.AvailabilityMissing, nil })
}

func printFallbacks(w io.Writer, all client.Fallbacks) error {
	if len(all.Suggestions) == 0 {
		_, err := fmt.Fprintf(w, "%s: no model that is here could stand in for it, as far as is known\n", all.Model)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODEL\tFITS\tSTATUS\tSIZE\tWHY")
	for _, s := range all.Suggestions {
		why := ""
		if len(s.Reasons) > 0 {
			why = s.Reasons[0]
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Model, sure(s.Score), s.Status, model.Bytes(s.SizeMB*float64(model.MiB)), why)
	}
	return table.Flush()
}

// awaitModel waits until a model is available.
func (a *app) awaitModel(ctx context.Context, id model.ID) error {
	daemon, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	if !found {
		return &model.Error{Op: "wait for a model", Class: model.Usage, Model: id, Err: errors.New("no daemon runs that could bring it"), Hint: "ema pull " + shellWord(id.Public())}
	}
	defer daemon.Close()
	for {
		s, err := daemon.Status(ctx, id.String())
		if err == nil && s.IsAvailable {
			return a.result(s, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, s.Path)
				return err
			})
		}
		if err != nil && model.ClassOf(err) != model.NotFound {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
}
