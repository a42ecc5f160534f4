package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ema/internal/model"
)

// isHubCache reports whether a folder is a cache of the hub's client: it holds folders of models.
func isHubCache(dir string) bool {
	all, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(all, func(e fs.DirEntry) bool { return e.IsDir() && strings.HasPrefix(e.Name(), "models--") })
}

// hubCache reads revisions of models in another cache: of those that are asked for, or of all. What cannot be adopted is
// refused by itself, so that one damaged model does not keep the others.
func (w *Writer) hubCache(dir string, asked []model.ID) (loads []*load, refused []error, err error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	missing := map[model.ID]bool{}
	for _, id := range asked {
		missing[id] = true
	}
	for _, e := range all {
		home := filepath.Join(dir, e.Name())
		id, ok := model.IDOfDir(e.Name())
		if !strings.HasPrefix(e.Name(), "models--") || len(asked) > 0 && !slices.Contains(asked, id) {
			continue
		}
		delete(missing, id)
		if !e.IsDir() {
			refused = append(refused, &model.Error{
				Op: "adopt", Class: model.Integrity, Model: id, File: home, Err: errors.New("it is not a folder, or a link to one elsewhere"),
				Hint: "adopt the folder itself",
			})
			continue
		}
		if !ok || strings.HasPrefix(id.Name, "url/") || strings.HasPrefix(id.Name, "file/") {
			refused = append(refused, &model.Error{
				Op: "adopt", Class: model.Integrity, File: home, Err: errors.New("its name does not tell which model it is"),
				Hint: "adopt the folder of one of its snapshots under a name: ema store adopt DIR MODEL",
			})
			continue
		}
		of, bad := w.cachedModel(home, id)
		loads, refused = append(loads, of...), append(refused, bad...)
	}
	for _, id := range asked {
		if missing[id] {
			refused = append(refused, &model.Error{Op: "adopt", Class: model.NotFound, Model: id, File: dir, Err: errors.New("it is not in that folder")})
		}
	}
	return loads, refused, nil
}

// cachedModel reads all revisions of one model.
func (w *Writer) cachedModel(home string, id model.ID) (loads []*load, refused []error) {
	refuse := func(file string, err error, hint string) {
		if _, ok := errors.AsType[*model.Error](err); !ok {
			err = &model.Error{Op: "adopt", Class: model.Integrity, Model: id, File: file, Err: err, Hint: hint}
		}
		refused = append(refused, err)
	}
	commits, err := listed(filepath.Join(home, "snapshots"))
	if err != nil {
		refuse(home, err, "check its permissions")
		return nil, refused
	}
	refs, err := readRefs(filepath.Join(home, "refs"))
	if err != nil {
		refuse(home, err, "check its permissions")
		return nil, refused
	}
	for _, e := range commits {
		if !e.IsDir() || !model.IsCommit(e.Name()) {
			continue
		}
		l := &load{id: id, commit: e.Name(), unlisted: true, cache: true}
		if raw, err := os.ReadFile(filepath.Join(home, "trees", l.commit+".json")); err == nil {
			l.list(raw)
		}
		snap := filepath.Join(home, "snapshots", l.commit)
		if err := w.readSnapshot(home, snap, l); err != nil {
			refuse(snap, err, "pull this revision instead")
			continue
		}
		if len(l.files) == 0 {
			continue // the client makes the folder before the first file
		}
		for name, at := range refs {
			if at == l.commit && model.CheckRevision(name) == nil && !isTemporary(filepath.Base(name)) {
				l.refs = append(l.refs, name)
			}
		}
		slices.SortFunc(l.refs, func(a, b string) int {
			switch {
			case a == defaultRevision:
				return -1
			case b == defaultRevision:
				return 1
			}
			return strings.Compare(a, b)
		})
		loads = append(loads, l)
	}
	return loads, refused
}

// readSnapshot lists the files of a snapshot, with what their blobs' names say that they are.
func (w *Writer) readSnapshot(home, snap string, l *load) error {
	known := map[string]model.Digest{}
	for _, f := range l.listing {
		known[f.Path] = f.Digest
	}
	return filepath.WalkDir(snap, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || ignoredByAll(e.Name()) {
			return err
		}
		rel, err := filepath.Rel(snap, name)
		if err != nil {
			return err
		}
		file := filepath.ToSlash(rel)
		if err := model.CheckPath(file); err != nil {
			return err
		}
		c, err := w.cargoAt(home, name, file, e)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		c.want = known[file]
		if blob := filepath.Base(c.from); filepath.Dir(c.from) == filepath.Join(home, "blobs") && isBlobName(blob) {
			if c.want, err = model.ParseDigest(blob); err != nil {
				return err
			}
		}
		l.files = append(l.files, c)
		return nil
	})
}
