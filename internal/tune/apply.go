package tune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ema/internal/model"
)

// changer is what applying and taking back need of the folder that is changed.
type changer interface {
	files
	state(name string) (*state, error)
	folder(name string) (bool, error)
	writable(name string) error
	set(name, text string) error
	replace(name string, s state) error
	remove(name string) error
	makeFolder(name string) error
	removeFolder(name string) (bool, error)
}

// keeper is where the journal is.
type keeper interface {
	lock() (func() error, error)
	load() (*journal, error)
	save(j *journal) error
	drop() error
}

// A Machine is one whose settings can be changed. It may be used by one caller at a time; other processes are kept out
// while it changes anything.
type Machine struct {
	root   string // absolute
	backup string // absolute
	from   changer
	kept   keeper
	close  func() error
}

// Open opens the machine whose files are below root, and whose backup is, or will be, in a folder of that name. It makes
// and changes nothing.
func Open(root, backup string) (*Machine, error) {
	var err error
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	if backup, err = filepath.Abs(backup); err != nil {
		return nil, err
	}
	opened, err := os.OpenRoot(root)
	if err != nil {
		return nil, &model.Error{Op: "tune", Class: model.Usage, File: root, Err: bare(err), Hint: "name the folder that is the root of a machine's files"}
	}
	return &Machine{root, backup, disk{opened}, notebook{backup}, opened.Close}, nil
}

// Close gives the folder up.
func (m *Machine) Close() error { return m.close() }

// Look reads the facts about the machine, with the mount points of those folders, which are named from its root.
func (m *Machine) Look(folders []string, d Database) Facts {
	f := look(m.from, folders)
	f.Database = d
	return f
}

// BackedUp is when the first change was made that can be taken back; zero when there is none.
func (m *Machine) BackedUp() (time.Time, error) {
	j, err := m.kept.load()
	if j == nil || err != nil {
		return time.Time{}, err
	}
	return j.Begun, nil
}

// Changes are what apply would write for some settings: files of the kernel, then of the system. EditFstab allows
// changes of fstab.
func Changes(all []Setting, editFstab bool) []string {
	var kernel, system []string
	for _, s := range all {
		for _, v := range s.values {
			kernel = append(kernel, "/"+v.path)
		}
		for _, l := range s.lines {
			system = append(system, "/"+l.File)
		}
		if s.mount != "" && editFstab {
			system = append(system, "/"+fstabFile)
		}
	}
	slices.Sort(system)
	return append(kernel, slices.Compact(system)...)
}

// undo is the hint of an apply that failed after its first change.
const undo = `what was changed so far is taken back by "ema tune rollback"`

// Apply makes settings what is advised: the running values first, then, once the kernel has taken them, the files that
// make them last. What was there before is on the disk before the first change; where there is a backup already, that is
// kept, and added to. It returns what it has changed, also when it fails half way.
func (m *Machine) Apply(ctx context.Context, all []Setting, editFstab bool) (changed []string, err error) {
	if len(Changes(all, editFstab)) == 0 {
		return nil, nil
	}
	if err := makeFolders(m.backup); err != nil {
		return nil, failed("apply", m.backup, err, "")
	}
	unlock, err := m.kept.lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	j, err := m.journal()
	if err != nil {
		return nil, err
	}
	p := plan{j: j}
	if p.j == nil {
		p.j = &journal{Version: journalVersion, Root: m.root, Begun: time.Now().UTC()}
	}
	if err := m.plan(&p, all, editFstab); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := m.kept.save(p.j); err != nil {
		return nil, failed("make a backup", m.backup, err, "nothing was changed")
	}
	for _, step := range p.steps {
		if err := ctx.Err(); err != nil {
			return changed, &model.Error{Op: "apply", Class: model.Cancelled, Err: errors.New("stopped half way"), Hint: undo}
		}
		if err := step.do(); err != nil {
			return changed, failed("apply", "/"+step.path, err, undo)
		}
		if step.told {
			changed = append(changed, "/"+step.path)
		}
	}
	return changed, nil
}

// journal is the journal of this root; nil when there is none.
func (m *Machine) journal() (*journal, error) {
	j, err := m.kept.load()
	if j == nil || err != nil {
		return nil, err
	}
	if j.Root != m.root {
		return nil, &model.Error{Op: "read the backup", Class: model.Usage, File: m.backup, Err: fmt.Errorf("it is the backup of %s, not of %s", j.Root, m.root)}
	}
	return j, nil
}

// A plan is a journal with the steps that it is about.
type plan struct {
	j     *journal
	steps []step
}

// A step is one change.
type step struct {
	path string
	told bool // it is one of what Changes tells
	do   func() error
}

// plan works out what is to be done, and changes nothing.
func (m *Machine) plan(p *plan, all []Setting, editFstab bool) error {
	var files []string
	areas := map[string]Area{}
	for _, s := range all {
		for _, v := range s.values {
			if err := m.planValue(p, s.Area, v); err != nil {
				return err
			}
		}
		for _, l := range s.lines {
			p.j.put(l)
			if files, areas[l.File] = append(files, l.File), s.Area; strings.ContainsAny(l.Text, "\n\r") {
				return &model.Error{Op: "apply", Class: model.Other, File: "/" + l.File, Err: fmt.Errorf("%w: %q is no line", errMalformed, l.Text)}
			}
		}
	}
	slices.Sort(files)
	for _, name := range slices.Compact(files) {
		err := m.planFile(p, areas[name], name, func(e *entry, _ *state) ([]byte, error) {
			return compose(e.Former, m.backup, name, p.j.Lines), nil
		})
		if err != nil {
			return err
		}
	}
	points := mountsOf(all)
	if len(points) == 0 || !editFstab {
		return nil
	}
	return m.planFile(p, Mount, fstabFile, func(_ *entry, now *state) ([]byte, error) {
		if now == nil {
			return nil, fs.ErrNotExist
		}
		text := string(now.Data)
		for _, point := range points {
			var err error
			if text, err = withNoatime(text, point); err != nil {
				return nil, fmt.Errorf("%s: %w", point, err)
			}
		}
		return []byte(text), nil
	})
}

