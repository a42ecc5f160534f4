package ledger

import (
	"context"
	"errors"
	"math"
	"time"

	"ema/internal/model"
)

// RecordUses adds uses to what is known, and returns when that is durable. When ctx ends before, it returns its error, and
// all of uses were recorded or none.
func (l *Ledger) RecordUses(ctx context.Context, uses []model.Use) error {
	return l.Write(ctx, Batch{Uses: uses})
}

// Uses calls f with the uses of every model from the hour of since on, the oldest first, until f returns an error, which
// Uses then returns.
func (l *Ledger) Uses(ctx context.Context, since time.Time, f func(model.UseCount) error) (err error) {
	rows, err := l.db.QueryContext(ctx, "SELECT model_scheme, model_name, hour, source, times, failures, timed, duration_us, bytes, last_used "+
		"FROM uses WHERE hour >= $1 ORDER BY hour, model_name, model_scheme, source", nanoseconds(hour(since)))
	if err != nil {
		return failure("read", l.path, err)
	}
	var stopped error // by f: no failure of the ledger
	defer func() {
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			err = failure("read", l.path, err)
		} else {
			err = stopped
		}
	}()
	for rows.Next() {
		var u model.UseCount
		var began, duration, last int64
		if err := rows.Scan(&u.Model.Scheme, &u.Model.Name, &began, &u.By, &u.Times, &u.Failures, &u.Timed, &duration, &u.Bytes, &last); err != nil {
			return err
		}
		u.Hour, u.Duration, u.Last = moment(began), time.Duration(min(duration, math.MaxInt64/1000))*time.Microsecond, moment(last)
		if stopped = f(u); stopped != nil {
			return nil
		}
	}
	return nil
}

// LastUses is when each model that was ever used was used last. It outlives PruneUses.
func (l *Ledger) LastUses(ctx context.Context) (last map[model.ID]time.Time, err error) {
	rows, err := l.db.QueryContext(ctx, "SELECT model_scheme, model_name, max(last_used) FROM uses GROUP BY model_name, model_scheme")
	if err != nil {
		return nil, failure("read", l.path, err)
	}
	defer func() {
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			last, err = nil, failure("read", l.path, err)
		}
	}()
	last = map[model.ID]time.Time{}
	for rows.Next() {
		var id model.ID
		var at int64
		if err := rows.Scan(&id.Scheme, &id.Name, &at); err != nil {
			return nil, err
		}
		last[id] = moment(at)
	}
	return last, nil
}

// PruneUses forgets the hours that were over before a time, and says how many sums that were. The last hour of each model
// stays: that a model was last used years ago is what a cleanup has to know.
func (l *Ledger) PruneUses(ctx context.Context, before time.Time) (int, error) {
	return l.change(ctx, "prune", "DELETE FROM uses WHERE hour < $1 AND EXISTS (SELECT 1 FROM uses AS later "+
		"WHERE later.model_name = uses.model_name AND later.model_scheme = uses.model_scheme AND later.hour > uses.hour)",
		nanoseconds(hour(before)))
}

// most is what a sum of an hour may reach: whoever tells of uses tells their bytes and durations too, and databases
// treat what is too large for them in different ways, none of them kind.
const most = 1 << 62

const useColumns = "model_scheme, model_name, hour, source, times, failures, timed, duration_us, bytes, last_used"

const useConflict = " ON CONFLICT (model_name, model_scheme, hour, source) DO UPDATE SET " +
	"times = uses.times + excluded.times, failures = uses.failures + excluded.failures, timed = uses.timed + excluded.timed, " +
	"duration_us = CASE WHEN uses.duration_us > 4611686018427387904 - excluded.duration_us THEN 4611686018427387904 ELSE uses.duration_us + excluded.duration_us END, " +
	"bytes = CASE WHEN uses.bytes > 4611686018427387904 - excluded.bytes THEN 4611686018427387904 ELSE uses.bytes + excluded.bytes END, " +
	"last_used = CASE WHEN uses.last_used > excluded.last_used THEN uses.last_used ELSE excluded.last_used END"

// A useKey names a row of uses.
type useKey struct {
	model model.ID
	hour  int64
	by    string
}

// A useSum is a row of uses.
type useSum struct {
	useKey
	times, failures, timed, duration, bytes, last int64
}

// sums adds up uses, in the order in which their rows were first met.
func sums(all [][]model.Use) (rows []useSum) {
	place := map[useKey]int{}
	for _, uses := range all {
		for _, u := range uses {
			key := useKey{u.Model, nanoseconds(hour(u.At)), legible(string(u.By))}
			i, known := place[key]
			if !known {
				i = len(rows)
				place[key] = i
				rows = append(rows, useSum{useKey: key, last: math.MinInt64})
			}
			s := &rows[i]
			s.times++
			if !u.OK {
				s.failures++
			}
			if u.Duration > 0 {
				s.timed++
				s.duration = plus(s.duration, u.Duration.Microseconds())
			}
			s.bytes = plus(s.bytes, int64(max(u.Bytes, 0)))
			s.last = max(s.last, nanoseconds(u.At))
		}
	}
	return rows
}

// plus is a + b, neither negative, and at most most.
func plus(a, b int64) int64 { return min(a, most) + min(b, most-min(a, most)) }

// useRows are sums as the table has them.
func useRows(sums []useSum) [][]any {
	rows := make([][]any, 0, len(sums))
	for _, s := range sums {
		rows = append(rows, []any{string(s.model.Scheme), s.model.Name, s.hour, s.by, s.times, s.failures, s.timed, s.duration, s.bytes, s.last})
	}
	return rows
}

// hour is the beginning of t's hour. Truncate counts from the year 1, whose hours are the same.
func hour(t time.Time) time.Time { return t.UTC().Truncate(time.Hour) }

// UsesSince is when this ledger began to count uses: before that, nobody knows whether a model was used.
func (l *Ledger) UsesSince(ctx context.Context) (time.Time, error) {
	var at time.Time
	err := l.db.QueryRowContext(ctx, "SELECT tstamp FROM goose_db_version WHERE version_id = 3 ORDER BY id LIMIT 1").Scan(&at)
	if err != nil {
		return at, failure("read", l.path, err)
	}
	return at.UTC(), nil
}
