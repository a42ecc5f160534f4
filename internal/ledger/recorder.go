package ledger

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite/lib"

	"ema/internal/model"
)

const (
	// lull is how long a Recorder waits for more before it writes: a commit costs the same for one record as for thousands.
	lull = 500 * time.Millisecond
	// enough is how many records are written together at most.
	enough = 20_000
	// The next try, while the database is away, comes after so long; it takes twice as long each time.
	soonest, latest = time.Second, 30 * time.Second
	// parting is how long the end may take.
	parting = 2 * time.Second
)

// A Recorder writes history behind the back of whoever tells of it: telling never waits, neither for a disk nor for a
// database that is away. What is told meanwhile is kept in memory, up to a bound; beyond that it is dropped, and counted.
// What has not been written when Run ends is kept in a file, for the next Run.
//
// Its methods may be called concurrently; Run once.
type Recorder struct {
	kept  *Ledger // of SQLite
	url   string  // of PostgreSQL; "" = records are written to kept
	spool string  // the file for what could not be written
	most  int

	wake    chan struct{} // holds one when there is something to look at
	spooled bool          // of Run: the file is there, and what it has is not all written

	mu      sync.Mutex
	waiting Batch // what is written next
	told    uint64
	done    uint64        // of told: written, refused or dropped
	state   RecorderState // but for Waiting
	changed chan struct{} // closed when done or state change
	db      *Ledger       // nil until it was reached first
	hurry   bool          // somebody waits
}

// RecorderState is how a Recorder stands.
type RecorderState struct {
	Waiting int           // records that are not written yet
	Written uint64        // records
	Dropped uint64        // records for which there was no room
	Refused uint64        // records that the database does not take
	Away    error         // why the database cannot be used; nil when it can
	Since   time.Time     // when it was lost or found
	Writes  uint64        // batches that were written
	Took    time.Duration // that these took, added up
}

// NewRecorder makes one that keeps at most so many records while it cannot write. url is of a PostgreSQL database; without
// it records go to kept, which stays open when Run ends. spool is where records outlive the process.
func NewRecorder(kept *Ledger, url, spool string, most int) *Recorder {
	r := &Recorder{kept: kept, url: url, spool: spool, most: most, wake: make(chan struct{}, 1), changed: make(chan struct{})}
	if url == "" {
		r.db = kept
	} else {
		r.state.Away = &model.Error{Op: "open ledger", Class: model.Timeout, Err: errors.New("the database has not been asked yet")}
	}
	return r
}

// Tell has all of b written, soon. It never waits. The ID of b is not used.
func (r *Recorder) Tell(b Batch) {
	n := b.Len()
	if n == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told += uint64(n)
	if r.waiting.Len()+n > r.most {
		r.done += uint64(n)
		r.state.Dropped += uint64(n)
		r.announce()
		return
	}
	first := r.waiting.Len() == 0
	r.waiting.append(b)
	if first || r.waiting.Len() >= enough {
		r.nudge()
	}
}

// append adds the records of o.
func (b *Batch) append(o Batch) {
	b.Uses = append(b.Uses, o.Uses...)
	b.Checks = append(b.Checks, o.Checks...)
	b.Samples = append(b.Samples, o.Samples...)
	b.Events = append(b.Events, o.Events...)
	b.Downloads = append(b.Downloads, o.Downloads...)
	b.Audit = append(b.Audit, o.Audit...)
}

// cut takes the first n records out of b, or all when there are fewer.
func (b *Batch) cut(n int) (part Batch) {
	part.Uses, b.Uses, n = cut(b.Uses, n)
	part.Checks, b.Checks, n = cut(b.Checks, n)
	part.Samples, b.Samples, n = cut(b.Samples, n)
	part.Events, b.Events, n = cut(b.Events, n)
	part.Downloads, b.Downloads, n = cut(b.Downloads, n)
	part.Audit, b.Audit, _ = cut(b.Audit, n)
	return part
}

