package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/api/snapshot"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

func tierMove(a *app) *cobra.Command {
	var stop bool
	cmd := &cobra.Command{
		Use:   "move MODEL hot|warm|cold",
		Short: "Move a model to another tier",
		Long: "Moves all of a model to a tier. Each file is copied, verified and then exchanged in one step, so that the model can be\n" +
			"used all the while, and its path stays. With a daemon Ctrl-C only stops watching; --cancel gives the move up. What was\n" +
			"moved until then stays moved.",
		Example: "  ema tier move org/name cold\n  ema tier move org/name --cancel",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case stop && len(args) != 1:
				return fmt.Errorf("name the model alone to give up its move; see \"%s --help\"", cmd.CommandPath())
			case !stop && len(args) != 2:
				return fmt.Errorf("name a model and a tier, e.g. org/name cold; see \"%s --help\"", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeHere(cmd, args, typed)
			}
			var names []cobra.Completion
			for _, t := range model.Tiers() {
				names = append(names, string(t))
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := wholeModel("move", args[0])
			if err != nil {
				return err
			}
			if stop {
				return a.stopMove(cmd.Context(), id)
			}
			to, err := model.ParseTier(args[1])
			if err != nil {
				return &model.Error{Op: "move", Class: model.Usage, Model: id, Err: err}
			}
			return a.move(cmd.Context(), id, to)
		},
	}
	cmd.Flags().BoolVar(&stop, "cancel", false, "give up the move that is under way")
	return cmd
}

// move brings a model to a tier: the daemon does, or this process.
func (a *app) move(ctx context.Context, id model.ID, to model.Tier) error {
	c, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	var m client.ModelMove
	if found {
		m, err = a.moveRemote(ctx, c, id, to)
	} else {
		m, err = a.moveHere(ctx, id, to)
	}
	if err != nil {
		return err
	}
	return a.result(m, func(w io.Writer) error {
		text := "is in the " + m.To + " tier already"
		if n := model.Bytes(m.MovedBytes); n > 0 {
			text = fmt.Sprintf("moved to the %s tier, %s in %s", m.To, n, duration(time.Since(begun)))
		}
		_, err := fmt.Fprintf(w, "%s: %s\n", m.Model, text)
		return err
	})
}

// moveRemote has the daemon move a model, and shows how that stands until it is over.
func (a *app) moveRemote(ctx context.Context, c *client.Client, id model.ID, to model.Tier) (client.ModelMove, error) {
	events, err := c.Events(ctx, client.Interest{Model: id.String()}) // before it begins, so that nothing is missed
	if err != nil {
		return client.ModelMove{}, err
	}
	begun, err := c.MoveModel(ctx, client.MoveRequest{Model: id.String(), Tier: string(to)})
	if err != nil {
		return client.ModelMove{}, errors.Join(err, events.Close())
	}
	m := begun.ModelMove
	if m.Over() {
		return m, errors.Join(moveFailure(id, m), events.Close())
	}
	show := a.watchMove(id)
	if begun.Existing {
		show.say(begun.Message)
	}
	show.start()
	show.moving(m)
	m, err = followMove(ctx, c, events, id, m, show)
	show.stop()
	if ctx.Err() != nil {
		return m, &model.Error{
			Op: "move", Class: model.Cancelled, Model: id, Err: errors.New("no longer watched, but it goes on moving in the daemon"),
			Hint: fmt.Sprintf("see it with \"ema tier\", cancel it with \"ema tier move %s --cancel\"", shellWord(id.Public())),
		}
	}
	if err != nil {
		return m, fmt.Errorf("move %s: %w; see how it stands with \"ema tier\"", id.Public(), err)
	}
	return m, moveFailure(id, m)
}

// followMove shows a move until it is over. It closes events.
func followMove(ctx context.Context, c *client.Client, events *client.Events, id model.ID, m client.ModelMove, show *remoteProgress) (client.ModelMove, error) {
	defer func() { events.Close() }() // nothing is lost by it
	for !m.Over() {
		e, err := events.Next()
		if err != nil {
			// Whoever is slow to read is cut off, which is no reason to give up while there is a daemon.
			again, gone := c.Events(ctx, client.Interest{Model: id.String()})
			if gone != nil {
				return m, err
			}
			events.Close() // nothing is lost by it
			events = again
			if m, err = standing(ctx, c, m); err != nil {
				return m, err
			}
			show.moving(m)
			continue
		}
		if e.Move == nil {
			continue
		}
		m.To, m.State, m.ProgressPercent = e.Move.To, e.Move.State, e.Move.ProgressPercent
		m.MovedBytes, m.TotalBytes, m.Error = e.Move.MovedBytes, e.Move.TotalBytes, e.Move.Error
		show.moving(m)
	}
	return m, nil
}

// standing is how a move stands of which events were missed. When it is over, where the model lies says how it went.
func standing(ctx context.Context, c *client.Client, m client.ModelMove) (client.ModelMove, error) {
	s, err := c.Storage(ctx)
	if err != nil {
		return m, err
	}
	for _, now := range s.Moves {
		if now.Model == m.Model {
			return now, nil
		}
	}
	m.State, m.Error = client.MoveFailed, "it is over and has not brought all of the model there"
	for _, one := range s.Models {
		if one.Model == m.Model && one.Tier == m.To && one.TierBytes == nil {
			m.State, m.Error, m.MovedBytes = client.MoveDone, "", m.TotalBytes
		}
	}
	return m, nil
}

