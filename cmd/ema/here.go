package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ema/internal/model"
	"ema/internal/store"
)

// defaultRevision is what is meant when nobody names a revision.
const defaultRevision = "main"

// A kept is a model that is here, with those of its revisions that a command is about.
type kept struct {
	store.Model
	asked     string // revision that was asked for; empty for all
	revisions []store.Revision
}

// here finds models as they are named on a command line; without names it is all that the store holds. Of MODEL it has
// all revisions, of MODEL@REV the one.
func here(ctx context.Context, s *store.Store, op string, args []string) ([]kept, error) {
	if len(args) == 0 {
		models, err := s.Models(ctx)
		all := make([]kept, len(models))
		for i, m := range models {
			all[i] = kept{Model: m, revisions: byName(m.Revisions)}
		}
		return all, err
	}
	var all []kept
	for _, arg := range args {
		id, rev, err := model.ParseRef(arg)
		if err != nil {
			return nil, &model.Error{Op: op, Class: model.Usage, Err: err}
		}
		m, err := s.Model(id)
		if err != nil {
			return nil, named(op, err)
		}
		k := kept{Model: m, asked: rev, revisions: byName(m.Revisions)}
		if rev != "" {
			r, err := revision(op, m, rev)
			if err != nil {
				return nil, err
			}
			k.revisions = []store.Revision{r}
		}
		all = append(all, k)
	}
	return all, nil
}

// named says in an error what the user wanted to do, rather than which step of it failed.
func named(op string, err error) error {
	if e, ok := errors.AsType[*model.Error](err); ok && e == err { //nolint:errorlint // a wrapped one stays as it is
		c := *e
		c.Op = op
		return &c
	}
	return err
}

// revision finds a revision of a model by a ref, a commit, or the first seven or more digits of one. An empty rev is
// main, else the only one there is.
func revision(op string, m store.Model, rev string) (store.Revision, error) {
	var found []store.Revision
	for _, r := range m.Revisions {
		switch {
		case rev == "" && slices.Contains(r.Refs, defaultRevision), rev != "" && (r.Commit == rev || slices.Contains(r.Refs, rev)):
			return r, nil
		case rev == "", len(rev) >= 7 && strings.HasPrefix(r.Commit, rev):
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(m.Revisions) == 0:
		return store.Revision{}, notWhole(op, m.ID)
	case len(found) > 1:
		return store.Revision{}, &model.Error{
			Op: op, Class: model.NotFound, Model: m.ID, Err: fmt.Errorf("%d revisions are here, and none is called %s", len(found), defaultRevision),
			Hint: "name one: " + revisionNames(m),
		}
	}
	return store.Revision{}, &model.Error{
		Op: op, Class: model.NotFound, Model: m.ID, Err: fmt.Errorf("revision %s is not here", rev),
		Hint: "here are: " + revisionNames(m),
	}
}

// notWhole is the error about a model of which no revision was ever complete.
func notWhole(op string, id model.ID) error {
	return &model.Error{
		Op: op, Class: model.NotFound, Model: id, Err: errors.New("it is not here as a whole, a pull of it was interrupted"),
		Hint: "go on with: ema pull " + shellWord(id.Public()),
	}
}

func revisionNames(m store.Model) string {
	var names []string
	for _, r := range byName(m.Revisions) {
		names = append(names, revisionName(r))
	}
	return strings.Join(names, ", ")
}

// byName orders revisions as people look for them: main, then by name.
func byName(revisions []store.Revision) []store.Revision {
	return slices.SortedStableFunc(slices.Values(revisions), func(a, b store.Revision) int {
		x, y := revisionName(a), revisionName(b)
		switch {
		case x == y:
			return strings.Compare(a.Commit, b.Commit)
		case x == defaultRevision:
			return -1
		case y == defaultRevision:
			return 1
		}
		return strings.Compare(x, y)
	})
}

// revisionName is the ref by which people know a revision, else the beginning of its commit.
func revisionName(r store.Revision) string {
	name := ""
	for _, ref := range r.Refs {
		if ref == defaultRevision {
			return ref
		}
		if name == "" && !strings.HasPrefix(ref, "ema-pin-") {
			name = ref
		}
	}
	if name == "" {
		name = r.Commit[:min(12, len(r.Commit))]
	}
	return name
}

// spelled is MODEL@REV as one would type it; main needs no @.
func spelled(id model.ID, r store.Revision) string {
	name := revisionName(r)
	if name == defaultRevision || id.Scheme != model.Hub {
		return id.Public()
	}
	return id.Public() + "@" + name
}

// completeHere completes the names of models that are here.
func (a *app) completeHere(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	s, err := a.store()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	models, err := s.Models(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	for _, m := range models {
		name := m.ID.String()
		if id, _, found := strings.Cut(typed, "@"); found && id == name {
			for _, r := range m.Revisions {
				names = append(names, name+"@"+revisionName(r))
			}
			continue
		}
		if !slices.Contains(args, name) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// someModels wants at least one model on the command line, oneModel exactly one.
func someModels(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("name a model, e.g. org/name; see \"%s --help\"", cmd.CommandPath())
	}
	return nil
}

func oneModel(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("name one model, e.g. org/name; see \"%s --help\"", cmd.CommandPath())
	}
	return nil
}
