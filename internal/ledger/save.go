package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"ema/internal/model"
)

// Save inserts d, or replaces the one with its ID, and returns when that is durable. Calls at the
// same time share commits. A ctx that ends before makes Save return its error, and d was saved whole
// or not at all; of two Saves of one ID at the same time either may come last.
func (l *Ledger) Save(ctx context.Context, d model.Download) error {
	if d.ID == "" {
		return &model.Error{Op: "write ledger", Class: model.Usage, Model: d.Model, Err: errors.New("the download has no id")}
	}
	return l.saves.write(ctx, l, d, l.write)
}

// write saves all of them or none.
func (l *Ledger) write(downloads ...model.Download) error {
	return insert(l, saveSQL(), row, downloads)
}

// Prune forgets final downloads that ended before a time, and says how many.
func (l *Ledger) Prune(ctx context.Context, before time.Time) (int, error) {
	return l.change(ctx, "prune", "DELETE FROM downloads WHERE state IN ($1, $2, $3) AND ended < $4",
		model.Completed, model.Failed, model.Stopped, nanoseconds(before))
}

// change executes one statement, and says how many rows it concerned.
func (l *Ledger) change(ctx context.Context, op, statement string, values ...any) (int, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	res, err := l.db.ExecContext(ctx, statement, values...)
	if err != nil {
		return 0, failure(op, l.path, err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

// columns are those of the table, in the order of row and scan.
func columns() []string {
	return []string{
		"id", "model_scheme", "model_name", "revision", "include", "exclude",
		"priority", "bytes_per_second", "connections", "max_retries",
		"state", "pause", "reason", "class", "next_try", "retries", "tries",
		"commit_id", "path", "size", "done", "arrival", "created", "started", "ended",
	}
}

// saveSQL inserts or replaces a row.
func saveSQL() string {
	var places, updates []string
	for i, c := range columns() {
		places = append(places, fmt.Sprintf("$%d", i+1))
		if c != "id" {
			updates = append(updates, c+" = excluded."+c)
		}
	}
	return "INSERT INTO downloads (" + strings.Join(columns(), ", ") + ") VALUES (" + strings.Join(places, ", ") +
		") ON CONFLICT (id) DO UPDATE SET " + strings.Join(updates, ", ")
}

// row is d as the columns have it.
func row(d model.Download) ([]any, error) {
	include, err := json.Marshal(d.Include)
	if err != nil {
		return nil, err
	}
	exclude, err := json.Marshal(d.Exclude)
	if err != nil {
		return nil, err
	}
	return []any{
		d.ID, string(d.Model.Scheme), d.Model.Name, d.Revision, string(include), string(exclude),
		int64(d.Priority), int64(d.Limit), d.Connections, d.MaxRetries,
		string(d.State), string(d.Pause), d.Reason, d.Class, nanoseconds(d.NextTry), d.Retries, d.Tries,
		d.Commit, d.Path, int64(d.Size), int64(d.Done), d.Order, nanoseconds(d.Created), nanoseconds(d.Started), nanoseconds(d.Ended),
	}, nil
}

// nanoseconds is a time as it is stored; 0 for the zero time, whose own count would overflow.
func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
