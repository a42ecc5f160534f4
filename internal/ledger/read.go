package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"ema/internal/model"
)

// Downloads are those in any of the states, or all when none is named, in the order of their arrival.
func (l *Ledger) Downloads(ctx context.Context, states ...model.State) ([]model.Download, error) {
	var where string
	var values []any
	for i, s := range states {
		if i == 0 {
			where = "WHERE state IN ("
		} else {
			where += ", "
		}
		where += fmt.Sprintf("$%d", i+1)
		values = append(values, string(s))
	}
	if where != "" {
		where += ") "
	}
	return l.read(ctx, where+"ORDER BY arrival, id", values...)
}

// Download is the one with an id; an error of Class NotFound when there is none.
func (l *Ledger) Download(ctx context.Context, id string) (model.Download, error) {
	found, err := l.read(ctx, "WHERE id = $1", id)
	if err != nil {
		return model.Download{}, err
	}
	if len(found) == 0 {
		return model.Download{}, &model.Error{Op: "read ledger", Class: model.NotFound, Err: fmt.Errorf("there is no download %q", id)}
	}
	return found[0], nil
}

// History is what is over, the newest first: at most limit of them (all when it is 0 or less), after
// leaving out offset.
func (l *Ledger) History(ctx context.Context, limit, offset int) ([]model.Download, error) {
	most := int64(limit)
	if limit <= 0 {
		most = math.MaxInt64
	}
	return l.read(ctx, "WHERE state IN ($1, $2, $3) ORDER BY ended DESC, arrival DESC, id LIMIT $4 OFFSET $5",
		string(model.Completed), string(model.Failed), string(model.Stopped), most, max(offset, 0))
}

// LastOrder is the greatest Order of all downloads; 0 when there are none.
func (l *Ledger) LastOrder(ctx context.Context) (int64, error) {
	var last sql.NullInt64
	if err := l.db.QueryRowContext(ctx, "SELECT max(arrival) FROM downloads").Scan(&last); err != nil {
		return 0, failure("read", l.path, err)
	}
	return last.Int64, nil
}

// read returns the rows that the end of a query selects.
func (l *Ledger) read(ctx context.Context, rest string, values ...any) (found []model.Download, err error) {
	rows, err := l.db.QueryContext(ctx, "SELECT "+strings.Join(columns(), ", ")+" FROM downloads "+rest, values...)
	if err != nil {
		return nil, failure("read", l.path, err)
	}
	defer func() {
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			found, err = nil, failure("read", l.path, err)
		}
	}()
	for rows.Next() {
		d, err := scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	return found, nil
}

// scan is the reverse of row.
func scan(rows *sql.Rows) (d model.Download, err error) {
	var include, exclude string
	var next, created, started, ended int64
	err = rows.Scan(
		&d.ID, &d.Model.Scheme, &d.Model.Name, &d.Revision, &include, &exclude,
		&d.Priority, &d.Limit, &d.Connections, &d.MaxRetries,
		&d.State, &d.Pause, &d.Reason, &d.Class, &next, &d.Retries, &d.Tries,
		&d.Commit, &d.Path, &d.Size, &d.Done, &d.Order, &created, &started, &ended,
	)
	if err != nil {
		return model.Download{}, err
	}
	if err := errors.Join(json.Unmarshal([]byte(include), &d.Include), json.Unmarshal([]byte(exclude), &d.Exclude)); err != nil {
		return model.Download{}, fmt.Errorf("download %s: its patterns cannot be read: %w", d.ID, err)
	}
	d.NextTry, d.Created, d.Started, d.Ended = moment(next), moment(created), moment(started), moment(ended)
	return d, nil
}

// moment is the reverse of nanoseconds.
func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
