package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ema/internal/model"
)

// lockPoll is how often a lock that somebody else holds is tried again.
const lockPoll = 100 * time.Millisecond

// Owner is the process that may write to a store, as it introduced itself. The zero Owner is
// somebody who did not: another program that fetches the same blob.
type Owner struct {
	PID     int       `json:"pid"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
	Host    string    `json:"host"`
}

// String names the owner in a sentence.
func (o Owner) String() string {
	if o.PID == 0 {
		if o.Command != "" {
			return o.Command
		}
		return "another process"
	}
	return fmt.Sprintf("process %d on %s (%s), since %s", o.PID, o.Host, o.Command, o.Since.Local().Format(time.DateTime))
}

// A Writer is the one who may change a store. Its methods may be called concurrently.
type Writer struct {
	*Store
	lock    File
	bootID  string
	waiting func(Owner)

	syncing sync.Mutex // held while folders are synced, so that whoever comes second waits for it
	mu      sync.Mutex
	unsaved map[string]bool // folders whose entries changed since they were synced
	made    map[string]bool // folders that are known to exist, with their parents unsaved once
	closed  bool
	left    map[string]map[string][]string // partial files in a blobs folder: folder → etag → names
}

// Own makes the caller the only writer of the store, and creates the folders that it needs. While
// another process (or another Writer of this one) owns it, waiting is called once with its owner
// and Own keeps trying until ctx ends; with a nil waiting it fails at once with Class Busy. The
// lock is the kernel's: it ends with its process, and the file that stays behind blocks nobody.
func (s *Store) Own(ctx context.Context, command string, waiting func(Owner)) (*Writer, error) {
	boot := s.bootID
	if boot == "" {
		// Unreadable in some sandboxes: then every start counts as a new boot, which only costs reading.
		raw, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		boot = string(raw)
	}
	w := &Writer{
		Store: s, bootID: boot, waiting: waiting,
		unsaved: map[string]bool{}, made: map[string]bool{}, left: map[string]map[string][]string{},
	}
	if err := w.folder(s.locksDir()); err != nil {
		return nil, diskError("open store", model.ID{}, s.path, err)
	}
	name := filepath.Join(s.locksDir(), ownerFile)
	f, err := s.disk.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, diskError("open store", model.ID{}, s.path, err)
	}
	w.lock = f
	if err := acquire(ctx, f, func() Owner { return readOwner(f) }, waiting); err != nil {
		return nil, errors.Join(s.ownError(err), f.Close())
	}
	if err := w.introduce(command); err != nil {
		return nil, errors.Join(diskError("open store", model.ID{}, s.path, err), f.Close())
	}
	if err := w.settle(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return w, nil
}

// ownError puts the store into the sentence about a lock that could not be had.
func (s *Store) ownError(err error) error {
	if held, ok := errors.AsType[*heldError](err); ok {
		return &model.Error{
			Op: "open store", Class: model.Busy, File: s.path, Err: held,
			Hint: "wait until it is done, or stop it",
		}
	}
	if ctxErr := contextError(err); ctxErr != nil {
		return ctxErr
	}
	return diskError("open store", model.ID{}, s.path, err)
}

// introduce writes who owns the store, and makes what every store has.
func (w *Writer) introduce(command string) error {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	text, err := json.Marshal(Owner{PID: os.Getpid(), Command: command, Since: time.Now().UTC().Truncate(time.Second), Host: host})
	if err != nil {
		return err
	}
	if err := w.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := w.lock.WriteAt(append(text, '\n'), 0); err != nil {
		return err
	}
	if err := w.folder(w.state); err != nil {
		return err
	}
	return w.tag()
}

// Patient makes the Writer wait for blobs that somebody else fetches, also when it would not wait to own the
// store; told is called once for each. Call it before the Writer is used.
func (w *Writer) Patient(told func(Owner)) { w.waiting = told }

// tag marks the folder as a cache, so that backup tools skip it (reference/hub-protocol, 16.5).
func (w *Writer) tag() error {
	const text = "Signature: 8a477f597d28d172789f06886806bc55\n" +
		"# This folder holds AI models that can be fetched again.\n" +
		"# About cache directory tags see https://bford.info/cachedir/\n"
	name := filepath.Join(w.path, "CACHEDIR.TAG")
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A temporary file in the root would be reported by other tools' scans, should we die beside it.
	return w.writeVia(filepath.Join(w.locksDir(), "tag."+newSuffix()+".tmp"), name, []byte(text))
}

// Close gives the store up; closing twice is harmless. Partials that are still open stay usable for
// nothing but Close.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	// Whoever reads the file afterwards must not find an owner that is gone; that it is empty needs
	// no durability, since only the lock counts.
	return errors.Join(w.lock.Truncate(0), w.lock.Close())
}

// readOwner reads what the owner wrote about itself; zero while it has not yet.
func readOwner(f File) Owner {
	var o Owner
	text := make([]byte, 4096)
	n, err := f.ReadAt(text, 0)
	if err != nil && !errors.Is(err, io.EOF) || json.Unmarshal(text[:n], &o) != nil {
		return Owner{}
	}
	return o
}

// heldError says who holds a lock that the caller did not want to wait for.
type heldError struct{ owner Owner }

func (e *heldError) Error() string { return "in use by " + e.owner.String() }

// acquire takes f's lock, waiting for whoever has it as Own describes.
func acquire(ctx context.Context, f File, owner func() Owner, waiting func(Owner)) error {
	told := false
	for attempt := 0; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if ok, err := f.TryLock(); ok || err != nil {
			return err
		}
		// An owner that has just taken the lock has not written its name yet: give it one more moment.
		if o := owner(); !told && (o != Owner{} || attempt > 0) {
			if waiting == nil {
				return &heldError{o}
			}
			waiting(o)
			told = true
		}
		pause := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			pause.Stop()
		case <-pause.C:
		}
	}
}

// lockBlob takes the lock by which tools agree who fetches a blob (reference/hub-protocol, 16.3).
// Held by another program, it makes us wait like Own does.
func (w *Writer) lockBlob(ctx context.Context, id model.ID, etag string) (File, error) {
	dir := filepath.Join(w.locksDir(), id.DirName())
	name := filepath.Join(dir, etag+".lock")
	if err := w.folder(dir); err != nil {
		return nil, err
	}
	f, err := w.disk.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	somebody := Owner{Command: "another program that fetches the same file"}
	if err := acquire(ctx, f, func() Owner { return somebody }, w.waiting); err != nil {
		if held, ok := errors.AsType[*heldError](err); ok {
			err = &model.Error{
				Op: "open blob", Class: model.Busy, Model: id, File: name, Err: held,
				Hint: "wait until it is done, or stop it",
			}
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fetching reports whether somebody holds the lock of a blob at this moment.
func (s *Store) fetching(dirName, etag string) (bool, error) {
	f, err := s.disk.OpenFile(filepath.Join(s.locksDir(), dirName, etag+".lock"), os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a lock file outlives its use, so without one there never was a holder
	}
	if err != nil {
		return false, err
	}
	free, err := f.TryLock()
	return !free, errors.Join(err, f.Close())
}

// contextError is the context's error in err, or nil.
func contextError(err error) error {
	for _, e := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return e
		}
	}
	return nil
}
