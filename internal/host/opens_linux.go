package host

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Opens tells of files in folders that are opened: by fanotify where the kernel permits it, which tells whether this process
// itself has opened the file (Linux 5.13; fanotify(7)), else by inotify, which does not. Where fanotify is permitted, some file
// systems do not know it, mostly those of networks and of user space: their folders are heard of by inotify. Its methods may
// be called concurrently; Run by one goroutine.
type Opens struct {
	ways []*listener // the best first
}

// NewOpens begins to listen. Nothing is heard of folders until they are added.
func NewOpens() (*Opens, error) {
	var ways []*listener
	var errs error
	for _, begin := range []func() (*listener, error){newFanotify, newInotify} {
		way, err := begin()
		if err != nil {
			errs = err // the last one says what a user can do
			continue
		}
		ways = append(ways, way)
	}
	if len(ways) == 0 {
		return nil, errs
	}
	return &Opens{ways}, nil
}

// How is the way by which it hears: "fanotify" or "inotify".
func (o *Opens) How() string { return o.ways[0].how() }

// HowOf is the way by which it hears of a folder; "" where it does not.
func (o *Opens) HowOf(dir string) string {
	for _, way := range o.ways {
		if way.watches(dir) {
			return way.how()
		}
	}
	return ""
}

// Add watches the files of a folder, not those of folders in it. Adding it again is nothing, unless it is another folder of that
// name by now. A folder that is not there is an error that wraps fs.ErrNotExist, one too many ErrTooManyWatched.
func (o *Opens) Add(dir string) (err error) {
	for i, way := range o.ways {
		if err = way.add(dir); err == nil {
			for _, other := range slices.Concat(o.ways[:i], o.ways[i+1:]) {
				other.remove(dir) // the folder that had the name may have lain elsewhere
			}
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return err
}

// Remove ends watching a folder, which may be gone.
func (o *Opens) Remove(dir string) {
	for _, way := range o.ways {
		way.remove(dir)
	}
}

// Close ends listening, where Run does not.
func (o *Opens) Close() (err error) {
	for _, way := range o.ways {
		err = errors.Join(err, way.file.Close())
	}
	return err
}

// Run tells of each open until ctx ends, of one at a time, and closes o then.
func (o *Opens) Run(ctx context.Context, told func(Open)) error {
	var telling sync.Mutex
	g, running := errgroup.WithContext(ctx)
	for _, way := range o.ways {
		g.Go(func() error {
			return way.run(running, func(one Open) {
				telling.Lock()
				defer telling.Unlock()
				told(one)
			})
		})
	}
	return g.Wait()
}

// A listener hears of opens in one way.
type listener struct {
	file *os.File
	fan  bool

	mu      sync.Mutex
	folders map[string]string // by the handle of the folder, or the number of its watch
	keys    map[string]string // the reverse
	numbers map[string]int    // of the watches of inotify, by folder
}

func newFanotify() (*listener, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_DFID_NAME, 0)
	if err != nil {
		return nil, os.NewSyscallError("fanotify_init", err)
	}
	return listening(fd, true), nil
}

func newInotify() (*listener, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, fmt.Errorf("watch folders: this user has as many watchers as it may; raise fs.inotify.max_user_instances: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("watch folders: %w", os.NewSyscallError("inotify_init1", err))
	}
	return listening(fd, false), nil
}

func listening(fd int, fan bool) *listener {
	return &listener{file: os.NewFile(uintptr(fd), "opens"), fan: fan, folders: map[string]string{}, keys: map[string]string{}, numbers: map[string]int{}}
}

func (l *listener) how() string {
	if l.fan {
		return "fanotify"
	}
	return "inotify"
}

func (l *listener) watches(dir string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.keys[dir]
	return ok
}

func (l *listener) add(dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, err := l.watch(dir)
	if err != nil {
		return err
	}
	if old := l.keys[dir]; old != key {
		delete(l.folders, old)
	}
	l.folders[key], l.keys[dir] = dir, key
	return nil
}

func (l *listener) watch(dir string) (key string, err error) {
	failed := func(err error) (string, error) { return "", &fs.PathError{Op: "watch", Path: dir, Err: err} }
	control, err := l.file.SyscallConn()
	if err != nil {
		return failed(err)
	}
	var failure error
	err = control.Control(func(fd uintptr) {
		if !l.fan {
			var wd int
			if wd, failure = unix.InotifyAddWatch(int(fd), dir, unix.IN_OPEN|unix.IN_ONLYDIR); failure == nil {
				l.numbers[dir], key = wd, fmt.Sprint(wd)
			}
			return
		}
		if key, failure = handleOf(dir); failure == nil {
			failure = unix.FanotifyMark(int(fd), unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR, unix.FAN_OPEN|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, dir)
		}
	})
	if errors.Is(failure, unix.ENOSPC) {
		limit := "fs.inotify.max_user_watches"
		if l.fan {
			limit = "fs.fanotify.max_user_marks"
		}
		return failed(fmt.Errorf("%w; raise %s", ErrTooManyWatched, limit))
	}
	if err = errors.Join(err, failure); err != nil {
		return failed(err)
	}
	return key, nil
}

// handleOf is what fanotify calls a folder: its file system and its handle there.
func handleOf(dir string) (string, error) {
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if err != nil {
		return "", err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", err
	}
	var key bytes.Buffer
	for _, part := range []any{st.Fsid.Val, uint32(handle.Size()), handle.Type(), handle.Bytes()} {
		if err := binary.Write(&key, binary.NativeEndian, part); err != nil {
			return "", err
		}
	}
	return key.String(), nil
}

func (l *listener) remove(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, watched := l.keys[dir]
	if !watched {
		return
	}
	delete(l.folders, key)
	delete(l.keys, dir)
	control, err := l.file.SyscallConn()
	if err != nil {
		return
	}
	_ = control.Control(func(fd uintptr) { // what is gone is watched no more
		if l.fan {
			_ = unix.FanotifyMark(int(fd), unix.FAN_MARK_REMOVE, unix.FAN_OPEN|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, dir)
		} else {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(l.numbers[dir]))
		}
	})
	delete(l.numbers, dir)
}

