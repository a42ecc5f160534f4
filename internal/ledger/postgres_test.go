package ledger_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"ema/internal/ledger"
	"ema/internal/ledger/pgserver"
	"ema/internal/model"
)

// postgres is a server of its own. Where there is none, the test is skipped, and fails in CI.
func postgres(t testing.TB) *pgserver.Server {
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
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openPostgres(t testing.TB, url string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPostgreSQL(t *testing.T) {
	s := postgres(t)
	var n atomic.Int64
	conformance(t, func(t *testing.T) func() *ledger.Ledger {
		url, err := s.Create(t.Context(), fmt.Sprintf("ema%d", n.Add(1)))
		if err != nil {
			t.Fatal(err)
		}
		return func() *ledger.Ledger { return openPostgres(t, url) }
	})
}

func TestADatabaseThatCannotBeReachedIsSaidWithoutItsPassword(t *testing.T) {
	s := postgres(t)
	refused, err := s.Create(t.Context(), "refused")
	if err != nil {
		t.Fatal(err)
	}
	for url, class := range map[string]model.Class{
		"postgres://ema:s3cret@127.0.0.1:1/ema":                                  model.Timeout,
		strings.Replace(refused, "/refused", "/missing", 1):                      model.NotFound,
		strings.Replace(refused, "ema@", "stranger:s3cret@", 1):                  model.Auth,
		"postgres://ema:s3cret@127.0.0.1:notaport/ema":                           model.Usage,
		"postgres://ema:s3cret@127.0.0.1:5432/ema?sslmode=s3cret&pool_max_conns": model.Usage,
	} {
		_, err := ledger.OpenPostgres(t.Context(), url)
		if model.ClassOf(err) != class || strings.Contains(fmt.Sprint(err), "s3cret") {
			t.Errorf("%s: %v (%s), want %s", url, err, model.ClassOf(err), class)
		}
	}
}