// mountsOf are the mount points whose lines in fstab are to be changed.
func mountsOf(all []Setting) []string {
	var points []string
	for _, s := range all {
		if s.mount != "" {
			points = append(points, s.mount)
		}
	}
	return points
}

func (m *Machine) planValue(p *plan, area Area, v value) error {
	if err := m.from.writable(v.path); err != nil {
		return failed("apply", "/"+v.path, err, "nothing was changed")
	}
	e := p.j.find(v.path)
	if e == nil {
		// What changes along with it goes before it, since taking back goes the other way round.
		for _, name := range v.side {
			text, _, err := m.from.read(name)
			if err != nil || m.from.writable(name) != nil || p.j.find(name) != nil {
				continue // not every kernel and disk has it, or lets it be written
			}
			p.j.Entries = append(p.j.Entries, entry{Kind: ofSide, Area: area, Path: name, Former: &state{Data: []byte(text)}})
		}
		text, _, err := m.from.read(v.path)
		if err != nil {
			return failed("apply", "/"+v.path, err, "nothing was changed")
		}
		p.j.Entries = append(p.j.Entries, entry{Kind: ofValue, Area: area, Path: v.path, Former: &state{Data: []byte(text)}})
		e = &p.j.Entries[len(p.j.Entries)-1]
	}
	e.written([]byte(v.text))
	p.steps = append(p.steps, step{path: v.path, told: true, do: func() error {
		if err := m.from.set(v.path, v.text+"\n"); err != nil {
			return err
		}
		text, _, err := m.from.read(v.path)
		if err == nil && !same(v.path, text, v.text) {
			err = fmt.Errorf("the kernel made %q of %q", strings.TrimSpace(text), v.text)
		}
		return err
	}})
	return nil
}

// planFile plans the change of a file into what make makes of it.
func (m *Machine) planFile(p *plan, area Area, name string, make func(e *entry, now *state) ([]byte, error)) error {
	now, err := m.from.state(name)
	if err != nil {
		return failed("apply", "/"+name, err, "nothing was changed")
	}
	if err := m.planFolders(p, path.Dir(name)); err != nil {
		return err
	}
	e := p.j.find(name)
	switch {
	case e == nil:
		if now != nil && marked(string(now.Data)) != "" {
			return elsewhere("apply", name, marked(string(now.Data)))
		}
		p.j.Entries = append(p.j.Entries, entry{Kind: ofFile, Area: area, Path: name, Former: now})
		e = &p.j.Entries[len(p.j.Entries)-1]
	case e.foreign(now):
		return &model.Error{
			Op: "apply", File: "/" + name, Err: &ChangedError{Paths: []string{"/" + name}},
			Hint: `put it back, or take everything back with "ema tune rollback --force"; nothing was changed`,
		}
	}
	data, err := make(e, now)
	if err != nil {
		return failed("apply", "/"+name, err, "nothing was changed")
	}
	e.written(data)
	s := state{Data: data, Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid()}
	if e.Former != nil {
		s.Mode, s.UID, s.GID = e.Former.Mode, e.Former.UID, e.Former.GID
	}
	p.steps = append(p.steps, step{path: name, told: true, do: func() error { return m.from.replace(name, s) }})
	return nil
}

// planFolders plans a folder and those above it, as far as they are not there.
func (m *Machine) planFolders(p *plan, name string) error {
	if name == "." {
		return nil
	}
	there, err := m.from.folder(name)
	if err != nil {
		return failed("apply", "/"+name, err, "nothing was changed")
	}
	if there {
		return nil
	}
	if err := m.planFolders(p, path.Dir(name)); err != nil {
		return err
	}
	if p.j.find(name) == nil {
		p.j.Entries = append(p.j.Entries, entry{Kind: ofFolder, Path: name})
	}
	p.steps = append(p.steps, step{path: name, do: func() error { return m.from.makeFolder(name) }})
	return nil
}

// same reports whether two texts of a file of the kernel say the same.
func same(path, a, b string) bool {
	if isChoice(path) {
		x, err := parseChoice(a)
		y, err2 := parseChoice(b)
		return err == nil && err2 == nil && x.selected == y.selected
	}
	return slices.Equal(strings.Fields(a), strings.Fields(b))
}

// isChoice reports whether the kernel shows all that it offers in that file, and takes one word.
func isChoice(name string) bool { return path.Base(name) == "scheduler" }

// elsewhere is the error about a file of ours whose backup is in another folder.
func elsewhere(op, name, backup string) error {
	return &model.Error{
		Op: op, Class: model.NotFound, File: "/" + name, Err: fmt.Errorf("it was written by another ema tune apply, whose backup is in %s", backup),
		Hint: "take that back first, with the --store that it was made with; if that backup is lost, remove the file",
	}
}
