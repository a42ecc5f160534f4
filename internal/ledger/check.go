package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"ema/internal/model"
)

// A Condition is what Check found out about a database.
type Condition struct {
	Where   string // its file, or its address without who asks
	Kind    string // "sqlite" or "postgresql"
	Version string // of the program
	Schema  Schema
	Size    model.Bytes
	Records map[string]int64 // by table; of PostgreSQL as it last counted them
	Answer  time.Duration    // how long a question takes that needs no disk
	Commit  time.Duration    // how long it takes until something small is durable
	// CacheHits is the part of the pages that PostgreSQL found in its own memory; nil for SQLite, or where nothing was read.
	CacheHits *float64
	// Slow are PostgreSQL's statements that took the longest together; nil where it does not count them.
	Slow []SlowStatement
	// Problems say what is wrong, and what to do; nil when nothing is.
	Problems []string
	// Notes say what could not be measured, and why.
	Notes []string
}

// A SlowStatement is one that PostgreSQL's pg_stat_statements tells of.
type SlowStatement struct {
	Statement string
	Calls     int64
	Mean      time.Duration
	Total     time.Duration
}

// Check looks at the database at path, or at url where it is not empty, and changes nothing but for one row that it writes
// and takes back. What is wrong with a database that can be opened is a problem of its Condition.
func Check(ctx context.Context, path, url string) (c Condition, err error) {
	var l *Ledger
	if url != "" {
		c.Kind = "postgresql"
		l, err = connect(ctx, url)
	} else {
		c.Kind = "sqlite"
		l, err = bare(path)
	}
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	c.Where = l.path
	steps, err := l.steps()
	if err != nil {
		return c, failure("check", l.path, err)
	}
	if c.Schema, err = l.schema(ctx, steps); err != nil {
		return c, err
	}
	switch {
	case c.Schema.Has > c.Schema.Wants:
		c.Problems = append(c.Problems, "a newer ema wrote it: use that one")
	case c.Schema.Has < c.Schema.Wants:
		c.Problems = append(c.Problems, `its tables are of an earlier version: "ema db migrate" brings them up to date, and so does the daemon when it starts`)
	}
	if c.Answer, err = l.time(ctx, func(ctx context.Context) error { return l.db.PingContext(ctx) }); err != nil {
		return c, err
	}
	if c.Kind == "sqlite" {
		err = l.checkSQLite(ctx, &c)
	} else {
		err = l.checkPostgres(ctx, &c)
	}
	if err != nil || c.Schema.Has < 4 {
		return c, err
	}
	// What is written and taken back in one transaction still costs a commit.
	c.Commit, err = l.time(ctx, func(ctx context.Context) error {
		tx, err := l.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		for _, statement := range []string{"INSERT INTO batches (id, at) VALUES ('check', 0)", "DELETE FROM batches WHERE id = 'check'"} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return errors.Join(err, tx.Rollback())
			}
		}
		return tx.Commit()
	})
	return c, err
}

// time is the median of five times that f takes.
func (l *Ledger) time(ctx context.Context, f func(context.Context) error) (time.Duration, error) {
	var took [5]time.Duration
	for i := range took {
		begun := time.Now()
		if err := f(ctx); err != nil {
			return 0, failure("check", l.path, err)
		}
		took[i] = time.Since(begun)
		for k := i; k > 0 && took[k] < took[k-1]; k-- {
			took[k], took[k-1] = took[k-1], took[k]
		}
	}
	return took[len(took)/2], nil
}

func tables() []string {
	return []string{"downloads", "audit", "uses", "pins", "moves", "models", "model_usage", "usage_days", "model_health", "series", "samples", "events"}
}

