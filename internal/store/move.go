package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// Moving says how a move is done. The zero value is as fast as it can.
type Moving struct {
	// Pace is asked before n bytes are copied, and may wait until they may be; nil never waits. Its error ends the move.
	Pace func(ctx context.Context, n int) error
	// Progress is told that n more bytes are copied and hashed; nil is told nothing.
	Progress func(n int64)
}

// Moved is what a move did.
type Moved struct {
	Blobs int
	Bytes model.Bytes
}

// Move brings the contents of a model to a tier, the largest first, each in one step: at every moment its path leads to all of
// it, in one tier or the other. Programs that have a file open or mapped keep it. All reading and writing is done by the
// calling goroutine, so its thread's I/O priority holds for it.
//
// One content moves in this order, and after a crash between any two steps it is whole where its name leads:
//
//  1. it is copied to the other tier under a name that nobody looks at, and hashed meanwhile
//  2. the copy is synced, and its proof is written under the name of that tier
//  3. the copy gets its name there, and all these names become durable
//  4. its name in the store is replaced by a link to the copy, or by the copy itself, in one rename
//  5. that name becomes durable
//  6. only then what lay in the tier before goes, with its proof
//
// A content that is not what its name says is left where it is, and ends the move with an error of Class Integrity. When ctx
// ends Move returns its error soon; what was copied is used by the next move. Resume lists moves that a crash cut short.
func (w *Writer) Move(ctx context.Context, id model.ID, to model.Tier, how Moving) (Moved, error) {
	var done Moved
	if !w.Has(to) {
		return done, &model.Error{Op: "move", Class: model.Usage, Model: id, Err: fmt.Errorf("there is no %s tier", to), Hint: "set storage_tiers." + string(to) + ".path"}
	}
	blobs, err := w.toMove(id, to)
	if err != nil || len(blobs) == 0 {
		return done, err
	}
	if err := w.fits(id, to, blobs); err != nil {
		return done, err
	}
	if err := w.useTier(to); err != nil {
		return done, err
	}
	if err := w.writeDurably(w.movePath(id), pendingMove{Model: id.String(), To: to}); err != nil {
		return done, diskError("move", id, w.movePath(id), err)
	}
	for _, b := range blobs {
		if err := w.moveBlob(ctx, id, b.name, to, how); err != nil {
			return done, diskError("move", id, b.name, err)
		}
		done.Blobs++
		done.Bytes += model.Bytes(b.size)
	}
	if err := w.remove(w.movePath(id)); err != nil {
		return done, diskError("move", id, w.movePath(id), err)
	}
	return done, diskError("move", id, "", w.saveNames())
}

// A movable is a content that lies in another tier than it should.
type movable struct {
	name string
	from model.Tier
	size int64
}

// toMove lists what does not lie in a tier yet, the largest first. It refuses a model of which something is in a tier that is
// away, before anything is changed.
func (w *Writer) toMove(id model.ID, to model.Tier) ([]movable, error) {
	entries, err := os.ReadDir(w.blobsDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &model.Error{Op: "move", Class: model.NotFound, Model: id, Err: notHere{}, Hint: `"ema ls" shows what is here`}
	}
	if err != nil {
		return nil, diskError("move", id, w.blobsDir(id), err)
	}
	var all []movable
	for _, e := range entries {
		if !isBlobName(e.Name()) {
			continue
		}
		m := movable{name: e.Name(), from: w.tierOf(id, e.Name())}
		if e.Type()&fs.ModeSymlink != 0 && m.from == model.Hot {
			continue // another tool's link: what it leads to is not ours
		}
		if m.from == to {
			continue
		}
		if m.from != model.Hot {
			if err := w.reachTier(m.from); err != nil {
				return nil, err
			}
		}
		info, err := os.Stat(w.blobPath(id, m.name))
		if err != nil {
			return nil, diskError("move", id, m.name, err)
		}
		m.size = info.Size()
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b movable) int {
		if a.size != b.size {
			return int(min(1, max(-1, b.size-a.size)))
		}
		return strings.Compare(a.name, b.name)
	})
	return all, nil
}

