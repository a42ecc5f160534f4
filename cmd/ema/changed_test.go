package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/config"
)

func TestSettingsChangedOverTheNetworkActAllOrNone(t *testing.T) {
	_, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	c, err := client.New(daemon.address(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	current := func() map[string]any {
		t.Helper()
		s, err := c.ConfigCurrent(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s.Config
	}
	size := func() any { return current()["downloads"].(map[string]any)["queue_size"] }
	before := size()

	// All mistakes at once, and nothing changes.
	wrong := map[string]any{"downloads": map[string]any{"queue_size": 7, "queue_sice": 1}, "websocket": map[string]any{"batch_size": 0}}
	_, err = c.ConfigUpdate(ctx, wrong)
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != http.StatusUnprocessableEntity || len(e.Fields) != 2 {
		t.Errorf("%v: %+v", err, e)
	}
	v, err := c.ConfigValidate(ctx, wrong)
	if err != nil || v.Valid || len(v.Mistakes) != 2 || v.Mistakes[0].Nearest+v.Mistakes[1].Nearest != "downloads.queue_size" {
		t.Errorf("%v: %+v", err, v)
	}
	if got := size(); got != before {
		t.Errorf("it became %v", got)
	}

	right := map[string]any{"downloads": map[string]any{"queue_size": 7}, "server": map[string]any{"access_log": true}}
	v, err = c.ConfigValidate(ctx, right)
	if err != nil || !v.Valid || strings.Join(v.Updated, " ") != "downloads.queue_size server.access_log" || strings.Join(v.RestartKeys, " ") != "server.access_log" {
		t.Errorf("%v: %+v", err, v)
	}
	if got := size(); got != before {
		t.Errorf("judged, it became %v", got)
	}
	done, err := c.ConfigUpdate(ctx, right)
	if err != nil || !done.Success || strings.Join(done.Updated, " ") != "downloads.queue_size server.access_log" || strings.Join(done.RestartKeys, " ") != "server.access_log" {
		t.Errorf("%v: %+v", err, done)
	}
	if got := size(); got != 7.0 {
		t.Errorf("it became %v", got)
	}
	// A token of a database is accepted, and nobody is told it.
	if _, err := c.ConfigUpdate(ctx, map[string]any{"database": map[string]any{"url": "postgres://ema:hunter2@db.example/ema"}}); err != nil {
		t.Error(err)
	}
	if all, err := json.Marshal(current()); err != nil || strings.Contains(string(all), "hunter2") || !strings.Contains(string(all), "db.example") {
		t.Errorf("%v: %s", err, all)
	}
	if schema, err := c.ConfigSchema(ctx); err != nil || !strings.Contains(string(schema), "queue_size") {
		t.Errorf("%v: %.100s", err, schema)
	}
	daemon.ends(t)
	if strings.Contains(daemon.stderr.String(), "hunter2") {
		t.Error("the password is in the log")
	}
}

func TestAKillAtAnyTimeLeavesAllOfAChangeOrNothing(t *testing.T) {
	home := t.TempDir()
	environ := []string{"HOME=" + home, "GORACE=" + noRest}
	if p := begin(t, environ, "config", "set", "downloads.queue_size", "1"); p.Wait() != nil {
		t.Fatal(p.stderr.String())
	}
	file := filepath.Join(home, ".cache", "huggingface", "ema", "hub", changedFile)
	acknowledged := 1
	begun := time.Now()
	first := begin(t, environ, "config", "set", "downloads.queue_size", "2")
	if first.Wait() == nil {
		acknowledged = 2
	}
	whole := time.Since(begun)
	for i := range 40 {
		value := 100 + i
		p := begin(t, environ, "config", "set", "downloads.queue_size", fmt.Sprint(value))
		kill := time.AfterFunc(whole*time.Duration(i)/40, func() { _ = p.Process.Kill() }) // it may have ended
		if p.Wait() == nil {
			acknowledged = value
		}
		kill.Stop()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		o, err := config.ParseOverlay(file, content)
		if err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		e, err := config.Load(config.Request{Overlay: o})
		if err != nil {
			t.Fatal(err)
		}
		if n := e.Downloads.QueueSize; n != value && n != acknowledged {
			t.Fatalf("%d is there, acknowledged was %d, and the last change %d", n, acknowledged, value)
		}
		acknowledged = e.Downloads.QueueSize
	}
	if p := begin(t, environ, "config", "set", "downloads.queue_size", "3"); p.Wait() != nil {
		t.Fatal(p.stderr.String())
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), unfinished)); err != nil || len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
