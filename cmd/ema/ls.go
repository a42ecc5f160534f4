package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

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
			}{s.Path(), entries(s, models)}
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
	LastUsed *time.Time  `json:"last_used"` // null: unknown
	Path     string      `json:"path"`
}

// entries are the lines about models.
func entries(s *store.Store, models []store.Model) []entry {
	all := []entry{}
	for _, m := range models {
		name := m.ID.Public()
		for _, r := range byName(m.Revisions) {
			all = append(all, entry{
				Model: name, Revision: revisionName(r), Commit: r.Commit, Refs: r.Refs, State: r.State, Size: r.Size, Files: len(r.Files),
				Tier: hotTier, Health: health(r.State), Path: s.Snapshot(m.ID, r.Commit),
			})
		}
		if len(m.Revisions) == 0 {
			all = append(all, entry{
				Model: name, Refs: []string{}, State: store.Incomplete, Size: m.Size + m.Incomplete, Tier: hotTier, Health: health(store.Incomplete),
			})
		}
	}
	return all
}

// hotTier is the only tier there is without storage_tiers: the store's own folder.
const hotTier = "hot"

// health is what a state says about the bytes.
func health(s store.State) string {
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", e.Model, revision, e.State, e.Size, e.Files, e.Tier, e.Health, "-")
	}
	return t.Flush()
}
