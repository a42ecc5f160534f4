package verify

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// errBudget ends a check that would read more than it may.
var errBudget = errors.New("too large to be checked")

// A readError is a failure of the disk below, as opposed to nonsense in the file.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// A disk reads a span of a file and marks the failures of doing so.
type disk struct{ *io.SectionReader }

// newDisk reads n bytes of r from offset at.
func newDisk(r io.ReaderAt, at, n int64) disk { return disk{io.NewSectionReader(r, at, n)} }

func (d disk) Read(p []byte) (int, error) {
	n, err := d.SectionReader.Read(p)
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

// A budget is how many bytes a check may still read. Several cursors may share one.
type budget struct{ left int64 }

// A meter charges what it reads to a budget.
type meter struct {
	src io.Reader
	b   *budget
}

func (m *meter) Read(p []byte) (int, error) {
	if m.b.left <= 0 {
		return 0, errBudget
	}
	if int64(len(p)) > m.b.left {
		p = p[:m.b.left]
	}
	n, err := m.src.Read(p)
	m.b.left -= int64(n)
	return n, err
}

// cursorBuffer bounds what take can give in one piece.
const cursorBuffer = 32 << 10

// A cursor reads a span of bytes in order, through a buffer and within a budget. Every method that
// needs more bytes than the span has fails with io.ErrUnexpectedEOF before it allocates anything.
type cursor struct {
	buf  *bufio.Reader
	m    *meter
	seek io.Seeker        // nil where skipping costs reading, as in a compressed stream
	ord  binary.ByteOrder // of u16, u32 and u64
	at   int64            // where the next byte lies, counted from the beginning of the file or member
	end  int64
}

// newCursor reads r from offset at up to end.
func newCursor(r io.ReaderAt, at, end int64, b *budget) *cursor {
	s := newDisk(r, 0, end)
	_, _ = s.Seek(at, io.SeekStart) // at is a position inside the section; seeking there cannot fail
	m := &meter{s, b}
	return &cursor{buf: bufio.NewReaderSize(m, cursorBuffer), m: m, seek: s, ord: binary.LittleEndian, at: at, end: end}
}

// newStream reads the size bytes that src is said to hold.
func newStream(src io.Reader, size int64, b *budget) *cursor {
	m := &meter{src, b}
	return &cursor{buf: bufio.NewReaderSize(m, cursorBuffer), m: m, ord: binary.LittleEndian, end: size}
}

// left is how many bytes the span still has.
func (c *cursor) left() int64 { return c.end - c.at }

// need fails unless n more bytes are there.
func (c *cursor) need(n uint64) error {
	if n > uint64(c.left()) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// byte reads one byte, and fails with io.EOF where the span ends.
func (c *cursor) byte() (byte, error) {
	if c.left() <= 0 {
		return 0, io.EOF
	}
	b, err := c.buf.ReadByte()
	if err != nil {
		return 0, early(err)
	}
	c.at++
	return b, nil
}

// take reads n bytes, at most cursorBuffer. They are valid until the next call.
func (c *cursor) take(n int) ([]byte, error) {
	if err := c.need(uint64(n)); err != nil {
		return nil, err
	}
	p, err := c.buf.Peek(n)
	if err != nil {
		return nil, early(err)
	}
	_, _ = c.buf.Discard(n) // they are in the buffer
	c.at += int64(n)
	return p, nil
}

// skip passes over n bytes, without reading them where that is possible.
func (c *cursor) skip(n uint64) error {
	if err := c.need(n); err != nil {
		return err
	}
	left := int64(n)
	if c.seek != nil && left > int64(c.buf.Buffered())+cursorBuffer {
		if _, err := c.seek.Seek(c.at+left, io.SeekStart); err != nil {
			return &readError{err}
		}
		c.buf.Reset(c.m)
		c.at += left
		return nil
	}
	for left > 0 {
		done, err := c.buf.Discard(int(min(left, 1<<30)))
		c.at += int64(done)
		left -= int64(done)
		if err != nil {
			return early(err)
		}
	}
	return nil
}

// line reads up to the next line feed and returns what precedes it. Of a line longer than keep
// bytes it returns only the beginning, and false. Where the bytes end without a line feed, their
// last one is taken for it, and behind them the line is empty, as Python's unpicklers have it.
func (c *cursor) line(keep int) ([]byte, bool, error) {
	var kept []byte
	whole := true
	for {
		p, err := c.buf.ReadSlice('\n')
		c.at += int64(len(p))
		ended := err == nil || errors.Is(err, io.EOF)
		if ended {
			p = p[:max(0, len(p)-1)]
		}
		if room := keep - len(kept); len(p) > room {
			p, whole = p[:room], false
		}
		kept = append(kept, p...)
		switch {
		case ended:
			return kept, whole, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, false, early(err)
		}
	}
}

func (c *cursor) u16() (uint16, error) {
	p, err := c.take(2)
	if err != nil {
		return 0, err
	}
	return c.ord.Uint16(p), nil
}

func (c *cursor) u32() (uint32, error) {
	p, err := c.take(4)
	if err != nil {
		return 0, err
	}
	return c.ord.Uint32(p), nil
}

func (c *cursor) u64() (uint64, error) {
	p, err := c.take(8)
	if err != nil {
		return 0, err
	}
	return c.ord.Uint64(p), nil
}

// early turns an end where there should be none into io.ErrUnexpectedEOF.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readAt fills p from r at off, charged to b.
func readAt(r io.ReaderAt, p []byte, off int64, b *budget) error {
	_, err := io.ReadFull(&meter{newDisk(r, off, int64(len(p))), b}, p)
	return early(err)
}