// fits refuses a move for which a tier has no room, before anything is copied.
func (w *Writer) fits(id model.ID, to model.Tier, blobs []movable) error {
	var need model.Bytes
	for _, b := range blobs {
		need += model.Bytes(b.size)
		if info, err := os.Lstat(w.unfinished(to, id, b.name)); err == nil {
			need -= min(model.Bytes(info.Size()), model.Bytes(b.size)) // room that an earlier move took for it
		}
	}
	st := w.tierState(to)
	switch st.State {
	case TierMissing, TierReadOnly:
		if err := w.reachTier(to); to != model.Hot && err != nil {
			return err
		}
		return &model.Error{Op: "move", Class: model.DiskError, Model: id, File: st.Path, Err: errors.New(st.Problem), Hint: "nothing was moved"}
	}
	for _, b := range blobs {
		if from := w.tierState(b.from); from.State == TierReadOnly {
			return &model.Error{Op: "move", Class: model.DiskError, Model: id, File: from.Path, Err: errors.New(from.Problem), Hint: "nothing was moved"}
		}
	}
	if need > st.Free {
		return &model.Error{
			Op: "move", Class: model.DiskFull, Model: id, File: st.Path, Short: need - st.Free,
			Err:  fmt.Errorf("%s are needed in the %s tier, and %s are free: %s too few", need, to, st.Free, need-st.Free),
			Hint: `move something else away, or see what could go with "ema gc --dry-run"`,
		}
	}
	return nil
}

// unfinished is a content that is being copied to a tier.
func (s *Store) unfinished(t model.Tier, id model.ID, name string) string {
	return s.blobIn(t, id, incompleteName(name, movingSuffix))
}

