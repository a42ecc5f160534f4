package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"ema/internal/model"
)

// Partial opens what an earlier run left of a blob, or starts anew. f must be larger than BlockSize
// (see StageSmall) and its size known. validator is what the source says about the version of the
// content; a file whose digest is unknown is resumed only with the same one.
//
// It waits while another program holds the blob's lock, as Own does, until ctx ends; that program
// may have published the blob meanwhile. Preallocation that does not fit fails with Class DiskFull.
func (w *Writer) Partial(ctx context.Context, id model.ID, f model.File, validator string) (*Partial, error) {
	if f.Size <= BlockSize {
		return nil, &model.Error{
			Op: "open blob", Class: model.Usage, Model: id, File: f.Path,
			Err: fmt.Errorf("%d bytes fit into one block and need no partial file", f.Size),
		}
	}
	p, err := w.lockedPartial(ctx, id, f, validator)
	if err != nil {
		return nil, err
	}
	resumed, err := p.resume()
	if err == nil && !resumed {
		err = p.begin()
	}
	if err != nil {
		return nil, errors.Join(p.error("open blob", err), p.Close())
	}
	p.openDirect()
	return p, nil
}

// lockedPartial is a Partial that holds its blob's lock and nothing else.
func (w *Writer) lockedPartial(ctx context.Context, id model.ID, f model.File, validator string) (*Partial, error) {
	etag := etagOf(id, f, validator)
	lock, err := w.lockBlob(ctx, id, etag)
	if err != nil {
		if ctxErr := contextError(err); ctxErr != nil {
			return nil, ctxErr
		}
		return nil, diskError("open blob", id, f.Path, err)
	}
	return &Partial{
		w: w, id: id, file: f, jour: w.journalPath(id, etag), lock: lock, dirty: map[int]struct{}{},
		j: &journal{etag: etag, size: f.Size, validator: sha256.Sum256([]byte(validator)), boot: w.bootID},
	}, nil
}

// resume opens what an earlier run left; false if there is nothing that can be used.
func (p *Partial) resume() (bool, error) {
	raw, err := os.ReadFile(p.jour)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	j, err := parseJournal(raw)
	known := !p.file.Digest.IsZero()
	if err != nil || j.etag != p.j.etag || j.size != p.j.size || !known && j.validator != p.j.validator {
		return false, nil
	}
	name := p.w.blobPath(p.id, incompleteName(j.etag, j.suffix))
	data, err := p.w.disk.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return false, ignoreMissing(err)
	}
	p.name, p.data = name, data
	info, err := data.Stat()
	if err != nil {
		return false, err
	}
	if p.log, err = p.w.disk.OpenFile(p.jour, os.O_RDWR, 0); err != nil {
		return false, err
	}
	prove := p.proves
	if j.boot != "" && j.boot == p.j.boot {
		prove = nil
	}
	entries, slots, err := j.distrust(info.Size(), prove)
	if err != nil {
		return false, err
	}
	j.boot, p.j = p.j.boot, j
	for i, e := range j.entries {
		if e != 0 && !e.durable() {
			p.dirty[i] = struct{}{}
			p.fresh += e.len()
		}
	}
	if info.Size() != j.size {
		if err := p.resize(info.Size()); err != nil {
			return false, err
		}
	}
	if err := p.w.adopt(p.w.blobsDir(p.id), p.w.partialsDir(p.id)); err != nil {
		return false, err
	}
	return true, p.takeBack(entries, slots)
}

// resize gives a data file its full length again.
func (p *Partial) resize(now int64) error {
	if now > p.j.size {
		return p.data.Truncate(p.j.size)
	}
	return p.data.Preallocate(p.j.size)
}

// takeBack writes down what is no longer trusted. It must be durable before these blocks are filled
// again, whatever the durability asked for: an old note, come back after a power loss, must not
// vouch for new bytes.
func (p *Partial) takeBack(entries, slots []int) error {
	for _, i := range entries {
		if err := p.writeEntry(i); err != nil {
			return err
		}
	}
	for _, i := range slots {
		if _, err := p.log.WriteAt(make([]byte, slotLen), slotOffset+int64(i)*slotLen); err != nil {
			return err
		}
	}
	if len(entries)+len(slots) > 0 {
		if err := p.log.Datasync(); err != nil {
			return err
		}
	}
	// Last, since it says that the entries hold in this boot.
	_, err := p.log.WriteAt(p.j.bootRecord(), bootOffset)
	return err
}

// proves reads the written prefix of a block and compares its CRC.
func (p *Partial) proves(i int, e entry) (bool, error) {
	buf := make([]byte, e.len())
	_, err := p.data.ReadAt(buf, int64(i)*BlockSize)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return err == nil && crc32.Checksum(buf, castagnoli) == e.crc(), err
}

// begin starts anew, after removing what cannot be used. The order does not matter for truth: a
// journal names its data file, whose name is never used twice.
func (p *Partial) begin() error {
	if err := p.releaseFiles(); err != nil {
		return err
	}
	p.j.entries = make([]entry, blockCount(p.j.size))
	p.j.suffix = newSuffix()
	p.name = p.w.blobPath(p.id, incompleteName(p.j.etag, p.j.suffix))
	for _, dir := range []string{p.w.blobsDir(p.id), p.w.partialsDir(p.id)} {
		if err := p.w.folder(dir); err != nil {
			return err
		}
	}
	if err := p.w.removeLeftovers(p.id, p.j.etag); err != nil {
		return err
	}
	if err := p.w.noteLeftover(p.id, filepath.Base(p.name)); err != nil {
		return err
	}
	if err := p.make(); err != nil {
		// Nothing was fetched into it, and on a full disk its space is needed elsewhere.
		return errors.Join(err, p.releaseFiles(), p.w.remove(p.name), p.w.remove(p.jour+".new"))
	}
	return nil
}

// make creates the data file and the journal.
func (p *Partial) make() (err error) {
	if p.data, err = p.w.create(p.name); err != nil {
		return err
	}
	if err := p.data.Preallocate(p.j.size); err != nil {
		return err
	}
	// A new file instead of the old one cleared: then no mixture of both can come out of a crash.
	tmp := p.jour + ".new"
	if err := p.w.remove(tmp); err != nil {
		return err
	}
	if p.log, err = p.w.create(tmp); err != nil {
		return err
	}
	if err := p.log.Preallocate(journalSize(p.j.size)); err != nil {
		return err
	}
	head := make([]byte, bootOffset+bootLen)
	copy(head, p.j.header())
	copy(head[bootOffset:], p.j.bootRecord())
	if _, err := p.log.WriteAt(head, 0); err != nil {
		return err
	}
	return p.w.rename(tmp, p.jour)
}
