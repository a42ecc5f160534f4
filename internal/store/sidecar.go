package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"ema/internal/model"
)

// A sidecar is the proof that a blob was verified here: which file it was, and the CRC-32C of each
// of its blocks, by which damage is located later. All numbers are little-endian.
//
//	 0  magic, version, block size
//	16  size, time of modification in ns, inode, number of blocks
//	44  CRC-32C of the 44 bytes before
//	48  one CRC-32C for each block
//	 …  CRC-32C of everything before
const (
	sidecarMagic   = "emacrcs\n"
	sidecarVersion = 1
	sidecarHeader  = 48
)

// Proof says whether the bytes of a blob were verified by this store.
type Proof uint8

// The proofs.
const (
	Unproven Proof = iota // another tool's file: complete by the cache's rules, but never verified here
	Proven                // verified here, and not touched since
	Changed               // verified here once, but the file is no longer the same
)

// String is the name used in messages and JSON.
func (p Proof) String() string {
	switch p {
	case Proven:
		return "proven"
	case Changed:
		return "changed"
	}
	return "unproven"
}

// Blob is a complete content that the store holds.
type Blob struct {
	Path  string     // under which it is found, wherever it lies
	Tier  model.Tier // where it lies
	Size  int64      // of the file as it is now
	Proof Proof
}

// identity tells one state of a file from another.
type identity struct {
	size, mtime int64
	inode       uint64
}

func identityOf(info fs.FileInfo) identity {
	id := identity{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode = st.Ino
	}
	return id
}

// BlobPaths are the names of a model's contents, also of those that are being fetched; one that lies in a colder tier is a link.
func (s *Store) BlobPaths(id model.ID) (paths []string) {
	entries, _ := os.ReadDir(s.blobsDir(id)) // what cannot be read has none
	for _, e := range entries {
		paths = append(paths, filepath.Join(s.blobsDir(id), e.Name()))
	}
	return paths
}

// Blob finds the blob with content d; fs.ErrNotExist if there is none. It reads no content: the
// proof is that the file is the one that was verified, by size, time of modification and inode.
func (s *Store) Blob(id model.ID, d model.Digest) (Blob, error) {
	name := s.blobPath(id, d.Hex())
	info, err := os.Stat(name) // follows a link into a colder tier
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if d.IsZero() || errors.Is(err, fs.ErrNotExist) {
		return Blob{}, fmt.Errorf("blob %v of %v: %w", d, id, fs.ErrNotExist)
	}
	if err != nil {
		return Blob{}, diskError("open blob", id, name, err)
	}
	t := s.tierOf(id, d.Hex())
	return Blob{Path: name, Tier: t, Size: info.Size(), Proof: prove(s.sidecarIn(t, id, d.Hex()), info)}, nil
}

// Blocks is the CRC-32C (Castagnoli) of each block of BlockSize of a blob, as they were when it was
// verified; fs.ErrNotExist if it never was.
func (s *Store) Blocks(id model.ID, d model.Digest) ([]uint32, error) {
	_, crcs, err := s.sidecar(id, d)
	return crcs, err
}

func (s *Store) sidecar(id model.ID, d model.Digest) (identity, []uint32, error) {
	name := s.sidecarHere(id, d.Hex())
	raw, err := os.ReadFile(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return identity{}, nil, fmt.Errorf("block checksums of %v of %v: %w", d, id, fs.ErrNotExist)
		}
		return identity{}, nil, diskError("read block checksums", id, name, err)
	}
	who, crcs, err := parseSidecar(raw)
	if err != nil {
		return identity{}, nil, fmt.Errorf("block checksums of %v of %v are unreadable: %w", d, id, fs.ErrNotExist)
	}
	return who, crcs, nil
}

