package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

func verifyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [MODEL[@REV]...]",
		Short: "Read every byte and compare it with the promised hashes",
		Long: "Reads every file of the models, or of all that are here, and compares it with its hash. It repairs nothing and uses\n" +
			"no network. Of a damaged file it names the bytes, where block checksums are known. The exit code is 4 when something\n" +
			"is damaged or missing. With --json each revision is a line.",
		Example:           "  ema verify\n  ema verify org/name || ema repair org/name",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeHere,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.verify(cmd.Context(), args)
		},
	}
}

func (a *app) verify(ctx context.Context, args []string) (err error) {
	l, err := a.line("ema verify", true, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	found, err := here(ctx, l.Store, "verify", args)
	if err != nil {
		return err
	}
	checked := 0
	var bad, unread []string
	for _, k := range found {
		if len(k.revisions) == 0 && len(args) > 0 {
			return notWhole("verify", k.ID)
		}
		for _, r := range k.revisions {
			report, err := a.verifyOne(ctx, l, k.ID, r)
			if err != nil {
				return err
			}
			checked++
			switch {
			case !report.Whole():
				bad = append(bad, spelled(k.ID, r))
			case !report.OK():
				unread = append(unread, spelled(k.ID, r))
			}
		}
	}
	if len(bad) == 0 && len(unread) > 0 {
		return &model.Error{
			Op: "verify", Class: model.DiskError, Err: fmt.Errorf("%d of %s could not be read as a whole, and nobody knows whether all is right", len(unread), count(checked, "revision", "revisions")),
			Hint: `see the permissions of the files and the kernel's log; what stays unreadable is fetched again by "ema repair ` + shellWord(unread[0]) + `"`,
		}
	}
	if len(bad) == 0 {
		return nil
	}
	repairs := make([]string, len(bad))
	for i, name := range bad {
		repairs[i] = "ema repair " + shellWord(name)
	}
	return &model.Error{
		Op: "verify", Class: model.Integrity, Err: fmt.Errorf("%d of %s not right", len(bad), count(checked, "revision", "revisions")+isAre(len(bad))),
		Hint: "mend with: " + strings.Join(repairs, " && "),
	}
}

// verifyOne checks one revision and prints what it found.
func (a *app) verifyOne(ctx context.Context, l *line, id model.ID, r store.Revision) (*pipeline.Report, error) {
	show := a.watch(id)
	show.start()
	begun := time.Now()
	report, err := l.Verify(ctx, id, r.Commit, show.progress)
	show.stop()
	countVerified(a.metrics, report, err)
	if a.examined != nil && err == nil {
		a.examined(id, r.Commit, fullCheck, report, time.Since(begun))
	}
	a.tell(id, "verified")
	l.done(ctx, "verify", id, begun, err, "commit", r.Commit, "ok", err == nil && report.OK())
	if err != nil {
		if ctx.Err() != nil {
			return nil, a.interrupted("verify", id, show)
		}
		return nil, err
	}
	answer := struct {
		*pipeline.Report
		Revision string `json:"revision"`
		OK       bool   `json:"ok"`
	}{report, revisionName(r), report.OK()}
	return report, a.result(answer, func(w io.Writer) error {
		return printReport(w, spelled(id, r), report, time.Since(begun))
	})
}

// printReport is one line about a revision, and one about each file of which there is something to say.
func printReport(w io.Writer, name string, report *pipeline.Report, took time.Duration) error {
	var size model.Bytes
	states := map[string]int{}
	for _, f := range report.Files {
		size += f.Size
		states[f.State]++
	}
	verdict := "ok"
	if !report.OK() {
		verdict = "DAMAGED"
		if states[pipeline.FileDamaged] == 0 {
			verdict = "INCOMPLETE"
		}
		if report.Whole() {
			verdict = "UNREADABLE"
		}
	}
	text := fmt.Sprintf("%s: %s, %s, %s in %s", name, verdict, files(len(report.Files)), size, duration(took))
	for _, s := range []string{pipeline.FileDamaged, pipeline.FileMissing, pipeline.FileUnreadable, pipeline.FileUnknown} {
		if states[s] > 0 {
			text += fmt.Sprintf(", %d %s", states[s], s)
		}
	}
	if _, err := fmt.Fprintln(w, text); err != nil {
		return err
	}
	for _, f := range report.Files {
		for _, what := range remarks(f) {
			if _, err := fmt.Fprintf(w, "  %s: %s\n", f.Path, what); err != nil {
				return err
			}
		}
	}
	return nil
}

// remarks are what is to say about a file; nothing when all is well.
func remarks(f pipeline.FileReport) []string {
	var all []string
	switch {
	case f.State == pipeline.FileUnknown:
		all = append(all, "there is no hash to compare it with")
	case len(f.Damaged) > 0:
		var spans []string
		var bytes model.Bytes
		for _, s := range f.Damaged {
			spans = append(spans, fmt.Sprintf("%d-%d", s.Start, s.End-1))
			bytes += model.Bytes(s.Len())
		}
		all = append(all, fmt.Sprintf("damaged in bytes %s (%s of %s)", strings.Join(spans, ", "), bytes, f.Size))
	case f.State != pipeline.FileOK:
		all = append(all, f.State)
	}
	return append(all, f.Notes...)
}
