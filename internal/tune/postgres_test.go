package tune

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/ledger"
	"ema/internal/model"
)

// A pretended server keeps settings, and stops at one of the changes that are asked of it.
type pretended struct {
	kept   map[string]string
	left   int  // changes until it stops; negative = it has
	done   bool // it makes the change at which it stops, and tells nobody
	system string
}

func (p *pretended) State(context.Context, []string) (ledger.ServerState, error) {
	st := ledger.ServerState{Where: "here", MaySet: true, System: p.system, Parameters: map[string]ledger.Parameter{}}
	for _, name := range serverNames() {
		one := ledger.Parameter{Shown: "1MB", Value: 0.1}
		if value, ok := p.kept[name]; ok {
			one.Kept = &value
		}
		st.Parameters[name] = one
	}
	return st, nil
}

func (p *pretended) change(do func()) error {
	if p.left < 0 {
		return errStopped
	}
	if p.left--; p.left >= 0 || p.done {
		do()
	}
	if p.left < 0 {
		return errStopped
	}
	return nil
}

func (p *pretended) Keep(_ context.Context, name string, value *string) error {
	return p.change(func() {
		if value == nil {
			delete(p.kept, name)
		} else {
			p.kept[name] = *value
		}
	})
}

func (p *pretended) Reload(context.Context) error { return p.change(func() {}) }

// Wherever an apply ends, and a rollback after it, the next rollback puts back what the server kept before.
func TestSettingsOfAServerComeBackFromAnyPoint(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		before := map[string]string{}
		for _, name := range serverNames() {
			if rapid.Bool().Draw(t, name) {
				before[name] = rapid.SampledFrom([]string{"3MB", "it's", `\`}).Draw(t, "value")
			}
		}
		p := &pretended{kept: maps.Clone(before), system: "7"}
		folder := filepath.Join(dir, rapid.StringMatching(`[a-z]{12}`).Draw(t, "folder"))
		c, err := OpenCluster(p, folder)
		if err != nil {
			t.Fatal(err)
		}
		p.left, p.done = rapid.IntRange(0, 8).Draw(t, "changes"), rapid.Bool().Draw(t, "done")
		st, err := c.Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all := Advise(Facts{Memory: 8 * model.GiB, Database: Database{Postgres: true, Server: &st}})
		advised := ServerChanges(all)
		changed, err := c.Apply(t.Context(), all)
		if whole := p.left >= 0; whole != (err == nil) || whole && len(changed) != len(advised) {
			t.Fatalf("it changes %q of %q: %v", changed, advised, err)
		}
		if p.left, err = rapid.IntRange(0, 8).Draw(t, "changes back"), nil; rapid.Bool().Draw(t, "twice") {
			_, err = c.Rollback(t.Context(), false)
		}
		if err == nil || errors.Is(err, errStopped) {
			p.left = 100
			_, err = c.Rollback(t.Context(), false)
		}
		if err != nil || !maps.Equal(p.kept, before) {
			t.Fatalf("it keeps %q, and kept %q: %v", p.kept, before, err)
		}
		if made, err := c.BackedUp(); err != nil || !made.IsZero() {
			t.Fatalf("there is a backup of %v still, %v", made, err)
		}
	})
}

func TestTheBackupOfAnotherServerIsNotPutBack(t *testing.T) {
	p := &pretended{kept: map[string]string{}, system: "7", left: 100}
	c, err := OpenCluster(p, filepath.Join(t.TempDir(), "backup"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := c.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := Advise(Facts{Memory: 8 * model.GiB, Database: Database{Postgres: true, Server: &st}})
	if _, err := c.Apply(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	kept := maps.Clone(p.kept)
	p.system = "8"
	for what, do := range map[string]func() error{
		"rollback": func() error { _, err := c.Rollback(t.Context(), true); return err },
		"apply":    func() error { _, err := c.Apply(t.Context(), all); return err },
	} {
		if err := do(); model.ClassOf(err) != model.Usage || !maps.Equal(p.kept, kept) {
			t.Errorf("%s: %v, kept %q", what, err, p.kept)
		}
	}
}
