package demohub

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"io"
	"os"
	"time"
)

// content is bytes of a known size that can be opened any number of times at once.
type content interface {
	size() int64
	open() (reader, error)
}

type reader interface {
	io.ReaderAt
	io.Closer
}

// memory is content that is simply there.
type memory []byte

func (m memory) size() int64           { return int64(len(m)) }
func (m memory) open() (reader, error) { return unclosed{bytes.NewReader(m)}, nil }

// disk is a file of this machine. Its size is the one it had when it was added.
type disk struct {
	path  string
	bytes int64
	mod   time.Time
}

func (d disk) size() int64           { return d.bytes }
func (d disk) open() (reader, error) { return os.Open(d.path) }

// generated is a head, which may be empty, and after it pseudo-random bytes: the eight bytes at 8*i are
// a mix of the seed and i (splitmix64), so that every offset costs the same and nothing is stored.
type generated struct {
	head  []byte
	seed  uint64
	bytes int64
}

func (g generated) size() int64           { return g.bytes }
func (g generated) open() (reader, error) { return unclosed{g}, nil }

// ReadAt implements io.ReaderAt.
func (g generated) ReadAt(p []byte, off int64) (int, error) {
	if off >= g.bytes {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), g.bytes-off))
	q := p[:n]
	if off < int64(len(g.head)) {
		done := copy(q, g.head[off:])
		q, off = q[done:], off+int64(done)
	}
	g.fill(q, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (g generated) fill(p []byte, off int64) {
	word := uint64(off) / 8
	if skip := off % 8; skip != 0 && len(p) > 0 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], mix(g.seed, word))
		p = p[copy(p, b[skip:]):]
		word++
	}
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, mix(g.seed, word))
		p = p[8:]
		word++
	}
	if len(p) > 0 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], mix(g.seed, word))
		copy(p, b[:])
	}
}

// mix is splitmix64 (Steele, Lea, Flood 2014) with a counter instead of a state.
func mix(seed, i uint64) uint64 {
	z := seed + (i+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// seedOf makes the seed of a name, so that two files of one hub differ and two runs do not.
func seedOf(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}

type unclosed struct{ io.ReaderAt }

func (unclosed) Close() error { return nil }
