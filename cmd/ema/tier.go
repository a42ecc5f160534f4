package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/api/snapshot"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/store"
)

// ledgerFile is the database in the store's state folder.
const ledgerFile = "ema.db"

func tierCommand(a *app) *cobra.Command {
	status := func(cmd *cobra.Command, _ []string) error { return a.tierStatus(cmd.Context()) }
	cmd := &cobra.Command{
		Use:   "tier",
		Short: "See and change in which storage tier models lie",
		Long: "Shows the storage tiers, and the models that are on their way from one to another. A model can be used wherever it\n" +
			"lies, and all the while it moves: its path stays the same.",
		Example: "  ema tier\n  ema tier move org/name cold\n  ema tier pin org/name",
		Args:    noSuchCommand,
		RunE:    status,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "status", Short: "Show the storage tiers and what moves", Example: "  ema tier status --json",
			RunE: status,
		},
		tierMove(a),
		tierPin(a, "pin", "Keep models where they are", "What is pinned is never moved or removed by itself. People can still do both.", true),
		tierPin(a, "unpin", "Let pinned models loose", "They are moved and removed by the rules again.", false),
	)
	return cmd
}

// A tierListing is what ema tier tells.
type tierListing struct {
	Tiers []client.TierStorage `json:"tiers"`
	Moves []client.ModelMove   `json:"moves"`
}

func (a *app) tierStatus(ctx context.Context) error {
	c, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	var l tierListing
	if found {
		s, err := c.Storage(ctx)
		if err != nil {
			return err
		}
		l = tierListing{s.Tiers, s.Moves}
	} else if l, err = a.tiersHere(ctx); err != nil {
		return err
	}
	return a.result(l, l.print)
}

// tiersHere is the listing of a store that no daemon has.
func (a *app) tiersHere(ctx context.Context) (tierListing, error) {
	l := tierListing{Tiers: []client.TierStorage{}, Moves: []client.ModelMove{}}
	s, err := a.store()
	if err != nil {
		return l, err
	}
	models, err := s.Models(ctx)
	if err != nil {
		return l, err
	}
	held, count := map[model.Tier]model.Bytes{}, map[model.Tier]int{}
	for _, m := range models {
		for t, n := range m.Tiers {
			held[t] += n
		}
		held[model.Hot] += m.Incomplete
		count[snapshot.Mostly(m.Tiers)]++
	}
	e, err := a.settings()
	if err != nil {
		return l, err
	}
	all, err := tiers(s, e.StorageTiers, 0)
	if err != nil {
		return l, err
	}
	for _, t := range all {
		l.Tiers = append(l.Tiers, t.Tell(held[t.Tier], count[t.Tier]))
	}
	stopped, err := s.Resume()
	if err != nil {
		return l, err
	}
	for _, u := range stopped {
		m, err := s.Model(u.ID)
		if err != nil {
			continue // it has gone
		}
		l.Moves = append(l.Moves, client.ModelMove{
			Model: u.ID.Public(), From: string(snapshot.Mostly(m.Tiers)), To: string(u.To), State: client.MoveWaiting,
			MovedBytes: int64(m.Tiers[u.To]), TotalBytes: int64(m.Size), ProgressPercent: float64(percent(m.Tiers[u.To], m.Size)),
			Reason: "it was stopped half way; go on with: " + moveLine(u.ID, u.To),
		})
	}
	return l, nil
}

// moveLine is the command line that moves a model.
func moveLine(id model.ID, to model.Tier) string {
	return shellLine([]string{"ema", "tier", "move", id.Public(), string(to)})
}

// print is the listing for people.
func (l tierListing) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIER\tPATH\tSTATE\tMODELS\tUSED\tCAP\tFREE")
	for _, one := range l.Tiers {
		most, free := "-", size(one.AvailableGB)
		if one.MaxSizeGB > 0 {
			most = size(one.MaxSizeGB)
		}
		if one.State == client.TierMissing {
			free = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", one.Tier, one.Path, one.State, one.Models, size(one.ModelsGB), most, free)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, one := range l.Tiers {
		if one.Problem != "" {
			fmt.Fprintf(w, "%s: %s\n", one.Tier, one.Problem)
		}
	}
	if len(l.Moves) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "MODEL\tFROM\tTO\tSTATE\tPROGRESS\tREASON")
	for _, m := range l.Moves {
		progress := "-"
		if m.TotalBytes > 0 {
			progress = fmt.Sprintf("%s (%.0f %%)", ratio(model.Bytes(m.MovedBytes), model.Bytes(m.TotalBytes)), m.ProgressPercent)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Model, cmp.Or(m.From, "-"), m.To, m.State, progress, cmp.Or(m.Error, m.Reason, "-"))
	}
	return t.Flush()
}

// size is GiB as people read them.
func size(gb float64) string { return model.Bytes(gb * float64(model.GiB)).String() }

func tierPin(a *app, name, short, more string, pinned bool) *cobra.Command {
	return &cobra.Command{
		Use: name + " MODEL...", Short: short, Long: short + ".\n" + more, Example: "  ema tier " + name + " org/name",
		Args: someModels, ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			var ids []model.ID
			for _, arg := range args { // before anything is done
				id, err := wholeModel(name, arg)
				if err != nil {
					return err
				}
				ids = append(ids, id)
			}
			return a.pin(cmd.Context(), name, ids, pinned)
		},
	}
}

// wholeModel is the model that an argument names. Tiers are of models and not of their revisions, which share contents.
func wholeModel(op, arg string) (model.ID, error) {
	id, rev, err := model.ParseRef(arg)
	if err == nil && rev != "" {
		err = fmt.Errorf("%s names a revision, and all of a model lies together", arg)
	}
	if err != nil {
		return id, &model.Error{Op: op, Class: model.Usage, Err: err}
	}
	return id, nil
}

// pin pins models, or lets them loose.
func (a *app) pin(ctx context.Context, op string, ids []model.ID, pinned bool) (failed error) {
	c, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	set := func(id model.ID) (client.Pinned, error) { return c.PinModel(ctx, id.String(), pinned) }
	if !found {
		s, err := a.store()
		if err != nil {
			return err
		}
		_, done, err := a.own(ctx, s, "ema tier "+op) // whose owner writes to the database, and nobody else
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, done()) }()
		kept, err := ledger.Open(ctx, filepath.Join(s.StateDir(), ledgerFile))
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, kept.Close()) }()
		set = func(id model.ID) (client.Pinned, error) { return pinHere(ctx, s, kept, op, id, pinned) }
	}
	return eachOf(ctx, a, ids, func(id model.ID) error {
		p, err := set(id)
		if err != nil {
			return err
		}
		return a.result(p, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, p.Message)
			return err
		})
	})
}

// pinHere pins a model of a store that no daemon has. One that has gone can be let loose.
func pinHere(ctx context.Context, s *store.Store, kept *ledger.Ledger, op string, id model.ID, pinned bool) (client.Pinned, error) {
	name, did := id.Public(), "pinned"
	if !pinned {
		did = "no longer pinned"
	} else if _, err := s.Model(id); err != nil {
		return client.Pinned{}, named(op, err)
	}
	if err := kept.SetPin(ctx, id, pinned); err != nil {
		return client.Pinned{}, err
	}
	return client.Pinned{Success: true, Message: name + ": " + did, Model: name, Pinned: pinned}, nil
}