// moveBlob moves one content; see Move.
func (w *Writer) moveBlob(ctx context.Context, id model.ID, name string, to model.Tier, how Moving) (err error) {
	lock, err := w.lockBlob(ctx, id, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	from := w.tierOf(id, name) // again: now nobody else changes it
	if from == to {
		return nil
	}
	if err := w.adopt(w.tierBlobs(to, id), w.blobsDir(id), w.blocksDir(id)); err != nil {
		return err
	}
	info, crcs, err := w.copyBlob(ctx, id, name, from, to, how)
	if err != nil {
		return err
	}
	if err := w.writeNew(w.sidecarIn(to, id, name), sidecarBytes(identityOf(info), crcs)); err != nil {
		return err
	}
	if to != model.Hot {
		if err := w.rename(w.unfinished(to, id, name), w.blobIn(to, id, name)); err != nil {
			return err
		}
	}
	if err := w.saveNames(); err != nil {
		return err
	}
	if err := w.point(id, name, to); err != nil {
		return err
	}
	if err := w.saveNames(); err != nil {
		return err
	}
	if from == model.Hot {
		return w.remove(w.sidecarIn(from, id, name)) // the rename took the content itself
	}
	return errors.Join(w.remove(w.blobIn(from, id, name)), w.remove(w.sidecarIn(from, id, name)), w.saveNames())
}

// point makes a blob's name lead to its copy in a tier, in one rename.
func (w *Writer) point(id model.ID, name string, to model.Tier) error {
	if to == model.Hot {
		return w.rename(w.unfinished(to, id, name), w.blobPath(id, name))
	}
	if err := w.folder(w.buildDir(id)); err != nil {
		return err
	}
	link := filepath.Join(w.buildDir(id), "link."+newSuffix())
	if err := w.disk.Symlink(w.blobIn(to, id, name), link); err != nil {
		return err
	}
	if err := w.rename(link, w.blobPath(id, name)); err != nil {
		return errors.Join(err, w.remove(link))
	}
	return nil
}

// copyBlob copies a content to another tier under its unfinished name, proves it and makes it durable. It returns what the
// copy is, and the checksums of its blocks.
func (w *Writer) copyBlob(ctx context.Context, id model.ID, name string, from, to model.Tier, how Moving) (info fs.FileInfo, crcs []uint32, err error) {
	digest, err := model.ParseDigest(name)
	if err != nil {
		return nil, nil, err
	}
	src, err := w.disk.OpenFile(w.blobIn(from, id, name), os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer src.Close() // opened for reading: nothing can be lost
	was, err := src.Stat()
	if err != nil {
		return nil, nil, err
	}
	var proven []uint32
	if who, kept, err := w.sidecar(id, digest); err == nil && who == identityOf(was) {
		proven = kept
	}
	dst, err := w.disk.OpenFile(w.unfinished(to, id, name), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, nil, err
	}
	c := copying{w: w, src: src, dst: dst, size: was.Size(), proven: proven, how: how}
	defer func() { err = errors.Join(err, c.close()) }()
	w.changed(w.tierBlobs(to, id))
	if err := c.begin(w.unfinished(to, id, name)); err != nil {
		return nil, nil, err
	}
	sum, err := c.run(ctx, digest)
	if err != nil {
		return nil, nil, err
	}
	now, err := src.Stat()
	if err != nil {
		return nil, nil, err
	}
	if sum != digest || identityOf(now) != identityOf(was) {
		err := errors.New("it is not what its name says")
		if identityOf(now) != identityOf(was) {
			err = errors.New("another program changes it")
		}
		return nil, nil, errors.Join(&model.Error{
			Op: "move", Class: model.Integrity, Model: id, File: name, Err: err, Hint: fmt.Sprintf("nothing was changed; run \"ema repair %s\"", id),
		}, w.remove(w.unfinished(to, id, name)))
	}
	if w.sync {
		// Not Datasync: the proof names the time of modification, which must not change in a crash.
		if err := dst.Sync(); err != nil {
			return nil, nil, err
		}
	}
	info, err = dst.Stat()
	return info, c.crcs, err
}

// copying is one content on its way.
type copying struct {
	w        *Writer
	src, dst File
	direct   File // dst once more, for writing past the page cache; nil where that cannot be
	size     int64
	have     int64    // bytes of dst that may be good already
	cloned   bool     // dst shares the storage of src
	proven   []uint32 // checksums of src's blocks, when it was verified and not touched since
	crcs     []uint32
	how      Moving
}

const (
	copyBuffers    = 4                    // blocks under way between reading and hashing
	writebackEvery = 8 * model.MiB        // of what goes through the page cache
	directFrom     = 16 * int64(1<<20)    // smaller contents are not worth going past the page cache
	readAhead      = int64(8 * (1 << 20)) // of src
)

func (c *copying) close() error {
	err := c.dst.Close()
	if c.direct != nil {
		err = errors.Join(err, c.direct.Close())
	}
	return err
}

// begin finds what an earlier move has copied, and takes the room for the rest.
func (c *copying) begin(name string) error {
	info, err := c.dst.Stat()
	if err != nil {
		return err
	}
	if info.Size() == c.size && len(c.proven) == blockCount(c.size) {
		c.have = c.size // block by block it is seen what of it is good
		return c.openDirect(name)
	}
	if err := c.dst.Truncate(0); err != nil {
		return err
	}
	switch err := c.dst.Clone(c.src); {
	case err == nil:
		c.cloned = true
		return nil
	case !errors.Is(err, errors.ErrUnsupported):
		return err
	}
	if c.size > 0 {
		if err := c.dst.Preallocate(c.size); err != nil {
			return err
		}
	}
	return c.openDirect(name)
}

func (c *copying) openDirect(name string) error {
	if c.w.cache == CacheKeep || c.size < directFrom {
		return nil
	}
	if f, err := c.w.disk.OpenFile(name, os.O_RDWR|unix.O_DIRECT, 0); err == nil {
		c.direct = f
	}
	return nil
}

// run copies all blocks and returns the digest of what is in dst then.
func (c *copying) run(ctx context.Context, want model.Digest) (model.Digest, error) {
	h := want.NewHash(c.size)
	read, hashed := make(chan []byte, copyBuffers), make(chan []byte, copyBuffers)
	for range copyBuffers {
		hashed <- alignedBlock()
	}
	ended := make(chan struct{})
	go func() { // hashing is as much work as all the rest
		defer close(ended)
		for b := range read {
			h.Write(b)
			hashed <- b
		}
	}()
	err := c.blocks(ctx, read, hashed)
	close(read)
	<-ended
	return want.Sum(h), err
}

func (c *copying) blocks(ctx context.Context, read chan<- []byte, hashed <-chan []byte) error {
	var unwritten int64
	for i := range blockCount(c.size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		off, n := int64(i)*BlockSize, blockLen(i, c.size)
		b := (<-hashed)[:n]
		if c.how.Pace != nil {
			if err := c.how.Pace(ctx, int(n)); err != nil {
				return err
			}
		}
		there := c.alreadyThere(i, b, off)
		if !there {
			if got, err := c.src.ReadAt(b, off); int64(got) < n {
				return err
			}
		}
		crc := crc32.Checksum(b, castagnoli)
		if c.proven != nil && c.proven[i] != crc {
			return &model.Error{
				Op: "move", Class: model.Integrity,
				Err:  fmt.Errorf("the %s at byte %d are not what was verified", model.Bytes(n), off),
				Hint: `nothing was changed; "ema repair" fetches them again`,
			}
		}
		c.crcs = append(c.crcs, crc)
		read <- b // it is only read from here on, by both
		if !there && !c.cloned {
			if err := c.write(b, off); err != nil {
				return err
			}
			if unwritten += n; c.direct == nil && unwritten >= int64(writebackEvery) {
				if err := c.dst.StartWriteback(off+n-unwritten, unwritten); err != nil {
					return err
				}
				unwritten = 0
			}
		}
		if c.how.Progress != nil {
			c.how.Progress(n)
		}
	}
	return nil
}

// alreadyThere reads a block that an earlier move has copied into b, and reports whether it is good. It is read where it lies
// now, so what a power loss took of it is seen.
func (c *copying) alreadyThere(i int, b []byte, off int64) bool {
	if off+int64(len(b)) > c.have {
		return false
	}
	n, _ := c.dst.ReadAt(b, off) // what cannot be read is copied again
	return n == len(b) && crc32.Checksum(b, castagnoli) == c.proven[i]
}

// write puts a block into the copy, past the page cache where that can be: see Partial's.
func (c *copying) write(b []byte, off int64) error {
	if c.direct != nil && int64(len(b)) == BlockSize {
		_, err := c.direct.WriteAt(b, off)
		if !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	return c.w.write(c.dst, b, off)
}

// alignedBlock is a buffer of one block that may be handed to a device as it lies in memory.
func alignedBlock() []byte {
	const page = 4096
	b := make([]byte, BlockSize+page)
	skip := (page - int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))%page)) % page
	return b[skip : skip+int(BlockSize)]
}

