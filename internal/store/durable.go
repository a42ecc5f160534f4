package store

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// A file is durable under its name when its content was synced and so was the folder that holds the
// name, and that folder's folder. Content is synced where it is written; the Writer remembers the
// folders, and syncs all of them at once when an order must be kept.

// folder makes dir and its parents. The first time that a Writer needs a folder, the ones above it
// count as unsaved even if they exist: who made them may have been killed before it synced them.
func (w *Writer) folder(dir string) error {
	w.mu.Lock()
	made := w.made[dir]
	w.mu.Unlock()
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("there is a file of that name")}
	case err == nil && (made || !w.inside(dir)):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := w.folder(parent); err != nil {
			return err
		}
	}
	if info == nil {
		if err := w.disk.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made[dir] = true
	w.unsaved[filepath.Dir(dir)] = true
	return nil
}

// forgetFolders drops what is known of a folder and those below, which are gone or moved.
func (w *Writer) forgetFolders(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.made, func(d string, _ bool) bool { return within(dir, d) })
}

// inside reports whether dir is one of the store's own folders.
func (w *Writer) inside(dir string) bool {
	if within(w.path, dir) || within(w.state, dir) {
		return true
	}
	for _, tier := range w.colder {
		if within(tier, dir) {
			return true
		}
	}
	return false
}

// within reports whether path is root or lies below it, by name.
func within(root, path string) bool {
	rel, err := filepath.Rel(root, path)
	return err == nil && filepath.IsLocal(rel)
}

// changed notes that entries of these folders are not durable.
func (w *Writer) changed(dirs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range dirs {
		w.unsaved[d] = true
	}
}

// adopt makes the folders and counts all that is in them as unsaved: the names that we found there,
// and build on, may be those of a process that was killed before it synced them.
func (w *Writer) adopt(dirs ...string) error {
	for _, d := range dirs {
		if err := w.folder(d); err != nil {
			return err
		}
	}
	w.changed(dirs...)
	return nil
}

// saveNames makes durable every name that changed before the call.
func (w *Writer) saveNames() error {
	// One at a time: a second caller's folders may be among those that the first is syncing, and it
	// must not go on before they are done.
	w.syncing.Lock()
	defer w.syncing.Unlock()
	w.mu.Lock()
	dirs := w.unsaved
	w.unsaved = map[string]bool{}
	w.mu.Unlock()
	if !w.sync {
		return nil
	}
	for d := range dirs {
		err := w.disk.SyncDir(d)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a folder that is gone has no names to lose
			for d := range dirs {
				w.changed(d)
			}
			return err
		}
	}
	return nil
}

// rename moves a name, of which nothing is durable before saveNames.
func (w *Writer) rename(from, to string) error {
	if err := w.disk.Rename(from, to); err != nil {
		return err
	}
	w.changed(filepath.Dir(from), filepath.Dir(to))
	return nil
}

// remove removes a file, a link or an empty folder; that it is gone already is fine.
func (w *Writer) remove(name string) error {
	if err := w.disk.Remove(name); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	w.changed(filepath.Dir(name))
	return nil
}

// create makes a new file for writing; it must not exist.
func (w *Writer) create(name string) (File, error) {
	f, err := w.disk.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err == nil {
		w.changed(filepath.Dir(name))
	}
	return f, err
}

// writeNew makes a file that appears complete or not at all, in a folder that exists.
func (w *Writer) writeNew(name string, content []byte) error {
	return w.writeVia(name+"."+newSuffix()+".tmp", name, content)
}

// writeVia is writeNew through the given temporary name.
func (w *Writer) writeVia(tmp, name string, content []byte) error {
	if err := w.writeTemp(tmp, content, w.sync); err != nil {
		return err
	}
	if err := w.rename(tmp, name); err != nil {
		return errors.Join(err, w.remove(tmp))
	}
	return nil
}

// writeTemp makes a file with this content, durable if asked; if it fails, no file is left.
func (w *Writer) writeTemp(tmp string, content []byte, durable bool) error {
	f, err := w.create(tmp)
	if err != nil {
		return err
	}
	err = w.write(f, content, 0)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, w.remove(tmp))
	}
	return nil
}

// write writes b at off in pieces of at most the configured size.
func (w *Writer) write(f File, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := f.WriteAt(b[:min(len(b), w.writeSize)], off)
		if err != nil {
			return err
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}
