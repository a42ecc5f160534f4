package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"ema/internal/model"
)

// syncFSFrom is the number of blobs from which one syncfs is cheaper than a sync of each file.
const syncFSFrom = 16

// Publish makes verified blobs visible under their names, durably, with one barrier for all of them.
// Each step may be the last before a crash; what is left is then either resumable or finished:
//
//  1. block checksums are written under temporary names
//  2. contents and checksums become durable
//  3. checksums get their names, then blobs get theirs (replacing what was there: it was wrong, or
//     nobody would have fetched it)
//  4. the names become durable
//  5. only then journals go and the blobs' locks are released
//
// When it fails nothing is lost: each Staged is as it was, or its blob is published; Close those
// that are not to be tried again. ctx is heeded before step 3.
func (w *Writer) Publish(ctx context.Context, staged []*Staged) error {
	if len(staged) == 0 {
		return ctx.Err()
	}
	for _, st := range staged {
		if st.done {
			return &model.Error{
				Op: "publish", Model: st.id, File: st.etag,
				Err: errors.New("it is published already, or was given up"),
			}
		}
	}
	sides := make([]string, len(staged))
	defer func() {
		for _, tmp := range sides {
			if tmp != "" {
				_ = w.remove(tmp) // left by a failure; should this fail as well, PlanCollect finds it
			}
		}
	}()
	var opened []File // of small files, for their sync
	defer func() {
		for _, f := range opened {
			_ = f.Close() // opened for syncing: a failure has been reported there
		}
	}()
	each := w.sync && len(staged) <= syncFSFrom
	for i, st := range staged {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := w.stageSidecar(st, &sides[i], each)
		if err != nil {
			return diskError("publish", st.id, st.etag, err)
		}
		if f != nil {
			opened = append(opened, f)
		}
	}
	if w.sync && !each {
		if err := w.syncAll(); err != nil {
			return diskError("publish", staged[0].id, "", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, st := range staged {
		if err := w.rename(sides[i], w.sidecarPath(st.id, st.digest.Hex())); err != nil {
			return diskError("publish", st.id, st.etag, err)
		}
		sides[i] = ""
		if err := w.rename(st.name, w.blobPath(st.id, st.digest.Hex())); err != nil {
			return diskError("publish", st.id, st.etag, err)
		}
		st.name = w.blobPath(st.id, st.digest.Hex()) // trying again renames it onto itself
	}
	if err := w.saveNames(); err != nil {
		return diskError("publish", staged[0].id, "", err)
	}
	var errs error
	for _, st := range staged {
		errs = errors.Join(errs, diskError("publish", st.id, st.etag, w.finish(st)))
	}
	return errs
}

// stageSidecar writes a blob's block checksums under a temporary name, and syncs both if asked. It
// returns the data file if it had to open it.
func (w *Writer) stageSidecar(st *Staged, tmp *string, durable bool) (opened File, err error) {
	data := st.data
	if data == nil && durable {
		if data, err = w.disk.OpenFile(st.name, os.O_RDWR, 0); err != nil {
			return nil, err
		}
		opened = data
	}
	if durable {
		// Not Datasync: the sidecar names the time of modification, which must not change in a crash.
		if err := data.Sync(); err != nil {
			return opened, err
		}
	}
	info, err := os.Lstat(st.name)
	if err != nil {
		return opened, err
	}
	if !info.Mode().IsRegular() || info.Size() != st.size {
		return opened, &model.Error{
			Op: "publish", Class: model.Integrity, Model: st.id, File: st.etag,
			Err: fmt.Errorf("the verified file of %d bytes was changed by somebody", st.size),
		}
	}
	side := w.sidecarPath(st.id, st.digest.Hex())
	if err := w.folder(filepath.Dir(side)); err != nil {
		return opened, err
	}
	name := side + "." + newSuffix() + ".tmp"
	if err := w.writeTemp(name, sidecarBytes(identityOf(info), st.crcs), durable); err != nil {
		return opened, err
	}
	*tmp = name
	return opened, nil
}

// syncAll makes everything written to the store durable, on whichever file systems it lies.
func (w *Writer) syncAll() error {
	if err := w.disk.SyncFS(w.path); err != nil {
		return err
	}
	return w.disk.SyncFS(w.state)
}

// finish removes what was needed to resume a blob that is published now. That this comes back in a
// crash is harmless: a journal without its data file is worth nothing.
func (w *Writer) finish(st *Staged) error {
	var err error
	if st.journal != "" {
		err = w.remove(st.journal)
	}
	if w.cache == CacheDrop && w.sync && st.data != nil {
		err = errors.Join(err, st.data.DropCache(0, st.size))
	}
	busy := false
	if st.lock == nil {
		// A small file is written without its lock; another program may be writing one of its own.
		var lockErr error
		busy, lockErr = w.fetching(st.id.DirName(), st.etag)
		err = errors.Join(err, lockErr)
	}
	err = errors.Join(err, w.forgetColder(st.id, st.digest.Hex()))
	if busy {
		w.forgetLeftovers(st.id, st.etag)
	} else {
		err = errors.Join(err, w.removeLeftovers(st.id, st.etag))
	}
	return errors.Join(err, st.Close())
}