// moveFailure is why a move that is over has not brought its model there; nil when it has.
func moveFailure(id model.ID, m client.ModelMove) error {
	switch m.State {
	case client.MoveFailed:
		return &model.Error{Op: "move", Model: id, Err: errors.New(m.Error), Hint: "what was moved stays moved, and the model can be used as before"}
	case client.MoveCancelled:
		return &model.Error{Op: "move", Model: id, Err: errors.New("somebody has given it up"), Hint: "what was moved stays moved, and the model can be used as before"}
	}
	return nil
}

// stopMove gives up a move.
func (a *app) stopMove(ctx context.Context, id model.ID) error {
	c, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	var done client.Moved
	if found {
		done, err = c.MoveModel(ctx, client.MoveRequest{Model: id.String(), Cancel: true})
	} else {
		done, err = a.abandonHere(ctx, id)
	}
	if err != nil {
		return err
	}
	return a.result(done, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, done.Message)
		return err
	})
}

// abandonHere gives up a move that was stopped half way, in a store that no daemon has.
func (a *app) abandonHere(ctx context.Context, id model.ID) (done client.Moved, failed error) {
	s, err := a.store()
	if err != nil {
		return done, err
	}
	w, leave, err := a.own(ctx, s, "ema tier move")
	if err != nil {
		return done, err
	}
	defer func() { failed = errors.Join(failed, leave()) }()
	stopped, err := s.Resume()
	if err != nil {
		return done, err
	}
	for _, u := range stopped {
		if u.ID != id {
			continue
		}
		if err := w.Abandon(id); err != nil {
			return done, err
		}
		m := client.ModelMove{Model: id.Public(), To: string(u.To), State: client.MoveCancelled}
		return client.Moved{Success: true, Message: m.Model + ": its move is given up", ModelMove: m}, nil
	}
	return done, &model.Error{Op: "cancel the move of", Class: model.NotFound, Model: id, Err: errors.New("it is not being moved"), Hint: `see what is with "ema tier"`}
}

// moveHere moves a model in this process.
func (a *app) moveHere(ctx context.Context, id model.ID, to model.Tier) (m client.ModelMove, failed error) {
	s, err := a.store()
	if err != nil {
		return m, err
	}
	if _, err := s.Model(id); err != nil { // before we wait for anybody
		return m, named("move", err)
	}
	w, done, err := a.own(ctx, s, "ema tier move "+id.Public())
	if err != nil {
		return m, err
	}
	defer func() { failed = errors.Join(failed, done()) }()
	here, err := s.Model(id)
	if err != nil {
		return m, named("move", err)
	}
	left := here.Size - here.Tiers[to]
	if err := a.allowed(ctx, s, id, to, left); err != nil {
		return m, err
	}
	m = client.ModelMove{Model: id.Public(), From: string(snapshot.Mostly(here.Tiers)), To: string(to), State: client.MoveMoving, TotalBytes: int64(left)}
	show := a.watchMove(id)
	show.start()
	show.moving(m)
	e, err := a.settings()
	if err != nil {
		return m, err
	}
	var moved store.Moved
	threads := host.NewThreads(func(problem string) { fmt.Fprintln(a.stderr, "ema: note: "+problem) })
	err = threads.NewPool("moves", 1, host.Class{}).DoAt(ctx, slower(e.StorageTiers, snapshot.Mostly(here.Tiers), to), func(ctx context.Context) (err error) {
		moved, err = w.Move(ctx, id, to, store.Moving{Progress: func(n int64) {
			show.progress.progress.Written.Add(n)
			show.progress.progress.Received.Add(n)
		}})
		return err
	})
	show.stop()
	if ctx.Err() != nil && model.ClassOf(err) == model.Cancelled {
		return m, &model.Error{
			Op: "move", Class: model.Cancelled, Model: id, Err: errors.New("stopped half way, and can be used as before"), Hint: "go on with: " + moveLine(id, to),
		}
	}
	if err != nil {
		return m, err
	}
	m.State, m.ProgressPercent, m.MovedBytes, m.TotalBytes = client.MoveDone, 100, int64(moved.Bytes), int64(moved.Bytes)
	return m, nil
}

// allowed refuses a move by which a tier's models would take more than they may.
func (a *app) allowed(ctx context.Context, s *store.Store, id model.ID, to model.Tier, more model.Bytes) error {
	e, err := a.settings()
	if err != nil {
		return err
	}
	most := largest(e.StorageTiers, to)
	if most == 0 || more == 0 {
		return nil
	}
	models, err := s.Models(ctx)
	if err != nil {
		return err
	}
	var held model.Bytes
	for _, m := range models {
		held += m.Tiers[to]
	}
	return overfull(id, to, held, more, most)
}

// overfull refuses more bytes in a tier than it may hold.
func overfull(id model.ID, to model.Tier, held, more, most model.Bytes) error {
	if short := held + more - most; short > 0 {
		return &model.Error{
			Op: "move", Class: model.DiskFull, Model: id, Short: short,
			Err:  fmt.Errorf("the %s tier holds %s of the %s that it may, so %s more are %s too much", to, held, most, more, short),
			Hint: fmt.Sprintf("move something else away, or raise storage_tiers.%s.max_size_gb", to),
		}
	}
	return nil
}

// watchMove makes the progress of a move.
func (a *app) watchMove(id model.ID) *remoteProgress {
	r := &remoteProgress{progress: a.watch(id)}
	r.stageNow = r.stage.get
	return r
}

// moving shows how a move stands.
func (r *remoteProgress) moving(m client.ModelMove) {
	stage := "waiting"
	if m.State == client.MoveMoving {
		stage = "moving"
	}
	p := r.progress.progress
	r.stage.set(pipeline.Stage{Name: stage, Bytes: model.Bytes(m.TotalBytes)})
	p.Written.Store(m.MovedBytes)
	p.Received.Store(m.MovedBytes)
}
