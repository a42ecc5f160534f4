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

	"ema/client"
	"ema/internal/health"
	"ema/internal/model"
	"ema/internal/store"
)

func healthCommand(a *app) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "health [MODEL...]",
		Short: "See how well models are, and what to do",
		Long: "Tells of the models, or of all that are here, how well they are: by their files as they are now, and by what reading them\n" +
			"has told. A daemon that runs is asked, since it remembers what its checks have found; else only the files are looked at.\n" +
			"With --check the daemon reads all bytes first; \"ema verify\" does so without one. The exit code is 4 when a model is corrupted.",
		Example:           "  ema health\n  ema health org/name --check",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := a.wellbeing(cmd.Context(), args, check)
			if err != nil {
				return err
			}
			if err := a.result(h, func(w io.Writer) error { return printHealth(w, h, len(args) > 0) }); err != nil {
				return err
			}
			if h.System.Corrupted == 0 {
				return nil
			}
			return &model.Error{
				Op: "see the health", Class: model.Integrity, Err: fmt.Errorf("%s corrupted", count(h.System.Corrupted, "model is", "models are")),
				Hint: `"ema repair MODEL" fetches again what is missing or damaged`,
			}
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "have the daemon read all bytes first, and wait for that")
	return cmd
}

// wellbeing is how well some models are, or all.
func (a *app) wellbeing(ctx context.Context, names []string, check bool) (client.ModelsHealth, error) {
	var ids []model.ID
	for _, name := range names {
		id, err := model.ParseID(name)
		if err != nil {
			return client.ModelsHealth{}, &model.Error{Op: "see the health", Class: model.Usage, Err: err}
		}
		ids = append(ids, id)
	}
	daemon, found, err := a.remote(ctx)
	if err != nil {
		return client.ModelsHealth{}, err
	}
	if !found {
		if check {
			return client.ModelsHealth{}, &model.Error{Op: "check", Class: model.Usage, Err: errors.New("no daemon runs that could check"), Hint: `"ema verify" reads all bytes without one`}
		}
		return a.wellbeingHere(ctx, ids)
	}
	defer daemon.Close()
	if check {
		if err := a.checked(ctx, daemon, ids); err != nil {
			return client.ModelsHealth{}, err
		}
	}
	all, err := daemon.ModelsHealth(ctx)
	if err != nil || ids == nil {
		return all, err
	}
	some := map[string]client.ModelHealth{}
	for _, id := range ids {
		one, known := all.Models[id.Public()]
		if !known {
			return all, &model.Error{Op: "see the health", Class: model.NotFound, Model: id, Err: errors.New("nothing of it is here"), Hint: `"ema ls" shows what is here`}
		}
		some[id.Public()] = one
	}
	return summed(some), nil
}

// summed are models with their sums.
func summed(models map[string]client.ModelHealth) client.ModelsHealth {
	h := client.ModelsHealth{Models: models}
	for _, m := range models {
		switch m.Overall {
		case client.ConditionHealthy:
			h.System.Healthy++
		case client.ConditionDegraded:
			h.System.Degraded++
		case client.ConditionCorrupted:
			h.System.Corrupted++
		default:
			h.System.Unknown++
		}
	}
	return h
}

// checked has a daemon read all bytes of some models, or of all, and waits until that is done.
func (a *app) checked(ctx context.Context, daemon *client.Client, ids []model.ID) error {
	var names []string
	for _, id := range ids {
		names = append(names, id.Public())
	}
	if ids == nil {
		all, err := daemon.ModelsHealth(ctx)
		if err != nil {
			return err
		}
		names = slices.Sorted(maps.Keys(all.Models))
	}
	begun := map[string]string{}
	for _, name := range names {
		b, err := daemon.CheckModel(ctx, name, client.CheckRequest{Kind: fullCheck, Force: true})
		if err != nil {
			return err
		}
		begun[name] = b.ID
	}
	for _, name := range names {
		for {
			h, err := daemon.ModelHealth(ctx, name)
			if err != nil {
				return err
			}
			if t := h.Check; t == nil || t.ID != begun[name] || t.State == client.TaskDone {
				break
			} else if t.State == client.TaskFailed {
				return &model.Error{Op: "check", Err: fmt.Errorf("%s: %s", name, t.Error)}
			}
			if err := pause(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// wellbeingHere is how well models are without a daemon, by their files alone.
func (a *app) wellbeingHere(ctx context.Context, ids []model.ID) (client.ModelsHealth, error) {
	s, err := a.store()
	if err != nil {
		return client.ModelsHealth{}, err
	}
	e, err := a.settings()
	if err != nil {
		return client.ModelsHealth{}, err
	}
	var found []store.Model
	if ids == nil {
		if found, err = s.Models(ctx); err != nil {
			return client.ModelsHealth{}, err
		}
	}
	for _, id := range ids {
		m, err := s.Model(id)
		if err != nil {
			return client.ModelsHealth{}, named("see the health", err)
		}
		found = append(found, m)
	}
	models, now := map[string]client.ModelHealth{}, time.Now()
	for _, m := range found {
		f, j := factsOf(s, m, nil, nil)
		f.Interval, f.Now = e.Health.ScrubIntervalHours.Duration(), now
		p := chart{looked: now, judged: j, verdict: health.Judge(shellWord(m.ID.Public()), f)}
		models[m.ID.Public()] = p.tell(m.ID)
	}
	return summed(models), nil
}

// printHealth prints a line about each model, and of those that are not well, or that were named, what is wrong and what to do.
func printHealth(w io.Writer, h client.ModelsHealth, named bool) error {
	if len(h.Models) == 0 {
		_, err := fmt.Fprintln(w, "no models are here")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODEL\tHEALTH\tSCORE\tLAST READ")
	score := func(s *float64) string {
		if s == nil {
			return "-"
		}
		return fmt.Sprintf("%.0f %%", 100**s)
	}
	for _, name := range slices.Sorted(maps.Keys(h.Models)) {
		m := h.Models[name]
		read := "never"
		if m.LastFullCheck != nil {
			read = m.LastFullCheck.Local().Format("2006-01-02 15:04")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, m.Overall, score(m.HealthScore), read)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(h.Models)) {
		m := h.Models[name]
		if m.Overall == client.ConditionHealthy && !named || len(m.Issues)+len(m.Recommendations) == 0 {
			continue
		}
		lines := []string{"", name + ":"}
		for _, issue := range m.Issues {
			lines = append(lines, "  "+issue)
		}
		for _, what := range m.Recommendations {
			lines = append(lines, "  -> "+what)
		}
		if _, err := fmt.Fprintln(w, strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	return nil
}
