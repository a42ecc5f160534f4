package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ema/internal/ledger"
	"ema/internal/model"
)

func dbCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "Make, update or examine the database with history and usage",
		Long: "The database is the one that database.url names, or the store's own file. The daemon makes and updates it by itself when\n" +
			"it starts; these commands do the same without one, or say how the database is.",
	}
	cmd.AddCommand(
		dbMigrateCommand(a, "init", "Make the tables of a new database", "made"),
		dbMigrateCommand(a, "migrate", "Bring the tables of a database up to date", "up to date"),
		dbCheckCommand(a),
	)
	return cmd
}

func dbMigrateCommand(a *app, name, short, done string) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		Long: short + ". What is there stays; doing so twice does no harm, and what was interrupted is ended.\n" +
			"The database itself is made by whoever runs PostgreSQL: createdb NAME.",
		Example: "  ema db " + name + "\n  EMA_DATABASE__URL=postgres://ema@localhost/ema ema db " + name,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, url, err := a.database()
			if err != nil {
				return err
			}
			if url == "" {
				if daemon, found, err := a.remote(cmd.Context()); err != nil || found {
					if found {
						daemon.Close()
					}
					return errors.Join(err, a.result(dbAnswer{Where: path, Schema: "current"}, func(w io.Writer) error {
						_, err := fmt.Fprintf(w, "%s: the daemon that runs has brought it up to date\n", path)
						return err
					}))
				}
			}
			l, err := openDatabase(cmd.Context(), path, url)
			if err != nil {
				return err
			}
			note := l.Note
			if err := l.Close(); err != nil {
				return err
			}
			if note != "" {
				fmt.Fprintln(a.stderr, "ema: note: "+note)
			}
			c, err := ledger.Check(cmd.Context(), path, url)
			if err != nil {
				return err
			}
			return a.result(dbAnswer{Where: c.Where, Schema: fmt.Sprint(c.Schema.Has), Note: note}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s: %s, schema version %d\n", c.Where, done, c.Schema.Has)
				return err
			})
		},
	}
}

// A dbAnswer is what "ema db init" and "ema db migrate" have done.
type dbAnswer struct {
	Where  string `json:"database"`
	Schema string `json:"schema"`
	Note   string `json:"note,omitempty"`
}

// database is where history is kept: a file, and the address of PostgreSQL where that is used instead.
func (a *app) database() (path, url string, err error) {
	e, err := a.settings()
	if err != nil {
		return "", "", err
	}
	s, err := a.store()
	if err != nil {
		return "", "", err
	}
	return filepath.Join(s.StateDir(), ledgerFile), e.Database.URL, nil
}

func openDatabase(ctx context.Context, path, url string) (*ledger.Ledger, error) {
	if url != "" {
		return ledger.OpenPostgres(ctx, url)
	}
	return ledger.Open(ctx, path)
}

func dbCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "See whether the database is whole, and how fast it answers",
		Long: "Reads the whole file of the embedded database, or asks PostgreSQL: its version, size, records, how long a question and a\n" +
			"commit take, how much it finds in its own memory and which statements are slow. It changes nothing, and the daemon may\n" +
			"run meanwhile. The exit code is 4 when something is wrong.",
		Example: "  ema db check\n  ema db check --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, url, err := a.database()
			if err != nil {
				return err
			}
			if _, err := os.Stat(path); url == "" && errors.Is(err, fs.ErrNotExist) {
				return &model.Error{Op: "check", Class: model.NotFound, File: path, Err: errors.New("there is no database yet"), Hint: `"ema db init" makes one, and so does the daemon`}
			}
			c, err := ledger.Check(cmd.Context(), path, url)
			if err != nil {
				return err
			}
			if err := a.result(checkedDatabase(c), func(w io.Writer) error { return printDatabase(w, c) }); err != nil {
				return err
			}
			if len(c.Problems) == 0 {
				return nil
			}
			return &model.Error{Op: "check", Class: model.Integrity, File: c.Where, Err: errors.New(c.Problems[0]), Hint: databaseHint(c)}
		},
	}
}

// databaseHint is what to do about what is wrong.
func databaseHint(c ledger.Condition) string {
	if c.Kind == "sqlite" && c.Schema.Has == c.Schema.Wants {
		return "start the daemon: it keeps the damaged file aside and begins a new one; models are not affected"
	}
	return ""
}

// A databaseReport is a ledger.Condition as JSON.
type databaseReport struct {
	Where     string           `json:"database"`
	Kind      string           `json:"kind"`
	Version   string           `json:"version"`
	Schema    int64            `json:"schema"`
	Wanted    int64            `json:"schema_wanted"`
	SizeBytes int64            `json:"size_bytes"`
	Records   map[string]int64 `json:"records"`
	AnswerMS  float64          `json:"answer_ms"`
	CommitMS  float64          `json:"commit_ms"`
	CacheHit  *float64         `json:"cache_hit_ratio"`
	Slow      []slowStatement  `json:"slow_statements"`
	Problems  []string         `json:"problems"`
	Notes     []string         `json:"notes"`
}

type slowStatement struct {
	Statement string  `json:"statement"`
	Calls     int64   `json:"calls"`
	MeanMS    float64 `json:"mean_ms"`
	TotalMS   float64 `json:"total_ms"`
}

func checkedDatabase(c ledger.Condition) databaseReport {
	r := databaseReport{
		Where: c.Where, Kind: c.Kind, Version: c.Version, Schema: c.Schema.Has, Wanted: c.Schema.Wants, SizeBytes: int64(c.Size), Records: c.Records,
		AnswerMS: milliseconds(c.Answer), CommitMS: milliseconds(c.Commit), CacheHit: c.CacheHits,
		Slow: []slowStatement{}, Problems: append([]string{}, c.Problems...), Notes: append([]string{}, c.Notes...),
	}
	for _, s := range c.Slow {
		r.Slow = append(r.Slow, slowStatement{s.Statement, s.Calls, milliseconds(s.Mean), milliseconds(s.Total)})
	}
	return r
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func printDatabase(w io.Writer, c ledger.Condition) error {
	lines := []string{
		fmt.Sprintf("%s: %s %s, %s, schema version %d of %d", c.Where, c.Kind, c.Version, c.Size, c.Schema.Has, c.Schema.Wants),
		fmt.Sprintf("  answers after %.2f ms; a commit takes %.2f ms", milliseconds(c.Answer), milliseconds(c.Commit)),
	}
	if c.CacheHits != nil {
		lines = append(lines, fmt.Sprintf("  finds %.1f %% of its pages in its own memory", 100**c.CacheHits))
	}
	var records []string
	for _, table := range slices.Sorted(maps.Keys(c.Records)) {
		if n := c.Records[table]; n > 0 {
			records = append(records, fmt.Sprintf("%s %d", table, n))
		}
	}
	if len(records) > 0 {
		lines = append(lines, "  records: "+strings.Join(records, ", "))
	}
	for _, s := range c.Slow {
		lines = append(lines, fmt.Sprintf("  %.1f ms on average, %d times: %s", milliseconds(s.Mean), s.Calls, strings.Join(strings.Fields(s.Statement), " ")))
	}
	for _, n := range c.Notes {
		lines = append(lines, "  note: "+n)
	}
	for _, p := range c.Problems {
		lines = append(lines, "  problem: "+p)
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