// checkSQLite reads the whole file.
func (l *Ledger) checkSQLite(ctx context.Context, c *Condition) error {
	var pages, size int64
	if err := l.db.QueryRowContext(ctx, "SELECT sqlite_version(), page_count, page_size FROM pragma_page_count, pragma_page_size").Scan(&c.Version, &pages, &size); err != nil {
		return failure("check", l.path, err)
	}
	c.Size = model.Bytes(pages * size)
	verdicts, err := list(ctx, l, func(rows *sql.Rows) (v string, err error) { return v, rows.Scan(&v) }, "PRAGMA integrity_check(20)")
	switch {
	case broken(err):
		verdicts = append(verdicts, err.Error())
	case err != nil:
		return err
	}
	for _, v := range verdicts {
		if v != "ok" {
			c.Problems = append(c.Problems, "it is damaged: "+v)
		}
	}
	if len(c.Problems) > 0 {
		return nil
	}
	c.Records = map[string]int64{}
	for _, table := range tables() {
		var n int64
		if err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = $1", table).Scan(&n); err != nil {
			return failure("check", l.path, err)
		}
		if n == 0 {
			continue
		}
		if err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			return failure("check", l.path, err)
		}
		c.Records[table] = n
	}
	return nil
}

// checkPostgres asks PostgreSQL what it knows of itself.
func (l *Ledger) checkPostgres(ctx context.Context, c *Condition) error {
	if err := l.db.QueryRowContext(ctx, "SELECT current_setting('server_version'), pg_database_size(current_database())").Scan(&c.Version, &c.Size); err != nil {
		return failure("check", l.path, err)
	}
	c.Records = map[string]int64{}
	type counted struct {
		table string
		n     int64
	}
	rows, err := list(ctx, l, func(rows *sql.Rows) (r counted, err error) { return r, rows.Scan(&r.table, &r.n) },
		"SELECT relname, n_live_tup FROM pg_stat_user_tables WHERE schemaname = current_schema()")
	if err != nil {
		return err
	}
	for _, r := range rows {
		c.Records[r.table] = r.n
	}
	var hits, read float64
	if err := l.db.QueryRowContext(ctx, "SELECT CAST(coalesce(sum(heap_blks_hit + idx_blks_hit), 0) AS DOUBLE PRECISION), CAST(coalesce(sum(heap_blks_read + idx_blks_read), 0) AS DOUBLE PRECISION) FROM pg_statio_user_tables").Scan(&hits, &read); err != nil {
		return failure("check", l.path, err)
	}
	if hits+read > 0 {
		c.CacheHits = new(hits / (hits + read))
	} else {
		c.Notes = append(c.Notes, "how many pages are found in memory is not known: nothing was read yet")
	}
	broken, err := list(ctx, l, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) },
		"SELECT CAST(indexrelid AS regclass)::text FROM pg_index WHERE NOT indisvalid ORDER BY 1")
	if err != nil {
		return err
	}
	for _, name := range broken {
		c.Problems = append(c.Problems, fmt.Sprintf(`the index %s was never finished: drop it, and "ema db migrate" makes it again`, name))
	}
	var counts bool
	if err := l.db.QueryRowContext(ctx, "SELECT to_regclass('pg_stat_statements') IS NOT NULL").Scan(&counts); err != nil {
		return failure("check", l.path, err)
	}
	if !counts {
		c.Notes = append(c.Notes, "slow statements are not known: the extension pg_stat_statements is not installed in this database")
		return nil
	}
	c.Slow, err = list(ctx, l, func(rows *sql.Rows) (s SlowStatement, err error) {
		var mean, total float64
		err = rows.Scan(&s.Statement, &s.Calls, &mean, &total)
		s.Mean, s.Total = time.Duration(mean*float64(time.Millisecond)), time.Duration(total*float64(time.Millisecond))
		return s, err
	}, "SELECT left(query, 200), calls, mean_exec_time, total_exec_time FROM pg_stat_statements "+
		"WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY total_exec_time DESC LIMIT 10")
	if err != nil { // it has to be loaded when the server starts, too
		c.Notes = append(c.Notes, "slow statements are not known: "+err.Error())
	}
	return nil
}
