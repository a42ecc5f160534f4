package store

import (
	"errors"
	"io/fs"
	"syscall"

	"ema/internal/model"
)

// diskError sorts a failure of the file system by what can be done about it. Errors that already
// carry a class pass unchanged, and so do a context's errors and nil.
func diskError(op string, id model.ID, file string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*model.Error](err); ok || contextError(err) != nil {
		return err
	}
	e := &model.Error{Op: op, Class: model.DiskError, Model: id, File: file, Err: err}
	if p, ok := errors.AsType[*fs.PathError](err); ok && p.Path == file {
		e.Err = p.Err // the path is in File already
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		e.Class, e.Hint = model.DiskFull, "free some space and try again"
	case errors.Is(err, syscall.EDQUOT):
		e.Class, e.Hint = model.DiskFull, "the quota of this user is used up"
	case errors.Is(err, syscall.EROFS):
		e.Hint = "the file system is mounted read-only; choose another folder with --store"
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "this user may not write there; change its permissions or choose another folder with --store"
	}
	return e
}