// run tells of each open until ctx ends, and closes the file then.
func (l *listener) run(ctx context.Context, told func(Open)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.file.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := l.file.Read(buf)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("hear of opened files: %w", err), l.file.Close())
		}
		if l.fan {
			l.fanotified(buf[:n], told)
		} else {
			l.inotified(buf[:n], told)
		}
	}
}

// fanotified reads events of fanotify(7): each has a header, and then records, of which one names the folder and the file.
func (l *listener) fanotified(b []byte, told func(Open)) {
	const header, record = 24, 4
	self := os.Getpid()
	for len(b) >= header {
		size := int(binary.NativeEndian.Uint32(b))
		if size < header || size > len(b) {
			return
		}
		event := b[:size]
		b = b[size:]
		if binary.NativeEndian.Uint64(event[8:])&unix.FAN_Q_OVERFLOW != 0 {
			told(Open{Lost: true})
			continue
		}
		opener := Other
		if int(int32(binary.NativeEndian.Uint32(event[20:]))) == self {
			opener = Self
		}
		for rest := event[min(size, int(binary.NativeEndian.Uint16(event[6:]))):]; len(rest) >= record; {
			n := int(binary.NativeEndian.Uint16(rest[2:]))
			if n < record || n > len(rest) {
				break
			}
			if rest[0] == unix.FAN_EVENT_INFO_TYPE_DFID_NAME {
				l.tell(rest[record:n], opener, told)
			}
			rest = rest[n:]
		}
	}
}

// tell tells of an open in the folder of a record: file system, handle, name.
func (l *listener) tell(record []byte, opener Opener, told func(Open)) {
	const fsid, handle = 8, 8
	if len(record) < fsid+handle {
		return
	}
	end := fsid + handle + int(binary.NativeEndian.Uint32(record[fsid:]))
	if end > len(record) || end < 0 {
		return
	}
	name, _, _ := bytes.Cut(record[end:], []byte{0})
	if dir := l.folder(string(record[:end])); dir != "" && len(name) > 0 && string(name) != "." {
		told(Open{Path: filepath.Join(dir, string(name)), By: opener})
	}
}

// inotified reads events of inotify(7).
func (l *listener) inotified(b []byte, told func(Open)) {
	for len(b) >= unix.SizeofInotifyEvent {
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if size > len(b) {
			return
		}
		event := b[:size]
		b = b[size:]
		mask := binary.NativeEndian.Uint32(event[4:])
		if mask&unix.IN_Q_OVERFLOW != 0 {
			told(Open{Lost: true})
			continue
		}
		name, _, _ := bytes.Cut(event[unix.SizeofInotifyEvent:], []byte{0})
		dir := l.folder(fmt.Sprint(int32(binary.NativeEndian.Uint32(event))))
		if mask&unix.IN_ISDIR == 0 && mask&unix.IN_OPEN != 0 && dir != "" && len(name) > 0 {
			told(Open{Path: filepath.Join(dir, string(name)), By: Unknown})
		}
	}
}

func (l *listener) folder(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.folders[key]
}
