package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/demohub"
	"ema/internal/event"
	"ema/internal/ledger"
	"ema/internal/metrics"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/queue"
	"ema/internal/verify"
)

// An alert is what a webhook is told.
type alert struct {
	Model    string `json:"model_id"`
	Alert    string `json:"alert_type"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Advice   string `json:"recommended_action"`
}

// alerts is a webhook, and what it is told.
func alerts(t *testing.T) (address string, told chan alert) {
	t.Helper()
	told = make(chan alert, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var a alert
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Error(err)
		}
		told <- a
	}))
	t.Cleanup(s.Close)
	return s.URL + "/secret", told
}

// well is how well acme/slow is.
func (c *tidy) well() (h client.ModelHealth) {
	c.t.Helper()
	if res := asks(c.t, http.DefaultClient, "GET", c.url+"/models/health/acme/slow", "", &h); res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNotFound {
		c.t.Fatalf("health: %s", res.Status)
	}
	return h
}

// becomes waits until acme/slow is as it should be.
func (c *tidy) becomes(ctx context.Context, what string, is func(client.ModelHealth) bool) client.ModelHealth {
	c.t.Helper()
	for {
		h := c.well()
		if is(h) {
			return h
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			c.t.Fatalf("it did not become %s: %+v", what, h)
		}
	}
}

// checked has all bytes of acme/slow read, and returns how well it is then.
func (c *tidy) checked(ctx context.Context) client.ModelHealth {
	c.t.Helper()
	var begun client.CheckBegun
	if res := asks(c.t, http.DefaultClient, "POST", c.url+"/models/health/acme/slow/check", `{"check_type":"full","force_check":true}`, &begun); res.StatusCode != http.StatusOK || begun.ID == "" {
		c.t.Fatalf("check: %s, %+v", res.Status, begun)
	}
	return c.becomes(ctx, "checked", func(h client.ModelHealth) bool {
		return h.Check != nil && h.Check.ID == begun.ID && h.Check.State == client.TaskDone
	})
}

// harm changes a byte of the model's file; quietly leaves no trace.
func (c *tidy) harm(quietly bool) {
	c.t.Helper()
	name := filepath.Join(strings.TrimSpace(c.ema("path", "acme/slow")), "weights.bin")
	spoil(c.t, name, quietly)
}

// spoil changes a byte of a file; quietly leaves no trace.
func spoil(t *testing.T, name string, quietly bool) {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 100); err != nil {
		t.Fatal(err)
	}
	b[0]++
	if _, err := f.WriteAt(b, 100); err != nil {
		t.Fatal(err)
	}
	if quietly {
		if err := os.Chtimes(name, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
}

func heard(ctx context.Context, t *testing.T, told chan alert, what string) alert {
	t.Helper()
	select {
	case a := <-told:
		if a.Alert != what || a.Model != "acme/slow" {
			t.Errorf("alert = %+v, want %s", a, what)
		}
		return a
	case <-ctx.Done():
		t.Fatalf("nobody was told that it is %s", what)
		return alert{}
	}
}

func TestDamageIsFoundToldAndMended(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	hook, told := alerts(t)
	c.ema("config", "set", "monitoring.alert_webhook", hook)
	c.ema("config", "set", "health.auto_repair", "false")

	if h := c.checked(ctx); h.Overall != client.ConditionHealthy || *h.Integrity != 1 || len(h.Issues) != 0 || h.LastFullCheck == nil {
		t.Errorf("a model that is well: %+v", h)
	}
	c.harm(true)
	h := c.checked(ctx)
	if h.Overall != client.ConditionCorrupted || *h.Integrity > 0.5 || len(h.Issues) != 1 || !strings.Contains(h.Issues[0], "weights.bin is damaged in") ||
		!strings.Contains(h.Recommendations[0], "ema repair acme/slow") || len(h.History) < 2 || h.History[0].Overall != client.ConditionCorrupted {
		t.Errorf("a model with a wrong byte: %+v", h)
	}
	if a := heard(ctx, t, told, client.ConditionCorrupted); a.Severity != "critical" || !strings.Contains(a.Message, "weights.bin") || !strings.Contains(a.Advice, "ema repair") {
		t.Errorf("alert = %+v", a)
	}
	var status client.ModelStatus
	asks(t, http.DefaultClient, "GET", c.url+"/models/status/detailed/acme/slow", "", &status)
	if status.Availability != client.AvailabilityCorrupted || !status.CorruptionDetected {
		t.Errorf("its status is %s", status.Availability)
	}
	if status.LastHealthCheck == nil || h.LastCheck.Sub(*status.LastHealthCheck) > time.Minute || status.PerformanceScore != nil {
		t.Errorf("its status knows of a check at %v, and of the performance %v", status.LastHealthCheck, status.PerformanceScore)
	}

	c.hub.ResetStats()
	var begun client.RepairBegun
	if res := asks(t, http.DefaultClient, "POST", c.url+"/models/health/acme%2Fslow/repair", `{"repair_type":"auto"}`, &begun); res.StatusCode != http.StatusOK {
		t.Fatalf("repair: %s", res.Status)
	}
	h = c.becomes(ctx, "mended", func(h client.ModelHealth) bool { return h.Repair != nil && h.Repair.State == client.TaskDone })
	if h.Repair.ID != begun.ID || len(h.Repair.Actions) != 1 || !strings.Contains(h.Repair.Actions[0], "fetched again") {
		t.Errorf("the repair: %+v", h.Repair)
	}
	if sent := c.hub.Stats().Body; sent == 0 || sent > 1<<20 {
		t.Errorf("%d bytes were fetched for one block", sent)
	}
	heard(ctx, t, told, client.ConditionHealthy)
	if said := c.ema("health"); !strings.Contains(said, "acme/slow  healthy  100 %") {
		t.Errorf("after the repair: %s", said)
	}
	c.ends(t)
	if said := c.ema("health", "acme/slow"); !strings.Contains(said, "acme/slow  healthy  100 %") {
		t.Errorf("without a daemon: %s", said)
	}
}

// A program that writes into a model is heard; what it wrote is found, and mended without being asked.
func TestAModelThatIsWrittenToIsMendedByItself(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	hook, told := alerts(t)
	c.ema("config", "set", "monitoring.alert_webhook", hook)
	c.becomes(ctx, "known", func(h client.ModelHealth) bool { return h.Overall == client.ConditionHealthy }) // what comes now is no longer heard of the pull
	c.harm(false)
	heard(ctx, t, told, client.ConditionCorrupted)
	heard(ctx, t, told, client.ConditionHealthy)
	if h := c.well(); h.Overall != client.ConditionHealthy || h.Repair == nil || h.Repair.State != client.TaskDone {
		t.Errorf("after the repair: %+v", h)
	}
	c.ema("verify", "acme/slow")
	c.ends(t)
}

// quietDaemon is a daemon of which nothing runs, with a model of two files. environ is what its environment has besides.
func quietDaemon(t *testing.T, environ ...string) (*daemon, model.ID) {
	t.Helper()
	hub := demohub.New(demohub.Repo("acme/two", demohub.File("a.bin", 3*model.MiB), demohub.File("b.bin", 2*model.MiB+7)))
	origin := httptest.NewServer(hub)
	t.Cleanup(origin.Close)
	home := t.TempDir()
	a := &app{stdout: io.Discard, stderr: io.Discard, environ: append([]string{"HOME=" + home, "HF_ENDPOINT=" + origin.URL}, environ...)}
	e, err := a.settings()
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.line("test", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	id := model.ID{Name: "acme/two"}
	if _, err := l.Pull(t.Context(), pipeline.Request{ID: id}, &pipeline.Progress{}); err != nil {
		t.Fatal(err)
	}
	kept, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ema.db"))
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{
		app: a, line: l, ledger: &journal{Ledger: kept}, history: ledger.NewRecorder(kept, "", filepath.Join(home, "spool"), 1000), bus: event.New(0),
		settings: e, log: slog.New(slog.DiscardHandler),
	}
	l.own = newOwn()
	d.pools = newPools(e.CPUOptimization, func(string) {})
	d.queue = queue.New(queue.Settings{}, d.ledger, nil, d.bus)
	d.repairs, d.moves, d.clinic = newRepairs(d), newMoves(d), newClinic(d)
	d.updates = newUpdates(d)
	d.metrics = metrics.New(metrics.Settings{})
	if d.habits, err = d.recall(t.Context(), e.StorageTiers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(kept.Close(), l.end()); err != nil {
			t.Error(err)
		}
	})
	return d, id
}

// A model whose full checks have become slow is degraded, and says why; that other models are fast doesn't matter.
func TestAModelThatIsReadMoreSlowlyThanBeforeIsDegraded(t *testing.T) {
	d, id := quietDaemon(t)
	m, err := d.line.Store.Model(id)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tell := func(of model.ID, kind string, seconds ...int) {
		var b ledger.Batch
		for i, s := range seconds {
			b.Checks = append(b.Checks, model.HealthCheck{
				Model: of, Commit: "c0ffee", At: now.Add(time.Duration(i-len(seconds)) * time.Hour), Kind: kind, Overall: model.Healthy,
				Files: 1, Bytes: model.GiB, Duration: time.Duration(s) * time.Second,
			})
		}
		d.history.Tell(b)
	}
	tell(id, "full", 2, 2, 2, 2, 2, 8, 8, 8)
	tell(id, "scrub", 100, 100, 100, 100, 100, 1, 1, 1) // which is as slow as it is told to be
	tell(model.ID{Name: "acme/other"}, "full", 2, 2, 2, 2, 2, 2, 2, 2)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.history.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	if err := d.history.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := d.history.Database()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.clinic.compareNow(t.Context(), db, now); err != nil {
		t.Fatal(err)
	}
	d.clinic.judge(m, nil)
	h := d.clinic.Health(t.Context(), []model.ID{id}).Models[id.Public()]
	if h.Overall != string(model.Degraded) || h.Performance == nil || *h.Performance != 0.25 ||
		!slices.Contains(h.Issues, "its files are read more slowly than before: at 25 % of the speed") {
		t.Errorf("it is %+v", h)
	}
	if other := d.clinic.reads[model.ID{Name: "acme/other"}]; other == nil || *other != 1 {
		t.Errorf("the other is read at %v", other)
	}
}

// A scrub reads what nobody has read for long, finds what shows in no date, and goes on after a restart where it was.
func TestAScrubFindsWhatShowsNowhere(t *testing.T) {
	d, id := quietDaemon(t)
	c := d.clinic
	m, err := d.line.Store.Model(id)
	if err != nil {
		t.Fatal(err)
	}
	c.judge(m, nil)
	now := time.Now()
	if next, due := c.next(now.Add(calm)); next != nil || due.Before(now) {
		t.Errorf("a model that was proven when it came is read: %+v, due %v", next, due)
	}
	later := now.Add(721 * time.Hour)
	next, _ := c.next(later)
	if next == nil || next.id != id || next.kind != scrubCheck {
		t.Fatalf("after a month: %+v", next)
	}

	// It is stopped after its first file.
	ctx, stop := context.WithCancel(t.Context())
	how := c.manner(ctx, next, m.Revisions[0].Commit)
	checked := how.Checked
	how.Checked = func(d model.Digest) { checked(d); stop() }
	if _, err := d.line.VerifyEach(ctx, id, m.Revisions[0].Commit, how, &pipeline.Progress{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("error = %v", err)
	}
	stop()
	again := newClinic(d) // the next daemon
	read, all := 0, len(m.Revisions[0].Files)
	how = again.manner(t.Context(), next, m.Revisions[0].Commit)
	open := how.Open
	how.Open = func(path string) (verify.Reader, error) { read++; return open(path) }
	if report, err := d.line.VerifyEach(t.Context(), id, m.Revisions[0].Commit, how, &pipeline.Progress{}); err != nil || !report.OK() || read >= all || read == 0 {
		t.Errorf("%d of %d files were read again: %v", read, all, err)
	}

	// A bit flips, and the file looks as before.
	blob, err := d.line.Store.Blob(id, m.Revisions[0].Files[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, blob.Path, true)
	if err := os.Remove(c.scrubPath()); err != nil {
		t.Fatal(err)
	}
	c.readOne(t.Context(), next)
	h := c.Health(t.Context(), nil)
	if one := h.Models[id.Public()]; one.Overall != client.ConditionCorrupted || h.System.Corrupted != 1 {
		t.Errorf("after the scrub: %+v", one)
	}
	if next, _ := c.next(later); next != nil {
		t.Errorf("what is bad is read again and again: %+v", next)
	}
	if _, err := os.Stat(c.scrubPath()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note of a scrub that is over stays: %v", err)
	}
}

func TestARepairThatFailedIsTriedAgainLaterAndLater(t *testing.T) {
	for attempts, want := range map[int]time.Duration{1: time.Hour, 2: 2 * time.Hour, 5: 16 * time.Hour, 6: 32 * time.Hour, 7: 48 * time.Hour, 1000: 48 * time.Hour} {
		if got := again(attempts); got != want {
			t.Errorf("after %d attempts: %v, want %v", attempts, got, want)
		}
	}
}
