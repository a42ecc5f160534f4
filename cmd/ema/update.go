package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/model"
)

func updateCommand(a *app) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "update [MODEL...]",
		Short: "Fetch what the sources of models have that is newer",
		Long: "Asks the sources of the models, or of all that follow a branch, what that leads to now, says how much is to be fetched, and\n" +
			"fetches it beside what is here. When all of it is proven the branch leads to it, in one step; \"ema rollback\" takes that back.\n" +
			"Files that did not change are not fetched. With --check nothing is fetched.",
		Example:           "  ema update --check\n  ema update org/name\n  ema update && ema ls",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.update(cmd.Context(), args, check)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "only say what is newer, and how much is to be fetched")
	return cmd
}

func (a *app) update(ctx context.Context, args []string, check bool) error {
	s, err := a.store()
	if err != nil {
		return err
	}
	daemon, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	if found {
		defer daemon.Close()
	}
	kept, err := here(ctx, s, "update", args)
	if err != nil {
		return err
	}
	all := client.Updates{Updates: []client.ModelUpdate{}}
	var todo []followed
	for _, k := range kept {
		f, ok := follows(k.Model)
		if !ok && len(args) > 0 {
			return notFollowed("update", k.ID)
		}
		if !ok {
			continue
		}
		one, err := a.lookFor(ctx, daemon, f)
		if err != nil && (len(args) > 0 || ctx.Err() != nil) {
			return err
		}
		if err != nil { // of all, those that can be asked
			one = updateOf(f, answered{err: err}, turned{})
		}
		if all.Updates = append(all.Updates, one); one.Available != nil && *one.Available {
			todo = append(todo, f)
		}
	}
	if check || len(todo) == 0 {
		return a.result(all, func(w io.Writer) error { return printUpdates(w, all) })
	}
	if !a.json {
		if err := printUpdates(a.stderr, all); err != nil {
			return err
		}
	}
	return eachOf(ctx, a, todo, func(f followed) error { return a.updateOne(ctx, daemon, f) })
}

// lookFor asks the source of a model: the daemon does, where there is one.
func (a *app) lookFor(ctx context.Context, daemon *client.Client, f followed) (client.ModelUpdate, error) {
	if daemon != nil {
		u, err := daemon.LookForUpdate(ctx, f.id.String())
		if err != nil || len(u.Updates) == 0 {
			return client.ModelUpdate{}, err
		}
		return u.Updates[0], nil
	}
	l, err := a.line("ema update "+f.id.Public(), false, nil)
	if err != nil {
		return client.ModelUpdate{}, err
	}
	n, err := l.newest(ctx, f)
	return updateOf(f, answered{newer: n}, l.turned(f.id)), errors.Join(err, l.Close())
}

// updateOne fetches what is newer of one model, and prints its path.
func (a *app) updateOne(ctx context.Context, daemon *client.Client, f followed) (err error) {
	if daemon != nil {
		if _, err := daemon.ApplyUpdate(ctx, f.id.String()); err != nil {
			return err
		}
		return a.pullOne(ctx, f.request(), pullFlags{client: daemon})
	}
	l, err := a.line("ema update "+f.id.Public(), false, nil)
	if err != nil {
		return err
	}
	err = l.changeTurned(f.id, func(t *turned) { t.Skip = "" })
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	return a.pullOne(ctx, f.request(), pullFlags{})
}

func printUpdates(w io.Writer, all client.Updates) error {
	if len(all.Updates) == 0 {
		_, err := fmt.Fprintln(w, "no model that is here follows a branch")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODEL\tREVISION\tHERE\tNEWEST\tTO FETCH")
	for _, u := range all.Updates {
		newest, fetch := "?", "-"
		switch {
		case u.Error != "":
			fetch = u.Error
		case u.Available != nil && *u.Available:
			newest, fetch = fmt.Sprintf("%.12s", *u.Latest), model.Bytes(*u.DownloadMB*float64(model.MiB)).String()
		case u.Latest != nil:
			newest = "the same"
		}
		if u.RolledBack != "" && u.Latest != nil && u.RolledBack == *u.Latest {
			fetch += ", rolled back"
		}
		fmt.Fprintf(table, "%s\t%s\t%.12s\t%s\t%s\n", u.Model, u.Revision, u.Current, newest, fetch)
	}
	return table.Flush()
}

func rollbackCommand(a *app) *cobra.Command {
	var commit string
	cmd := &cobra.Command{
		Use:   "rollback MODEL",
		Short: "Take the update of a model back",
		Long: "Has the branch of a model lead to the commit before, or to the one that --to names, which must be here as a whole. It is\n" +
			"done in one step, and whoever has the files open keeps them. The commit that was rolled back stays here, and is not\n" +
			"fetched again by itself; \"ema update MODEL\" does.",
		Example:           "  ema rollback org/name\n  ema rollback org/name --to 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
		Args:              exactly(1, "name one model"),
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.rollback(cmd.Context(), args[0], commit)
		},
	}
	cmd.Flags().StringVar(&commit, "to", "", "the `COMMIT` to lead to; a part from its beginning is enough")
	return cmd
}

func (a *app) rollback(ctx context.Context, name, commit string) (err error) {
	id, err := model.ParseID(name)
	if err != nil {
		return &model.Error{Op: "roll back", Class: model.Usage, Err: err}
	}
	if commit != "" && !model.IsCommit(commit) {
		s, err := a.store()
		if err != nil {
			return err
		}
		m, err := s.Model(id)
		if err != nil {
			return named("roll back", err)
		}
		r, err := revision("roll back", m, commit)
		if err != nil {
			return err
		}
		commit = r.Commit
	}
	daemon, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	var back client.RolledBack
	if found {
		defer daemon.Close()
		back, err = daemon.RollBack(ctx, client.RollbackRequest{Model: id.String(), Commit: commit})
	} else {
		back, err = a.rollbackHere(ctx, id, commit)
	}
	if err != nil {
		return err
	}
	return a.result(back, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s (before: %.12s)\n", back.Message, back.From)
		return err
	})
}

// rollbackHere rolls back without a daemon.
func (a *app) rollbackHere(ctx context.Context, id model.ID, commit string) (back client.RolledBack, err error) {
	l, err := a.line("ema rollback "+id.Public(), true, nil)
	if err != nil {
		return back, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	w, done, err := a.own(ctx, l.Store, "ema rollback "+id.Public())
	if err != nil {
		return back, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return l.rollBack(ctx, w, id, commit)
}
