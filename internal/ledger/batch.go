package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// A Batch is what happened, to be written together. Its ID makes sure that it is written once, also when the answer to the
// first try was lost; "" is a batch that is tried once only.
type Batch struct {
	ID        string
	Uses      []model.Use
	Checks    []model.HealthCheck
	Samples   []model.Sample
	Events    []model.Incident
	Downloads []model.Download // as Save does
	Audit     []model.AuditEntry
}

// Len is how many records there are.
func (b *Batch) Len() int {
	return len(b.Uses) + len(b.Checks) + len(b.Samples) + len(b.Events) + len(b.Downloads) + len(b.Audit)
}

// Write brings all of b to the disk, or nothing of it, and returns when that is durable.
func (l *Ledger) Write(ctx context.Context, b Batch) error {
	for _, u := range b.Uses {
		if u.Model.IsZero() || u.At.IsZero() {
			return &model.Error{Op: "write ledger", Class: model.Usage, Model: u.Model, Err: errors.New("a use has no model or no time")}
		}
	}
	if b.Len() == 0 {
		return nil
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.postgres() {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, patience)
		defer end()
	}
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		l.numbers = nil // whatever has happened to the database, the next batch looks them up
		return failure("write", l.path, err)
	}
	w := writing{tx: tx, far: l.postgres(), numbers: l.numbers}
	if err := w.all(ctx, b); err != nil {
		// A rollback that fails adds nothing: what is not committed is gone with its connection.
		_ = tx.Rollback()
		l.numbers = nil
		l.suspect(err)
		return failure("write", l.path, err)
	}
	if err := tx.Commit(); err != nil {
		l.numbers = nil
		return failure("write", l.path, err)
	}
	// Numbers of a transaction that failed are none.
	if l.numbers == nil {
		l.numbers = map[model.ID]int64{}
	}
	maps.Copy(l.numbers, w.fresh)
	return nil
}

// A writing is a transaction that writes batches.
type writing struct {
	tx      *sql.Tx
	far     bool               // the database is another process
	numbers map[model.ID]int64 // of models, as they are stored
	fresh   map[model.ID]int64 // those found or made by this transaction
}

// all writes b.
func (w *writing) all(ctx context.Context, b Batch) error {
	if b.ID != "" {
		res, err := w.tx.ExecContext(ctx, "INSERT INTO batches (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING", b.ID, nanoseconds(time.Now()))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 { // it was written, and only the answer was lost
			return err
		}
	}
	for _, write := range []func(context.Context, Batch) error{w.uses, w.checks, w.samples, w.events} {
		if err := write(ctx, b); err != nil {
			return err
		}
	}
	if err := each(ctx, w, saveSQL(), row, b.Downloads); err != nil {
		return err
	}
	return each(ctx, w, recordSQL, auditRow, b.Audit)
}

// each executes a statement once for each of the records.
func each[T any](ctx context.Context, w *writing, statement string, row func(T) ([]any, error), records []T) error {
	if len(records) == 0 {
		return nil
	}
	prepared, err := w.tx.PrepareContext(ctx, statement)
	if err != nil {
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
	return prepared.Close()
}

// together inserts rows, of which no two meet the same conflict, and deals with what is there already as conflict says. To
// PostgreSQL they go as one array for each column, since what a statement costs there is mostly the way; SQLite takes one row
// after the other.
func (w *writing) together(ctx context.Context, table, columns, conflict string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	statement := "INSERT INTO " + table + " (" + columns + ") "
	if !w.far {
		return each(ctx, w, statement+"VALUES "+places(len(rows[0]))+conflict, func(r []any) ([]any, error) { return r, nil }, rows)
	}
	arrays, types, err := columnsOf(rows)
	if err != nil {
		return err
	}
	_, err = w.tx.ExecContext(ctx, statement+"SELECT * FROM unnest("+types+")"+conflict, arrays...)
	return err
}

// columnsOf are rows as one array for each column, and the places of these in a statement.
func columnsOf(rows [][]any) (arrays []any, types string, err error) {
	places := make([]string, len(rows[0]))
	for i, first := range rows[0] {
		var array any
		var kind string
		switch first.(type) {
		case int64:
			array, kind = column[int64](rows, i), "bigint"
		case float64:
			array, kind = column[float64](rows, i), "double precision"
		case string:
			array, kind = column[string](rows, i), "text"
		case []byte:
			array, kind = column[[]byte](rows, i), "bytea"
		default:
			return nil, "", fmt.Errorf("a column of %T has no form in PostgreSQL here", first)
		}
		arrays, places[i] = append(arrays, array), fmt.Sprintf("$%d::%s[]", i+1, kind)
	}
	return arrays, strings.Join(places, ", "), nil
}

// column is one of rows, all of whose values are of one type.
func column[T any](rows [][]any, i int) []T {
	all := make([]T, len(rows))
	for n, r := range rows {
		all[n] = r[i].(T) //nolint:forcetypeassert // made in this package
	}
	return all
}

// places are those of n values of a statement.
func places(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = "$" + strconv.Itoa(i+1)
	}
	return "(" + strings.Join(all, ",") + ")"
}