// Prove records that the blob with content d was verified just now, and the CRC-32C of each of its
// blocks: this is how another tool's file is adopted without a copy. The file is synced, since what
// was verified may so far have been in memory only.
func (w *Writer) Prove(id model.ID, d model.Digest, crcs []uint32) error {
	name := w.blobPath(id, d.Hex())
	info, err := os.Stat(name)
	if err != nil {
		return diskError("prove blob", id, name, err)
	}
	if len(crcs) != blockCount(info.Size()) {
		return &model.Error{
			Op: "prove blob", Class: model.Integrity, Model: id, File: name,
			Err: fmt.Errorf("%d block checksums for %d bytes, want %d", len(crcs), info.Size(), blockCount(info.Size())),
		}
	}
	side := w.sidecarHere(id, d.Hex())
	err = w.syncFile(name)
	if err == nil {
		err = w.adopt(w.blobsDir(id), filepath.Dir(side))
	}
	if err == nil {
		err = w.writeNew(side, sidecarBytes(identityOf(info), crcs))
	}
	if err == nil {
		err = w.saveNames()
	}
	return diskError("prove blob", id, name, err)
}

// Disprove notes that the blob with content d turned out to be damaged, so that nobody takes it for proven any more: its file gets
// another time of modification, by which proofs go, under all of its names. Its block checksums stay, for the repair.
func (w *Writer) Disprove(id model.ID, d model.Digest) error {
	name := w.blobPath(id, d.Hex())
	now := time.Now()
	err := os.Chtimes(name, now, now) // follows a link into a colder tier
	if err == nil {
		err = w.syncFile(name)
	}
	return diskError("note damage", id, name, err)
}

// syncFile makes a file durable that somebody else wrote, following a link into a colder tier.
func (w *Writer) syncFile(name string) error {
	if !w.sync {
		return nil
	}
	name, err := filepath.EvalSymlinks(name)
	if err != nil {
		return err
	}
	f, err := w.disk.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func sidecarBytes(who identity, crcs []uint32) []byte {
	b := make([]byte, sidecarHeader, sidecarHeader+4*len(crcs)+4)
	copy(b, sidecarMagic)
	binary.LittleEndian.PutUint32(b[8:], sidecarVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(BlockSize))
	binary.LittleEndian.PutUint64(b[16:], uint64(who.size))
	binary.LittleEndian.PutUint64(b[24:], uint64(who.mtime))
	binary.LittleEndian.PutUint64(b[32:], who.inode)
	binary.LittleEndian.PutUint32(b[40:], uint32(len(crcs)))
	binary.LittleEndian.PutUint32(b[44:], crc32.Checksum(b[:44], castagnoli))
	for _, c := range crcs {
		b = binary.LittleEndian.AppendUint32(b, c)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

var errSidecar = errors.New("not block checksums of this version")

// parseSidecarHeader reads the first sidecarHeader bytes.
func parseSidecarHeader(b []byte) (identity, int, error) {
	if len(b) < sidecarHeader || string(b[:8]) != sidecarMagic || !sealed(b[:sidecarHeader]) ||
		binary.LittleEndian.Uint32(b[8:]) != sidecarVersion ||
		binary.LittleEndian.Uint32(b[12:]) != uint32(BlockSize) {
		return identity{}, 0, errSidecar
	}
	who := identity{
		size:  int64(binary.LittleEndian.Uint64(b[16:])),
		mtime: int64(binary.LittleEndian.Uint64(b[24:])),
		inode: binary.LittleEndian.Uint64(b[32:]),
	}
	n := int(binary.LittleEndian.Uint32(b[40:]))
	if who.size < 0 || who.size > 1<<60 || n != blockCount(who.size) {
		return identity{}, 0, errSidecar
	}
	return who, n, nil
}

// parseSidecar reads a whole sidecar.
func parseSidecar(b []byte) (identity, []uint32, error) {
	who, n, err := parseSidecarHeader(b)
	if err != nil {
		return identity{}, nil, err
	}
	if len(b) != sidecarHeader+4*n+4 || !sealed(b) {
		return identity{}, nil, errSidecar
	}
	crcs := make([]uint32, n)
	for i := range crcs {
		crcs[i] = binary.LittleEndian.Uint32(b[sidecarHeader+4*i:])
	}
	return who, crcs, nil
}

// prove compares a blob's file with its sidecar, of which only the header is read: a listing asks
// for thousands of them.
func prove(sidecar string, blob fs.FileInfo) Proof {
	var buf [sidecarHeader]byte
	head, err := peek(sidecar, buf[:])
	if err != nil {
		return Unproven
	}
	who, _, err := parseSidecarHeader(head)
	switch {
	case err != nil:
		return Unproven
	case who != identityOf(blob):
		return Changed
	}
	return Proven
}
