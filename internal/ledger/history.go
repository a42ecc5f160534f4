package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"

	"ema/internal/model"
)

const checkColumns = "model_id, last_check, check_type, commit_id, overall, health_score, integrity_score, performance_score, files, bytes, duration_us, issues"

const checkSelect = "SELECT m.model_scheme, m.model_name, h.last_check, h.check_type, h.commit_id, h.overall, h.health_score, h.integrity_score, h.performance_score, " +
	"h.files, h.bytes, h.duration_us, h.issues FROM model_health AS h JOIN models AS m ON m.number = h.model_id "

// Checks are those of a model, or of all when it is zero, the newest first: at most limit of them (all when it is 0 or less).
func (l *Ledger) Checks(ctx context.Context, id model.ID, limit int) ([]model.HealthCheck, error) {
	most := int64(limit)
	if limit <= 0 {
		most = math.MaxInt64
	}
	const order = " ORDER BY h.last_check DESC, m.model_name, m.model_scheme, h.commit_id LIMIT $1"
	if id.IsZero() {
		return list(ctx, l, scanCheck, checkSelect+order, most)
	}
	return list(ctx, l, scanCheck, checkSelect+"WHERE m.model_name = $2 AND m.model_scheme = $3"+order, most, id.Name, string(id.Scheme))
}

// LastChecks are the newest that read all bytes of each revision of each model, in no order.
func (l *Ledger) LastChecks(ctx context.Context) ([]model.HealthCheck, error) {
	return list(ctx, l, scanCheck, checkSelect+"JOIN (SELECT model_id, commit_id, max(last_check) AS newest FROM model_health "+
		"WHERE check_type IN ('scrub', 'full', 'repair') GROUP BY model_id, commit_id) AS n "+
		"ON n.model_id = h.model_id AND n.commit_id = h.commit_id AND n.newest = h.last_check AND h.check_type IN ('scrub', 'full', 'repair')")
}

// FullReads are the full checks since a time that found all files of a revision, the oldest first.
func (l *Ledger) FullReads(ctx context.Context, since time.Time) ([]model.HealthCheck, error) {
	return list(ctx, l, scanCheck, checkSelect+"WHERE h.check_type = 'full' AND h.last_check >= $1 AND h.overall IN ($2, $3) ORDER BY h.last_check",
		nanoseconds(since), string(model.Healthy), string(model.Degraded))
}

// scanCheck reads a row of checkSelect.
func scanCheck(rows *sql.Rows) (c model.HealthCheck, err error) {
	var at, duration int64
	var health, integrity, performance float64
	var issues string
	err = rows.Scan(&c.Model.Scheme, &c.Model.Name, &at, &c.Kind, &c.Commit, &c.Overall, &health, &integrity, &performance, &c.Files, &c.Bytes, &duration, &issues)
	if err != nil {
		return c, err
	}
	c.At, c.Duration = moment(at), time.Duration(duration)*time.Microsecond
	for score, field := range map[*float64]**float64{&health: &c.Health, &integrity: &c.Integrity, &performance: &c.Performance} {
		if *score >= 0 {
			*field = score
		}
	}
	return c, json.Unmarshal([]byte(issues), &c.Issues)
}

// Incidents are what happened, the newest first: at most limit (all when it is 0 or less), after leaving out offset.
func (l *Ledger) Incidents(ctx context.Context, limit, offset int) ([]model.Incident, error) {
	most := int64(limit)
	if limit <= 0 {
		most = math.MaxInt64
	}
	return list(ctx, l, func(rows *sql.Rows) (e model.Incident, err error) {
		var at int64
		var scheme, name sql.NullString
		err = rows.Scan(&at, &e.Kind, &e.Severity, &scheme, &name, &e.Message)
		e.At, e.Model = moment(at), model.ID{Scheme: model.Scheme(scheme.String), Name: name.String}
		return e, err
	}, "SELECT e.at, e.kind, e.severity, m.model_scheme, m.model_name, e.message FROM events AS e LEFT JOIN models AS m ON m.number = e.model_id "+
		"ORDER BY e.at DESC, e.kind, e.message LIMIT $1 OFFSET $2", most, max(offset, 0))
}

