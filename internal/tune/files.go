package tune

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ema/internal/model"
)

// A state is what a file is: enough to make it again as it was.
type state struct {
	Data     []byte      `json:"data"`
	Mode     fs.FileMode `json:"mode"`
	UID      int         `json:"uid"`
	GID      int         `json:"gid"`
	Modified time.Time   `json:"modified,omitzero"` // zero = now
}

// A disk is the files below a folder. It never leaves the folder, wherever links lead.
type disk struct{ root *os.Root }

func (d disk) read(name string) (string, fs.FileMode, error) {
	info, err := d.root.Stat(name)
	if err != nil {
		return "", 0, err
	}
	if !info.Mode().IsRegular() {
		return "", 0, fmt.Errorf("%s: %w", name, errNoFile)
	}
	b, err := d.root.ReadFile(name)
	return string(b), info.Mode(), err
}

func (d disk) list(name string) ([]string, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	entries, err := f.ReadDir(-1)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return sorted(names), err
}

// errNoFile is wrapped where a file is a link, a folder or something else that cannot be put back as it was.
var errNoFile = errors.New("it is no plain file")

// state is what a file is; nil when there is none.
func (d disk) state(name string) (*state, error) {
	info, err := d.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none, and that is no mistake
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", name, errNoFile)
	}
	s := &state{Mode: info.Mode() &^ fs.ModeType, Modified: info.ModTime()}
	if owner, ok := ownerOf(info); ok {
		s.UID, s.GID = int(owner.Uid), int(owner.Gid)
	}
	s.Data, err = d.root.ReadFile(name)
	return s, err
}

// folder reports whether there is a folder of that name.
func (d disk) folder(name string) (bool, error) {
	info, err := d.root.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && !info.IsDir() {
		return false, fmt.Errorf("%s: %w", name, syscall.ENOTDIR)
	}
	return err == nil, err
}

// writable says why a file of the kernel could not be written to.
func (d disk) writable(name string) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// set writes to a file of the kernel, in one piece. It never makes one.
func (d disk) set(name, text string) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// fresh is the name under which a file is written before it takes its place. Nobody who reads the folder takes it for one
// of theirs, since it does not end as they do, and it is always the same, so that a rollback finds what a crash has left.
func fresh(name string) string {
	return path.Join(path.Dir(name), "."+path.Base(name)+".ema-new")
}

// replace makes a file what s says, in one step that a crash leaves done or not done.
func (d disk) replace(name string, s state) error {
	made := fresh(name)
	if err := d.root.Remove(made); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := d.root.OpenFile(made, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = fill(f, s)
	if err = errors.Join(err, f.Close()); err == nil && !s.Modified.IsZero() {
		err = d.root.Chtimes(made, s.Modified, s.Modified)
	}
	if err == nil {
		err = d.root.Rename(made, name)
	}
	if err != nil {
		return errors.Join(err, d.root.Remove(made))
	}
	return d.sync(path.Dir(name))
}

// fill writes what a new file is to be, and has it on the disk.
func fill(f *os.File, s state) error {
	if _, err := f.Write(s.Data); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if owner, ok := ownerOf(info); ok && (int(owner.Uid) != s.UID || int(owner.Gid) != s.GID) {
		if err := f.Chown(s.UID, s.GID); err != nil {
			return err
		}
	}
	if err := f.Chmod(s.Mode); err != nil { // after the owner, whose change takes setuid away
		return err
	}
	return f.Sync()
}

// remove takes a file away, if there is one, for good.
func (d disk) remove(name string) error {
	err := d.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, d.sync(path.Dir(name)))
}

// makeFolder makes a folder, for good.
func (d disk) makeFolder(name string) error {
	if err := d.root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := d.root.Chmod(name, 0o755); err != nil { // whatever the umask is
		return err
	}
	return d.sync(path.Dir(name))
}

// removeFolder takes a folder away unless something is in it, and reports whether it is gone.
func (d disk) removeFolder(name string) (bool, error) {
	err := d.root.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, d.sync(path.Dir(name))
}

// sync has the names in a folder on the disk.
func (d disk) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeFolders makes a folder and those above it, for good. Each belongs to whom the one above belongs to: root may make them
// in the home of somebody who needs them later.
func makeFolders(name string) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return nil
	}
	above := filepath.Dir(name)
	if above != name {
		if err := makeFolders(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.Open(above)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if owner, ok := ownerOf(info); err == nil && ok && os.Geteuid() == 0 {
		err = os.Lchown(name, int(owner.Uid), int(owner.Gid))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// ownerOf is to whom a file belongs.
func ownerOf(info fs.FileInfo) (*syscall.Stat_t, bool) {
	if info == nil {
		return nil, false
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	return owner, ok
}

// failed is the error about a file that could not be read or changed.
func failed(op, file string, err error, hint string) error {
	e := &model.Error{Op: op, Class: model.DiskError, File: file, Err: bare(err), Hint: hint}
	switch {
	case errors.Is(err, fs.ErrPermission):
		e.Class = model.Auth
		e.Hint = joined("run it as root", hint)
	case errors.Is(err, syscall.EROFS):
		e.Class = model.Auth
		e.Hint = joined("change it on the machine outside of this container", hint)
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		e.Class = model.DiskFull
	}
	return e
}

func joined(hints ...string) string {
	var some []string
	for _, h := range hints {
		if h != "" {
			some = append(some, h)
		}
	}
	return strings.Join(some, "; ")
}

// bare is an error of a file without the name of the file, which is told already.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok && error(e) == err { //nolint:errorlint // what wraps it says more
		return e.Err
	}
	return err
}
