package tune

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"ema/internal/model"
)

// A ChangedError says that somebody else has changed what apply had changed, so that taking it back would destroy that.
type ChangedError struct{ Paths []string }

func (e *ChangedError) Error() string {
	return strings.Join(e.Paths, ", ") + ": changed by somebody else since apply"
}

// Restored is what a rollback has done.
type Restored struct {
	Paths []string // what was put back
	Kept  []string // folders of ours that stay, since somebody has put something there
	Gone  []string // what no longer exists, like a disk that was taken out
}

// Rollback puts back what was before the first apply, in some areas, the last change first. It can be repeated, also
// after it or an apply was interrupted at any point. What somebody else has changed since it leaves alone, and then
// changes nothing at all and returns a *ChangedError; force restores it all the same.
func (m *Machine) Rollback(ctx context.Context, areas []Area, force bool) (r Restored, err error) {
	if _, err := os.Stat(m.backup); errors.Is(err, fs.ErrNotExist) {
		return r, m.strayed(areas)
	}
	unlock, err := m.kept.lock()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	j, err := m.journal()
	if err != nil {
		return r, err
	}
	if j == nil {
		return r, m.strayed(areas)
	}
	if !force {
		if err := m.untouched(j, areas); err != nil {
			return r, err
		}
	}
	var rest []entry
	var wrong error
	for _, e := range slices.Backward(j.Entries) {
		if e.Kind == ofFolder && holds(e.Path, rest) || e.Kind != ofFolder && !slices.Contains(areas, e.Area) {
			rest = append(rest, e)
			continue
		}
		if err := ctx.Err(); err != nil {
			return r, &model.Error{Op: "rollback", Class: model.Cancelled, Err: errors.New("stopped half way"), Hint: `go on with "ema tune rollback"`}
		}
		if err := m.restore(e, &r); err != nil {
			wrong = errors.Join(wrong, failed("rollback", "/"+e.Path, err, `the rest was put back; repeat "ema tune rollback" when the cause is gone`))
		}
	}
	if wrong != nil {
		return r, wrong
	}
	return r, m.forget(j, rest)
}

// forget leaves in the journal what was not put back, which is in reverse.
func (m *Machine) forget(j *journal, rest []entry) error {
	slices.Reverse(rest)
	if len(rest) == 0 {
		return failedSave(m.kept.drop(), m.backup)
	}
	left := *j
	left.Entries = rest
	left.Lines = slices.DeleteFunc(slices.Clone(j.Lines), func(l line) bool {
		return !slices.ContainsFunc(rest, func(e entry) bool { return e.Path == l.File })
	})
	return failedSave(m.kept.save(&left), m.backup)
}

// holds reports whether one of those entries lies in a folder.
func holds(folder string, some []entry) bool {
	return slices.ContainsFunc(some, func(e entry) bool { return strings.HasPrefix(e.Path, folder+"/") })
}

func failedSave(err error, backup string) error {
	if err == nil {
		return nil
	}
	return failed("rollback", backup, err, `everything was put back; repeat "ema tune rollback" to remove the backup`)
}

// strayed is the error of a rollback that has no backup where there is a file of ours whose backup is elsewhere.
func (m *Machine) strayed(areas []Area) error {
	for _, own := range []struct {
		area Area
		name string
	}{{Sysctl, sysctlFile}, {Scheduler, udevFile}, {Governor, tmpfilesFile}} {
		text, _, err := m.from.read(own.name)
		if backup := marked(text); err == nil && backup != "" && slices.Contains(areas, own.area) {
			return elsewhere("rollback", own.name, backup)
		}
	}
	return nil
}

// foreign reports whether a file is neither what it was nor what apply made of it.
func (e *entry) foreign(now *state) bool {
	switch {
	case now == nil:
		return e.Former != nil
	case e.Former != nil && bytes.Equal(now.Data, e.Former.Data):
		return false
	}
	return !slices.ContainsFunc(e.Ours, func(o []byte) bool { return bytes.Equal(o, now.Data) })
}

// untouched is a *ChangedError that names what somebody else has changed.
func (m *Machine) untouched(j *journal, areas []Area) error {
	var changed []string
	for _, e := range j.Entries {
		if !slices.Contains(areas, e.Area) {
			continue
		}
		switch e.Kind {
		case ofFile:
			now, err := m.from.state(e.Path)
			if err != nil && !errors.Is(err, errNoFile) {
				return failed("rollback", "/"+e.Path, err, "nothing was changed")
			}
			if err != nil || e.foreign(now) {
				changed = append(changed, "/"+e.Path)
			}
		case ofValue:
			text, _, err := m.from.read(e.Path)
			if err != nil {
				continue // told when it is put back
			}
			// A root that is no kernel's can be left empty by a crash in the middle of a write.
			ours := strings.TrimSpace(text) == "" || same(e.Path, text, string(e.Former.Data)) ||
				slices.ContainsFunc(e.Ours, func(o []byte) bool { return same(e.Path, text, string(o)) })
			if !ours {
				changed = append(changed, "/"+e.Path)
			}
		}
	}
	if len(changed) == 0 {
		return nil
	}
	return &model.Error{Op: "rollback", Err: &ChangedError{changed}, Hint: "look at it, and put back what was before all the same with --force; nothing was changed"}
}

// restore puts one thing back.
func (m *Machine) restore(e entry, r *Restored) error {
	switch e.Kind {
	case ofFolder:
		gone, err := m.from.removeFolder(e.Path)
		if err == nil && !gone {
			r.Kept = append(r.Kept, "/"+e.Path)
		}
		return err
	case ofFile:
		return m.restoreFile(e, r)
	case ofValue, ofSide:
	}
	text, _, err := m.from.read(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		if e.Kind == ofValue {
			r.Gone = append(r.Gone, "/"+e.Path)
		}
		return nil
	}
	former := string(e.Former.Data)
	if err != nil || text == former {
		return err
	}
	r.Paths = append(r.Paths, "/"+e.Path)
	if !isChoice(e.Path) {
		return m.from.set(e.Path, former)
	}
	c, err := parseChoice(former)
	if err != nil {
		return err
	}
	if err := m.from.set(e.Path, c.selected+"\n"); err != nil {
		return err
	}
	text, _, err = m.from.read(e.Path)
	if now, malformed := parseChoice(text); err != nil || malformed == nil && len(now.offered) > 1 && now.selected == c.selected || text == former {
		return err // the kernel has put it in brackets itself; it may offer more now
	}
	return m.from.set(e.Path, former) // this root is no kernel's
}

func (m *Machine) restoreFile(e entry, r *Restored) error {
	there, err := m.from.folder(path.Dir(e.Path))
	if err != nil {
		return err
	}
	if !there && e.Former == nil {
		return nil // apply did not come so far
	}
	if err := m.from.remove(fresh(e.Path)); err != nil {
		return err
	}
	now, err := m.from.state(e.Path)
	if err != nil {
		return err
	}
	switch {
	case e.Former == nil && now == nil:
		return nil
	case e.Former == nil:
		r.Paths = append(r.Paths, "/"+e.Path)
		return m.from.remove(e.Path)
	case now != nil && bytes.Equal(now.Data, e.Former.Data) && now.Mode == e.Former.Mode && now.UID == e.Former.UID && now.GID == e.Former.GID:
		return nil
	}
	r.Paths = append(r.Paths, "/"+e.Path)
	return m.from.replace(e.Path, *e.Former)
}
