package tier

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ema/internal/model"
)

const (
	// headerUnknown is kept of a file whose header has no known length.
	headerUnknown = int64(model.MiB)
	// headerMost is beyond any header: safetensors allows 100 MB, vocabularies in GGUF take some MiB.
	headerMost = int64(100_000_000)
)

// headerLength is how much of a file describes the rest. What it reads of it is in memory then.
func (c *Cache) headerLength(e extent) (int64, error) {
	f, err := c.Pages.Open(e.name)
	if err != nil {
		return 0, err
	}
	whole := e.file.Size()
	n, err := header(io.LimitReader(f, headerMost), whole)
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("read the header of %s: %w", e.name, err)
	}
	return min(n, whole), nil
}

// header is the length of the header of a file of some size, recognised by its first bytes, since
// blobs have no telling names. A file that only looks like one of a kind is taken for one of unknown kind.
func header(r io.Reader, size int64) (int64, error) {
	in := &counter{Reader: bufio.NewReaderSize(r, 64<<10)}
	head, err := in.Peek(9)
	switch {
	case err == io.EOF:
		return size, nil
	case err != nil:
		return 0, err
	case string(head[:4]) == "GGUF":
		if err := in.gguf(); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errStrange) {
			return headerUnknown, nil
		} else if err != nil {
			return 0, err
		}
		return in.n, nil
	case head[8] == '{':
		if n := binary.LittleEndian.Uint64(head); n <= uint64(min(headerMost, size-8)) {
			return 8 + int64(n), nil
		}
	}
	return headerUnknown, nil
}

// errStrange ends the walk through a header that no loader could read.
var errStrange = errors.New("this is not the header of a model")

// A counter knows how many bytes it has passed.
type counter struct {
	*bufio.Reader
	order binary.ByteOrder
	n     int64
}

// gguf passes the header of a GGUF file of version 2 or 3: keys and their values, then the
// descriptions of tensors. package verify judges such headers; here only the length counts.
func (c *counter) gguf() error {
	head, err := c.Peek(8)
	if err != nil {
		return err
	}
	c.order = binary.LittleEndian
	if head[4] == 0 && head[5] == 0 { // the version, a small number, comes in the order of all others
		c.order = binary.BigEndian
	}
	if err := c.pass(8); err != nil {
		return err
	}
	tensors, err := c.number(8)
	if err != nil {
		return err
	}
	keys, err := c.number(8)
	if err != nil {
		return err
	}
	for range keys {
		if err := c.text(); err != nil {
			return err
		}
		kind, err := c.number(4)
		if err != nil {
			return err
		}
		if err := c.value(kind, 0); err != nil {
			return err
		}
	}
	for range tensors {
		if err := c.text(); err != nil {
			return err
		}
		dimensions, err := c.number(4)
		if err != nil {
			return err
		}
		if err := c.passMany(dimensions, 8); err != nil {
			return err
		}
		if err := c.pass(4 + 8); err != nil { // type and offset
			return err
		}
	}
	return nil
}

// value passes a value of one of the thirteen kinds.
func (c *counter) value(kind uint64, depth int) error {
	const text, array = 8, 9
	widths := [...]uint64{1, 1, 2, 2, 4, 4, 4, 1, text: 0, array: 0, 8, 8, 8}
	switch {
	case kind >= uint64(len(widths)) || depth > 4:
		return errStrange
	case kind == text:
		return c.text()
	case kind != array:
		return c.pass(widths[kind])
	}
	kind, err := c.number(4)
	if err != nil {
		return err
	}
	n, err := c.number(8)
	if err != nil {
		return err
	}
	if kind < uint64(len(widths)) && widths[kind] > 0 {
		return c.passMany(n, widths[kind])
	}
	for range n {
		if err := c.value(kind, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (c *counter) text() error {
	n, err := c.number(8)
	if err != nil {
		return err
	}
	return c.pass(n)
}

// number reads one of four or eight bytes.
func (c *counter) number(width uint64) (uint64, error) {
	b, err := c.Peek(int(width))
	if err != nil {
		return 0, err
	}
	if width == 4 {
		return uint64(c.order.Uint32(b)), c.pass(width)
	}
	return c.order.Uint64(b), c.pass(width)
}

func (c *counter) passMany(n, width uint64) error {
	if n > uint64(headerMost) {
		return errStrange
	}
	return c.pass(n * width)
}

func (c *counter) pass(n uint64) error {
	if n > uint64(headerMost) {
		return errStrange
	}
	passed, err := c.Discard(int(n))
	c.n += int64(passed)
	return err
}
