package tune

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// A kind is what an entry of the journal is about.
type kind string

const (
	ofValue  kind = "value"  // a file of the kernel that apply writes to
	ofSide   kind = "side"   // a file of the kernel that changes when another is written to
	ofFile   kind = "file"   // a file of the system
	ofFolder kind = "folder" // a folder that was not there
	ofServer kind = "server" // a setting of PostgreSQL: Path is its name, and no Former is none that ALTER SYSTEM has set
)

// An entry is what one thing was before the first change.
type entry struct {
	Kind   kind   `json:"kind"`
	Area   Area   `json:"area,omitempty"` // none of a folder, which several areas may share
	Path   string `json:"path"`           // below the root
	Former *state `json:"former,omitempty"`
	// Ours is all that apply has written there, or was about to. What is there and is neither this nor what was there before
	// is somebody else's.
	Ours [][]byte `json:"ours,omitempty"`
}

// A journal is what rollback needs. It is complete on the disk before the change that it is about.
type journal struct {
	Version int       `json:"version"`
	Root    string    `json:"root"`
	Begun   time.Time `json:"begun"`
	Entries []entry   `json:"entries"` // in the order of the changes
	Lines   []line    `json:"lines"`   // what apply keeps for the next start
}

const (
	journalVersion = 1
	journalFile    = "journal.json"
)

// find is the entry about a path; nil when there is none.
func (j *journal) find(path string) *entry {
	for i := range j.Entries {
		if j.Entries[i].Path == path {
			return &j.Entries[i]
		}
	}
	return nil
}

// put adds a line, or replaces the one with the same key.
func (j *journal) put(l line) {
	if i := slices.IndexFunc(j.Lines, func(o line) bool { return o.File == l.File && o.Key == l.Key }); i >= 0 {
		j.Lines[i] = l
		return
	}
	j.Lines = append(j.Lines, l)
}

// written remembers what apply is about to write.
func (e *entry) written(b []byte) {
	if !slices.ContainsFunc(e.Ours, func(o []byte) bool { return bytes.Equal(o, b) }) {
		e.Ours = append(e.Ours, b)
	}
}

// A notebook is the folder of a journal.
type notebook struct{ folder string }

// lock keeps others from applying and taking back at the same time, until what is returned is called.
func (n notebook) lock() (func() error, error) {
	f, err := os.Open(n.folder)
	if err != nil {
		return nil, failed("tune", n.folder, err, "")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = &model.Error{Op: "tune", Class: model.Busy, File: n.folder, Err: errors.New("another ema tune is at work"), Hint: "wait until it is done"}
		}
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil // which gives the lock up
}

// load reads the journal; nil when there is none.
func (n notebook) load() (*journal, error) {
	file := filepath.Join(n.folder, journalFile)
	raw, err := trusted(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none, and that is no mistake
	}
	if err != nil {
		return nil, failed("read the backup", file, err, "")
	}
	var j journal
	if err := json.Unmarshal(raw, &j); err != nil || j.Version != journalVersion {
		if err == nil {
			err = fmt.Errorf("it is of version %d, and this ema knows version %d", j.Version, journalVersion)
		}
		return nil, &model.Error{
			Op: "read the backup", Class: model.Integrity, File: file, Err: err,
			Hint: "use the ema that made it; nothing was changed",
		}
	}
	for _, e := range j.Entries {
		if !e.valid() {
			return nil, &model.Error{Op: "read the backup", Class: model.Integrity, File: file, Err: fmt.Errorf("%w: its entry %q", errMalformed, e.Path)}
		}
	}
	return &j, nil
}

// errStranger is wrapped where a backup could be somebody else's.
var errStranger = errors.New("it belongs to another user, or others may write to it")

// trusted reads a file that nobody but this user can have written: it says what is written to the files of the system, and
// the state folder may be that of a user who may not write there.
func trusted(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if owner, ok := ownerOf(info); !ok || !info.Mode().IsRegular() || int(owner.Uid) != os.Geteuid() || info.Mode()&0o022 != 0 {
		return nil, fmt.Errorf("%w: %w", errStranger, fs.ErrPermission)
	}
	return io.ReadAll(f)
}

// valid reports whether apply can have made the entry: it changes nothing but these.
func (e *entry) valid() bool {
	if !fs.ValidPath(e.Path) {
		return false
	}
	kernel := strings.HasPrefix(e.Path, "proc/sys/") || strings.HasPrefix(e.Path, "sys/")
	switch e.Kind {
	case ofValue, ofSide:
		return kernel && e.Former != nil
	case ofFile:
		return slices.Contains([]string{sysctlFile, udevFile, tmpfilesFile, fstabFile}, e.Path)
	case ofServer:
		return slices.Contains(serverNames(), e.Path)
	case ofFolder:
		return holds(e.Path, []entry{{Path: sysctlFile}, {Path: udevFile}, {Path: tmpfilesFile}})
	}
	return false
}

// save has the journal on the disk, with all folders above it.
func (n notebook) save(j *journal) error {
	raw, err := json.MarshalIndent(j, "", "\t")
	if err != nil {
		return err
	}
	return n.disk(func(d disk) error {
		return d.replace(journalFile, state{Data: append(raw, '\n'), Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid()})
	})
}

// drop removes the journal.
func (n notebook) drop() error {
	return n.disk(func(d disk) error { return d.remove(journalFile) })
}

func (n notebook) disk(do func(disk) error) error {
	root, err := os.OpenRoot(n.folder)
	if err != nil {
		return err
	}
	return errors.Join(do(disk{root}), root.Close())
}

// mark begins the line of a file of ours that says where its backup is.
const mark = "# The backup is in "

// compose is a file of lines: what was there before, then ours, the kernel's names in order.
func compose(former *state, backup, name string, lines []line) []byte {
	var b strings.Builder
	if former != nil {
		b.Write(former.Data)
		if n := len(former.Data); n > 0 && former.Data[n-1] != '\n' {
			b.WriteByte('\n')
		}
	}
	b.WriteString("# Written by \"ema tune apply\"; \"ema tune rollback\" puts back what was here before.\n")
	fmt.Fprintf(&b, "%s%q\n", mark, backup)
	own := slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return l.File != name })
	slices.SortStableFunc(own, func(a, b line) int { return strings.Compare(a.Key, b.Key) })
	for _, l := range own {
		b.WriteString(l.Text + "\n")
	}
	return []byte(b.String())
}

// marked is where a file says that its backup is; empty when it is none of ours.
func marked(text string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), mark); ok {
			return strings.Trim(rest, `"`)
		}
	}
	return ""
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