// Samples are those of a series from one time until before another, the oldest first, in sums of one of the steps that are
// kept: 0 is each of them, else a minute or an hour.
func (l *Ledger) Samples(ctx context.Context, name string, from, to time.Time, step time.Duration) ([]model.SampleSum, error) {
	return list(ctx, l, func(rows *sql.Rows) (s model.SampleSum, err error) {
		var at int64
		err = rows.Scan(&at, &s.Times, &s.Mean, &s.Least, &s.Most)
		s.At, s.Mean = moment(at), s.Mean/float64(max(s.Times, 1))
		return s, err
	}, "SELECT s.at, s.times, s.total, s.least, s.most FROM samples AS s JOIN series AS n ON n.number = s.series "+
		"WHERE n.name = $1 AND s.step = $2 AND s.at >= $3 AND s.at < $4 ORDER BY s.at",
		name, int64(step/time.Second), nanoseconds(from), nanoseconds(to))
}

// Series are the names of all series, in their order.
func (l *Ledger) Series(ctx context.Context) ([]string, error) {
	return list(ctx, l, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) }, "SELECT name FROM series ORDER BY name")
}

// list reads all rows of a query.
func list[T any](ctx context.Context, l *Ledger, scan func(*sql.Rows) (T, error), query string, values ...any) (all []T, err error) {
	rows, err := l.db.QueryContext(ctx, query, values...)
	if err != nil {
		return nil, failure("read", l.path, err)
	}
	for err == nil && rows.Next() {
		var one T
		if one, err = scan(rows); err == nil {
			all = append(all, one)
		}
	}
	if err = errors.Join(err, closing(rows)); err != nil {
		return nil, failure("read", l.path, err)
	}
	return all, nil
}

// How many times as long as each record the sums of days are kept, and for how long samples are.
const (
	daysLonger   = 10
	SamplesKept  = 24 * time.Hour      // single ones
	MinutesKept  = 14 * 24 * time.Hour // their sums of minutes; those of hours as long as history is
	batchesKept  = 24 * time.Hour
	prunedAtOnce = 5_000 // rows: others write in between
)

// PruneHistory forgets what is older than anybody wants to keep: records of keep and more, sums of days of ten times that;
// single samples after a day and their sums of minutes after two weeks. It goes step by step, so that others can write
// meanwhile, and says how many rows went.
func (l *Ledger) PruneHistory(ctx context.Context, now time.Time, keep time.Duration) (total int, err error) {
	old := nanoseconds(now.Add(-keep))
	day, _ := dayOf(nanoseconds(now.Add(-daysLonger * keep)))
	for _, p := range []struct {
		table, where string
		values       []any
	}{
		{"model_usage", "timestamp < $1", []any{old}},
		{"usage_days", "day < $1", []any{day}},
		{"model_health", "last_check < $1", []any{old}},
		{"events", "at < $1", []any{old}},
		{"samples", "step = 0 AND at < $1", []any{nanoseconds(now.Add(-SamplesKept))}},
		{"samples", "step = 60 AND at < $1", []any{nanoseconds(now.Add(-MinutesKept))}},
		{"samples", "step = 3600 AND at < $1", []any{old}},
		{"batches", "at < $1", []any{nanoseconds(now.Add(-batchesKept))}},
	} {
		for {
			n, err := l.change(ctx, "prune", l.deleteSome(p.table, p.where), p.values...)
			total += n
			if err != nil {
				return total, err
			}
			if n < prunedAtOnce {
				break
			}
		}
	}
	return total, nil
}

// deleteSome deletes a part of the rows that fit. Rows have a name of their own in each database.
func (l *Ledger) deleteSome(table, where string) string {
	row := "rowid"
	if l.postgres() {
		row = "ctid"
	}
	return "DELETE FROM " + table + " WHERE " + row + " IN (SELECT " + row + " FROM " + table + " WHERE " + where + " LIMIT " + strconv.Itoa(prunedAtOnce) + ")"
}