// number is the short name of a model; the zero ID has 0.
func (w *writing) number(ctx context.Context, id model.ID) (int64, error) {
	if id.IsZero() {
		return 0, nil
	}
	if n, known := w.numbers[id]; known {
		return n, nil
	}
	if n, known := w.fresh[id]; known {
		return n, nil
	}
	_, err := w.tx.ExecContext(ctx, "INSERT INTO models (number, model_scheme, model_name) "+
		"VALUES ((SELECT coalesce(max(number), 0) + 1 FROM models), $1, $2) ON CONFLICT (model_name, model_scheme) DO NOTHING", string(id.Scheme), id.Name)
	if err != nil {
		return 0, err
	}
	var n int64
	if err := w.tx.QueryRowContext(ctx, "SELECT number FROM models WHERE model_name = $1 AND model_scheme = $2", id.Name, string(id.Scheme)).Scan(&n); err != nil {
		return 0, err
	}
	if w.fresh == nil {
		w.fresh = map[model.ID]int64{}
	}
	w.fresh[id] = n
	return n, nil
}

// uses writes each use, and adds them to the sums of hours and days.
func (w *writing) uses(ctx context.Context, b Batch) error {
	if len(b.Uses) == 0 {
		return nil
	}
	days := map[dayKey]*usageDay{}
	rows := make([][]any, 0, len(b.Uses))
	for _, u := range b.Uses {
		number, err := w.number(ctx, u.Model)
		if err != nil {
			return err
		}
		at, bytes, succeeded := nanoseconds(u.At), int64(max(u.Bytes, 0)), int64(1)
		q := Quarter{Times: 1}
		if !u.OK {
			succeeded, q.Failures = 0, 1
		}
		if u.Duration > 0 {
			q.Timed, q.Duration = 1, u.Duration.Microseconds()
		}
		rows = append(rows, []any{number, at, legible(string(u.By)), legible(u.Operation), q.Duration, bytes, succeeded})
		day, quarter := dayOf(at)
		k := dayKey{number, day}
		if days[k] == nil {
			days[k] = &usageDay{}
		}
		days[k].add(quarter, q, bytes, at)
	}
	// The index by models has a place for each of them: those of one together cost one way there.
	slices.SortStableFunc(rows, func(a, b []any) int { return cmp.Compare(a[0].(int64), b[0].(int64)) }) //nolint:forcetypeassert // made here
	if err := w.together(ctx, "model_usage", "model_id, timestamp, source, operation, duration_us, bytes, success", "", rows); err != nil {
		return err
	}
	if err := w.together(ctx, "uses", useColumns, useConflict, useRows(sums([][]model.Use{b.Uses}))); err != nil {
		return err
	}
	return w.saveDays(ctx, days)
}

// A dayKey names a row of usage_days.
type dayKey struct{ model, day int64 }

// saveDays adds days to what is known of them.
func (w *writing) saveDays(ctx context.Context, days map[dayKey]*usageDay) error {
	order := slices.SortedFunc(maps.Keys(days), func(a, b dayKey) int { return cmp.Or(cmp.Compare(a.model, b.model), cmp.Compare(a.day, b.day)) })
	if err := w.mergeDays(ctx, order, days); err != nil {
		return err
	}
	rows := make([][]any, 0, len(order))
	for _, k := range order {
		d := days[k]
		rows = append(rows, []any{k.model, k.day, d.sum.Times, d.sum.Failures, d.sum.Timed, d.sum.Duration, d.bytes, d.last, encodeQuarters(&d.quarters)})
	}
	return w.together(ctx, "usage_days", "model_id, day, times, failures, timed, duration_us, bytes, last_used, quarters",
		" ON CONFLICT (model_id, day) DO UPDATE SET times = excluded.times, failures = excluded.failures, timed = excluded.timed, "+
			"duration_us = excluded.duration_us, bytes = excluded.bytes, last_used = excluded.last_used, quarters = excluded.quarters", rows)
}