// A pendingMove is a move that was begun, in StateDir/moves.
type pendingMove struct {
	Model string     `json:"model"`
	To    model.Tier `json:"to"`
}

func (s *Store) movesDir() string { return filepath.Join(s.state, "moves") }

func (s *Store) movePath(id model.ID) string {
	return filepath.Join(s.movesDir(), id.DirName()+".json")
}

// An Unfinished is a move that a crash, or somebody who stopped it, cut short.
type Unfinished struct {
	ID model.ID
	To model.Tier
}

// Resume lists the moves that were begun and are not done: call Move again, or Abandon.
func (s *Store) Resume() ([]Unfinished, error) {
	entries, err := os.ReadDir(s.movesDir())
	if ignoreMissing(err) != nil {
		return nil, diskError("list moves", model.ID{}, s.movesDir(), err)
	}
	var all []Unfinished
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(s.movesDir(), e.Name()))
		var p pendingMove
		if err != nil || json.Unmarshal(raw, &p) != nil {
			continue // it was never written whole, so nothing had begun
		}
		id, _, err := model.ParseRef(p.Model)
		if err == nil && id.DirName()+".json" == e.Name() && s.Has(p.To) {
			all = append(all, Unfinished{id, p.To})
		}
	}
	return all, nil
}

// Abandon gives up a move that was cut short: what was copied and is not in use goes, and the rest stays where it is.
func (w *Writer) Abandon(id model.ID) error {
	for _, t := range model.Tiers() {
		if !w.Has(t) || t != model.Hot && w.reachTier(t) != nil {
			continue
		}
		entries, err := os.ReadDir(w.tierBlobs(t, id))
		if ignoreMissing(err) != nil {
			return diskError("abandon a move", id, w.tierBlobs(t, id), err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), "."+movingSuffix+incomplete) {
				if err := w.remove(filepath.Join(w.tierBlobs(t, id), e.Name())); err != nil {
					return diskError("abandon a move", id, e.Name(), err)
				}
			}
		}
	}
	if err := w.remove(w.movePath(id)); err != nil {
		return diskError("abandon a move", id, w.movePath(id), err)
	}
	return diskError("abandon a move", id, "", w.saveNames())
}

