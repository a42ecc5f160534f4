package store

import (
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// What the hub's own client leaves beside the files of a plain folder (reference/hub-protocol, section 17):
//
//	DIR/.cache/huggingface/download/<path>.metadata   commit, etag and time of one file
//	                      /trees/<commit>.json        all files of a commit
const localState = ".cache/huggingface"

// A note is what the hub's client wrote about a file when it had downloaded it.
type note struct {
	commit string
	etag   string
	at     time.Time
}

// parseNote reads a .metadata file: three lines with a commit, an etag and a Unix time. False if it is anything else.
func parseNote(text []byte) (note, bool) {
	lines := strings.Split(string(bytes.TrimSuffix(text, []byte("\n"))), "\n")
	if len(lines) != 3 {
		return note{}, false
	}
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	seconds, err := strconv.ParseFloat(lines[2], 64)
	if err != nil || !model.IsCommit(lines[0]) || lines[1] == "" || math.IsNaN(seconds) || math.Abs(seconds) > 1<<40 {
		return note{}, false
	}
	whole, part := math.Modf(seconds)
	return note{lines[0], lines[1], time.Unix(int64(whole), int64(part*1e9))}, true
}

// holds reports whether a note still tells about a file: one that was changed later is another one.
func (n note) holds(modified time.Time) bool { return !modified.Add(-time.Second).After(n.at) }

// digest is the hash that the etag is; zero if it is something else.
func (n note) digest() model.Digest {
	if d, err := model.ParseDigest(n.etag); err == nil && isBlobName(n.etag) {
		return d
	}
	return model.Digest{}
}

// readNote reads what is known of a file of a plain folder, if that still holds.
func readNote(dir, file string, modified time.Time) (note, bool) {
	text, err := peek(filepath.Join(dir, localState, "download", filepath.FromSlash(file)+".metadata"), make([]byte, 4<<10))
	if err != nil {
		return note{}, false
	}
	n, ok := parseNote(text)
	return n, ok && n.holds(modified)
}

// plainFolder reads a plain folder, or what the hub's client has put into one. The commit is zero unless notes about all files
// name the same one: then the folder is that commit, as far as it goes.
func (w *Writer) plainFolder(dir string, id model.ID) (*load, error) {
	l := &load{id: id}
	refuse := func(file string, why error, hint string) error {
		return &model.Error{Op: "adopt", Class: model.Integrity, Model: id, File: filepath.Join(dir, file), Err: why, Hint: hint}
	}
	commits, noted := map[string]bool{}, 0
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		file := filepath.ToSlash(rel)
		switch {
		case file == ".":
			return nil
		case e.IsDir() && (e.Name() == ".git" || e.Name() == ".cache"): // as when a model is pulled from a folder
			return fs.SkipDir
		case e.IsDir(), ignoredByAll(e.Name()):
			return nil
		}
		if err := model.CheckPath(file); err != nil {
			return refuse("", err, "rename it") // the error has the name, in quotes
		}
		c, err := w.cargoAt(dir, name, file, e)
		if err != nil {
			return refuse(file, err, "put the file itself there, or remove it")
		}
		if n, ok := readNote(dir, file, time.Unix(0, c.was.mtime)); ok {
			noted++
			commits[n.commit] = true
			c.want = n.digest()
		}
		l.files = append(l.files, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(l.files) == 0 {
		return nil, &model.Error{Op: "adopt", Class: model.NotFound, Model: id, File: dir, Err: fmt.Errorf("there are no files in it")}
	}
	if noted == len(l.files) && len(commits) == 1 {
		for commit := range commits {
			l.commit = commit
		}
		l.unlisted = true
		if raw, err := os.ReadFile(filepath.Join(dir, localState, "trees", l.commit+".json")); err == nil {
			l.list(raw)
		}
	}
	return l, nil
}

// pointerHead is how a file begins that git keeps in place of a large one.
const pointerHead = "version https://git-lfs.github.com/spec/v1\n"

// cargoAt is the file at name, which is called file in its model. A link counts as the file that it leads to, while that lies below
// root.
func (w *Writer) cargoAt(root, name, file string, e fs.DirEntry) (cargo, error) {
	from := name
	if e.Type()&fs.ModeSymlink != 0 {
		end, err := filepath.EvalSymlinks(name)
		switch {
		case err != nil:
			return cargo{}, fmt.Errorf("it is a link that leads nowhere, or to itself")
		case !within(root, end):
			return cargo{}, fmt.Errorf("it is a link that leads out of the folder, to %s", end)
		}
		from = end
	}
	info, err := os.Lstat(from)
	switch {
	case err != nil:
		return cargo{}, err
	case info.IsDir():
		return cargo{}, fmt.Errorf("it is a link to a folder")
	case !info.Mode().IsRegular():
		return cargo{}, fmt.Errorf("it is neither a file nor a folder")
	}
	if info.Size() < 1024 {
		if head, err := peek(from, make([]byte, len(pointerHead))); err == nil && string(head) == pointerHead {
			return cargo{}, fmt.Errorf("it is not the file, but what git keeps in its place until \"git lfs pull\" brings it")
		}
	}
	return cargo{path: file, from: from, was: identityOf(info), mine: ownedByUs(info)}, nil
}
