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
	"sync"

	"golang.org/x/sys/unix"
)

// Opens tells of files in folders that are opened: by fanotify where the kernel permits it, which tells whether this process
// itself has opened the file (Linux 5.13; fanotify(7)), else by inotify, which does not. Its methods may be called
// concurrently; Run by one goroutine.
type Opens struct {
	file *os.File
	fan  bool

	mu      sync.Mutex
	folders map[string]string // by the handle of the folder, or the number of its watch
	keys    map[string]string // the reverse
	watches map[string]int    // of inotify, by folder
}

// NewOpens begins to listen. Nothing is heard of folders until they are added.
func NewOpens() (*Opens, error) {
	o, err := newFanotify()
	if err != nil {
		return newInotify()
	}
	return o, nil
}

func newFanotify() (*Opens, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_DFID_NAME, 0)
	if err != nil {
		return nil, os.NewSyscallError("fanotify_init", err)
	}
	return listening(fd, true), nil
}

func newInotify() (*Opens, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		return nil, fmt.Errorf("watch folders: this user has as many watchers as it may; raise fs.inotify.max_user_instances: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("watch folders: %w", os.NewSyscallError("inotify_init1", err))
	}
	return listening(fd, false), nil
}

func listening(fd int, fan bool) *Opens {
	return &Opens{file: os.NewFile(uintptr(fd), "opens"), fan: fan, folders: map[string]string{}, keys: map[string]string{}, watches: map[string]int{}}
}

// How is the way by which it hears: "fanotify" or "inotify".
func (o *Opens) How() string {
	if o.fan {
		return "fanotify"
	}
	return "inotify"
}

// Add watches the files of a folder, not those of folders in it. Adding it again is nothing, unless it is another folder of that
// name by now. A folder that is not there is an error that wraps fs.ErrNotExist.
func (o *Opens) Add(dir string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	key, err := o.watch(dir)
	if err != nil {
		return err
	}
	if old := o.keys[dir]; old != key {
		delete(o.folders, old)
	}
	o.folders[key], o.keys[dir] = dir, key
	return nil
}

func (o *Opens) watch(dir string) (key string, err error) {
	failed := func(err error) (string, error) { return "", &fs.PathError{Op: "watch", Path: dir, Err: err} }
	control, err := o.file.SyscallConn()
	if err != nil {
		return failed(err)
	}
	var failure error
	err = control.Control(func(fd uintptr) {
		if !o.fan {
			var wd int
			if wd, failure = unix.InotifyAddWatch(int(fd), dir, unix.IN_OPEN|unix.IN_ONLYDIR); failure == nil {
				o.watches[dir], key = wd, fmt.Sprint(wd)
			}
			return
		}
		if key, failure = handleOf(dir); failure == nil {
			failure = unix.FanotifyMark(int(fd), unix.FAN_MARK_ADD|unix.FAN_MARK_ONLYDIR, unix.FAN_OPEN|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, dir)
		}
	})
	if errors.Is(failure, unix.ENOSPC) {
		limit := "fs.inotify.max_user_watches"
		if o.fan {
			limit = "fs.fanotify.max_user_marks"
		}
		return failed(fmt.Errorf("this user watches as many folders as it may; raise %s: %w", limit, failure))
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

// Remove ends watching a folder, which may be gone.
func (o *Opens) Remove(dir string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.folders, o.keys[dir])
	delete(o.keys, dir)
	control, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	_ = control.Control(func(fd uintptr) { // what is gone is watched no more
		if o.fan {
			_ = unix.FanotifyMark(int(fd), unix.FAN_MARK_REMOVE, unix.FAN_OPEN|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, dir)
		} else if wd, ok := o.watches[dir]; ok {
			_, _ = unix.InotifyRmWatch(int(fd), uint32(wd))
		}
	})
	delete(o.watches, dir)
}

// Close ends listening, where Run does not.
func (o *Opens) Close() error { return o.file.Close() }

// Run tells of each open until ctx ends, and closes o then.
func (o *Opens) Run(ctx context.Context, told func(Open)) error {
	stop := context.AfterFunc(ctx, func() { _ = o.file.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, err := o.file.Read(buf)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("hear of opened files: %w", err), o.file.Close())
		}
		if o.fan {
			o.fanotified(buf[:n], told)
		} else {
			o.inotified(buf[:n], told)
		}
	}
}

// fanotified reads events of fanotify(7): each has a header, and then records, of which one names the folder and the file.
func (o *Opens) fanotified(b []byte, told func(Open)) {
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
				o.tell(rest[record:n], opener, told)
			}
			rest = rest[n:]
		}
	}
}

// tell tells of an open in the folder of a record: file system, handle, name.
func (o *Opens) tell(record []byte, opener Opener, told func(Open)) {
	const fsid, handle = 8, 8
	if len(record) < fsid+handle {
		return
	}
	end := fsid + handle + int(binary.NativeEndian.Uint32(record[fsid:]))
	if end > len(record) || end < 0 {
		return
	}
	name, _, _ := bytes.Cut(record[end:], []byte{0})
	if dir := o.folder(string(record[:end])); dir != "" && len(name) > 0 && string(name) != "." {
		told(Open{Path: filepath.Join(dir, string(name)), By: opener})
	}
}

// inotified reads events of inotify(7).
func (o *Opens) inotified(b []byte, told func(Open)) {
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
		dir := o.folder(fmt.Sprint(int32(binary.NativeEndian.Uint32(event))))
		if mask&unix.IN_ISDIR == 0 && mask&unix.IN_OPEN != 0 && dir != "" && len(name) > 0 {
			told(Open{Path: filepath.Join(dir, string(name)), By: Unknown})
		}
	}
}

func (o *Opens) folder(key string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.folders[key]
}