// mergeDays adds to days what the database knows of them.
func (w *writing) mergeDays(ctx context.Context, order []dayKey, days map[dayKey]*usageDay) error {
	const read = "SELECT model_id, day, times, failures, timed, duration_us, bytes, last_used, quarters FROM usage_days "
	if !w.far {
		prepared, err := w.tx.PrepareContext(ctx, read+"WHERE model_id = $1 AND day = $2")
		if err != nil {
			return err
		}
		for _, k := range order {
			if err := mergeDay(prepared.QueryRowContext(ctx, k.model, k.day), days); err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return prepared.Close()
	}
	keys := make([][]any, 0, len(order))
	for _, k := range order {
		keys = append(keys, []any{k.model, k.day})
	}
	arrays, types, err := columnsOf(keys)
	if err != nil {
		return err
	}
	rows, err := w.tx.QueryContext(ctx, read+"WHERE (model_id, day) IN (SELECT * FROM unnest("+types+"))", arrays...)
	if err != nil {
		return err
	}
	for rows.Next() {
		if err := mergeDay(rows, days); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return closing(rows)
}

// mergeDay adds a row of usage_days to the day that it is of.
func mergeDay(row interface{ Scan(...any) error }, days map[dayKey]*usageDay) error {
	var k dayKey
	var was usageDay
	var raw []byte
	if err := row.Scan(&k.model, &k.day, &was.sum.Times, &was.sum.Failures, &was.sum.Timed, &was.sum.Duration, &was.bytes, &was.last, &raw); err != nil {
		return err
	}
	if err := decodeQuarters(raw, func(i int, q Quarter) { was.quarters[i] = q }); err != nil {
		return err
	}
	days[k].merge(&was)
	return nil
}

// checks writes what checks of models found.
func (w *writing) checks(ctx context.Context, b Batch) error {
	rows := make([][]any, 0, len(b.Checks))
	for _, c := range b.Checks {
		number, err := w.number(ctx, c.Model)
		if err != nil {
			return err
		}
		issues, err := json.Marshal(c.Issues)
		if err != nil {
			return err
		}
		rows = append(rows, []any{
			number, nanoseconds(c.At), c.Kind, c.Commit, string(c.Overall), known(c.Health), known(c.Integrity), known(c.Performance),
			int64(c.Files), int64(c.Bytes), c.Duration.Microseconds(), strings.ReplaceAll(string(issues), `\u0000`, ""),
		})
	}
	return w.together(ctx, "model_health", checkColumns, "", rows)
}

// known is a score as it is stored.
func known(score *float64) float64 {
	if score == nil || math.IsNaN(*score) {
		return -1
	}
	return *score
}

// Over so many seconds samples are summed up.
const minuteStep, hourStep = 60, 3600

// samples writes measured figures, and adds them to the sums of minutes and hours.
func (w *writing) samples(ctx context.Context, b Batch) error {
	if len(b.Samples) == 0 {
		return nil
	}
	series := map[string]int64{}
	return each(ctx, w, "INSERT INTO samples (series, step, at, times, total, least, most) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (series, step, at) DO UPDATE SET "+
		"times = samples.times + excluded.times, total = samples.total + excluded.total, "+
		"least = CASE WHEN samples.least < excluded.least THEN samples.least ELSE excluded.least END, "+
		"most = CASE WHEN samples.most > excluded.most THEN samples.most ELSE excluded.most END",
		func(r sampleRow) ([]any, error) {
			number, known := series[r.Series]
			if !known {
				var err error
				if number, err = w.series(ctx, r.Series); err != nil {
					return nil, err
				}
				series[r.Series] = number
			}
			at := nanoseconds(r.At)
			if r.step > 0 {
				at = nanoseconds(r.At.UTC().Truncate(time.Duration(r.step) * time.Second))
			}
			return []any{number, r.step, at, int64(1), r.Value, r.Value, r.Value}, nil
		}, sampleRows(b.Samples))
}

// A sampleRow is a sample as one step has it.
type sampleRow struct {
	model.Sample
	step int64
}

// sampleRows are samples as all steps have them, without what is no figure.
func sampleRows(all []model.Sample) (rows []sampleRow) {
	for _, s := range all {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			continue
		}
		for _, step := range []int64{0, minuteStep, hourStep} {
			rows = append(rows, sampleRow{s, step})
		}
	}
	return rows
}

// series is the number of a series.
func (w *writing) series(ctx context.Context, name string) (n int64, err error) {
	name = legible(name)
	_, err = w.tx.ExecContext(ctx, "INSERT INTO series (number, name) VALUES ((SELECT coalesce(max(number), 0) + 1 FROM series), $1) ON CONFLICT (name) DO NOTHING", name)
	if err != nil {
		return 0, err
	}
	err = w.tx.QueryRowContext(ctx, "SELECT number FROM series WHERE name = $1", name).Scan(&n)
	return n, err
}

// events writes what happened.
func (w *writing) events(ctx context.Context, b Batch) error {
	rows := make([][]any, 0, len(b.Events))
	for _, e := range b.Events {
		number, err := w.number(ctx, e.Model)
		if err != nil {
			return err
		}
		rows = append(rows, []any{nanoseconds(e.At), legible(e.Kind), legible(string(e.Severity)), number, legible(e.Message)})
	}
	return w.together(ctx, "events", "at, kind, severity, model_id, message", "", rows)
}

// closing ends the reading of rows, and says what went wrong with it.
func closing(rows *sql.Rows) error { return errors.Join(rows.Err(), rows.Close()) }
