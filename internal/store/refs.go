package store

import (
	"io/fs"
	"path/filepath"
	"strings"

	"ema/internal/model"
)

// Ref is the commit that a revision's ref names. What is not exactly 40 hexadecimal digits is no
// ref: other tools write them in place, so a reader may see half of one.
func (s *Store) Ref(id model.ID, rev string) (commit string, ok bool) {
	if model.CheckRevision(rev) != nil {
		return "", false
	}
	return readRef(filepath.Join(s.refsDir(id), filepath.FromSlash(rev)))
}

// Refs lists all refs of a model: name to commit. A model without any has none, which is no error.
func (s *Store) Refs(id model.ID) (map[string]string, error) {
	refs, err := readRefs(s.refsDir(id))
	return refs, diskError("list refs", id, "", err)
}

func readRefs(dir string) (map[string]string, error) {
	refs := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err) // removed by another tool while we look
		}
		if !e.Type().IsRegular() {
			return nil
		}
		if commit, ok := readRef(path); ok {
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			refs[filepath.ToSlash(name)] = commit
		}
		return nil
	})
	return refs, err
}

func readRef(path string) (commit string, ok bool) {
	var buf [41]byte // one more than a ref has, to notice longer ones
	text, err := peek(path, buf[:])
	if err != nil {
		return "", false
	}
	return parseRef(text)
}

// parseRef reads the content of a ref file.
func parseRef(text []byte) (commit string, ok bool) {
	commit = string(text)
	return commit, model.IsCommit(commit)
}

// IsPin reports whether a ref has no meaning but to keep a commit that was asked for by its id.
func IsPin(ref string) bool { return strings.HasPrefix(ref, pinPrefix) }

// writeRef points a revision at a commit, durably when it returns.
func (w *Writer) writeRef(id model.ID, rev, commit string) error {
	name := filepath.Join(w.refsDir(id), filepath.FromSlash(rev))
	if err := w.adopt(filepath.Dir(name)); err != nil {
		return err
	}
	if now, ok := readRef(name); !ok || now != commit {
		// Not beside it: a leftover of a crash would be a ref of its own to every reader.
		if err := w.writeBuilt(id, name, []byte(commit)); err != nil {
			return err
		}
	}
	return w.saveNames()
}

// writeBuilt writes a file of a model's folder by way of the folder where nobody looks.
func (w *Writer) writeBuilt(id model.ID, name string, content []byte) error {
	if err := w.folder(w.buildDir(id)); err != nil {
		return err
	}
	return w.writeVia(filepath.Join(w.buildDir(id), "file."+newSuffix()), name, content)
}
