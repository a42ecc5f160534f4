// Package crashdisk is a disk that forgets what was never synced, for tests of what a crash leaves.
//
// A Disk passes everything through to a real folder, so that whatever reads the folder by other
// means sees the same. Beside that it remembers what a device would be sure to hold. It can stop
// after any operation, as a killed process does (Kill), and show the folder as it may look when the
// power failed at that moment (PowerLoss): every write that was not synced is kept, lost or torn
// between sectors; every name that was not synced with its folder is there or not. It is stricter
// than most file systems: syncing a file does not make its name durable, and fdatasync does not make
// the time of modification durable.
package crashdisk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"ema/internal/store"
)

// ErrStopped is what every operation returns after the last one that was allowed.
var ErrStopped = errors.New("the process was killed before this operation")

// Disk is a store.Disk below one folder. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	inner   store.OS
	root    string
	attic   string // a second name of every file, so that its inode outlives its names
	top     *node
	nodes   int
	ops     int
	stop    int // the last operation that works; 0 = no limit
	fault   func(op, name string) error
	open    map[*file]bool
	stopped bool
}

// node is an inode: what it holds now is in the real folder, what a device holds is here.
type node struct {
	attic  string // file
	target string // symbolic link
	dir    bool

	durable []byte
	pending []change
	mtime   time.Time // durable; zero: as it is now

	names      map[string]*node // as they are now
	durNames   map[string]*node
	pendingSet []renames
}

// change is one write that is not synced, or with nil data a new size.
type change struct {
	off  int64
	data []byte
}

// renames are entries of one folder that change together; a nil node is a removal.
type renames map[string]*node

// New takes over root, which must exist. What is in it counts as durable.
func New(root string) (*Disk, error) {
	d := &Disk{root: filepath.Clean(root), attic: filepath.Clean(root) + ".attic", open: map[*file]bool{}}
	if err := os.MkdirAll(d.attic, 0o777); err != nil {
		return nil, err
	}
	var err error
	d.top, err = d.adopt(d.root)
	return d, err
}

// adopt makes a node of what lies at name, durable as it is.
func (d *Disk) adopt(name string) (*node, error) {
	info, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(name)
		return &node{target: target}, err
	case info.IsDir():
		n := newDir()
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if n.names[e.Name()], err = d.adopt(filepath.Join(name, e.Name())); err != nil {
				return nil, err
			}
		}
		n.durNames = maps.Clone(n.names)
		return n, nil
	}
	n, err := d.newFile(name)
	if err != nil {
		return nil, err
	}
	n.durable, err = os.ReadFile(name)
	n.mtime = info.ModTime()
	return n, err
}

func newDir() *node {
	return &node{dir: true, names: map[string]*node{}, durNames: map[string]*node{}}
}

// newFile makes a node for an existing file, and gives the file its second name.
func (d *Disk) newFile(name string) (*node, error) {
	d.nodes++
	n := &node{attic: filepath.Join(d.attic, strconv.Itoa(d.nodes))}
	return n, os.Link(name, n.attic)
}

// StopAfter lets n more operations work, and none after them.
func (d *Disk) StopAfter(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop = d.ops + n
}

// Ops is the number of operations until now.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// Fail asks f before each operation - "open", "write", "preallocate", "sync", "rename", "mkdir",
// "symlink", "link", "remove" - whether it fails; nil ends that.
func (d *Disk) Fail(f func(op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// Kill ends the process, so to speak: nothing works any more, and its files and locks are released.
func (d *Disk) Kill() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	var err error
	for f := range d.open {
		err = errors.Join(err, f.File.Close())
	}
	clear(d.open)
	return err
}

// Restart lets the next process use the disk after Kill: what the last one wrote is still there, and
// what it did not sync still is not durable.
func (d *Disk) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped, d.stop = false, 0
}

// step counts one operation, or refuses it. d.mu is held.
func (d *Disk) step(op, name string) error {
	if d.stopped || d.stop > 0 && d.ops >= d.stop {
		d.stopped = true
		return ErrStopped
	}
	if d.fault != nil {
		if err := d.fault(op, name); err != nil {
			return &fs.PathError{Op: op, Path: name, Err: err}
		}
	}
	d.ops++
	return nil
}

// find is the node of a path.
func (d *Disk) find(name string) (*node, error) {
	rel, err := filepath.Rel(d.root, name)
	if err != nil || !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("%s is not below %s", name, d.root)
	}
	at := d.top
	if rel == "." {
		return at, nil
	}
	path := d.root
	for part := range strings.SplitSeq(rel, string(filepath.Separator)) {
		path = filepath.Join(path, part)
		next := at.names[part]
		if next == nil {
			// Put there by somebody else: a test that plays another program.
			if next, err = d.adopt(path); err != nil {
				return nil, err
			}
			at.names[part], at.durNames[part] = next, next
		}
		at = next
	}
	return at, nil
}

