package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/model"
	"ema/internal/store"
)

func infoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "info MODEL[@REV]",
		Short:             "Show one model in detail",
		Long:              "Shows the revisions of a model that are here, with the state of each file, where they came from and when.",
		Example:           "  ema info org/name\n  ema info org/name@v1.0 --json",
		Args:              oneModel,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.store()
			if err != nil {
				return err
			}
			found, err := here(cmd.Context(), s, "info", args)
			id, _, wrong := model.ParseRef(args[0])
			if wrong != nil {
				return err
			}
			download := a.downloadOf(cmd.Context(), id)
			if err != nil && (download == nil || model.ClassOf(err) != model.NotFound) {
				return err
			}
			if err != nil { // nothing is here, but it is on its way
				found = []kept{{Model: store.Model{ID: id}}}
			}
			answer := describe(s, found[0])
			answer.Download = download
			used := a.habits(cmd.Context(), s)[answer.Model]
			answer.LastUsed, answer.Pinned = used.last, used.pinned
			return a.result(answer, answer.print)
		},
	}
}

// A description is what ema info tells.
type description struct {
	Model       string      `json:"model"`
	Size        model.Bytes `json:"size"`        // of all contents, each once
	Interrupted model.Bytes `json:"interrupted"` // of files that a pull has begun
	// Tiers is how much of Size lies in which tier; Away is the one that is missing, and has a part of it.
	Tiers     map[model.Tier]model.Bytes `json:"tiers"`
	Away      model.Tier                 `json:"tier_missing,omitempty"`
	Pinned    bool                       `json:"pinned"`
	LastUsed  *time.Time                 `json:"last_used"` // null: unknown
	Download  *client.Download           `json:"download,omitempty"`
	Revisions []revisionDescribed        `json:"revisions"`
}

type revisionDescribed struct {
	Revision    string          `json:"revision"`
	Commit      string          `json:"commit"`
	Refs        []string        `json:"refs"`
	State       store.State     `json:"state"`
	Size        model.Bytes     `json:"size"`
	Path        string          `json:"path"`
	Source      string          `json:"source,omitempty"`       // empty: another tool brought it
	CompletedAt *time.Time      `json:"completed_at,omitempty"` // by ema
	Include     []string        `json:"include,omitempty"`
	Exclude     []string        `json:"exclude,omitempty"`
	Files       []fileDescribed `json:"files"`
}

type fileDescribed struct {
	Path   string      `json:"path"`
	Size   model.Bytes `json:"size"`
	State  store.State `json:"state"`
	Digest string      `json:"digest,omitempty"`
}

// downloadOf is the download of a model that the daemon has not ended; nil when there is none, or no daemon.
func (a *app) downloadOf(ctx context.Context, id model.ID) *client.Download {
	c, found, err := a.owner(ctx)
	if err != nil || !found {
		return nil
	}
	d, err := c.Progress(ctx, id.String(), "")
	if err != nil || d.Over() {
		return nil
	}
	return &d
}

// downloading says how a download stands, and what it had to try again.
func downloading(d client.Download) string {
	text := fmt.Sprintf("%s, %.0f %%", stateOf(d), d.ProgressPercent)
	if d.SpeedMBps > 0 {
		text += fmt.Sprintf(" at %.1f MiB/s over %d connections", d.SpeedMBps, d.Connections)
	}
	if d.RetryCount > 0 {
		text += fmt.Sprintf("; %d attempts without progress", d.RetryCount)
	}
	if len(d.RetriesByClass) > 0 {
		var parts []string
		for _, class := range slices.Sorted(maps.Keys(d.RetriesByClass)) {
			parts = append(parts, fmt.Sprintf("%d %s", d.RetriesByClass[class], strings.ReplaceAll(class, "_", " ")))
		}
		text += "; repeated: " + strings.Join(parts, ", ")
	}
	for _, why := range []string{d.Reason, d.Note} {
		if why != "" {
			text += "; " + why
		}
	}
	return text
}

