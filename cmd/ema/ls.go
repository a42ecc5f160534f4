package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/internal/api/snapshot"
	"ema/internal/ledger"
	"ema/internal/model"
	"ema/internal/store"
)

func lsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the models that are here",
		Long: "Lists every revision of every model in the store, whoever put it there.\n" +
			"available: every file is here and was verified; unverified: complete, but not verified by ema;\n" +
			"partial: something is missing, a pull goes on with it; damaged: a file is not what it was.",
		Example: "  ema ls\n  ema ls --json | jq -r '.models[] | select(.state != \"available\") | .model'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.store()
			if err != nil {
				return err
			}
			models, err := s.Models(cmd.Context())
			if err != nil {
				return err
			}
			answer := struct {
				Store  string  `json:"store"`
				Models []entry `json:"models"`
			}{s.Path(), entries(s, models, a.habits(cmd.Context(), s))}
			return a.result(answer, func(w io.Writer) error { return printEntries(w, answer.Models) })
		},
	}
}

// An entry is one line of a listing: a revision, or a model of which none is complete.
type entry struct {
	Model    string      `json:"model"`
	Revision string      `json:"revision"`
	Commit   string      `json:"commit"`
	Refs     []string    `json:"refs"`
	State    store.State `json:"state"`
	Size     model.Bytes `json:"size"`
	Files    int         `json:"files"`
	Tier     string      `json:"tier"`
	Health   string      `json:"health"`
	LastUsed *time.Time  `json:"last_used"` // of the model; null: unknown
	Pinned   bool        `json:"pinned"`
	Path     string      `json:"path"`
}

// entries are the lines about models.
func entries(s *store.Store, models []store.Model, used map[string]habit) []entry {
	all := []entry{}
	for _, m := range models {
		name := m.ID.Public()
		one := entry{Model: name, Tier: string(snapshot.Mostly(m.Tiers)), LastUsed: used[name].last, Pinned: used[name].pinned}
		for _, r := range byName(m.Revisions) {
			one.Revision, one.Commit, one.Refs, one.State, one.Size, one.Files = revisionName(r), r.Commit, r.Refs, r.State, r.Size, len(r.Files)
			one.Health, one.Path = wellness(r.State), s.Snapshot(m.ID, r.Commit)
			all = append(all, one)
		}
		if len(m.Revisions) == 0 {
			one.Refs, one.State, one.Size, one.Health = []string{}, store.Incomplete, m.Size+m.Incomplete, wellness(store.Incomplete)
			all = append(all, one)
		}
	}
	return all
}

// A habit is how a model is used, as far as listings tell it.
type habit struct {
	last   *time.Time // nil when nobody knows
	pinned bool
}

// habits are those of the models of a store, by their names: the daemon knows them, and where there is none its database. What
// cannot be asked is not known, which is no reason to list nothing.
func (a *app) habits(ctx context.Context, s *store.Store) map[string]habit {
	all := map[string]habit{}
	if c, found, err := a.owner(ctx); err != nil {
		return all
	} else if found {
		if now, err := c.Storage(ctx); err == nil {
			for _, m := range now.Models {
				all[m.Model] = habit{m.LastAccessed, m.Pinned}
			}
		}
		return all
	}
	seen, err := ledger.Look(ctx, filepath.Join(s.StateDir(), ledgerFile))
	if err != nil {
		return all
	}
	for id, at := range seen.Last {
		all[id.Public()] = habit{last: &at}
	}
	for id := range seen.Pinned {
		all[id.Public()] = habit{all[id.Public()].last, true}
	}
	return all
}

// when is a time in a column; "-" when nobody knows it.
func when(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

// wellness is what a state says about the bytes.
func wellness(s store.State) string {
	switch s {
	case store.Available:
		return "ok"
	case store.Damaged:
		return "damaged"
	case store.Incomplete:
		return "incomplete"
	}
	return "unknown"
}

func printEntries(w io.Writer, all []entry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MODEL\tREVISION\tSTATE\tSIZE\tFILES\tTIER\tHEALTH\tLAST USE")
	for _, e := range all {
		revision := e.Revision
		if revision == "" {
			revision = "-"
		}
		tier := e.Tier
		if e.Pinned {
			tier += ", pinned"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", e.Model, revision, e.State, e.Size, e.Files, tier, e.Health, when(e.LastUsed))
	}
	return t.Flush()
}
