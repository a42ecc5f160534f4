package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Limits of a GGUF header. The format has none; these are far above what models have, and every
// count is checked against the bytes that are left before.
const (
	maxGGUFKeys    = 100_000
	maxGGUFTensors = 10_000_000
	maxGGUFKey     = 65535
	maxGGUFName    = 63 // GGML_MAX_NAME counts the NUL
	maxGGUFDims    = 4
	maxGGUFString  = 10_000_000
)

// The value types of GGUF keys that need to be told apart.
const (
	ggufU32    = 4
	ggufString = 8
	ggufArray  = 9
)

// A ggufHeader is what the walk through a header remembers.
type ggufHeader struct {
	c         *cursor
	rep       *report
	alignment uint64
	keys      map[string]struct{}
	names     []string // of tensors; sorted at the end, which takes less room than a map
	next      uint64   // where the next tensor's data has to begin
	exact     bool     // next is known; not so after a tensor of unknown type
	end       uint64   // where the data ends, without the padding after it
}

// checkGGUF walks the header as llama.cpp's loader does: unique keys, unique names, known types,
// whole blocks, and data that follows in the listed order, each tensor aligned, all inside the file.
func checkGGUF(c *cursor, rep *report) {
	rep.checked("gguf")
	h := &ggufHeader{c: c, rep: rep, alignment: 32, keys: map[string]struct{}{}, exact: true}
	tensors, keys, err := h.start()
	if err != nil {
		rep.fail("the header", err)
		return
	}
	for i := range keys {
		if err := h.key(); err != nil {
			rep.fail(fmt.Sprintf("key %d of %d, before byte %d", i+1, keys, c.at), err)
			return
		}
	}
	for i := range tensors {
		if err := h.tensor(); err != nil {
			rep.fail(fmt.Sprintf("description %d of %d tensors, before byte %d", i+1, tensors, c.at), err)
			return
		}
	}
	slices.Sort(h.names)
	for i := 1; i < len(h.names); i++ {
		if h.names[i-1] == h.names[i] {
			rep.add(Broken, "tensor %s is there twice; loaders refuse the file", quote(h.names[i]))
		}
	}
	if tensors == 0 {
		return // a vocabulary alone: no data, and no padding before it
	}
	start, ok := roundUp(uint64(c.at), h.alignment)
	if whole := start + h.end; !ok || whole < start || whole > uint64(c.end) {
		rep.add(Broken, "the tensors end at byte %d but the file at %d; it is cut short", start+h.end, c.end)
	}
}

// start reads magic, version and counts, and settles the byte order.
func (h *ggufHeader) start() (tensors, keys uint64, err error) {
	magic, err := h.c.take(4)
	if err != nil {
		return 0, 0, err
	}
	if string(magic) != "GGUF" {
		return 0, 0, fmt.Errorf("begins with %q instead of GGUF; this is not a GGUF file", magic)
	}
	version, err := h.c.u32()
	if err != nil {
		return 0, 0, err
	}
	if version&0xffff == 0 { // the magic reads alike in both orders; the version does not
		h.c.ord = binary.BigEndian
		version = bits.ReverseBytes32(version)
	}
	if version != 2 && version != 3 {
		return 0, 0, fmt.Errorf("version %d, but loaders read versions 2 and 3", version)
	}
	if tensors, err = h.c.u64(); err != nil {
		return 0, 0, err
	}
	if keys, err = h.c.u64(); err != nil {
		return 0, 0, err
	}
	// The least that a tensor's description and a key take.
	if tensors > maxGGUFTensors || tensors > uint64(h.c.left())/24 {
		return 0, 0, fmt.Errorf("claims %d tensors, more than the file has room for or loaders bear", tensors)
	}
	if keys > maxGGUFKeys || keys > uint64(h.c.left())/13 {
		return 0, 0, fmt.Errorf("claims %d keys, more than the file has room for or loaders bear", keys)
	}
	return tensors, keys, nil
}

