package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/pipeline"
)

// traces are the traces in a folder, oldest first. Each must be one.
func traces(t *testing.T, folder string) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		content, err := os.ReadFile(name)
		if err != nil || !isTrace(content) {
			t.Errorf("%s is no trace: %v, %d bytes", name, err, len(content))
		}
		names = append(names, filepath.Base(name))
	}
	return names
}

// isTrace reports whether that is what go tool trace reads: a header, and something after it.
func isTrace(content []byte) bool {
	return len(content) > 1000 && regexp.MustCompile(`^go 1\.\d\d trace\x00\x00\x00`).Match(content)
}

func TestTracesAreKeptSeldomAndFew(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "traces")
	f := newFlight(folder, slog.New(slog.DiscardHandler))
	begun := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	f.keep(begun, "nothing")
	if err := f.write(io.Discard); !errors.Is(err, api.ErrNotRecording) || len(traces(t, folder)) != 0 {
		t.Errorf("without a recorder: %v", err)
	}
	f.configure(true)
	defer f.configure(false)
	f.configure(true) // changes nothing
	for second := 0; second <= 400; second += 20 {
		f.keep(begun.Add(time.Duration(second)*time.Second), fmt.Sprint("s", second))
	}
	want := []string{
		"20260301-090200-s120.trace", "20260301-090300-s180.trace", "20260301-090400-s240.trace", "20260301-090500-s300.trace", "20260301-090600-s360.trace",
	}
	if got := traces(t, folder); !slices.Equal(got, want) {
		t.Errorf("kept: %v, want %v", got, want)
	}
	f.configure(false)
	f.keep(begun.Add(time.Hour), "off")
	if got := traces(t, folder); !slices.Equal(got, want) {
		t.Errorf("after it was ended: %v", got)
	}
	f.configure(true)
	var taken bytes.Buffer
	if err := f.write(&taken); err != nil || !isTrace(taken.Bytes()) {
		t.Errorf("begun again: %v, %d bytes", err, taken.Len())
	}
}

func TestADownloadThatStandsStillIsToldOfOnce(t *testing.T) {
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	stage := pipeline.Stage{Name: "fetching", Begun: now}
	r := &running{show: &progress{progress: &pipeline.Progress{}, stageNow: func() pipeline.Stage { return stage }}}
	s := &stallWatch{d: &daemon{running: map[string]*running{"dl_1": r}}}
	at := func(second int, want string) {
		t.Helper()
		if got := s.look(now.Add(time.Duration(second) * time.Second)); got != want {
			t.Errorf("after %d s: %q, want %q", second, got, want)
		}
	}
	at(4, "")
	at(5, "stall") // no first byte has come
	at(6, "")
	r.show.progress.LastByte.Store(now.Add(7 * time.Second).UnixNano())
	at(8, "")
	at(12, "stall")
	at(60, "")
	stage.Name = "publishing"
	at(61, "")
	stage = pipeline.Stage{Name: "fetching", Begun: now.Add(70 * time.Second)}
	at(71, "")
	at(75, "stall")
	r.result = &client.Result{}
	at(90, "")
}

func TestTheFlightRecorderRunsWhenItIsLetTo(t *testing.T) {
	hub, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	url := daemon.address(t) + client.Base
	does(t, environ, "pull", "acme/slow", "--quiet")
	ask := func(wanted int) []byte {
		t.Helper()
		res, err := http.Post(url+"/admin/profile/trace", "", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		content, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != wanted {
			t.Fatalf("%s, %v, want %d", res.Status, err, wanted)
		}
		return content
	}
	if said := string(ask(http.StatusConflict)); !strings.Contains(said, string(api.NotRecording)) || !strings.Contains(said, "monitoring.flight_recorder") {
		t.Errorf("while it is off: %s", said)
	}
	slow := func() { // the daemon asks the hub, which takes its time
		t.Helper()
		hub.Fault(demohub.Match{Kind: demohub.API}, demohub.Silence(1500*time.Millisecond), 1)
		if res := asks(t, http.DefaultClient, "POST", url+"/models/updates/check", `{"model_id":"acme/slow"}`, nil); res.StatusCode != http.StatusOK {
			t.Errorf("look for an update: %s", res.Status)
		}
	}
	slow()
	does(t, environ, "config", "set", "monitoring.flight_recorder", "true")
	if content := ask(http.StatusOK); !isTrace(content) {
		t.Errorf("while it is on: %d bytes", len(content))
	}
	slow()
	if err := daemon.stderr.contains(ctx, "trace kept: something was slow\" what=check-updates file="); err != nil {
		t.Fatal(err)
	}
	_, file, _ := strings.Cut(daemon.stderr.String(), "what=check-updates file=")
	file, _, _ = strings.Cut(file, "\n")
	if got := traces(t, filepath.Dir(file)); len(got) != 1 || filepath.Base(filepath.Dir(file)) != "traces" {
		t.Errorf("kept: %v in %s", got, file)
	}
	does(t, environ, "config", "set", "monitoring.flight_recorder", "false")
	ask(http.StatusConflict)
	daemon.ends(t)
}

func TestADownloadThatStallsLeavesATrace(t *testing.T) {
	hub, environ := quickHub(t)
	hub.Fault(demohub.Match{Kind: demohub.Bulk}, demohub.StallAfter(256*model.KiB, 0), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()
	daemon := serving(ctx, t, append(environ, "EMA_MONITORING__FLIGHT_RECORDER=true"))
	does(t, environ, "pull", "acme/slow", "--detach")
	if err := daemon.stderr.contains(ctx, "trace kept: something was slow\" what=stall file="); err != nil {
		t.Fatal(err)
	}
	hub.ClearFaults()
	daemon.ends(t)
}
