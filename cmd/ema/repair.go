package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

func repairCommand(a *app) *cobra.Command {
	var anew bool
	cmd := &cobra.Command{
		Use:   "repair MODEL[@REV]...",
		Short: "Fetch again what is damaged or missing, and nothing else",
		Long: "Verifies the models and brings back what is damaged or missing: from another model here that has the same content, else\n" +
			"from the source, and of a file whose block checksums are known only the bad blocks of 1 MiB. The old file stays until the\n" +
			"new one is proven; where the source has moved on, the commit that is here is asked for. With --json each revision is a line.",
		Example:           "  ema repair org/name\n  ema repair org/name@v1.0 --json",
		Args:              someModels,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.repair(cmd.Context(), args, anew)
		},
	}
	cmd.Flags().BoolVar(&anew, "anew", false, "fetch all files again, also those that are right")
	return cmd
}

func (a *app) repair(ctx context.Context, args []string, anew bool) (err error) {
	s, err := a.store()
	if err != nil {
		return err
	}
	found, err := here(ctx, s, "repair", args)
	if err != nil {
		return err
	}
	for _, k := range found {
		if len(k.revisions) == 0 {
			return notWhole("repair", k.ID)
		}
		for _, r := range k.revisions {
			if err := a.repairOne(ctx, k.ID, r, anew); err != nil {
				return err
			}
		}
	}
	return nil
}

// repairOne mends one revision and prints what it did.
func (a *app) repairOne(ctx context.Context, id model.ID, r store.Revision, anew bool) (err error) {
	show := a.watch(id)
	l, err := a.line("ema repair "+id.Public(), false, show.waiting)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	show.start()
	begun := time.Now()
	mend := l.Repair
	if anew {
		mend = l.Renew
	}
	report, res, err := mend(ctx, id, r.Commit, show.progress)
	show.stop()
	a.countRepaired(id, res, show.progress.Received.Load(), err)
	if a.mended != nil && ctx.Err() == nil {
		a.mended(id, r.Commit, report, res, time.Since(begun), err)
	}
	a.tell(id, "repaired") // what it found damaged counts, also when it cannot be mended
	l.done(ctx, "repair", id, begun, err, "commit", r.Commit, "fetched", show.progress.Received.Load())
	if err != nil {
		if ctx.Err() != nil {
			return a.interrupted("repair", id, show)
		}
		return err
	}
	answer := struct {
		Before *pipeline.Report `json:"before"`
		Result *pipeline.Result `json:"result,omitempty"` // absent when nothing was to be done
	}{report, res}
	name := spelled(id, r)
	return a.result(answer, func(w io.Writer) error {
		if res == nil {
			_, err := fmt.Fprintf(w, "%s: ok, nothing to repair\n", name)
			return err
		}
		for _, f := range report.Files {
			if f.State == pipeline.FileOK || f.State == pipeline.FileUnknown {
				continue
			}
			for _, what := range remarks(f) {
				if _, err := fmt.Fprintf(w, "  %s: %s\n", f.Path, what); err != nil {
					return err
				}
			}
		}
		for _, what := range res.Actions {
			if _, err := fmt.Fprintf(w, "  mended %s\n", what); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(w, "%s: repaired %s with %s from the source, in %s\n", name, files(res.Files), res.Fetched, duration(res.Took))
		return err
	})
}
