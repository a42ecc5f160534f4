package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/source"
	"ema/internal/store"
)

func doctorCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that ema needs, with a fix for each finding",
		Long: "Checks configuration, store, disk, hub, token, clock and limits. It changes nothing. The exit code is 1 when something\n" +
			"fails; a warning is no failure.",
		Example: "  ema doctor\n  ema doctor --json | jq '.findings[] | select(.status != \"ok\")'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := a.examine(cmd.Context())
			answer := struct {
				Healthy  bool      `json:"healthy"`
				Findings []finding `json:"findings"`
			}{true, findings}
			var failed []string
			for _, f := range findings {
				if f.Status == fail {
					failed = append(failed, f.Check)
				}
			}
			answer.Healthy = len(failed) == 0
			if err := a.result(answer, func(w io.Writer) error { return a.printFindings(w, findings) }); err != nil {
				return err
			}
			if len(failed) > 0 {
				err := fmt.Errorf("doctor: %s failed: %s", count(len(failed), "check", "checks"), strings.Join(failed, ", "))
				if a.json {
					return &reportedError{err} // the document says it
				}
				return err
			}
			return nil
		},
	}
}

// A status is how a check went.
type status string

const (
	good status = "ok"
	warn status = "warn"
	fail status = "fail"
)

// A finding is what one check found.
type finding struct {
	Check  string `json:"check"`
	Status status `json:"status"`
	Found  string `json:"found"`
	Fix    string `json:"fix,omitempty"` // in the imperative; empty when there is nothing to do
}

// examine runs all checks. Without a readable configuration nothing else can be said.
func (a *app) examine(ctx context.Context) []finding {
	e, err := a.settings()
	if err != nil {
		return []finding{{"configuration", fail, err.Error(), `correct it; "ema config validate" shows every mistake`}}
	}
	all := []finding{configurationFinding(e)}
	s, err := a.store()
	if err != nil {
		all = append(all, failure("store", err))
	} else {
		all = append(all, storeFinding(s), diskFinding(s, e.Cleanup), ownerFinding(s), leftoverFinding(s, time.Now()))
	}
	all = append(all, a.hubFindings(ctx, e.Config)...)
	return append(all, limitFinding(connections(e.ConnectionSettings)), usesFinding())
}

// usesFinding tells how the daemon would notice that other programs use models.
func usesFinding() finding {
	opens, err := host.NewOpens()
	if err != nil {
		return finding{"uses", warn, "uses by other programs cannot be counted: " + err.Error(), "tell the daemon of uses with POST /api/v1/models/usage"}
	}
	by := opens.How()
	if err := opens.Close(); err != nil {
		return failure("uses", err)
	}
	found := "uses by other programs are counted, by " + by
	if by == "inotify" {
		found += ": while the daemon itself reads a model, another program that does so may be missed"
	}
	return finding{Check: "uses", Status: good, Found: found}
}

// failure is the finding that an error makes: its hint is the fix.
func failure(check string, err error) finding {
	f := finding{Check: check, Status: fail, Found: err.Error()}
	if e, ok := errors.AsType[*model.Error](err); ok && e.Hint != "" {
		f.Found, f.Fix = strings.TrimSuffix(f.Found, "; "+e.Hint), e.Hint
	}
	return f
}

func configurationFinding(e *config.Effective) finding {
	s := summarize(e)
	f := finding{Check: "configuration", Status: good, Found: s.title()}
	var said []string
	for _, w := range s.Warnings {
		said = append(said, fmt.Sprint(w))
	}
	if len(s.NotActive) > 0 {
		said = append(said, "not active yet: "+strings.Join(s.NotActive, ", "))
	}
	if len(said) > 0 {
		f.Status, f.Found, f.Fix = warn, f.Found+": "+strings.Join(said, "; "), `see "ema config show --origin"`
	}
	return f
}

// storeFinding checks that models and ema's own notes can be written.
func storeFinding(s *store.Store) finding {
	for _, dir := range []string{s.Path(), s.StateDir()} {
		at, err := nearest(dir)
		if err != nil {
			return finding{"store", fail, fmt.Sprintf("%s: %v", dir, err), "choose another folder with --store"}
		}
		if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
			return finding{"store", fail, fmt.Sprintf("%s: this user may not write there: %v", at, err), "change its permissions, or choose another folder with --store"}
		}
		if at != dir && dir == s.Path() {
			return finding{Check: "store", Status: good, Found: dir + ": not there yet; the first pull makes it"}
		}
	}
	return finding{Check: "store", Status: good, Found: s.Path() + ": writable"}
}

// diskFinding compares what is free with what downloads must leave free.
func diskFinding(s *store.Store, c config.Cleanup) finding {
	free, err := s.Free()
	if err != nil {
		return failure("disk", err)
	}
	least, err := minFree(c, s.Path())
	if err != nil {
		return failure("disk", err)
	}
	found := fmt.Sprintf("%s free, of which %s stay free", free, least)
	fix := `make room: "ema gc --dry-run" and "ema ls" show what could go`
	switch {
	case free <= least:
		return finding{"disk", fail, found + ": nothing can be pulled", fix}
	case free < 2*least:
		return finding{"disk", warn, found + ": there is little room", fix}
	}
	return finding{Check: "disk", Status: good, Found: found}
}

// leftoverFinding looks for what "ema gc" would remove.
func leftoverFinding(s *store.Store, now time.Time) finding {
	r, err := s.PlanCollect(24*time.Hour, now)
	if err != nil {
		return failure("leftovers", err)
	}
	if len(r.Items) == 0 {
		return finding{Check: "leftovers", Status: good, Found: "none older than a day"}
	}
	return finding{"leftovers", warn, fmt.Sprintf("%s that nobody needs, %s", count(len(r.Items), "thing", "things"), r.Bytes), "remove them: ema gc"}
}

// limitFinding checks that there are enough open files: connections, files being filled, and some room.
func limitFinding(connections int) finding {
	const room = 128
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return finding{"limits", warn, "the limit of open files cannot be read: " + err.Error(), ""}
	}
	found := fmt.Sprintf("%d open files allowed", l.Cur)
	if l.Cur < uint64(connections+room) {
		return finding{"limits", fail, fmt.Sprintf("%s, %d needed", found, connections+room), "raise it: ulimit -n 4096"}
	}
	return finding{Check: "limits", Status: good, Found: found}
}

// hubFindings are about the hub, the token and the clock: one request answers all three.
func (a *app) hubFindings(ctx context.Context, c config.Config) []finding {
	if source.OfflineFromEnv(a.getenv) {
		return []finding{{Check: "hub", Status: good, Found: "not asked: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"}}
	}
	token, err := token(c.Sources.HuggingFace, a.getenv, os.ReadFile)
	if err != nil {
		return []finding{{"token", fail, err.Error(), "make its file readable"}}
	}
	call := a.call(ctx, c, token)
	all := []finding{call.hub()}
	if call.reached {
		all = append(all, call.token(token), call.clock())
	}
	return all
}

func (a *app) printFindings(w io.Writer, all []finding) error {
	colors := map[status]string{good: "\x1b[32m", warn: "\x1b[33m", fail: "\x1b[31m"}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range all {
		mark := fmt.Sprintf("%-4s", f.Status)
		if a.colored(a.stdout) {
			mark = colors[f.Status] + mark + "\x1b[0m"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", mark, f.Check, f.Found)
		if f.Fix != "" {
			fmt.Fprintf(t, "%s\t\t-> %s\n", strings.Repeat(" ", len(mark)), f.Fix)
		}
	}
	return t.Flush()
}