// set changes entries of one folder, together.
func (n *node) set(r renames) {
	for name, to := range r {
		if to == nil {
			delete(n.names, name)
		} else {
			n.names[name] = to
		}
	}
	n.pendingSet = append(n.pendingSet, r)
}

// OpenFile opens or creates a file; see store.Disk.
func (d *Disk) OpenFile(name string, flag int, perm fs.FileMode) (store.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := os.Lstat(name)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh && flag&os.O_CREATE != 0 || d.stopped {
		if err := d.step("open", name); err != nil {
			return nil, err
		}
	}
	inner, err := d.inner.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	f := &file{File: inner, d: d, name: name}
	if fresh {
		var parent *node
		if f.n, err = d.newFile(name); err == nil {
			parent, err = d.find(filepath.Dir(name))
		}
		if err == nil {
			parent.set(renames{filepath.Base(name): f.n})
		}
	} else {
		f.n, err = d.find(name)
	}
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	d.open[f] = true
	return f, nil
}

// Mkdir makes a folder.
func (d *Disk) Mkdir(name string, perm fs.FileMode) error {
	return d.enter("mkdir", name, newDir(), func() error { return d.inner.Mkdir(name, perm) })
}

// Symlink makes a symbolic link.
func (d *Disk) Symlink(target, name string) error {
	return d.enter("symlink", name, &node{target: target}, func() error { return d.inner.Symlink(target, name) })
}

// Link gives a file a second name.
func (d *Disk) Link(from, name string) error {
	d.mu.Lock()
	n, err := d.find(from)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.enter("link", name, n, func() error { return d.inner.Link(from, name) })
}

// Remove removes a name.
func (d *Disk) Remove(name string) error {
	if _, err := os.Lstat(name); err != nil {
		return err // nothing happens, so there is nothing to count
	}
	return d.enter("remove", name, nil, func() error { return d.inner.Remove(name) })
}

func (d *Disk) enter(op, name string, n *node, do func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(op, name); err != nil {
		return err
	}
	parent, err := d.find(filepath.Dir(name))
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	parent.set(renames{filepath.Base(name): n})
	return nil
}

// Rename moves a name. Within one folder both halves are one; between two, each may come alone.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("rename", to); err != nil {
		return err
	}
	n, err := d.find(from)
	if err != nil {
		return err
	}
	src, err := d.find(filepath.Dir(from))
	if err != nil {
		return err
	}
	dst, err := d.find(filepath.Dir(to))
	if err != nil {
		return err
	}
	if err := d.inner.Rename(from, to); err != nil {
		return err
	}
	switch {
	case from == to:
	case src == dst:
		src.set(renames{filepath.Base(from): nil, filepath.Base(to): n})
	default:
		dst.set(renames{filepath.Base(to): n})
		src.set(renames{filepath.Base(from): nil})
	}
	return nil
}

// SyncDir makes the entries of a folder durable.
func (d *Disk) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := os.Lstat(name); err != nil {
		return err
	}
	if err := d.step("sync", name); err != nil {
		return err
	}
	n, err := d.find(name)
	if err == nil {
		n.save()
	}
	return err
}

// SyncFS makes everything durable.
func (d *Disk) SyncFS(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step("sync", name); err != nil {
		return err
	}
	seen := map[*node]bool{}
	var save func(n *node) error
	save = func(n *node) error {
		if n == nil || seen[n] {
			return nil
		}
		seen[n] = true
		if !n.dir {
			return n.saveFile(true)
		}
		for _, c := range n.names {
			if err := save(c); err != nil {
				return err
			}
		}
		n.save()
		return nil
	}
	return save(d.top)
}

// save makes a folder's entries durable.
func (n *node) save() { n.durNames, n.pendingSet = maps.Clone(n.names), nil }

// saveFile makes a file's content durable, and its time of modification if asked.
func (n *node) saveFile(times bool) error {
	if n.attic == "" {
		return nil // a link is durable with its name
	}
	for _, c := range n.pending {
		n.durable = c.apply(n.durable)
	}
	n.pending = nil
	if !times {
		return nil
	}
	info, err := os.Stat(n.attic)
	if err == nil {
		n.mtime = info.ModTime()
	}
	return err
}

func (c change) apply(b []byte) []byte {
	end := c.off + int64(len(c.data))
	if c.data == nil {
		b = resized(b, c.off)
		return b
	}
	if end > int64(len(b)) {
		b = resized(b, end)
	}
	copy(b[c.off:], c.data)
	return b
}

func resized(b []byte, size int64) []byte {
	if size <= int64(len(b)) {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}
