package tune

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ema/internal/ledger"
	"ema/internal/model"
)

// A parameter is what is advised of a setting of PostgreSQL.
type parameter struct {
	name, value string
	number      float64 // value, of sizes in bytes
	why, risk   string
}

// parameters are those of the founding text, which says the most that each gets, by the size of the memory.
func parameters(memory model.Bytes) []parameter {
	const restart = "it needs a restart of PostgreSQL"
	size := func(b model.Bytes) (string, float64) {
		b = max(b/model.MiB, 1)
		return fmt.Sprintf("%dMB", b), float64(b * model.MiB) // its MB are MiB
	}
	shared := min(2*model.GiB, memory/4)
	all := []parameter{
		{name: "shared_buffers", why: "a quarter of memory holds the tables that are asked for often", risk: restart + "; that memory is not there for models"},
		{name: "work_mem", why: "sums and sorts of the analytics stay in memory", risk: "each sort of each connection may take that much"},
		{name: "maintenance_work_mem", why: "indexes are made in memory", risk: "each worker of autovacuum may take that much"},
		{name: "checkpoint_completion_target", why: "what is to be written is spread over the time between checkpoints", risk: "none that is known; it is the default since version 14"},
		{name: "wal_buffers", why: "bursts of records wait in memory, not for the disk", risk: restart},
	}
	for i, b := range []model.Bytes{shared, min(256*model.MiB, memory/64), min(model.GiB, memory/16), 0, max(min(64*model.MiB, shared/32), model.MiB)} {
		all[i].value, all[i].number = size(b)
	}
	all[3].value, all[3].number = "0.9", 0.9
	return all
}

// serverNames are the names of all parameters.
func serverNames() []string {
	var names []string
	for _, p := range parameters(0) {
		names = append(names, p.name)
	}
	return names
}

// database tells what PostgreSQL should be given.
func (f Facts) database() []Setting {
	base := Setting{Area: Postgres, Name: "settings", Why: "analytics in PostgreSQL"}
	switch {
	case !f.Database.Postgres:
		base.unknown("the analytics are in the store's own file: database.url names no PostgreSQL")
		return []Setting{base}
	case f.Memory == 0:
		base.unknown("how much memory there is cannot be read")
		return []Setting{base}
	}
	var all []Setting
	for _, p := range parameters(f.Memory) {
		all = append(all, f.Database.setting(p))
	}
	return all
}

// setting judges one parameter.
func (d Database) setting(p parameter) Setting {
	s := Setting{
		Area: Postgres, Name: p.name, Status: ByHand, Advised: p.value, Why: p.why, Risk: p.risk,
		Command: fmt.Sprintf("ALTER SYSTEM SET %s = '%s';", p.name, p.value),
	}
	if d.Server == nil {
		s.Note = cmp.Or(d.Problem, "it was not asked what it has") + "; SHOW tells, and SELECT pg_reload_conf() makes it act"
		if d.Remote {
			s.Note = "it runs on another machine: these are the values for one with as much memory as this; " + s.Note
		}
		return s
	}
	now, known := d.Server.Parameters[p.name]
	switch s.Current, s.Restart = now.Shown, now.Restart; {
	case !known:
		s.unknown("this PostgreSQL does not have it")
		s.Advised, s.Command = "", ""
		return s
	case now.Value >= p.number:
		s.fine()
		s.Restart = false
	case now.Restart && now.Kept != nil && *now.Kept == p.value:
		s.Status, s.Note = Fine, p.value+" holds once PostgreSQL is started again"
	case d.Remote:
		s.Note = "it runs on another machine: these are the values for one with as much memory as this"
	case now.Forced:
		s.Note, s.Command = "the command line that starts PostgreSQL sets this, which counts more: change it there", ""
	case !d.Server.MaySet:
		s.Note = "only a superuser of PostgreSQL may change it, and database.url names none; SELECT pg_reload_conf() makes it act"
	default:
		s.Status, s.server = Advised, true
	}
	if s.Status != Advised && s.Status != ByHand {
		s.Command = ""
		return s
	}
	if s.server {
		s.Command = ""
	}
	switch hits := d.Server.CacheHits; {
	case p.name == "shared_buffers" && hits != nil:
		s.Why += fmt.Sprintf("; %.1f %% of the pages were found there so far", 100**hits)
	case p.name == "work_mem":
		s.Why += fmt.Sprintf("; sorts have written %s to disk so far", d.Server.Spilled)
	}
	return s
}

// A SettingsServer is what a Cluster needs of PostgreSQL: see ledger.Server.
type SettingsServer interface {
	State(ctx context.Context, names []string) (ledger.ServerState, error)
	Keep(ctx context.Context, name string, value *string) error
	Reload(ctx context.Context) error
}

// A Cluster is a PostgreSQL server whose settings can be changed, and put back. It may be used by one caller at a time; other
// processes are kept out while it changes anything.
//
// PostgreSQL keeps what ALTER SYSTEM sets in a file of its own, and writes that durably before it answers. What it had kept before is in
// the journal, on the disk, before the first change; so whatever moment an apply ends at, rollback puts that back.
type Cluster struct {
	server SettingsServer
	backup string // absolute
	kept   keeper
}

// OpenCluster is the cluster of a server, whose backup is, or will be, in that folder. It makes and changes nothing.
func OpenCluster(server SettingsServer, backup string) (*Cluster, error) {
	backup, err := filepath.Abs(backup)
	if err != nil {
		return nil, err
	}
	return &Cluster{server, backup, notebook{backup}}, nil
}