// settle removes what a crash left of moves that were begun: copies that no name leads to, and proofs of copies that are gone.
func (w *Writer) settle() error {
	pending, err := w.Resume()
	if err != nil {
		return err
	}
	for _, p := range pending {
		if err := w.settleModel(p.ID); err != nil {
			return diskError("finish a move", p.ID, "", err)
		}
	}
	return w.saveNames()
}

func (w *Writer) settleModel(id model.ID) error {
	// The names that are found here may be of a process that was killed before it synced them: first they are made durable, so
	// that nothing is removed whose successor a power loss could still take.
	w.changed(w.blobsDir(id), w.blocksDir(id))
	if err := w.saveNames(); err != nil {
		return err
	}
	for _, t := range w.coldTiers() {
		if w.reachTier(t) != nil {
			continue
		}
		entries, _ := os.ReadDir(w.tierBlobs(t, id)) // what cannot be read is not removed
		for _, e := range entries {
			if isBlobName(e.Name()) && w.orphan(t, id, e.Name()) {
				if w.remove(w.blobIn(t, id, e.Name())) != nil {
					break // a tier that fails must not keep the store shut: PlanCollect finds it later
				}
			}
		}
	}
	sidecars, err := os.ReadDir(w.blocksDir(id))
	if ignoreMissing(err) != nil {
		return err
	}
	for _, e := range sidecars {
		blob, t, ok := parseSidecarName(e.Name())
		if ok && w.Has(t) && t != w.tierOf(id, blob) {
			if err := w.remove(filepath.Join(w.blocksDir(id), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// orphan reports whether a file in a colder tier is not where its name in the store leads, while that name leads to a file of
// the same size somewhere else.
func (s *Store) orphan(t model.Tier, id model.ID, name string) bool {
	if s.tierOf(id, name) == t {
		return false
	}
	here, err := os.Stat(s.blobPath(id, name))
	there, gone := os.Lstat(s.blobIn(t, id, name))
	return err == nil && gone == nil && here.Mode().IsRegular() && here.Size() == there.Size()
}

// forgetColder removes copies of a blob from colder tiers, with their proofs, once it lies in the store itself.
func (w *Writer) forgetColder(id model.ID, name string) error {
	var errs error
	for _, t := range w.coldTiers() {
		if w.tierOf(id, name) == t {
			continue
		}
		errs = errors.Join(errs, w.remove(w.sidecarIn(t, id, name)))
		if w.reachTier(t) == nil && w.orphan(t, id, name) {
			errs = errors.Join(errs, w.remove(w.blobIn(t, id, name)))
		}
	}
	return errs
}
