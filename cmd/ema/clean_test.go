package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/demohub"
	"ema/internal/ledger"
)

// A tidy is a daemon with a model that could go.
type tidy struct {
	t   *testing.T
	hub *demohub.Hub
	*process
	environ []string
	url     string
	began   time.Time
}

func tidying(ctx context.Context, t *testing.T, keepRecent string) *tidy {
	t.Helper()
	c := &tidy{t: t, began: time.Now().Add(-time.Hour)}
	c.hub, c.environ = quickHub(t)
	c.process = serving(ctx, t, c.environ)
	c.url = c.address(t) + client.Base
	c.ema("pull", "acme/slow", "--quiet")
	c.ema("config", "set", "cleanup.keep_recent_days", keepRecent)
	return c
}

func (c *tidy) ema(args ...string) string {
	c.t.Helper()
	p := begin(c.t, c.environ, args...)
	if err := p.Wait(); err != nil {
		c.t.Fatalf("ema %v: %v, %s", args, err, p.stderr.String())
	}
	return p.stdout.String()
}

func (c *tidy) clean(body string) (done client.CleanedUp) {
	c.t.Helper()
	if res := asks(c.t, http.DefaultClient, "POST", c.url+"/models/cleanup", body, &done); res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: %s", body, res.Status)
	}
	return done
}

// why is what was decided about a model.
func why(done client.CleanedUp, name string) (action, reason string) {
	for _, one := range done.Items {
		if one.Model == name {
			return one.Action, one.Reason + one.Error
		}
	}
	return "", ""
}

func TestCleaningUpTakesWhatNobodyMissesAndSaysWhyTheRestStays(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	is := func(body, action, reason string) {
		t.Helper()
		if did, said := why(c.clean(body), "acme/slow"); did != action || said != reason {
			t.Errorf("%s: %s, %q; want %s, %q", body, did, said, action, reason)
		}
	}
	is(`{"cleanup_type":"auto"}`, "keep", "it came 0 minutes ago, and models younger than 7 days stay")
	c.ema("config", "set", "cleanup.keep_recent_days", "0")
	is(`{"cleanup_type":"auto"}`, "keep", "only models unused for 30 days may go: it came 0 minutes ago and has not been used since")
	rules := `{"cleanup_type":"auto","min_unused_days":0`
	is(rules+`,"dry_run":true}`, "remove_model", "it came 0 minutes ago and has not been used since")

	c.ema("tier", "pin", "acme/slow")
	is(rules+`}`, "keep", "it is pinned")
	is(`{"cleanup_type":"manual","models_to_remove":["acme/slow"]}`, "keep", "it is pinned: let it loose first")
	c.ema("tier", "unpin", "acme/slow")

	f, err := os.Open(filepath.Join(strings.TrimSpace(c.ema("path", "acme/slow")), "weights.bin"))
	if err != nil {
		t.Fatal(err)
	}
	is(rules+`}`, "keep", "another program has it open")
	is(`{"cleanup_type":"manual","models_to_remove":["acme/slow"]}`, "keep", "another program has it open")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	for range 10 { // and once when the file was opened
		asks(t, http.DefaultClient, "POST", c.url+"/models/usage", `{"model_id":"acme/slow"}`, nil)
	}
	is(rules+`}`, "keep", "it is used often: 11 uses in 7 days, and 10 are enough")

	var stored client.Storage
	asks(t, http.DefaultClient, "GET", c.url+"/models/storage", "", &stored)
	if stored.Cleanup.SafeToRemove != 0 || len(stored.Models) != 1 {
		t.Errorf("before: %+v", stored)
	}
	done := c.clean(rules + `,"preserve_frequently_used":false}`)
	if !done.Success || done.FreedBytes < 8<<20 || !slices.Equal(done.Removed, []string{"acme/slow"}) || done.Summary.Removed != 1 {
		t.Errorf("%+v", done)
	}
	asks(t, http.DefaultClient, "GET", c.url+"/models/storage", "", &stored)
	if len(stored.Models) != 0 {
		t.Errorf("after: %+v", stored)
	}
	if _, said := why(c.clean(`{"cleanup_type":"manual","models_to_remove":["acme/slow"]}`), "acme/slow"); said == "" {
		t.Error("what is not here is removed")
	}
	c.ends(t)
}

func TestWhatItsSourceDoesNotHaveAnyMoreIsNotCleanedUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "0")
	c.hub.Fault(demohub.Match{}, demohub.Status(http.StatusNotFound), 0)
	done := c.clean(`{"cleanup_type":"auto","min_unused_days":0}`)
	if did, said := why(done, "acme/slow"); did != "keep" || said != "it may be the last copy: it could not be fetched again" {
		t.Errorf("%s, %q", did, said)
	}
	if done := c.clean(`{"cleanup_type":"manual","models_to_remove":["acme/slow"]}`); len(done.Removed) != 1 {
		t.Errorf("what somebody names stays: %+v", done)
	}
	c.ends(t)
}

func TestSpaceIsMadeByItself(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "0")
	for _, set := range []string{"min_unused_days 0", "target_percent 0", "trigger_percent 1", "auto true"} {
		key, value, _ := strings.Cut(set, " ")
		c.ema("config", "set", "cleanup."+key, value)
	}
	if err := c.stderr.contains(ctx, `msg="cleaned up" model=acme/slow action=remove_model freed="8.0 MiB"`); err != nil {
		t.Error(err)
	}
	c.ends(t) // what it has noted is durable then
	l, err := ledger.Open(ctx, filepath.Join(strings.TrimPrefix(c.environ[0], "HOME="), ".cache/huggingface/ema/hub", ledgerFile))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	trail, err := l.Audit(ctx, 1, 0)
	if err != nil || len(trail) != 1 || trail[0].Action != "clean-up" || trail[0].Target != "remove_model acme/slow" || trail[0].Who != "ema" || trail[0].Result != "ok" {
		t.Errorf("the trail says %+v, %v", trail, err)
	}
}

func TestSpaceIsMadeForADownloadThatWaits(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "0")
	for _, set := range []string{"cleanup.min_unused_days 0", "cleanup.trigger_percent 100", "cleanup.target_percent 99", "storage_tiers.hot.max_size_gb 0.012", "cleanup.auto true"} {
		key, value, _ := strings.Cut(set, " ")
		c.ema("config", "set", key, value)
	}
	c.ema("pull", "acme/other", "--quiet") // it waits, and goes on by itself
	if err := c.stderr.contains(ctx, `msg="cleaned up" model=acme/slow action=remove_model`); err != nil {
		t.Fatal(err)
	}
	c.ema("verify", "acme/other")
	c.ends(t)
}

func TestASourceThatDoesNotAnswerIsAskedOnceAndNothingGoes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "0")
	c.ema("pull", "acme/other", "--quiet")
	c.hub.Fault(demohub.Match{}, demohub.Status(http.StatusServiceUnavailable), 0)
	c.hub.ResetStats()
	done := c.clean(`{"cleanup_type":"auto","min_unused_days":0}`)
	asked := int64(0)
	for _, n := range c.hub.Stats().Requests {
		asked += n
	}
	for _, name := range []string{"acme/slow", "acme/other"} {
		if did, said := why(done, name); did != "keep" || said != "it may be the last copy: it could not be fetched again" {
			t.Errorf("%s: %s, %q", name, did, said)
		}
	}
	if asked != 1 {
		t.Errorf("it was asked %d times about two models", asked)
	}
	c.ends(t)
}