// Look asks the server what it has.
func (c *Cluster) Look(ctx context.Context) (ledger.ServerState, error) {
	return c.server.State(ctx, serverNames())
}

// BackedUp is when the first change was made that can be taken back; zero when there is none.
func (c *Cluster) BackedUp() (time.Time, error) {
	j, err := c.kept.load()
	if j == nil || err != nil {
		return time.Time{}, err
	}
	return j.Begun, nil
}

// ServerChanges are the settings of PostgreSQL that Apply would set.
func ServerChanges(all []Setting) []string {
	var names []string
	for _, s := range all {
		if s.server {
			names = append(names, serverSetting(s.Name))
		}
	}
	return names
}

// serverSetting is how a setting is told among files.
func serverSetting(name string) string { return "PostgreSQL: " + name }

// open is the journal, with what the server has now, until unlock is called. The journal is nil when there is none.
func (c *Cluster) open(ctx context.Context) (j *journal, st ledger.ServerState, unlock func() error, err error) {
	if st, err = c.Look(ctx); err != nil {
		return nil, st, nil, err
	}
	if !st.MaySet {
		return nil, st, nil, &model.Error{
			Op: "tune", Class: model.Auth, File: st.Where, Err: errors.New("only a superuser of PostgreSQL may change its settings"), Hint: "name one in database.url for this; nothing was changed",
		}
	}
	if unlock, err = c.kept.lock(); err != nil {
		return nil, st, nil, err
	}
	j, err = c.kept.load()
	if err == nil && j != nil && j.Root != st.System {
		err = &model.Error{
			Op: "read the backup", Class: model.Usage, File: c.backup, Err: errors.New("it is the backup of another PostgreSQL server"), Hint: "let database.url name that one; nothing was changed",
		}
	}
	if err != nil {
		return nil, st, nil, errors.Join(err, unlock())
	}
	return j, st, unlock, nil
}

// Apply has the server keep what is advised, and use what needs no restart. What it kept before is on the disk first; where there is a
// backup already, that is kept, and added to. It returns what it has changed, also when it fails half way.
func (c *Cluster) Apply(ctx context.Context, all []Setting) (changed []string, err error) {
	if len(ServerChanges(all)) == 0 {
		return nil, nil
	}
	if err := makeFolders(c.backup); err != nil {
		return nil, failed("apply", c.backup, err, "")
	}
	j, st, unlock, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if j == nil {
		j = &journal{Version: journalVersion, Root: st.System, Begun: time.Now().UTC()}
	}
	for _, s := range all {
		if !s.server {
			continue
		}
		e := j.find(s.Name)
		if e == nil {
			was := entry{Kind: ofServer, Area: Postgres, Path: s.Name}
			if kept := st.Parameters[s.Name].Kept; kept != nil {
				was.Former = &state{Data: []byte(*kept)}
			}
			j.Entries = append(j.Entries, was)
			e = &j.Entries[len(j.Entries)-1]
		}
		e.written([]byte(s.Advised))
	}
	if err := c.kept.save(j); err != nil {
		return nil, failed("make a backup", c.backup, err, "nothing was changed")
	}
	for _, s := range all {
		if !s.server {
			continue
		}
		if err := c.server.Keep(ctx, s.Name, &s.Advised); err != nil {
			return changed, halfWay(err)
		}
		changed = append(changed, serverSetting(s.Name))
	}
	if err := c.server.Reload(ctx); err != nil {
		return changed, halfWay(err)
	}
	return changed, nil
}

// halfWay says what to do after an apply that has failed.
func halfWay(err error) error {
	e, ok := errors.AsType[*model.Error](err)
	if !ok {
		e = &model.Error{Op: "apply", Class: model.Other, Err: err}
	}
	told := *e
	told.Hint = joined(e.Hint, undo)
	return &told
}

// Rollback has the server keep again what it kept before the first apply. It can be repeated. What somebody else has set since it leaves
// alone, and then changes nothing at all and returns a *ChangedError; force restores it all the same.
func (c *Cluster) Rollback(ctx context.Context, force bool) (r Restored, err error) {
	if _, err := os.Stat(c.backup); errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	j, st, unlock, err := c.open(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if j == nil {
		return r, nil
	}
	var foreign []string
	for _, e := range j.Entries {
		var now *state
		if kept := st.Parameters[e.Path].Kept; kept != nil {
			now = &state{Data: []byte(*kept)}
		}
		if now == nil && e.Former == nil {
			continue
		}
		if now == nil || e.foreign(now) {
			foreign = append(foreign, serverSetting(e.Path))
		}
	}
	if len(foreign) > 0 && !force {
		return r, &model.Error{
			Op: "rollback", Err: &ChangedError{foreign}, Hint: "look at it, and put back what was before all the same with --force; nothing was changed",
		}
	}
	for _, e := range slices.Backward(j.Entries) {
		var former *string
		if e.Former != nil {
			former = new(string(e.Former.Data))
		}
		now := st.Parameters[e.Path].Kept
		if former == nil && now == nil || former != nil && now != nil && *former == *now {
			continue
		}
		if err := c.server.Keep(ctx, e.Path, former); err != nil {
			return r, err
		}
		r.Paths = append(r.Paths, serverSetting(e.Path))
	}
	if err := c.server.Reload(ctx); err != nil { // also when another rollback was stopped before it
		return r, err
	}
	return r, failedSave(c.kept.drop(), c.backup)
}
