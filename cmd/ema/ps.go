package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"ema/client"
	"ema/internal/model"
)

func psCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the downloads of the daemon",
		Long: "Lists the downloads of the daemon that owns this store: those that run first, then the others in the order in which\n" +
			"they would. With --all those that are over follow, newest first.",
		Example: "  ema ps\n  ema ps --all\n  ema ps --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ps(cmd.Context(), all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that are over, at most 100")
	return cmd
}

// A listing is what ema ps tells.
type listing struct {
	client.Active
	History []client.Download `json:"history,omitempty"` // with --all
}

func (a *app) ps(ctx context.Context, all bool) error {
	c, found, err := a.remote(ctx)
	if err != nil {
		return err
	}
	var l listing
	if !found {
		return a.noListing(l)
	}
	if l.Active, err = c.Active(ctx); err != nil {
		return err
	}
	if all {
		h, err := c.History(ctx, 1, 100)
		if err != nil {
			return err
		}
		l.History = h.Downloads
	}
	return a.result(l, func(w io.Writer) error { return l.print(w, time.Now()) })
}

// noListing says that there is no daemon: that is an answer too.
func (a *app) noListing(l listing) error {
	if a.json {
		l.Downloads = []client.Download{}
		return a.printJSON(l)
	}
	err := a.noDaemon("ps")
	if none, ok := errors.AsType[*model.Error](err); ok && errors.Is(err, client.ErrNoDaemon) {
		_, err = fmt.Fprintf(a.stderr, "ema: %v; %s\n", none.Err, none.Hint)
	}
	return err
}

// print is the listing for people.
func (l listing) print(w io.Writer, now time.Time) error {
	rows := append(append([]client.Download{}, l.Downloads...), l.History...)
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "no downloads")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MODEL\tSTATE\tPRIORITY\tPROGRESS\tSPEED\tETA\tREASON")
	for _, d := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", called(d), stateOf(d), d.Priority, share(d), speedOf(d), etaOf(d), reason(d, now))
	}
	return t.Flush()
}

// called is the name by which a download is controlled.
func called(d client.Download) string {
	if d.Revision == "" || d.Revision == defaultRevision || strings.Contains(d.Model, "://") {
		return d.Model
	}
	return d.Model + "@" + d.Revision
}

// share says how much of a download is here.
func share(d client.Download) string {
	if d.TotalBytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%d %%)", ratio(model.Bytes(d.DownloadedBytes), model.Bytes(d.TotalBytes)), int(d.ProgressPercent))
}

func speedOf(d client.Download) string {
	if d.SpeedMBps <= 0 {
		return "-"
	}
	return model.Bytes(d.SpeedMBps*float64(model.MiB)).String() + "/s"
}

func etaOf(d client.Download) string {
	if d.ETASeconds == nil {
		return "-"
	}
	return clock(time.Duration(*d.ETASeconds * float64(time.Second)))
}

// reason is what there is to say about why a download stands as it does.
func reason(d client.Download, now time.Time) string {
	text := d.Reason
	switch stateOf(d) {
	case model.Queued:
		if text == "" && d.Position > 0 {
			text = fmt.Sprintf("number %d in the queue", d.Position)
		}
	case model.Paused:
		if text == "" {
			text = map[string]string{
				string(model.ByUser): "by the user", string(model.ByPreemption): "makes room for a critical one", string(model.BySpace): "no space",
			}[d.PausedBy]
		}
	case model.Retrying:
		if d.NextTry != nil {
			text = fmt.Sprintf("next try in %s: %s", clock(max(d.NextTry.Sub(now), 0)), text)
		}
	case model.Completed:
		if d.EndedAt != nil {
			text = "at " + d.EndedAt.Local().Format(time.DateTime)
		}
	default:
		if text == "" && d.Note != "" {
			text = brief(strings.TrimSuffix(d.Note, "; retrying"), d.Model)
		}
	}
	if text == "" {
		return "-"
	}
	return text
}