// key reads one key and passes over its value.
func (h *ggufHeader) key() error {
	name, err := h.text(maxGGUFKey)
	if err != nil {
		return err
	}
	if name == "" {
		return errors.New("an empty name")
	}
	if _, twice := h.keys[name]; twice {
		return fmt.Errorf("%s is there twice; loaders refuse the file", quote(name))
	}
	h.keys[name] = struct{}{}
	kind, err := h.c.u32()
	if err != nil {
		return err
	}
	if name == "general.alignment" {
		return h.align(kind)
	}
	if name == "general.architecture" && kind == ggufString {
		h.rep.architecture, err = h.text(maxGGUFKey)
		return err
	}
	if err := h.value(kind); err != nil {
		return fmt.Errorf("%s: %w", quote(name), err)
	}
	return nil
}

func (h *ggufHeader) align(kind uint32) error {
	if kind != ggufU32 {
		return fmt.Errorf("general.alignment has the value type %d, want a u32", kind)
	}
	v, err := h.c.u32()
	if err != nil {
		return err
	}
	if bits.OnesCount32(v) != 1 {
		return fmt.Errorf("general.alignment is %d, want a power of two", v)
	}
	h.alignment = uint64(v)
	return nil
}

func (h *ggufHeader) value(kind uint32) error {
	switch kind {
	case ggufString:
		return h.pass()
	case ggufArray:
		return h.array()
	}
	width := ggufWidth(kind)
	if width == 0 {
		return fmt.Errorf("value type %d does not exist", kind)
	}
	return h.c.skip(width)
}

func (h *ggufHeader) array() error {
	kind, err := h.c.u32()
	if err != nil {
		return err
	}
	count, err := h.c.u64()
	if err != nil {
		return err
	}
	switch width := ggufWidth(kind); {
	case kind == ggufArray:
		return errors.New("an array of arrays, which loaders refuse")
	case kind == ggufString:
		if hi, least := bits.Mul64(count, 8); hi != 0 || h.c.need(least) != nil {
			return fmt.Errorf("an array of %d strings, more than the file has room for", count)
		}
		for range count {
			if err := h.pass(); err != nil {
				return err
			}
		}
		return nil
	case width == 0:
		return fmt.Errorf("an array of value type %d, which does not exist", kind)
	default:
		hi, size := bits.Mul64(count, width)
		if hi != 0 || h.c.need(size) != nil {
			return fmt.Errorf("an array of %d elements, more than the file has room for", count)
		}
		return h.c.skip(size)
	}
}

// text reads a string of at most most bytes.
func (h *ggufHeader) text(most int) (string, error) {
	n, err := h.c.u64()
	if err != nil {
		return "", err
	}
	if n > uint64(most) {
		return "", fmt.Errorf("a name of %d bytes, allowed are %d", n, most)
	}
	out := make([]byte, 0, min(n, cursorBuffer))
	for rest := int(n); rest > 0; {
		p, err := h.c.take(min(rest, cursorBuffer))
		if err != nil {
			return "", err
		}
		out = append(out, p...)
		rest -= len(p)
	}
	return string(out), nil
}

// pass passes over a string.
func (h *ggufHeader) pass() error {
	n, err := h.c.u64()
	if err != nil {
		return err
	}
	if n > maxGGUFString {
		return fmt.Errorf("a string of %d bytes, allowed are %d", n, maxGGUFString)
	}
	return h.c.skip(n)
}

// tensor reads the description of one tensor and checks it against those before.
func (h *ggufHeader) tensor() error {
	name, err := h.text(maxGGUFName)
	if err != nil {
		return err
	}
	h.names = append(h.names, name)
	dims, err := h.c.u32()
	if err != nil {
		return err
	}
	if dims > maxGGUFDims {
		return fmt.Errorf("tensor %s has %d dimensions, allowed are %d", quote(name), dims, maxGGUFDims)
	}
	elements, first := uint64(1), uint64(1)
	for i := range dims {
		dim, err := h.c.u64()
		if err != nil {
			return err
		}
		if i == 0 {
			first = dim
		}
		hi, product := bits.Mul64(elements, dim)
		if hi != 0 || dim > math.MaxInt64 || product > math.MaxInt64 {
			return fmt.Errorf("tensor %s has more elements than can be counted", quote(name))
		}
		elements = product
	}
	kind, err := h.c.u32()
	if err != nil {
		return err
	}
	offset, err := h.c.u64()
	if err != nil {
		return err
	}
	return h.place(name, kind, elements, first, offset)
}

