package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/client"
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
	info, err := os.Stat(name)
	if err != nil {
		c.t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 100); err != nil {
		c.t.Fatal(err)
	}
	b[0]++
	if _, err := f.WriteAt(b, 100); err != nil {
		c.t.Fatal(err)
	}
	if quietly {
		if err := os.Chtimes(name, info.ModTime(), info.ModTime()); err != nil {
			c.t.Fatal(err)
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
	if h := c.well(); h.Overall != client.ConditionHealthy {
		t.Errorf("after the repair: %+v", h)
	}
}

// A program that writes into a model is heard; what it wrote is found, and mended without being asked.
func TestAModelThatIsWrittenToIsMendedByItself(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	hook, told := alerts(t)
	c.ema("config", "set", "monitoring.alert_webhook", hook)
	c.harm(false)
	heard(ctx, t, told, client.ConditionCorrupted)
	heard(ctx, t, told, client.ConditionHealthy)
	if h := c.well(); h.Overall != client.ConditionHealthy || h.Repair == nil || h.Repair.State != client.TaskDone {
		t.Errorf("after the repair: %+v", h)
	}
	c.ema("verify", "acme/slow")
}
