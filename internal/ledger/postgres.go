package ledger

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"ema/internal/model"
)

// patience is how long PostgreSQL may take for one batch: whoever has hung, or lies behind a network that swallows
// everything, must not keep a batch for ever.
const patience = 30 * time.Second

// OpenPostgres opens the database that a URL such as postgres://user:password@host:5432/name says, and makes or updates its
// tables. The password appears in no error. One that cannot be reached is an error of class Timeout, or of class Auth when
// it does not let us in. The database belongs to one store alone.
func OpenPostgres(ctx context.Context, address string) (*Ledger, error) {
	l, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := l.migrate(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// connect reaches the database and leaves its tables as they are.
func connect(ctx context.Context, address string) (*Ledger, error) {
	set, err := pgxpool.ParseConfig(address)
	if err != nil {
		// What the parser says may quote the address.
		return nil, &model.Error{Op: "open ledger", Class: model.Usage, Err: errors.New("database.url is no address of a PostgreSQL database"), Hint: "write it as postgres://user@host:5432/name"}
	}
	if set.ConnConfig.ConnectTimeout == 0 || set.ConnConfig.ConnectTimeout > 10*time.Second {
		set.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if set.ConnConfig.RuntimeParams["application_name"] == "" {
		set.ConnConfig.RuntimeParams["application_name"] = "ema"
	}
	set.MinConns, set.MinIdleConns = 0, 0 // an idle daemon asks nobody anything
	set.HealthCheckPeriod = time.Hour
	l := &Ledger{path: whereIs(set.ConnConfig)}
	pool, err := pgxpool.NewWithConfig(ctx, set)
	if err != nil {
		return nil, failure("open", l.path, err)
	}
	l.pool, l.db = pool, stdlib.OpenDBFromPool(pool)
	if err := l.db.PingContext(ctx); err != nil {
		return nil, errors.Join(failure("open", l.path, err), l.Close())
	}
	return l, nil
}

// whereIs names a database without who asks it.
func whereIs(c *pgx.ConnConfig) string {
	host := c.Host
	if !strings.HasPrefix(host, "/") {
		host = net.JoinHostPort(host, strconv.Itoa(int(c.Port)))
	}
	return "postgres://" + host + "/" + c.Database
}

// postgres reports whether this is a PostgreSQL database.
func (l *Ledger) postgres() bool { return l.pool != nil }

// postgresFailure sorts what PostgreSQL said, or that nobody said anything.
func postgresFailure(failed *model.Error, err error) {
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch class := said.Code[:min(2, len(said.Code))]; {
		case said.Code == "53100":
			failed.Class, failed.Hint = model.DiskFull, "free some space on the disk of the database"
		case class == "28" || said.Code == "42501":
			failed.Class, failed.Hint = model.Auth, "check user, password and rights in database.url"
		case said.Code == "3D000":
			failed.Class, failed.Hint = model.NotFound, `make it with "createdb"`
		case class == "57" || class == "08" || class == "53":
			failed.Class, failed.Hint = model.Timeout, "see whether the database runs"
		}
		return
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok || pgconn.Timeout(err) || network(err) {
		failed.Class, failed.Hint = model.Timeout, "see whether the database runs"
	}
}

// network reports whether err is of a connection.
func network(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	return ok || strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "unexpected EOF")
}
