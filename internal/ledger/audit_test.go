package ledger_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"ema/internal/ledger"
	"ema/internal/model"
)

// entry is one of the audit trail, made so many minutes after the first.
func entry(minutes int) model.AuditEntry {
	return model.AuditEntry{
		At:  time.Date(2026, 3, 29, 1, 30, 0, 123456789, time.UTC).Add(time.Duration(minutes) * time.Minute),
		Who: "jo", Role: "power_user", Action: "download.start", Target: fmt.Sprintf("acme/model-%d", minutes), Result: "ok",
		RequestID: fmt.Sprintf("req_%d", minutes), Remote: "10.0.0.1",
	}
}

func record(t testing.TB, l *ledger.Ledger, entries ...model.AuditEntry) {
	t.Helper()
	for _, e := range entries {
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
}

func targets(trail []model.AuditEntry) (all []string) {
	for _, e := range trail {
		all = append(all, strings.TrimPrefix(e.Target, "acme/model-"))
	}
	return all
}

func keepsTheTrail(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	twin := entry(2) // of the same moment, recorded later
	twin.Target, twin.Who = "acme/model-twin", "'; DROP TABLE audit; -- ü 模型 $1 ?"
	record(t, l, entry(2), entry(1), twin, entry(3))
	shut(t, l)
	l = open()
	defer shut(t, l)
	got, err := l.Audit(t.Context(), 0, 0)
	if want := []model.AuditEntry{entry(3), twin, entry(2), entry(1)}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	record(t, l, entry(4))
	for _, c := range []struct {
		limit, offset int
		want          []string
	}{
		{2, 0, []string{"4", "3"}}, {2, 2, []string{"twin", "2"}}, {2, 4, []string{"1"}}, {2, 5, nil}, {-1, -1, []string{"4", "3", "twin", "2", "1"}},
	} {
		if got, err := l.Audit(t.Context(), c.limit, c.offset); err != nil || !slices.Equal(targets(got), c.want) {
			t.Errorf("limit %d offset %d: got %v, %v; want %v", c.limit, c.offset, targets(got), err, c.want)
		}
	}
}

func prunesTheTrail(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	record(t, l, entry(1), entry(2), entry(3))
	if n, err := l.PruneAudit(t.Context(), entry(2).At); n != 1 || err != nil {
		t.Errorf("forgot %d, %v; want 1", n, err)
	}
	if got, err := l.Audit(t.Context(), 0, 0); err != nil || !slices.Equal(targets(got), []string{"3", "2"}) {
		t.Errorf("left are %v, %v", targets(got), err)
	}
	if n, err := l.PruneAudit(t.Context(), entry(9).At); n != 2 || err != nil {
		t.Errorf("forgot %d, %v; want 2", n, err)
	}
	record(t, l, entry(5))
}

func recordsAtOnce(t *testing.T, open func() *ledger.Ledger) {
	const workers, each = 8, 25
	l := open()
	defer shut(t, l)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				e := entry(w*each + i)
				if err := l.Record(t.Context(), e); err != nil {
					t.Error(err)
				}
				if got, err := l.Audit(t.Context(), 0, 0); err != nil || !slices.Contains(got, e) {
					t.Errorf("what was recorded cannot be read: %v", err)
				}
				if err := l.Save(t.Context(), download(e.RequestID)); err != nil { // the same disk, other records
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got, err := l.Audit(t.Context(), 0, 0); err != nil || len(got) != workers*each {
		t.Errorf("%d entries, %v; want %d", len(got), err, workers*each)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := l.Record(ended, entry(-1)); model.ClassOf(err) != model.Cancelled {
		t.Errorf("with an ended context: %v", err)
	}
}

func trimsTheTrail(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	link, long := entry(1), entry(2)
	link.Target = "https://jo:hunter2@example.org/model.gguf?X-Amz-Signature=hunter2"
	long.Target, long.Result = strings.Repeat("模", 1<<20), "a\x00b\xffc"
	record(t, l, link, long)
	got, err := l.Audit(t.Context(), 0, 0)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if got[1].Target != "https://example.org/model.gguf" {
		t.Errorf("of a link %q is kept", got[1].Target)
	}
	if text := got[0].Target; len(text) > 512 || len(text) < 500 || !utf8.ValidString(text) || !strings.HasSuffix(text, "模…") {
		t.Errorf("of 3 MiB %d bytes are kept: %q", len(text), text)
	}
	if got[0].Result != "abc" {
		t.Errorf("what no text may have is kept: %q", got[0].Result)
	}
}
