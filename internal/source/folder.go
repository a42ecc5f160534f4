package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

// A folder serves models from folders of this machine. All files are opened below the folder by
// os.Root, so that no link can lead out of it.
type folder struct {
	// stamped says how the files of a commit looked when they were hashed.
	stamped *recent[revisionKey, map[string]stamp]
}

// A stamp is by what a change of a file shows without reading it.
type stamp struct {
	size     int64
	modified time.Time
}

func newFolder() *folder {
	return &folder{stamped: newRecent[revisionKey, map[string]stamp](maxListings)}
}

// Resolve lists the regular files of a folder and hashes each, a few at a time. Links to files
// count as files while they stay inside. Folders named .git and .cache are not part of a model. The
// commit is made from paths, sizes and hashes: equal content has equal commits.
func (s *folder) Resolve(ctx context.Context, id model.ID, rev string) (*model.Manifest, error) {
	root, err := os.OpenRoot(id.Name)
	if err != nil {
		return nil, s.unreadable("resolve", id, "", err)
	}
	defer root.Close()
	all, err := s.walk(ctx, root, id)
	if err != nil {
		return nil, err
	}
	m := &model.Manifest{ID: id}
	if m.Files, err = all.sorted(); err != nil {
		return nil, untrue(err, id)
	}
	stamps, err := s.hash(ctx, root, id, m.Files)
	if err != nil {
		return nil, err
	}
	m.Resolved = time.Now()
	m.Commit = model.CommitOf(m.Files, func(f model.File) string { return f.Digest.String() })
	if m.Revision, err = soleRevision(id, rev, m.Commit); err != nil {
		return nil, err
	}
	s.stamped.put(revisionKey{id, m.Commit}, stamps)
	return m, nil
}

func (s *folder) walk(ctx context.Context, root *os.Root, id model.ID) (*listing, error) {
	all := newListing()
	err := fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return s.unreadable("resolve", id, p, err)
		}
		switch {
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".cache"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		info, err := root.Stat(p) // follows links, inside only
		link := d.Type()&fs.ModeSymlink != 0
		switch {
		case err != nil && link:
			return &model.Error{
				Op: "resolve", Class: model.Usage, Model: id, File: p, Err: errors.New("the link leads out of the folder or nowhere"),
				Hint: "put the file itself there, or make the link relative",
			}
		case err != nil:
			return s.unreadable("resolve", id, p, err)
		case link && info.IsDir():
			return &model.Error{
				Op: "resolve", Class: model.Usage, Model: id, File: p, Err: errors.New("it is a link to a folder"),
				Hint: "put the folder itself there",
			}
		case !info.Mode().IsRegular():
			return nil // sockets and devices have no content
		}
		if err := all.add(model.File{Path: p, Size: info.Size()}); err != nil {
			return untrue(err, id)
		}
		return nil
	})
	return all, err
}

