package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"ema/client"
	"ema/internal/ledger/pgserver"
)

// aServer is a PostgreSQL server of the test's own.
func aServer(t *testing.T) *pgserver.Server {
	t.Helper()
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
	return s
}

func TestWorkGoesOnWhilePostgreSQLIsAway(t *testing.T) {
	s := aServer(t)
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

// What a real PostgreSQL keeps is shown, set and put back, to the byte, by whom it lets do that.
func TestTheSettingsOfPostgreSQLAreAppliedAndPutBack(t *testing.T) {
	s := aServer(t)
	db, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.WithoutCancel(t.Context())) }) // the server may be down
	sql := func(statement string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() (text string) {
		t.Helper()
		if err := db.QueryRow(t.Context(), "SELECT pg_read_file('postgresql.auto.conf')").Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	c := &tidy{t: t, environ: []string{"HOME=" + t.TempDir(), "EMA_DATABASE__URL=" + s.URL()}}
	tune := func(args ...string) (stdout, stderr string, code int) {
		t.Helper()
		p := begin(t, c.environ, append([]string{"tune", "--only", "postgres"}, args...)...)
		if err := p.Wait(); err != nil && p.ProcessState == nil {
			t.Fatal(err)
		}
		return p.stdout.String(), p.stderr.String(), p.ProcessState.ExitCode()
	}
	says := func(text, pattern string) {
		t.Helper()
		if !regexp.MustCompile("(?m)" + pattern).MatchString(text) {
			t.Errorf("it does not say %s:\n%s", pattern, text)
		}
	}

	sql("ALTER SYSTEM SET work_mem = '5MB'") // which somebody had set before
	sql("SELECT pg_reload_conf()")
	before := kept()
	out, _, _ := tune()
	says(out, `^postgres +shared_buffers +64MB +\d+MB +a quarter of memory .*; [0-9.]+ % of the pages were found there so far$`)
	says(out, `^postgres +work_mem +[45]MB +\d+MB +.*; sorts have written 0 B to disk so far$`)
	says(out, `^postgres +checkpoint_completion_target +0.9 +ok `)
	says(out, `^  shared_buffers  # the command line that starts PostgreSQL sets this`) // which the test's server does
	says(out, `^3 settings are not as advised; this sets what is: ema tune apply$`)
	if _, said, code := tune("apply"); code != 2 {
		t.Errorf("with nobody to ask it ends with %d: %s", code, said)
	}
	out, said, code := tune("apply", "--yes")
	if code != 0 {
		t.Fatalf("apply ends with %d: %s", code, said)
	}
	says(out, `^  PostgreSQL: work_mem$`)
	says(out, `^wal_buffers holds once PostgreSQL is started again$`)
	says(kept(), `^work_mem = '\d\d+MB'$`)
	holds := regexp.MustCompile(`postgres +work_mem +\d\d+MB +ok `)
	for out, _, _ = tune(); !holds.MatchString(out); out, _, _ = tune() { // servers read their settings when they come to it
		if t.Context().Err() != nil {
			t.Fatalf("work_mem does not come to hold: %s", out)
		}
	}
	says(out, `^postgres +wal_buffers +2MB +ok +\d+MB holds once PostgreSQL is started again$`)
	says(out, `is put back by: ema tune rollback$`)

	sql("ALTER SYSTEM SET maintenance_work_mem = '99MB'") // which somebody sets in between
	meanwhile := kept()
	_, said, code = tune("rollback")
	if code != 1 || kept() != meanwhile {
		t.Errorf("it puts back what somebody else has changed: %d, %s", code, said)
	}
	says(said, `PostgreSQL: maintenance_work_mem: changed by somebody else since apply; look at it`)
	if out, said, code = tune("rollback", "--force"); code != 0 || kept() != before {
		t.Errorf("put back is %s, was %s: %d, %s", kept(), before, code, said)
	}
	says(out, `^PostgreSQL: work_mem: put back$`)
	out, _, _ = tune("rollback")
	says(out, `^there is nothing to put back`)

	// Somebody who may not is told what to do, and so is who finds nobody.
	sql("CREATE ROLE reader LOGIN")
	super := c.environ[1]
	c.environ[1] = strings.Replace(super, "ema@", "reader@", 1)
	out, _, _ = tune("apply", "--yes")
	says(out, `^there is nothing to set$`)
	says(out, `^  ALTER SYSTEM SET work_mem = '\d+MB';  # only a superuser of PostgreSQL may change it, and database.url names none`)
	c.environ[1] = super
	tune("apply", "--yes")
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	out, _, _ = tune()
	says(out, `# it cannot be asked what it has: .*see whether the database runs`)
	if _, said, code = tune("rollback"); code == 0 {
		t.Error("it puts back what it cannot reach")
	}
	says(said, `see whether PostgreSQL runs; nothing was changed$`)
}
