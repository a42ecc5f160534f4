package ledger

import (
	"context"
	"database/sql"
	"sync"
)

// A group lets writes of one kind that come at the same time share a commit: a sync of the disk costs the same for
// one record as for a hundred. The zero group is ready.
type group[T any] struct {
	mu   sync.Mutex
	next *batch[T] // what is written after the commit that is under way; nil when nobody waits
}

// A batch is what one commit brings to the disk.
type batch[T any] struct {
	records []T
	errs    []error       // one for each, once it is over
	over    chan struct{} // closed when the commit has succeeded or failed
}

// write brings record to the disk, together with those of the others who wait. all writes some of them, or none when
// it fails. When ctx ends before, record was written whole or not at all.
func (g *group[T]) write(ctx context.Context, l *Ledger, record T, all func(...T) error) error {
	if err := ctx.Err(); err != nil {
		return failure("write", l.path, err)
	}
	b, place := g.join(record)
	if place == 0 {
		// Whoever begins a batch commits it, for all who joined. It does not give up when its own ctx
		// ends, because the others' have not.
		g.commit(l, b, all)
		return b.errs[0]
	}
	select {
	case <-b.over:
		return b.errs[place]
	case <-ctx.Done():
		return failure("write", l.path, ctx.Err())
	}
}

// join adds a record to the batch that is committed next.
func (g *group[T]) join(record T) (b *batch[T], place int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.next == nil {
		g.next = &batch[T]{over: make(chan struct{})}
	}
	b = g.next
	b.records = append(b.records, record)
	return b, len(b.records) - 1
}

// commit waits for the commit before it, during which others join, and then brings b to the disk.
func (g *group[T]) commit(l *Ledger, b *batch[T], all func(...T) error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	defer close(b.over) // before others write, so that who waited may join the next batch with another record
	g.mu.Lock()
	g.next = nil // from here on b does not grow
	g.mu.Unlock()
	b.errs = make([]error, len(b.records))
	if err := all(b.records...); err == nil {
		return
	}
	// One that cannot be written must not fail the others.
	for i, record := range b.records {
		b.errs[i] = all(record)
	}
}

// insert executes a statement once for each of the records, in one transaction.
func insert[T any](l *Ledger, statement string, row func(T) ([]any, error), records []T) (err error) {
	ctx := context.Background() // see group.write: a commit belongs to many
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return failure("write", l.path, err)
	}
	defer func() {
		if err != nil {
			// A rollback that fails adds nothing: what is not committed is gone with its connection.
			_ = tx.Rollback()
			err = failure("write", l.path, err)
		}
	}()
	var prepared *sql.Stmt
	if prepared, err = tx.PrepareContext(ctx, statement); err != nil {
		return err
	}
	for _, r := range records {
		values, err := row(r)
		if err != nil {
			return err
		}
		if _, err := prepared.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
	if err := prepared.Close(); err != nil {
		return err
	}
	return tx.Commit()
}
