package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ema/internal/model"
	"ema/internal/store"
)

func rmCommand(a *app) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:     "rm MODEL[@REV]...",
		Aliases: []string{"remove"},
		Short:   "Remove models, and say first what that frees",
		Long: "Removes models, or single revisions of them: their names first, then what nobody else uses. Contents that another\n" +
			"revision shares stay. It asks nothing; see what would go with --dry-run.",
		Example:           "  ema rm org/name --dry-run\n  ema rm org/name@v1.0",
		Args:              someModels,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.rm(cmd.Context(), args, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would go")
	return cmd
}

func (a *app) rm(ctx context.Context, args []string, dryRun bool) error {
	s, err := a.store()
	if err != nil {
		return err
	}
	found, err := here(ctx, s, "remove", args) // before anything goes: a typing error costs nothing
	if err != nil {
		return err
	}
	for _, k := range found {
		commit, name := "", k.ID.Public()
		if k.asked != "" {
			commit, name = k.revisions[0].Commit, name+"@"+k.asked
		}
		plan := func() (store.Removal, error) { return s.PlanRemove(k.ID, commit) }
		if err := a.remove(ctx, s, removing{command: "ema rm " + name, name: name, plan: plan, dryRun: dryRun}); err != nil {
			return err
		}
	}
	return nil
}

// A removalAnswer is a removal in JSON.
type removalAnswer struct {
	Model   string        `json:"model,omitempty"`
	Bytes   model.Bytes   `json:"bytes"`
	Items   []removedItem `json:"items"`
	Removed bool          `json:"removed"`
	Shared  *sharedAnswer `json:"shared,omitempty"` // of "ema gc"
}

// A sharedAnswer says which equal contents of different models are one file now, or would be.
type sharedAnswer struct {
	Contents int         `json:"contents"`
	Bytes    model.Bytes `json:"bytes"` // that this frees
}

type removedItem struct {
	Kind  string      `json:"kind"`
	Model string      `json:"model,omitempty"`
	Name  string      `json:"name"`
	Bytes model.Bytes `json:"bytes"`
}

// A removing says what is to be removed.
type removing struct {
	command, name string
	plan          func() (store.Removal, error)
	dryRun        bool
	share         bool // and equal contents of different models are to be one file
}

// remove says what a plan takes away, and takes it away unless it is a dry run. The plan is made when the store is ours,
// so that what is said is what goes.
func (a *app) remove(ctx context.Context, s *store.Store, rm removing) (failed error) {
	name, dryRun := rm.name, rm.dryRun
	var w *store.Writer
	if !dryRun {
		own, done, err := a.own(ctx, s, rm.command)
		if err != nil {
			return err
		}
		defer func() { failed = errors.Join(failed, done()) }()
		w = own
	}
	r, err := rm.plan()
	if err != nil {
		return err
	}
	if err := a.spares(name, r); err != nil {
		return err
	}
	if !a.json {
		if err := printRemoval(a.stdout, name, r, dryRun); err != nil {
			return err
		}
	}
	if !dryRun && len(r.Items) > 0 {
		err := w.Remove(ctx, r)
		concerned := map[model.ID]bool{}
		for _, d := range r.Items {
			concerned[d.Model] = true
		}
		for id := range concerned {
			a.tell(id, "removed") // of what failed, a part may have gone
		}
		if err != nil {
			return err
		}
	}
	answer := removalAnswer{Model: name, Bytes: r.Bytes, Items: []removedItem{}, Removed: !dryRun}
	if rm.share {
		if answer.Shared, err = a.share(ctx, s, w, dryRun); err != nil {
			return err
		}
	}
	if !a.json {
		return nil
	}
	for _, d := range r.Items {
		if d.Kind != store.KindFolder {
			answer.Items = append(answer.Items, removedItem{d.Kind.String(), d.Model.Public(), d.Name, d.Bytes})
		}
	}
	return a.printJSON(answer)
}

// share makes one file of each content that several models have, or says what that would free: w is nil then.
func (a *app) share(ctx context.Context, s *store.Store, w *store.Writer, dryRun bool) (*sharedAnswer, error) {
	twins, err := s.Twins()
	if err != nil {
		return nil, err
	}
	done := &sharedAnswer{}
	for _, t := range twins {
		if a.busy[t.Model] || a.busy[t.Of] {
			continue
		}
		if !dryRun {
			shared, err := w.Share(ctx, t)
			if err != nil {
				return nil, err
			}
			if !shared {
				continue
			}
			a.tell(t.Model, "shared")
		}
		done.Contents, done.Bytes = done.Contents+1, done.Bytes+t.Bytes
	}
	if a.json || done.Contents == 0 {
		return done, nil
	}
	verb := "shares"
	if dryRun {
		verb = "would share"
	}
	_, err = fmt.Fprintf(a.stdout, "%s %s between models; frees %s\n", verb, count(done.Contents, "content", "contents"), done.Bytes)
	return done, err
}

// spares refuses to take away what the daemon is downloading, moving or repairing.
func (a *app) spares(name string, r store.Removal) error {
	for _, d := range r.Items {
		if a.busy[d.Model] {
			return &model.Error{
				Op: "remove", Class: model.Busy, Model: d.Model, Err: errors.New("it is being downloaded, moved or repaired"),
				Hint: "wait until that is over, or stop its download with: ema cancel " + shellWord(d.Model.Public()),
			}
		}
	}
	return nil
}

// sparing is r without what belongs to models that a download waits for.
func sparing(r store.Removal, waits map[model.ID]bool) store.Removal {
	var rest store.Removal
	for _, d := range r.Items {
		if !waits[d.Model] {
			rest.Items, rest.Bytes = append(rest.Items, d), rest.Bytes+d.Bytes
		}
	}
	return rest
}

// printRemoval says "org/name: removes 1 ref, 1 snapshot, 12 blobs; frees 1.2 GiB".
func printRemoval(w io.Writer, name string, r store.Removal, dryRun bool) error {
	many := map[store.Kind]int{}
	for _, d := range r.Items {
		many[d.Kind]++
	}
	var parts []string
	for _, k := range []struct {
		kind      store.Kind
		one, more string
	}{
		{store.KindRef, "ref", "refs"},
		{store.KindSnapshot, "snapshot", "snapshots"},
		{store.KindBlob, "blob", "blobs"},
		{store.KindPartial, "file of an interrupted pull", "files of interrupted pulls"},
		{store.KindSidecar, "checksum file", "checksum files"},
		{store.KindRecord, "record", "records"},
	} {
		if n := many[k.kind]; n > 0 {
			parts = append(parts, count(n, k.one, k.more))
		}
	}
	verb, frees := "removes ", "frees "
	if dryRun {
		verb, frees = "would remove ", "would free "
	}
	if len(parts) == 0 {
		parts = []string{"nothing"}
	}
	_, err := fmt.Fprintf(w, "%s: %s%s; %s%s\n", name, verb, strings.Join(parts, ", "), frees, r.Bytes)
	return err
}
