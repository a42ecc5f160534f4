package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/demohub"
	"ema/internal/model"
	"ema/internal/store"
)

// moves the hub's branch on: one file is another one.
func (c *tidy) moveOn(text string) (commit string) {
	c.t.Helper()
	if _, err := c.hub.Commit("acme/slow", "main", demohub.Bytes("config.json", []byte(text))); err != nil {
		c.t.Fatal(err)
	}
	return c.hub.Head("acme/slow", "main")
}

// leads is the commit to which main leads here.
func (c *tidy) leads() string {
	c.t.Helper()
	return filepath.Base(strings.TrimSpace(c.ema("path", "acme/slow")))
}

func TestAnUpdateFetchesWhatChangedAndCanBeTakenBack(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	first := c.leads()
	second := c.moveOn("{}")

	var u client.Updates
	asks(t, http.DefaultClient, "GET", c.url+"/models/updates", "", &u)
	if len(u.Updates) != 1 || u.Updates[0].Latest != nil || u.Updates[0].Current != first || u.Policy != "notify" {
		t.Errorf("before anybody asked: %+v", u)
	}
	asks(t, http.DefaultClient, "POST", c.url+"/models/updates/check", `{"model_id":"acme/slow"}`, &u)
	if one := u.Updates[0]; *one.Latest != second || !*one.Available || *one.DownloadMB > 0.001 || *one.DownloadMB == 0 {
		t.Errorf("asked: %+v", one)
	}
	var status client.ModelStatus
	asks(t, http.DefaultClient, "GET", c.url+"/models/status/detailed/acme/slow", "", &status)
	if status.LatestVersion == nil || *status.LatestVersion != second || !*status.UpdateAvailable {
		t.Errorf("its status: %v, %v", status.LatestVersion, status.UpdateAvailable)
	}
	if said := c.ema("update", "--check"); !strings.Contains(said, second[:12]) || c.leads() != first {
		t.Errorf("ema update --check: %s", said)
	}
	held, err := os.Open(filepath.Join(strings.TrimSpace(c.ema("path", "acme/slow")), "weights.bin")) // somebody uses the old one all the while
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	c.hub.ResetStats()
	if said := c.ema("update", "acme/slow", "--quiet"); !strings.Contains(said, second) || c.leads() != second {
		t.Errorf("ema update: %s", said)
	}
	if sent := c.hub.Stats().Body; sent > 100 {
		t.Errorf("%d bytes were sent for a file of 2", sent)
	}
	if said := c.ema("update"); !strings.Contains(said, "the same") {
		t.Errorf("nothing is newer: %s", said)
	}

	if said := c.ema("rollback", "acme/slow"); !strings.Contains(said, "main leads to "+first[:12]+" again") || c.leads() != first {
		t.Errorf("ema rollback: %s", said)
	}
	asks(t, http.DefaultClient, "GET", c.url+"/models/updates", "", &u)
	if one := u.Updates[0]; one.Current != first || one.RolledBack != second || len(one.Previous) != 1 || one.Previous[0].Commit != second {
		t.Errorf("after the rollback: %+v", one)
	}
	if said := c.ema("update", "--check"); !strings.Contains(said, "rolled back") {
		t.Errorf("ema update --check: %s", said)
	}
	for body, want := range map[string]int{
		`{"model_id":"acme/nowhere"}`: 404, `{"model_id":"acme/slow","commit":"` + strings.Repeat("3", 40) + `"}`: 404, `{"model_id":"acme/slow","commit":"main"}`: 422,
	} {
		if res := asks(t, http.DefaultClient, "POST", c.url+"/models/updates/rollback", body, nil); res.StatusCode != want {
			t.Errorf("%s: %s, want %d", body, res.Status, want)
		}
	}
	c.ends(t)
	if said := c.ema("rollback", "acme/slow", "--to", second[:10]); !strings.Contains(said, second[:12]) || c.leads() != second {
		t.Errorf("without a daemon: %s", said)
	}
	if said := c.ema("update", "--check"); !strings.Contains(said, "the same") {
		t.Errorf("without a daemon: %s", said)
	}
}

