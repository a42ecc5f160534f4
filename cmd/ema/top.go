package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ema/client"
	"ema/internal/model"
)

// repaint is the shortest time between two pictures, so that a busy daemon does not make a busy terminal.
const repaint = 250 * time.Millisecond

func topCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "Watch the downloads of the daemon live",
		Long: "Shows the downloads of the daemon, their speed and the limit that holds, until Ctrl-C. Where there is no terminal it\n" +
			"prints one picture.",
		Example: "  ema top\n  ema top | head",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.top(cmd.Context())
		},
	}
}

func (a *app) top(ctx context.Context) error {
	c, found, err := a.remote(ctx)
	switch {
	case err != nil:
		return err
	case !found:
		return a.noListing(listing{})
	}
	screen, live := a.stdout.(interface{ Fd() uintptr })
	if !live || !interactive(a.stdout) || a.getenv("TERM") == "dumb" || a.json {
		active, err := c.Active(ctx)
		if err != nil {
			return err
		}
		return a.result(active, func(w io.Writer) error {
			_, err := io.WriteString(w, picture(active, 120, 1000, time.Now()))
			return err
		})
	}
	// The alternate screen: what was on the terminal before comes back afterwards.
	io.WriteString(a.stdout, "\x1b[?1049h\x1b[?25l")
	defer io.WriteString(a.stdout, "\x1b[?25h\x1b[?1049l")
	err = a.live(ctx, c, int(screen.Fd()))
	if ctx.Err() != nil {
		return nil // Ctrl-C is how one leaves
	}
	return err
}

// live paints a picture whenever something has happened, until ctx ends or the daemon does.
func (a *app) live(ctx context.Context, c *client.Client, screen int) error {
	events, err := c.Events(ctx, client.Interest{})
	if err != nil {
		return err
	}
	happened, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { // ends with events
		for {
			if _, err := events.Next(); err != nil {
				ended <- err
				return
			}
			select {
			case happened <- struct{}{}:
			default:
			}
		}
	}()
	defer func() { _ = events.Close(); <-ended }() //nolint:errcheck // nothing is lost by it
	for {
		active, err := c.Active(ctx)
		if err != nil {
			return err
		}
		width, height, err := term.GetSize(screen)
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(picture(active, width, height-1, time.Now()), "\n", "\x1b[K\r\n")
		if _, err := io.WriteString(a.stdout, "\x1b[H"+text+"\x1b[J"); err != nil {
			return err
		}
		if err := pause(ctx, repaint); err != nil {
			return err
		}
		select {
		case <-happened:
		case err := <-ended:
			ended <- err
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-ahead(active, time.Now()):
		}
	}
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ahead fires when the picture changes by itself: a time that counts down is on it. Otherwise never.
func ahead(active client.Active, now time.Time) <-chan time.Time {
	for _, d := range active.Downloads {
		if d.NextTry != nil && d.NextTry.After(now) {
			return time.After(time.Second)
		}
	}
	return nil
}

// picture is how all downloads stand, in at most so many columns and lines.
func picture(a client.Active, width, height int, now time.Time) string {
	running, waiting := 0, 0
	for _, d := range a.Downloads {
		switch stateOf(d) {
		case model.Resolving, model.Downloading, model.Verifying:
			running++
		default:
			waiting++
		}
	}
	head := fmt.Sprintf("%d running, %d waiting   %s/s", running, waiting, model.Bytes(a.SpeedMBps*float64(model.MiB)))
	if a.LimitMBps > 0 {
		head += fmt.Sprintf(" of %s/s", model.Bytes(a.LimitMBps*float64(model.MiB)))
	}
	if a.LimitWhy != "" {
		head += " (" + a.LimitWhy + ")"
	}
	lines := []string{head, ""}
	for i, d := range a.Downloads {
		if left := len(a.Downloads) - i; len(lines) == height-1 && left > 1 {
			lines = append(lines, fmt.Sprintf("and %d more", left))
			break
		}
		lines = append(lines, row(d, width, now))
	}
	if len(a.Downloads) == 0 {
		lines = append(lines, "no downloads")
	}
	for i := range lines {
		lines[i] = clip(lines[i], width)
	}
	return strings.Join(lines, "\n") + "\n"
}

// row is one download: a bar for one that runs, words for one that does not.
func row(d client.Download, width int, now time.Time) string {
	switch stateOf(d) {
	case model.Downloading, model.Verifying, model.Resolving:
		v := view{
			name: called(d), stage: stageWords[d.Stage], done: model.Bytes(d.DownloadedBytes), total: model.Bytes(d.TotalBytes),
			files: d.FilesDone, allFiles: d.Files, rate: model.Bytes(d.SpeedMBps * float64(model.MiB)), connections: d.Connections,
		}
		if v.stage == "" {
			v.stage = string(stateOf(d))
		}
		return v.bar(width)
	}
	name := shorten(called(d), max(width/3, leastName))
	text := fmt.Sprintf("%s  %s, %s", name, stateOf(d), d.Priority)
	if d.TotalBytes > 0 {
		text += ", " + share(d)
	}
	if why := reason(d, now); why != "-" {
		text += ": " + why
	}
	return text
}
