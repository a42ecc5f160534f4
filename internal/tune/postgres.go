package tune

import (
	"fmt"

	"ema/internal/model"
)

// database tells what PostgreSQL should be given, from the size of the memory. What the founding text says is the most.
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
	shared := min(2*model.GiB, f.Memory/4)
	note := "it is not asked for what it has; SHOW tells, and SELECT pg_reload_conf() makes it act"
	if f.Database.Remote {
		note = "it runs on another machine: these are the values for one with as much memory as this; " + note
	}
	restart := "it needs a restart of PostgreSQL"
	var all []Setting
	for _, p := range []struct{ name, value, why, risk string }{
		{"shared_buffers", inMB(shared), "a quarter of memory holds the tables that are asked for often", restart + "; that memory is not there for models"},
		{"work_mem", inMB(min(256*model.MiB, f.Memory/64)), "sums and sorts of the analytics stay in memory", "each sort of each connection may take that much"},
		{"maintenance_work_mem", inMB(min(model.GiB, f.Memory/16)), "indexes are made in memory", "each worker of autovacuum may take that much"},
		{"checkpoint_completion_target", "0.9", "what is to be written is spread over the time between checkpoints", "none that is known; it is the default since version 14"},
		{"wal_buffers", inMB(max(min(64*model.MiB, shared/32), model.MiB)), "bursts of records wait in memory, not for the disk", restart},
	} {
		s := base
		s.Name, s.Status, s.Advised, s.Why, s.Risk, s.Note = p.name, ByHand, p.value, p.why, p.risk, note
		s.Command = fmt.Sprintf("ALTER SYSTEM SET %s = '%s';", p.name, p.value)
		all = append(all, s)
	}
	return all
}

// inMB is a size as PostgreSQL reads it; its MB are MiB.
func inMB(b model.Bytes) string { return fmt.Sprintf("%dMB", max(b/model.MiB, 1)) }