// place checks that a tensor's data lies where the data before it ended.
func (h *ggufHeader) place(name string, kind uint32, elements, first, offset uint64) error {
	switch {
	case h.exact && offset != h.next:
		return fmt.Errorf("tensor %s has its data at offset %d, want %d, where the data before it ends", quote(name), offset, h.next)
	case offset < h.next || offset%h.alignment != 0:
		return fmt.Errorf("tensor %s has its data at offset %d, which is taken or not a multiple of %d", quote(name), offset, h.alignment)
	}
	blockElements, blockBytes := ggmlBlock(kind)
	if blockBytes == 0 {
		// New types appear every few months, and old ones were given up: neither is damage.
		h.rep.add(Unknown, "tensor %s has the ggml type %d, which is not known here; its size was not checked", quote(name), kind)
		h.next, h.exact = offset, false
		h.end = max(h.end, offset)
		return nil
	}
	if first%blockElements != 0 {
		return fmt.Errorf("tensor %s has rows of %d elements, not a multiple of its type's %d", quote(name), first, blockElements)
	}
	hi, size := bits.Mul64(elements/blockElements, blockBytes)
	end := offset + size
	next, ok := roundUp(end, h.alignment)
	if hi != 0 || end < offset || !ok {
		return fmt.Errorf("tensor %s is larger than any file", quote(name))
	}
	h.next, h.exact = next, true
	h.end = max(h.end, end)
	h.rep.weigh(elements, size)
	return nil
}

// roundUp returns the smallest multiple of a power of two that is not below n, and false where
// there is none in 64 bits.
func roundUp(n, to uint64) (uint64, bool) {
	up := (n + to - 1) &^ (to - 1)
	return up, up >= n
}

// ggufWidth is the size of a value of fixed size, 0 for strings, arrays and types that do not exist.
func ggufWidth(kind uint32) uint64 {
	widths := [...]uint64{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}
	if int64(kind) < int64(len(widths)) {
		return widths[kind]
	}
	return 0
}

// ggmlBlock gives the elements and the bytes of one block of a ggml type; zeros for a type that is
// retired or not known.
func ggmlBlock(kind uint32) (elements, bytes uint64) {
	switch kind {
	case 0, 26: // F32, I32
		return 1, 4
	case 1, 25, 30: // F16, I16, BF16
		return 1, 2
	case 24: // I8
		return 1, 1
	case 27, 28: // I64, F64
		return 1, 8
	case 2, 20: // Q4_0, IQ4_NL
		return 32, 18
	case 3: // Q4_1
		return 32, 20
	case 6: // Q5_0
		return 32, 22
	case 7: // Q5_1
		return 32, 24
	case 8: // Q8_0
		return 32, 34
	case 9: // Q8_1
		return 32, 36
	case 10: // Q2_K
		return 256, 84
	case 11, 21: // Q3_K, IQ3_S
		return 256, 110
	case 12: // Q4_K
		return 256, 144
	case 13: // Q5_K
		return 256, 176
	case 14: // Q6_K
		return 256, 210
	case 15: // Q8_K
		return 256, 292
	case 16, 35: // IQ2_XXS, TQ2_0
		return 256, 66
	case 17: // IQ2_XS
		return 256, 74
	case 18: // IQ3_XXS
		return 256, 98
	case 19: // IQ1_S
		return 256, 50
	case 22: // IQ2_S
		return 256, 82
	case 23: // IQ4_XS
		return 256, 136
	case 29: // IQ1_M
		return 256, 56
	case 34: // TQ1_0
		return 256, 54
	case 39: // MXFP4
		return 32, 17
	case 40: // NVFP4
		return 64, 36
	case 41: // Q1_0
		return 128, 18
	case 42: // Q2_0
		return 64, 18
	}
	return 0, 0
}
