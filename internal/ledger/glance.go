package ledger

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"time"

	"ema/internal/model"
)

// A Glance is what listings tell of models beside what the store holds.
type Glance struct {
	Last   map[model.ID]time.Time // when each model was used last, of those that ever were
	Pinned map[model.ID]bool
}

// Look reads a Glance from the database at path and changes nothing, whoever else has it open. Where there is no database, or
// only one of an earlier ema, nothing is known.
func Look(ctx context.Context, path string) (g Glance, err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return Glance{}, nil
	}
	set := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(1000)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: set.Encode()}).String())
	if err != nil {
		return Glance{}, failure("read", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	l := &Ledger{db: db, path: path}
	var known int
	row := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('uses', 'pins')")
	if err := row.Scan(&known); err != nil {
		return Glance{}, failure("read", path, err)
	}
	if known < 2 {
		return Glance{}, nil
	}
	if g.Last, err = l.LastUses(ctx); err != nil {
		return Glance{}, err
	}
	pins, err := l.Pins(ctx)
	if err != nil {
		return Glance{}, err
	}
	g.Pinned = map[model.ID]bool{}
	for _, id := range pins {
		g.Pinned[id] = true
	}
	return g, nil
}