// cut is the first of all, at most n, and the rest; and how many of n are left.
func cut[T any](all []T, n int) (first, rest []T, left int) {
	k := min(n, len(all))
	if k == len(all) {
		return all, nil, n - k // so that what has no records any more keeps no memory
	}
	return all[:k:k], all[k:], n - k
}

// nudge has Run look. The caller holds mu.
func (r *Recorder) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// announce tells who waits that something has changed. The caller holds mu.
func (r *Recorder) announce() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// State is how it stands.
func (r *Recorder) State() RecorderState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Waiting = int(r.told - r.done)
	return s
}

// Watch is how it stands, and a channel that is closed when that changes: when records are written or the database is lost or
// found.
func (r *Recorder) Watch() (RecorderState, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Waiting = int(r.told - r.done)
	return s, r.changed
}

// Database is where the records go, or an error of class Timeout or Auth while it cannot be used. It must not be closed.
func (r *Recorder) Database() (*Ledger, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Away != nil {
		return nil, r.state.Away
	}
	return r.db, nil
}

// Flush waits until what was told before is written. While the database is away it returns why.
func (r *Recorder) Flush(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for want := r.told; r.done < want; {
		if r.state.Away != nil {
			return r.state.Away
		}
		r.hurry = true
		r.nudge()
		changed := r.changed
		r.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		r.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// Run writes until ctx ends, and then what is left. It returns when nothing of it is under way any more; the error says
// what could neither be written nor kept.
func (r *Recorder) Run(ctx context.Context) error {
	left, err := r.recall()
	if err != nil {
		return err
	}
	wait := soonest
	for ctx.Err() == nil {
		if r.write(ctx, &left) == nil {
			wait = soonest
			r.more(ctx)
		} else { // State tells why
			r.pause(ctx, wait)
			wait = min(2*wait, latest)
		}
	}
	return r.part(ctx, left)
}

// more waits until there is something to write, and a little longer, or until ctx ends.
func (r *Recorder) more(ctx context.Context) {
	for {
		r.mu.Lock()
		n := r.waiting.Len()
		r.mu.Unlock()
		if n > 0 {
			r.pause(ctx, lull)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
	}
}

// pause waits, until ctx ends at most; not while there is much to write or somebody waits for it, as far as the database is
// there.
func (r *Recorder) pause(ctx context.Context, d time.Duration) {
	due := time.NewTimer(d)
	defer due.Stop()
	for {
		r.mu.Lock()
		now := r.state.Away == nil && (r.hurry || r.waiting.Len() >= enough)
		r.mu.Unlock()
		if now {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-due.C:
			return
		case <-r.wake:
		}
	}
}

// write writes the batches that are left, and then what waits, until there is nothing more. What could not be written is left.
func (r *Recorder) write(ctx context.Context, left *[]Batch) error {
	err := r.reach(ctx)
	for err == nil {
		if len(*left) == 0 {
			r.mu.Lock()
			b := r.waiting.cut(enough)
			if b.Len() == 0 {
				r.hurry = false
			}
			r.mu.Unlock()
			if b.Len() == 0 {
				return nil
			}
			b.ID = rand.Text()
			*left = []Batch{b}
		}
		n := uint64((*left)[0].Len())
		var refused uint64
		begun := time.Now()
		if refused, err = writeAll(ctx, r.db, (*left)[0]); err != nil {
			break
		}
		if *left = (*left)[1:]; len(*left) == 0 && r.spooled {
			err = r.forgetSpool()
		}
		r.mu.Lock()
		r.done += n
		r.state.Writes++
		r.state.Took += time.Since(begun)
		r.state.Written += n - refused
		r.state.Refused += refused
		if r.state.Away != nil {
			r.state.Away, r.state.Since = nil, time.Now()
		}
		r.announce()
		r.mu.Unlock()
	}
	if ctx.Err() == nil {
		r.lost(err)
	}
	return err
}

// reach finds the database again when it was away. Only Run changes where it is.
func (r *Recorder) reach(ctx context.Context) error {
	r.mu.Lock()
	db, away := r.db, r.state.Away
	r.mu.Unlock()
	if away == nil || r.url == "" {
		return nil
	}
	var err error
	if db == nil {
		db, err = OpenPostgres(ctx, r.url)
	} else { // its connections are made anew by themselves, but it may be another one by now
		err = db.migrate(ctx)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.db, r.state.Away, r.state.Since = db, nil, time.Now()
	r.announce()
	return nil
}

// lost notes that the database cannot be used.
func (r *Recorder) lost(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Away == nil || r.state.Since.IsZero() {
		r.state.Since = time.Now()
	}
	r.state.Away = err
	r.announce()
}

// writeAll writes b, and leaves out the records that the database will never take: it says how many.
func writeAll(ctx context.Context, db *Ledger, b Batch) (refused uint64, err error) {
	err = db.Write(ctx, b)
	if err == nil || !unfit(err) {
		return 0, err
	}
	if b.Len() == 1 {
		return 1, nil
	}
	rest := b
	half := rest.cut(b.Len() / 2)
	half.ID, rest.ID = b.ID+"a", b.ID+"b"
	for _, part := range []Batch{half, rest} {
		n, err := writeAll(ctx, db, part)
		refused += n
		if err != nil {
			return refused, err
		}
	}
	return refused, nil
}

// unfit reports whether err is about the records, as opposed to the database.
func unfit(err error) bool {
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return len(said.Code) == 5 && (said.Code[:2] == "22" || said.Code[:2] == "23")
	}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return true
	}
	return model.ClassOf(err) == model.Usage
}

// part writes what is left, once more, and keeps in a file what cannot be written.
func (r *Recorder) part(ctx context.Context, left []Batch) error {
	ctx, end := context.WithTimeout(context.WithoutCancel(ctx), parting)
	defer end()
	err := r.write(ctx, &left)
	r.mu.Lock()
	rest, db := r.waiting, r.db
	r.waiting = Batch{}
	r.mu.Unlock()
	if err != nil {
		err = nil
		if rest.Len() > 0 {
			rest.ID = rand.Text()
			left = append(left, rest)
		}
		if len(left) > 0 {
			err = r.keep(left)
		}
	}
	if r.url != "" && db != nil {
		err = errors.Join(err, closeSoon(db))
	}
	return err
}

// closeSoon closes db, unless that takes long: a database that does not answer is waited for by its driver, and nothing is lost when
// its connections end with the process.
func closeSoon(db *Ledger) error {
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	late := time.NewTimer(parting / 2)
	defer late.Stop()
	select {
	case err := <-closed:
		return err
	case <-late.C:
		return nil
	}
}

// keep stores batches in the file, durably: it is written and synced, then it takes the name, then the folder is synced.
func (r *Recorder) keep(left []Batch) error {
	fail := func(err error) error {
		return &model.Error{Op: "keep history", Class: model.DiskError, File: r.spool, Err: fmt.Errorf("what happened lately could be written neither to the database nor here: %w", err)}
	}
	content, err := json.Marshal(left)
	if err != nil {
		return fail(err)
	}
	f, err := os.OpenFile(r.spool+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fail(err)
	}
	if _, err = f.Write(content); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fail(err)
	}
	if err := os.Rename(r.spool+".new", r.spool); err != nil {
		return fail(err)
	}
	folder, err := os.Open(filepath.Dir(r.spool))
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fail(err)
	}
	return nil
}

// recall takes back the batches that an earlier Run has kept. Some of them may be written by now, which their IDs tell. A
// file that cannot be understood is left, under another name.
func (r *Recorder) recall() (left []Batch, err error) {
	content, err := os.ReadFile(r.spool)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &model.Error{Op: "read history that was kept", Class: model.DiskError, File: r.spool, Err: err}
	}
	if err := json.Unmarshal(content, &left); err != nil {
		return nil, os.Rename(r.spool, r.spool+".broken")
	}
	r.spooled = true
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range left {
		r.told += uint64(b.Len())
	}
	return left, nil
}

// forgetSpool removes the file, since all that it had is written.
func (r *Recorder) forgetSpool() error {
	if err := os.Remove(r.spool); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &model.Error{Op: "forget history that was kept", Class: model.DiskError, File: r.spool, Err: err}
	}
	r.spooled = false
	return nil
}
