// Package ledger keeps downloads, and what became of the models that they brought, in SQL.
//
// What Save has answered is on the disk: it survives the process, and a power failure as far as the
// disk keeps its own promises. All SQL is of the kind that SQLite and PostgreSQL both understand.
package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"ema/internal/model"
)

// connections is how many may use the database at once: one writes, the others read meanwhile.
const connections = 4

// A Ledger is an open database. Its methods may be called concurrently.
type Ledger struct {
	// Note says in words what Open had to do about a damaged file; "" when there was nothing.
	Note string

	db      *sql.DB
	pool    *pgxpool.Pool // of PostgreSQL; nil for SQLite
	path    string
	writing sync.Mutex         // held by the one who writes; SQLite has room for no second one
	numbers map[model.ID]int64 // of models in the history, for who writes
	saves   group[model.Download]
	audits  group[model.AuditEntry]
	moves   group[model.Move]
}

// Open opens the database at path, and creates it with its folder where there is none. A file that
// is not a whole database is moved aside to NAME.broken-TIME, with its journal, and a fresh one is
// begun: Note tells. A file of a newer ema, or one that cannot be read, is an error and left alone.
// Another process must not have it open.
func Open(ctx context.Context, path string) (*Ledger, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, failure("open", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, failure("open", path, err)
	}
	l, err := open(ctx, path)
	if !broken(err) {
		return l, err
	}
	aside, moved := moveAside(path)
	if moved != nil {
		return nil, failure("open", path, fmt.Errorf("it is damaged (%w) and cannot be moved aside: %w", err, moved))
	}
	if l, err = open(ctx, path); err != nil {
		return nil, err
	}
	l.Note = fmt.Sprintf("%s was damaged and is kept as %s; a new one is begun, without the downloads and the history of the old one", path, aside)
	return l, nil
}

func open(ctx context.Context, path string) (*Ledger, error) {
	l, err := bare(path)
	if err != nil {
		return nil, err
	}
	if err := l.prepare(ctx); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	return l, nil
}

// bare opens a file and does not look into it.
func bare(path string) (*Ledger, error) {
	// Addresses of models may hold signed links, which concern nobody else on this machine. SQLite
	// gives its journal the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, failure("open", path, err)
	}
	if err := f.Close(); err != nil {
		return nil, failure("open", path, err)
	}
	db, err := sql.Open("sqlite", address(path))
	if err != nil {
		return nil, failure("open", path, err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections / 2)
	return &Ledger{db: db, path: path}, nil
}

// address is the data source name of a file, whatever characters its path has.
func address(path string) string {
	// FULL makes a commit in the write-ahead log durable; NORMAL, which many choose, does not.
	set := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "cache_size(-16384)"}, "_txlock": {"immediate"}}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: set.Encode()}).String()
}

// prepare proves that the database is whole, and brings its schema up to date.
func (l *Ledger) prepare(ctx context.Context) error {
	if err := l.examine(ctx); err != nil {
		return err
	}
	return l.migrate(ctx)
}

// small is how large a database may be to be read whole at each start.
const small = 64 * model.MiB

// examine proves that the database is whole. Of a large one, which is history mostly, it reads what the daemon could not work
// without; all of it when damage was met since.
func (l *Ledger) examine(ctx context.Context) error {
	info, err := os.Stat(l.path)
	if err != nil {
		return failure("open", l.path, err)
	}
	if _, err := os.Stat(l.suspicion()); errors.Is(err, fs.ErrNotExist) && model.Bytes(info.Size()) > small {
		for _, table := range []string{"goose_db_version", "downloads", "audit", "pins", "moves", "models"} {
			var there int
			if err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1", table).Scan(&there); err != nil {
				return failure("open", l.path, err)
			}
			if there == 0 { // made later
				continue
			}
			if err := l.quickCheck(ctx, "'"+table+"'"); err != nil {
				return err
			}
		}
		return nil
	}
	if err := l.quickCheck(ctx, "1"); err != nil {
		return err
	}
	if err := os.Remove(l.suspicion()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failure("open", l.path, err)
	}
	return nil
}

// quickCheck has SQLite read a table, or with a number everything until it has met so many errors.
func (l *Ledger) quickCheck(ctx context.Context, what string) error {
	var verdict string
	if err := l.db.QueryRowContext(ctx, "PRAGMA quick_check("+what+")").Scan(&verdict); err != nil {
		return failure("open", l.path, err)
	}
	if verdict != "ok" {
		return failure("open", l.path, &damage{verdict})
	}
	return nil
}

// suspicion is a file that is there when damage was met: the next Open looks at everything, whatever the size.
func (l *Ledger) suspicion() string { return l.path + ".suspect" }

// suspect notes that err says of the database that it is damaged.
func (l *Ledger) suspect(err error) {
	if !l.postgres() && broken(err) {
		if f, err := os.Create(l.suspicion()); err == nil { // without it the damage is met again
			_ = f.Close()
		}
	}
}

// Close waits for the commit that is under way, and closes the database. What is saved afterwards fails.
func (l *Ledger) Close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.db.Close()
	if l.pool != nil {
		l.pool.Close()
	}
	return err
}

// damage is what SQLite found wrong with a file that it can open.
type damage struct{ verdict string }

func (d *damage) Error() string { return "the database is damaged: " + d.verdict }

// broken reports whether err means that a file's content is no database, as opposed to a disk or a
// permission that stands in the way.
func broken(err error) bool {
	if _, ok := errors.AsType[*damage](err); ok {
		return true
	}
	code := sqliteCode(err)
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}

// sqliteCode is SQLite's primary result code in err; 0 when there is none.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff // the rest tells variants of the same
	}
	return 0
}

// moveAside renames a database and its journal, so that the journal can still be applied to it.
func moveAside(path string) (string, error) {
	aside := path + ".broken-" + time.Now().UTC().Format("20060102T150405.000Z")
	for _, part := range []string{"-wal", "-shm", ""} { // the database last: until then it is found again
		if err := os.Rename(path+part, aside+part); err != nil && !(part != "" && errors.Is(err, fs.ErrNotExist)) {
			return "", err
		}
	}
	return aside, nil
}

// failure puts what the database said into an error that callers can decide by.
func failure(op, path string, err error) error {
	if e, ok := errors.AsType[*model.Error](err); ok {
		return e
	}
	failed := &model.Error{Op: op + " ledger", Class: model.DiskError, File: path, Err: err}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_FULL:
		failed.Class, failed.Hint = model.DiskFull, "free some space on its disk"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		failed.Class, failed.Hint = model.Busy, "stop the other program that uses it"
	case sqlite3.SQLITE_INTERRUPT:
		failed.Class = model.Cancelled
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		failed.Hint = "make its folder writable"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		failed.Hint = "start the daemon again: it keeps the damaged file aside and begins a new one"
	}
	postgresFailure(failed, err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		failed.Class = model.Cancelled
	}
	return failed
}
