package source

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ema/internal/model"
)

// Bounds of what a source may claim. They are far above real models, and keep sums inside an int64
// and memory within reason.
const (
	maxFiles    = 1_000_000
	maxFileSize = int64(1) << 50 // 1 PiB
	maxTotal    = int64(1) << 60
)

var errTooMany = fmt.Errorf("the source lists more than %d files", maxFiles)

// A listing collects the files of one revision and refuses what cannot be a model: names that must
// not become files, sizes that cannot be, one path twice, a file where another needs a folder.
// Names that differ only by case are fine here; a file system that merges them is the store's matter.
type listing struct {
	files []model.File
	seen  map[string]struct{}
	total int64
}

func newListing() *listing { return &listing{seen: make(map[string]struct{})} }

// A fileError names the file that is to blame.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string { return e.err.Error() }
func (e *fileError) Unwrap() error { return e.err }

func (l *listing) add(f model.File) error {
	if err := model.CheckPath(f.Path); err != nil {
		return err // it names the path, quoted: it is not fit to be printed as it is
	}
	blame := func(format string, args ...any) error { return &fileError{f.Path, fmt.Errorf(format, args...)} }
	if _, twice := l.seen[f.Path]; twice {
		return blame("the source lists it twice")
	}
	if f.Size < 0 || f.Size > maxFileSize {
		return blame("a size of %d bytes cannot be", f.Size)
	}
	l.total += f.Size
	if l.total > maxTotal {
		return blame("with it, the files have an absurd total size")
	}
	if len(l.files) == maxFiles {
		return errTooMany
	}
	l.seen[f.Path] = struct{}{}
	l.files = append(l.files, f)
	return nil
}

// sorted returns the files in path order, after checking that no file is also a folder.
func (l *listing) sorted() ([]model.File, error) {
	for _, f := range l.files {
		for i := range len(f.Path) {
			if f.Path[i] != '/' {
				continue
			}
			if _, clash := l.seen[f.Path[:i]]; clash {
				return nil, &fileError{f.Path[:i], fmt.Errorf("it is a file, and the folder of %q as well", f.Path)}
			}
		}
	}
	slices.SortFunc(l.files, func(a, b model.File) int { return strings.Compare(a.Path, b.Path) })
	return l.files, nil
}

// untrue turns a complaint about what a source claims into the error of the whole resolve.
func untrue(err error, id model.ID) error {
	if _, ok := errors.AsType[*model.Error](err); ok {
		return about(err, id, "")
	}
	e := &model.Error{Op: "resolve", Class: model.Integrity, Model: id, Err: err, Hint: "nothing of it was used; report this to whoever runs the source"}
	if f, ok := errors.AsType[*fileError](err); ok {
		e.File = f.path
	}
	return e
}
