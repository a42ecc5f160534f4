package source

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ema/internal/model"
)

// A shelf is the folder of kept answers: one file each, named by its inquiry, in 256 folders of their
// own. Several processes use it at once. Nothing is synced: a file that a power loss has torn counts as
// missing. A file's time is when the hub last stood by it.
type shelf AnswerSettings

// abandoned is the age from which a file that was never finished is nobody's any more.
const abandoned = time.Hour

func (s shelf) file(q inquiry) string {
	name := hex.EncodeToString(q[:])
	return filepath.Join(s.Folder, name[:2], name)
}

// read returns nil when there is nothing that can be used.
func (s shelf) read(q inquiry) (*kept, error) {
	if s.Folder == "" {
		return nil, nil
	}
	name := s.file(q)
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, notKept(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() > int64(2*largestKept) {
		return nil, notKept(err)
	}
	raw := make([]byte, info.Size())
	if _, err := f.ReadAt(raw, 0); err != nil { // replaced files keep their bytes: shorter means torn
		return nil, nil
	}
	k := decodeKept(raw)
	if k != nil {
		k.said = info.ModTime()
	}
	return k, nil
}

// write puts k on the shelf, in the place of what was there.
func (s shelf) write(q inquiry, k *kept) error {
	if s.Folder == "" || s.Entries == 0 {
		return nil
	}
	name := s.file(q)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return notKept(err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "new.*")
	if err != nil {
		return notKept(err)
	}
	_, err = f.Write(encodeKept(k, s.Compress))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Chtimes(f.Name(), k.said, k.said)
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return notKept(errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// renew says when the hub last stood by an answer.
func (s shelf) renew(q inquiry, said time.Time) error {
	if s.Folder == "" {
		return nil
	}
	return notKept(os.Chtimes(s.file(q), said, said))
}

func (s shelf) remove(q inquiry) error {
	if s.Folder == "" {
		return nil
	}
	return notKept(os.Remove(s.file(q)))
}

// tidyAround makes room once the folder where q was written holds more than its share: then there are
// about as many files as there may be. Otherwise it looks at that folder only, since a command that
// keeps one answer should not have to look at all. It returns how many more there may be for certain.
func (s shelf) tidyAround(q inquiry) (room int, err error) {
	if s.Folder == "" {
		return 0, nil
	}
	entries, err := os.ReadDir(filepath.Dir(s.file(q)))
	if err != nil || len(entries)*256 <= s.Entries {
		return 0, notKept(err)
	}
	return s.tidy()
}

// tidy removes the oldest files when there are too many, and some more, so that it has not to be done
// again soon; and what was never finished. It returns how many more there may be.
func (s shelf) tidy() (room int, err error) {
	type file struct {
		name string
		time time.Time
	}
	var all []file
	err = filepath.WalkDir(s.Folder, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreGone(err)
		}
		if info, err := e.Info(); err == nil {
			all = append(all, file{name, info.ModTime()})
		}
		return nil // one that is gone meanwhile needs no removing
	})
	if err != nil {
		return 0, notKept(err)
	}
	now := time.Now()
	all = slices.DeleteFunc(all, func(f file) bool {
		if !strings.HasPrefix(filepath.Base(f.name), "new.") {
			return false
		}
		if now.Sub(f.time) > abandoned {
			err = errors.Join(err, ignoreGone(os.Remove(f.name)))
		}
		return true
	})
	if len(all) > s.Entries {
		slices.SortFunc(all, func(a, b file) int { return a.time.Compare(b.time) })
		old := all[:len(all)-s.Entries+s.Entries/10]
		for _, f := range old {
			err = errors.Join(err, ignoreGone(os.Remove(f.name)))
		}
		all = all[len(old):]
	}
	return s.Entries - len(all), notKept(err)
}

// ignoreGone turns "does not exist" into nil: another process has tidied too.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// notKept says what it means that the shelf cannot be used: little.
func notKept(err error) error {
	if err = ignoreGone(err); err == nil {
		return nil
	}
	return &model.Error{Op: "keep the hub's answers", Class: model.DiskError, Err: err, Hint: "it is asked again each time until then"}
}
