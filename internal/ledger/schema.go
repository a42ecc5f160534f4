package ledger

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"ema/internal/model"
)

//go:embed migrations/*.sql
var migrations embed.FS

// A Schema is which version of its tables a database has, and which this ema brings it to.
type Schema struct {
	Has   int64 // 0 where there are no tables yet
	Wants int64
}

// migrate brings the schema up to date. Each step is a transaction, or can be repeated: one that is interrupted is done
// again the next time.
func (l *Ledger) migrate(ctx context.Context) error {
	steps, err := l.steps()
	if err != nil {
		return failure("open", l.path, err)
	}
	s, err := l.schema(ctx, steps)
	if err != nil {
		return err
	}
	if s.Has > s.Wants {
		return &model.Error{
			Op: "open ledger", Class: model.Usage, File: l.path,
			Err:  fmt.Errorf("a newer ema wrote it: its schema is version %d, and this ema knows %d", s.Has, s.Wants),
			Hint: "use that ema, or begin a new database",
		}
	}
	if _, err := steps.Up(ctx); err != nil {
		return failure("open", l.path, err)
	}
	return nil
}

func (l *Ledger) schema(ctx context.Context, steps *goose.Provider) (s Schema, err error) {
	if s.Has, s.Wants, err = steps.GetVersions(ctx); err != nil {
		return s, failure("open", l.path, err)
	}
	return s, nil
}

// steps are the migrations. What they come from is not closed: that would close the database.
func (l *Ledger) steps() (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	dialect := goose.DialectSQLite3
	options := []goose.ProviderOption{goose.WithGoMigrations(
		goose.NewGoMigration(5, &goose.GoFunc{RunDB: l.makeIndexes}, nil),
		goose.NewGoMigration(6, &goose.GoFunc{RunTx: carryUses}, nil),
	)}
	if l.postgres() {
		dialect = goose.DialectPostgres
		alone, err := lock.NewPostgresSessionLocker() // two daemons that start at once
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(alone))
	}
	return goose.NewProvider(dialect, l.db, files, options...)
}

// An index is one of the founding text's, or one that our own questions need.
type index struct{ name, on string }

func indexes() []index {
	return []index{
		{"idx_model_usage_timestamp", "model_usage (timestamp)"},
		{"idx_model_usage_model_id", "model_usage (model_id)"},
		{"idx_model_usage_composite", "model_usage (model_id, timestamp)"},
		{"idx_model_health_last_check", "model_health (last_check)"},
		{"idx_model_health_composite", "model_health (model_id, health_score)"},
		{"usage_days_by_day", "usage_days (day, model_id, times, failures, timed, duration_us)"}, // sums of all models read nothing else
		{"events_by_time", "events (at)"},
		{"samples_by_time", "samples (step, at)"},
	}
}

// makeIndexes makes those that are not there. PostgreSQL makes them beside the work of others, which it cannot in a
// transaction: what an interrupted one leaves there is an index that nobody uses, and is made again.
func (l *Ledger) makeIndexes(ctx context.Context, db *sql.DB) error {
	beside := ""
	if l.postgres() {
		beside = "CONCURRENTLY "
	}
	for _, i := range indexes() {
		if l.postgres() {
			var broken bool
			err := db.QueryRowContext(ctx, "SELECT count(*) > 0 FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid", i.name).Scan(&broken)
			if err != nil {
				return err
			}
			if broken {
				if _, err := db.ExecContext(ctx, "DROP INDEX CONCURRENTLY "+i.name); err != nil {
					return err
				}
			}
		}
		if _, err := db.ExecContext(ctx, "CREATE INDEX "+beside+"IF NOT EXISTS "+i.name+" ON "+i.on); err != nil {
			return err
		}
	}
	return nil
}

// carryUses sums up by the day what was summed up by the hour before there were days. Which quarter of an hour it was is
// not known any more: it is taken for the first.
func carryUses(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, "SELECT model_scheme, model_name, hour, times, failures, timed, duration_us, bytes, last_used FROM uses ORDER BY model_name, model_scheme, hour")
	if err != nil {
		return err
	}
	all := map[model.ID]map[int64]*usageDay{}
	for rows.Next() {
		var id model.ID
		var hour, bytes, last int64
		var q Quarter
		if err := rows.Scan(&id.Scheme, &id.Name, &hour, &q.Times, &q.Failures, &q.Timed, &q.Duration, &bytes, &last); err != nil {
			return err
		}
		if all[id] == nil {
			all[id] = map[int64]*usageDay{}
		}
		day, slot := dayOf(hour)
		d := all[id][day]
		if d == nil {
			d = &usageDay{}
			all[id][day] = d
		}
		d.add(slot, q, bytes, last)
	}
	if err := closing(rows); err != nil {
		return err
	}
	w := writing{tx: tx}
	days := map[dayKey]*usageDay{}
	for id, of := range all {
		number, err := w.number(ctx, id)
		if err != nil {
			return err
		}
		for day, d := range of {
			days[dayKey{number, day}] = d
		}
	}
	return w.saveDays(ctx, days)
}
