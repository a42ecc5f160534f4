package ledger

import (
	"context"
	"runtime"
	"testing"
	"time"

	"ema/internal/model"
)

func TestEntriesOfTheAuditTrailShareACommit(t *testing.T) {
	const many = 50
	l := fresh(t)
	l.writing.Lock()
	results := make(chan error, many)
	for range many {
		go func() {
			results <- l.Record(context.Background(), model.AuditEntry{At: time.Unix(1, 0), Who: "jo"})
		}()
	}
	for waiting := 0; waiting < many; runtime.Gosched() {
		l.audits.mu.Lock()
		if l.audits.next != nil {
			waiting = len(l.audits.next.records)
		}
		l.audits.mu.Unlock()
	}
	l.writing.Unlock()
	for range many {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if all, err := l.Audit(t.Context(), 0, 0); err != nil || len(all) != many {
		t.Errorf("%d are there, %v", len(all), err)
	}
}

func TestWhoReadsTheAuditTrailWaitsForNoWriter(t *testing.T) {
	l := fresh(t)
	if err := l.Record(t.Context(), model.AuditEntry{At: time.Unix(1, 0), Who: "jo"}); err != nil {
		t.Fatal(err)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	tx, err := l.db.BeginTx(t.Context(), nil) // a commit that takes long
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), "DELETE FROM audit"); err != nil {
		t.Fatal(err)
	}
	soon, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	if all, err := l.Audit(soon, 0, 0); err != nil || len(all) != 1 {
		t.Errorf("%d are seen, %v", len(all), err)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
}