func describe(s *store.Store, k kept) description {
	d := description{Model: k.ID.Public(), Size: k.Size, Interrupted: k.Incomplete, Tiers: map[model.Tier]model.Bytes{}, Away: k.Away, Revisions: []revisionDescribed{}}
	maps.Copy(d.Tiers, k.Tiers)
	for _, r := range k.revisions {
		one := revisionDescribed{
			Revision: revisionName(r), Commit: r.Commit, Refs: r.Refs, State: r.State, Size: r.Size,
			Path: s.Snapshot(k.ID, r.Commit), Files: []fileDescribed{},
		}
		if r.Record != nil {
			one.Source, one.Include, one.Exclude = r.Record.Source, r.Record.Include, r.Record.Exclude
			at := r.Record.CompletedAt.UTC()
			one.CompletedAt = &at
		}
		for _, f := range r.Files {
			shown := fileDescribed{Path: f.Path, Size: model.Bytes(max(f.Size, 0)), State: f.State}
			if !f.Digest.IsZero() {
				shown.Digest = f.Digest.String()
			}
			one.Files = append(one.Files, shown)
		}
		d.Revisions = append(d.Revisions, one)
	}
	return d
}

// print is the description for people.
func (d description) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "model\t%s\n", d.Model)
	fmt.Fprintf(t, "size\t%s\n", d.Size)
	if where := d.where(); where != "" {
		fmt.Fprintf(t, "tier\t%s\n", where)
	}
	if d.LastUsed != nil {
		fmt.Fprintf(t, "last use\t%s\n", when(d.LastUsed))
	}
	if d.Download != nil {
		fmt.Fprintf(t, "download\t%s\n", downloading(*d.Download))
	} else if d.Interrupted > 0 {
		fmt.Fprintf(t, "begun\t%s of files that are not complete; go on with: ema pull %s\n", d.Interrupted, shellWord(d.Model))
	}
	if len(d.Revisions) == 0 {
		fmt.Fprintf(t, "state\t%s: no revision is complete\n", store.Incomplete)
	}
	for _, r := range d.Revisions {
		fmt.Fprintf(t, "\nrevision\t%s (%s)\n", r.Revision, r.Commit)
		fmt.Fprintf(t, "state\t%s, %s, %s\n", r.State, files(len(r.Files)), r.Size)
		fmt.Fprintf(t, "path\t%s\n", r.Path)
		if r.CompletedAt == nil {
			fmt.Fprintf(t, "source\tanother tool\n")
		} else {
			fmt.Fprintf(t, "source\t%s\n", r.Source)
			fmt.Fprintf(t, "complete\tsince %s\n", r.CompletedAt.Local().Format(time.DateTime))
		}
		if chosen := patterns(r.Include, r.Exclude); chosen != "" {
			fmt.Fprintf(t, "only\t%s\n", chosen)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(t, "\n  FILE\tSIZE\tSTATE\tDIGEST")
		for _, f := range r.Files {
			algo, hex, _ := strings.Cut(f.Digest, ":")
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", f.Path, f.Size, f.State, strings.TrimSuffix(algo+":"+hex[:min(12, len(hex))], ":"))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return t.Flush()
}

// where says in which tiers the model lies.
func (d description) where() string {
	var parts []string
	for _, t := range model.Tiers() {
		if n := d.Tiers[t]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", t, n))
		}
	}
	if len(parts) == 1 {
		parts[0], _, _ = strings.Cut(parts[0], " ")
	}
	if d.Away != "" {
		parts = append(parts, fmt.Sprintf("%s: not there, see \"ema tier\"", d.Away))
	}
	if d.Pinned {
		parts = append(parts, "pinned")
	}
	return strings.Join(parts, ", ")
}

// patterns are the flags that chose the files.
func patterns(include, exclude []string) string {
	var words []string
	for _, p := range include {
		words = append(words, "--include", p)
	}
	for _, p := range exclude {
		words = append(words, "--exclude", p)
	}
	return shellLine(words)
}