// hash fills in the digests of files and says how each looked.
func (s *folder) hash(ctx context.Context, root *os.Root, id model.ID, files []model.File) (map[string]stamp, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(4, runtime.GOMAXPROCS(0))) // more readers make a disk slower, not faster
	stamps := make([]stamp, len(files))
	for i := range files {
		g.Go(func() (err error) {
			stamps[i], err = s.hashOne(ctx, root, id, &files[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	byPath := make(map[string]stamp, len(files))
	for i, f := range files {
		byPath[f.Path] = stamps[i]
	}
	return byPath, nil
}

func (s *folder) hashOne(ctx context.Context, root *os.Root, id model.ID, f *model.File) (stamp, error) {
	b, err := s.open(ctx, root, id, *f, stamp{size: f.Size}, model.Segment{End: f.Size}, "resolve")
	if err != nil {
		return stamp{}, err
	}
	defer b.Close()
	h := f.Digest.NewHash(f.Size)
	if _, err := io.CopyBuffer(h, onlyReader{b}, make([]byte, model.MiB)); err != nil {
		return stamp{}, err
	}
	f.Digest = f.Digest.Sum(h)
	return b.was, nil
}

// onlyReader hides WriteTo, which would choose its own buffer.
type onlyReader struct{ io.Reader }

// Open reads from the disk. A file that changed since it was resolved is an error of class
// Integrity, at the beginning or at the end of the body; after a restart only its size is known.
func (s *folder) Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*Body, error) {
	root, err := os.OpenRoot(m.ID.Name)
	if err != nil {
		return nil, s.unreadable("fetch", m.ID, "", err)
	}
	defer root.Close()
	was, ok := s.stamped.get(revisionKey{m.ID, m.Commit})[f.Path]
	if !ok {
		was = stamp{size: f.Size}
	}
	begin := time.Now()
	b, err := s.open(ctx, root, m.ID, f, was, seg, "fetch")
	if err != nil {
		return nil, err
	}
	return &Body{ReadCloser: b, Segment: seg, FirstByte: time.Since(begin)}, nil
}

// open opens seg of f if f still looks as it was; a zero time in was stands for any.
func (s *folder) open(ctx context.Context, root *os.Root, id model.ID, f model.File, was stamp, seg model.Segment, op string) (*folderBody, error) {
	file, err := root.Open(f.Path)
	if err != nil {
		return nil, s.unreadable(op, id, f.Path, err)
	}
	b := &folderBody{
		file: file, was: was, stopped: ctx.Err,
		section: io.NewSectionReader(file, seg.Start, seg.Len()),
		fault: func(class model.Class, err error) error {
			return &model.Error{Op: op, Class: class, Model: id, File: f.Path, Err: err}
		},
	}
	if err := b.unchanged(); err != nil {
		_ = file.Close() // it was only read
		return nil, err
	}
	return b, nil
}

// unreadable explains why a file of the folder, or the folder itself, cannot be opened.
func (s *folder) unreadable(op string, id model.ID, file string, err error) error {
	e := &model.Error{Op: op, Class: model.DiskError, Model: id, File: file, Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Class = model.Cancelled
	case errors.Is(err, fs.ErrNotExist) && file == "":
		e.Class, e.Err, e.Hint = model.NotFound, ErrRepoNotFound, "check the folder's name"
	case errors.Is(err, fs.ErrNotExist):
		e.Class, e.Err = model.NotFound, ErrEntryNotFound
	case errors.Is(err, fs.ErrPermission):
		e.Class, e.Hint = model.Auth, "make it readable for this user"
	}
	return e
}

// A folderBody reads a span of a file and notices when somebody else writes to it.
type folderBody struct {
	file    *os.File
	section *io.SectionReader
	was     stamp
	stopped func() error
	fault   func(model.Class, error) error
}

func (b *folderBody) Read(p []byte) (int, error) {
	if err := b.stopped(); err != nil {
		return 0, b.fault(model.Cancelled, err)
	}
	n, err := b.section.Read(p)
	left := b.section.Size() - b.offset()
	switch {
	case err == nil:
		return n, nil
	case err != io.EOF:
		return n, b.fault(model.DiskError, err)
	case left > 0:
		return n, b.fault(model.Integrity, fmt.Errorf("it became shorter while it was read; %d bytes are missing", left))
	}
	if err := b.unchanged(); err != nil {
		return n, err
	}
	return n, io.EOF
}

func (b *folderBody) offset() int64 {
	at, err := b.section.Seek(0, io.SeekCurrent)
	if err != nil { // it only counts
		return 0
	}
	return at
}

// unchanged compares the open file with its stamp, and completes a stamp that has no time yet.
func (b *folderBody) unchanged() error {
	info, err := b.file.Stat()
	if err != nil {
		return b.fault(model.DiskError, err)
	}
	now := stamp{info.Size(), info.ModTime()}
	if b.was.modified.IsZero() {
		b.was.modified = now.modified
	}
	if now.size != b.was.size || !now.modified.Equal(b.was.modified) {
		return b.fault(model.Integrity, fmt.Errorf("it has changed since it was resolved: %d bytes of %s, before %d bytes of %s",
			now.size, now.modified.Format(time.RFC3339Nano), b.was.size, b.was.modified.Format(time.RFC3339Nano)))
	}
	return nil
}

func (b *folderBody) Close() error { return b.file.Close() }