// What was rolled back is not fetched again by itself, also after a restart; what comes after it is.
func TestUpdatesComeByThemselvesButNotAgainstARollback(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	first := c.leads()
	c.ema("config", "set", "updates.policy", "auto")
	reaches := func(commit string) {
		t.Helper()
		asks(t, http.DefaultClient, "POST", c.url+"/models/updates/check", `{}`, nil)
		for c.leads() != commit {
			if pause(ctx, 50*time.Millisecond) != nil {
				t.Fatalf("main leads to %s, want %s", c.leads(), commit)
			}
		}
	}
	second := c.moveOn("{}")
	reaches(second)
	c.ema("rollback", "acme/slow")
	c.ends(t)
	c.process = serving(ctx, t, c.environ)
	c.url = c.address(t) + client.Base
	var u client.Updates
	asks(t, http.DefaultClient, "POST", c.url+"/models/updates/check", `{"model_id":"acme/slow"}`, &u)
	if *u.Updates[0].Latest != second || c.leads() != first || strings.Contains(c.ema("ps"), "acme/slow") {
		t.Errorf("what was rolled back is fetched: %+v", u)
	}
	reaches(c.moveOn("{ }"))
	c.ends(t)
}

// What an update replaced goes after the time that it is kept, unless a name leads to it.
func TestWhatAnUpdateReplacedGoesInTime(t *testing.T) {
	d, id := quietDaemon(t)
	m, err := d.line.Store.Model(id)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := follows(m)
	if !ok || f.revision != "main" {
		t.Fatalf("%+v", f)
	}
	old := f.current
	if err := d.line.changeTurned(id, func(t *turned) { t.Previous = []string{old.Commit} }); err != nil {
		t.Fatal(err)
	}
	young := old
	young.Commit = strings.Repeat("2", 40)
	young.Record = &store.Record{CompletedAt: time.Now().Add(-time.Hour)}
	former := old
	former.Refs = nil
	now := followed{id: id, revision: "main", current: young, m: store.Model{ID: id, Revisions: []store.Revision{former, young}}}
	kept := d.line.turned(id)
	for name, c := range map[string]struct {
		f      followed
		before time.Time
		gone   int
	}{
		"its time is over":     {now, time.Now(), 1},
		"it is not over yet":   {now, time.Now().Add(-2 * time.Hour), 0},
		"a name leads to it":   {followed{id: id, revision: "main", current: young, m: store.Model{Revisions: []store.Revision{old, young}}}, time.Now(), 0},
		"it is the newest one": {f, time.Now().Add(time.Hour), 0},
	} {
		if gone := replaced(c.f, kept, c.before); len(gone) != c.gone {
			t.Errorf("%s: %v", name, gone)
		}
	}
	damaged := now
	damaged.current.State = store.Damaged
	if gone := replaced(damaged, kept, time.Now()); len(gone) != 0 {
		t.Errorf("what replaced it is damaged: %v", gone)
	}
}

// Many models are not asked about at once after a start, and nobody is asked where nobody shall be, or while a source is away.
func TestSourcesAreAskedInTurn(t *testing.T) {
	d, _ := quietDaemon(t)
	u := d.updates
	var soon int
	for i := range 1000 {
		at := u.due(model.ID{Name: strings.Repeat("m", i+1)})
		if at.Before(u.began) || at.After(u.began.Add(soonestAsked)) {
			t.Fatalf("due %v after the start", at.Sub(u.began))
		}
		if at.Before(u.began.Add(soonestAsked / 2)) {
			soon++
		}
	}
	if soon < 300 || soon > 700 {
		t.Errorf("%d of 1000 in the first half", soon)
	}
	id := model.ID{Name: "acme/two"}
	u.known[id] = answered{at: time.Now()}
	if at := u.due(id); at.Before(time.Now().Add(23 * time.Hour)) {
		t.Errorf("asked again at %v", at)
	}
	u.silence = time.Now().Add(hushed)
	delete(u.known, id)
	if at := u.due(id); !at.Equal(u.silence) {
		t.Errorf("while the source is away: %v", at)
	}
	d.settings.Updates.Policy = "pin"
	if at := u.due(id); at.Before(time.Now().Add(time.Hour)) {
		t.Errorf("somebody is asked: %v", at)
	}
	u.now = true
	if at := u.due(id); !at.IsZero() {
		t.Errorf("somebody wants to know: %v", at)
	}
}
