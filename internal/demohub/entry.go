package demohub

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"ema/internal/model"
)

// lfsAbove is the size from which a file is stored in LFS unless told otherwise.
const lfsAbove = 1 << 20

// An Entry is a file of a repository: a path and content. Its methods return changed copies, which share
// the content and its hashes.
type Entry struct {
	// Path is served as it is, however hostile.
	Path string

	blob   *blob
	lfs    bool
	claim  int64 // listed size; negative: the true one
	sum    string
	masked bool
	xet    string
	err    error
}

// blob is content with its hashes, which are computed when first asked for and kept.
type blob struct {
	content
	key    string // tells contents apart without hashing them
	sha256 func() (model.Digest, error)
	git    func() (model.Digest, error)
}

func newBlob(c content, key string) *blob {
	b := &blob{content: c, key: key}
	b.sha256 = sync.OnceValues(func() (model.Digest, error) { return hashOf(c, model.SHA256) })
	b.git = sync.OnceValues(func() (model.Digest, error) { return hashOf(c, model.GitSHA1) })
	return b
}

func hashOf(c content, algo model.Algo) (model.Digest, error) {
	r, err := c.open()
	if err != nil {
		return model.Digest{}, err
	}
	defer r.Close()
	d := model.NewDigest(algo, nil)
	h := d.NewHash(c.size())
	_, err = io.CopyBuffer(h, io.NewSectionReader(r, 0, c.size()), make([]byte, min(c.size(), 256<<10)+1))
	return d.Sum(h), err
}

func newEntry(path string, c content, key string) Entry {
	return Entry{Path: path, blob: newBlob(c, key), lfs: c.size() > lfsAbove, claim: -1}
}

// File makes a file of pseudo-random content that depends on path and size alone and is generated while
// it is sent.
func File(path string, size model.Bytes) Entry {
	return generate(path, nil, size, seedOf(path))
}

// SeededFile is File with content that depends on seed instead of path: two files of one seed and size
// have the same bytes.
func SeededFile(path string, size model.Bytes, seed uint64) Entry {
	return generate(path, nil, size, seed)
}

func generate(path string, head []byte, size model.Bytes, seed uint64) Entry {
	return newEntry(path, generated{head: head, seed: seed, bytes: int64(size)}, fmt.Sprintf("generated %x %d %d", seed, size, len(head)))
}

// Bytes makes a file of the given content, which must not be changed afterwards.
func Bytes(path string, content []byte) Entry {
	return newEntry(path, memory(content), "bytes "+model.SumSHA256(content).Hex())
}

// Disk makes a file of the content of osPath. It is sent by sendfile where the connection allows it. If
// osPath cannot be read, requests for the commit that lists the entry answer 500 and say so.
func Disk(path, osPath string) Entry {
	info, err := os.Stat(osPath)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", osPath)
	}
	if err != nil {
		return Entry{Path: path, blob: newBlob(memory(nil), ""), claim: -1, err: err}
	}
	d := disk{path: osPath, bytes: info.Size(), mod: info.ModTime()}
	return newEntry(path, d, fmt.Sprintf("disk %s %d %d", osPath, d.bytes, d.mod.UnixNano()))
}

// Folder makes an entry by Disk of every regular file below dir.
func Folder(dir string) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		e := Disk(filepath.ToSlash(rel), p)
		entries = append(entries, e)
		return e.err
	})
	return entries, err
}

// LFS stores e in LFS, whatever its size: a sha256 in listings, the CDN for its content.
func (e Entry) LFS() Entry { e.lfs = true; return e }

// Plain stores e in git itself, whatever its size: a git blob id in listings, no CDN.
func (e Entry) Plain() Entry { e.lfs = false; return e }

// Sum lists e with this hash (64 digits: LFS; 40: plain) instead of the computed one: to spare hashing a
// huge file of which it is known, or to lie.
func (e Entry) Sum(hex string) Entry { e.sum = hex; return e }

// Claim lists e with this size, which may be a lie; the content keeps its own.
func (e Entry) Claim(size int64) Entry { e.claim = size; return e }

// Masked lists e with 64 asterisks in place of its sha256, as gated repositories do to strangers.
func (e Entry) Masked() Entry { e.masked = true; return e }

// Xet lists e with a Xet file id of 64 digits.
func (e Entry) Xet(hash string) Entry { e.xet = hash; return e }

// Size is the number of bytes in e's content.
func (e Entry) Size() int64 { return e.blob.size() }

// Digest is the true digest of e's content: its sha256 if e is stored in LFS, else its git blob id.
func (e Entry) Digest() (model.Digest, error) {
	if e.lfs {
		return e.blob.sha256()
	}
	return e.blob.git()
}

// Open gives e's content to compare with. The caller closes it.
func (e Entry) Open() (interface {
	io.ReaderAt
	io.Closer
}, error,
) {
	return e.blob.open()
}

// listedSize is what listings say.
func (e Entry) listedSize() int64 {
	if e.claim >= 0 {
		return e.claim
	}
	return e.blob.size()
}

// listedSum is the hash that listings and validators give.
func (e Entry) listedSum() (string, error) {
	if e.sum != "" {
		return e.sum, nil
	}
	d, err := e.Digest()
	return d.Hex(), err
}

// pointer is the text that git holds in place of an LFS file.
func (e Entry) pointer(sum string) []byte {
	return fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", sum, e.listedSize())
}

// opaque is a validator that says nothing about the hash, as CDNs and plain web servers give.
func (e Entry) opaque() string {
	return model.SumSHA256([]byte(e.Path + "\x00" + e.blob.key)).Hex()[:32]
}
