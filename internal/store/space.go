package store

import (
	"errors"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// Free is the space that this user may still fill on the volume where the store lies, or would lie:
// of a folder that does not exist yet, the nearest one above it counts.
func (s *Store) Free() (model.Bytes, error) {
	for dir := s.path; ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		err := retried(func() error { return unix.Statfs(dir, &st) })
		switch {
		case err == nil:
			return model.Bytes(st.Bavail) * model.Bytes(st.Frsize), nil
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return 0, diskError("measure free space", model.ID{}, dir, err)
		}
	}
}
