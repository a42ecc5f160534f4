package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"ema/internal/model"
)

// A Server is a PostgreSQL server whose settings are read and changed. Its methods may be called concurrently.
type Server struct{ l *Ledger }

// OpenServer connects to the server of the database at url.
func OpenServer(ctx context.Context, url string) (*Server, error) {
	l, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	return &Server{l}, nil
}

// Close gives the connections up.
func (s *Server) Close() error { return s.l.Close() }

// A ServerState is what a server says of itself.
type ServerState struct {
	Where string // its address and database, without who asks
	// MaySet reports whether who asks may change settings of the server. What follows it is known only then.
	MaySet bool
	System string // the identifier that a server got when it was made

	Parameters map[string]Parameter // by name
	CacheHits  *float64             // the part of the pages of this database that it found in its own memory; nil before any was read
	Spilled    model.Bytes          // what sorts of this database have written to disk, since the server counts
}

// A Parameter is a setting of a server.
type Parameter struct {
	Shown   string  // what holds, with its unit
	Value   float64 // the same as a number; of sizes in bytes
	Restart bool    // a change acts once the server is started again
	Forced  bool    // the command line of the server sets it, which counts more than anything else
	Kept    *string // what ALTER SYSTEM has set; nil when nothing, and when MaySet is false
}

// State asks for some settings, and what speaks for changing them.
func (s *Server) State(ctx context.Context, names []string) (ServerState, error) {
	st := ServerState{Where: s.l.path, Parameters: map[string]Parameter{}}
	fail := func(err error) (ServerState, error) { return st, failure("ask", s.l.path, err) }
	if err := s.l.db.QueryRowContext(ctx, "SELECT current_setting('is_superuser') = 'on'").Scan(&st.MaySet); err != nil {
		return fail(err)
	}
	type row struct {
		name string
		p    Parameter
	}
	rows, err := list(ctx, s.l, func(rows *sql.Rows) (r row, err error) {
		return r, rows.Scan(&r.name, &r.p.Shown, &r.p.Value, &r.p.Restart, &r.p.Forced)
	}, "SELECT name, current_setting(name), CASE WHEN unit IN ('B', 'kB', '8kB', 'MB') THEN CAST(pg_size_bytes(current_setting(name)) AS DOUBLE PRECISION) "+
		"ELSE CAST(setting AS DOUBLE PRECISION) END, context = 'postmaster', source = 'command line' FROM pg_settings WHERE name = ANY($1)", names)
	if err != nil {
		return fail(err)
	}
	kept := map[string]string{}
	if st.MaySet {
		if err := s.l.db.QueryRowContext(ctx, "SELECT CAST(system_identifier AS TEXT) FROM pg_control_system()").Scan(&st.System); err != nil {
			return fail(err)
		}
		all, err := list(ctx, s.l, func(rows *sql.Rows) (pair [2]string, err error) { return pair, rows.Scan(&pair[0], &pair[1]) },
			"SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%/postgresql.auto.conf' ORDER BY seqno")
		if err != nil {
			return fail(err)
		}
		for _, pair := range all {
			kept[pair[0]] = pair[1]
		}
	}
	for _, r := range rows {
		if value, ok := kept[r.name]; ok {
			r.p.Kept = &value
		}
		st.Parameters[r.name] = r.p
	}
	var hits, read, spilled float64
	if err := s.l.db.QueryRowContext(ctx, "SELECT CAST(blks_hit AS DOUBLE PRECISION), CAST(blks_read AS DOUBLE PRECISION), CAST(temp_bytes AS DOUBLE PRECISION) "+
		"FROM pg_stat_database WHERE datname = current_database()").Scan(&hits, &read, &spilled); err != nil {
		return fail(err)
	}
	if hits+read > 0 {
		st.CacheHits = new(hits / (hits + read))
	}
	st.Spilled = model.Bytes(spilled)
	return st, nil
}

// Keep has the server keep a value for a setting, as ALTER SYSTEM does; nil takes away what is kept. It acts after Reload, or once
// the server is started again. PostgreSQL writes it durably before it answers.
func (s *Server) Keep(ctx context.Context, name string, value *string) error {
	statement := "ALTER SYSTEM RESET " + pgx.Identifier{name}.Sanitize()
	if value != nil {
		if strings.ContainsRune(*value, 0) {
			return fmt.Errorf("the value of %s has a zero byte", name)
		}
		statement = "ALTER SYSTEM SET " + pgx.Identifier{name}.Sanitize() + " = " + literal(*value)
	}
	if _, err := s.l.db.ExecContext(ctx, statement); err != nil {
		return failure("set "+name+" in", s.l.path, err)
	}
	return nil
}

// literal is a text in SQL, whatever standard_conforming_strings says.
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// errNotTaken says that a server refused to read its settings again.
var errNotTaken = errors.New("the server did not read its settings again")

// Reload has the server read what it keeps.
func (s *Server) Reload(ctx context.Context) error {
	var taken bool
	err := s.l.db.QueryRowContext(ctx, "SELECT pg_reload_conf()").Scan(&taken)
	if err == nil && !taken {
		err = errNotTaken
	}
	if err != nil {
		return failure("reload", s.l.path, err)
	}
	return nil
}
