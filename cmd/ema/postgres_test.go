package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"testing"
	"time"

	"ema/client"
	"ema/internal/ledger/pgserver"
)

func TestWorkGoesOnWhilePostgreSQLIsAway(t *testing.T) {
	dir, err := os.MkdirTemp("", "pg") // the server's user must get there, which t.TempDir does not let everybody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s, err := pgserver.New(t.Context(), dir)
	if errors.Is(err, pgserver.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // it may be down

	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()
	c := &tidy{t: t}
	c.hub, c.environ = quickHub(t)
	c.environ = append(c.environ, "EMA_DATABASE__URL="+s.URL())
	start := func() {
		c.process = serving(ctx, t, c.environ)
		c.url = c.address(t) + client.Base
	}
	start()
	c.ema("pull", "acme/slow", "--quiet")
	told := int64(0)
	use := func(times int) {
		t.Helper()
		for range times {
			if res := asks(t, http.DefaultClient, "POST", c.url+"/models/usage", `{"model_id":"acme/slow"}`, nil); res.StatusCode != http.StatusOK {
				t.Fatalf("a use: %s", res.Status)
			}
			told++
		}
	}
	known := func() (n int64, status int) {
		t.Helper()
		var a client.Analytics
		res := asks(t, http.DefaultClient, "GET", c.url+"/models/analytics/acme/slow", "", &a)
		return a.Models["acme/slow"].Uses, res.StatusCode
	}
	knows := func() {
		t.Helper()
		for {
			n, status := known()
			if status == http.StatusOK && n == told {
				return
			}
			if pause(ctx, 100*time.Millisecond) != nil {
				t.Fatalf("%d of %d uses are known: %d", n, told, status)
			}
		}
	}
	use(5)
	knows()

	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	use(7)
	c.ema("pull", "acme/other", "--quiet") // downloads go on
	if _, status := known(); status != http.StatusServiceUnavailable {
		t.Errorf("uses without a database: %d", status)
	}
	var h client.PartHealth
	asks(t, http.DefaultClient, "GET", c.url+"/admin/health/db", "", &h)
	if h.Status != client.HealthDegraded || h.Figures["records_dropped"] != 0 {
		t.Errorf("the database's health: %+v", h)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	knows()

	// What waits when the daemon ends is kept, too.
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	use(3)
	c.ends(t)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	start()
	knows()
	c.ends(t)
}
