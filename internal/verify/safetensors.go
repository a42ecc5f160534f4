package verify

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxSafetensorsHeader is the limit of the reference library.
const maxSafetensorsHeader = 100_000_000

// maxNumbers bounds the lists in a header; tensor libraries stop at 64 dimensions.
const maxNumbers = 1024

// A tensorSpan is where the header says that a tensor's bytes are, in the buffer after the header.
type tensorSpan struct {
	name       []byte
	begin, end uint64
}

// checkSafetensors applies the rules of the reference library: a bounded header of valid JSON,
// tensors that cover the buffer without hole or overlap, each as large as its shape says, and a file
// that ends exactly where the last one does.
func checkSafetensors(r io.ReaderAt, size int64, rep *report) {
	rep.checked("safetensors")
	if size < 8 {
		rep.add(Broken, "the file has %d bytes, less than the 8 of the header's length; it is cut short", size)
		return
	}
	b := &budget{8 + maxSafetensorsHeader}
	var length [8]byte
	if err := readAt(r, length[:], 0, b); err != nil {
		rep.fail("the header's length", err)
		return
	}
	n := binary.LittleEndian.Uint64(length[:])
	switch {
	case n == 0 || n > maxSafetensorsHeader:
		rep.add(Broken, "the header claims %d bytes, allowed are 1 to %d; this is not a safetensors file", n, maxSafetensorsHeader)
		return
	case n > uint64(size-8):
		rep.add(Broken, "the header claims %d bytes but only %d follow; the file is cut short or not a safetensors file", n, size-8)
		return
	}
	header := make([]byte, n) // the file is at least this large
	if err := readAt(r, header, 8, b); err != nil {
		rep.fail("the header", err)
		return
	}
	switch {
	case header[0] != '{':
		rep.add(Broken, "the header does not begin with {; this is not a safetensors file")
		return
	case !utf8.Valid(header):
		rep.add(Broken, "the header is not UTF-8; it is damaged")
		return
	case !json.Valid(header):
		rep.add(Broken, "the header is not valid JSON; it is damaged")
		return
	}
	tensors, err := tensorsOf(header, rep)
	if err != nil {
		rep.add(Broken, "the header: %v", err)
		return
	}
	checkDuplicates(tensors, rep)
	checkLayout(tensors, uint64(size-8)-n, rep)
}

// tensorsOf reads the header, which is known to be valid JSON. Faults of single tensors are
// reported; an error means that no more of the header makes sense.
func tensorsOf(header []byte, rep *report) ([]tensorSpan, error) {
	var tensors []tensorSpan
	hasMetadata := false
	j := &jsonText{text: header}
	err := j.members(func(key []byte) error {
		if string(key) != "__metadata__" {
			t, err := tensorOf(j, key, rep)
			if err != nil {
				return fmt.Errorf("tensor %s: %w", quote(key), err)
			}
			tensors = append(tensors, t)
			return nil
		}
		if hasMetadata {
			return errors.New("__metadata__ is there twice")
		}
		hasMetadata = true
		if j.peek() != '{' {
			return errors.New("__metadata__ is not an object")
		}
		return j.members(func(key []byte) error {
			if j.peek() != '"' {
				rep.add(Broken, "the header's __metadata__: %s is not a string, which loaders refuse", quote(key))
			}
			j.value()
			return nil
		})
	})
	return tensors, err
}

// tensorOf reads one {"dtype": …, "shape": […], "data_offsets": [begin, end]}.
func tensorOf(j *jsonText, name []byte, rep *report) (tensorSpan, error) {
	t := tensorSpan{name: name}
	if j.peek() != '{' {
		return t, errors.New("not described by an object")
	}
	var dtype []byte
	var shape, offsets []uint64
	err := j.members(func(key []byte) (err error) {
		switch string(key) {
		case "dtype":
			if dtype != nil || j.peek() != '"' {
				return errors.New("dtype is not one string")
			}
			dtype = unquote(j.value())
		case "shape":
			if shape != nil {
				return errors.New("shape is there twice")
			}
			shape, err = j.numbers()
		case "data_offsets":
			if offsets != nil {
				return errors.New("data_offsets is there twice")
			}
			offsets, err = j.numbers()
		default:
			j.value()
		}
		return err
	})
	switch {
	case err != nil:
		return t, err
	case dtype == nil || shape == nil || offsets == nil:
		return t, errors.New("dtype, shape or data_offsets is missing")
	case len(offsets) != 2:
		return t, fmt.Errorf("data_offsets has %d numbers, want begin and end", len(offsets))
	}
	t.begin, t.end = offsets[0], offsets[1]
	if t.end < t.begin {
		return t, fmt.Errorf("ends at byte %d of the buffer, before it begins at %d", t.end, t.begin)
	}
	width := dtypeBits(string(dtype))
	if width == 0 {
		rep.add(Unknown, "tensor %s has the dtype %s, which is not known here; its size was not checked", quote(name), quote(dtype))
		return t, nil
	}
	total := uint64(1)
	for _, dim := range append(shape, width) {
		hi, lo := bits.Mul64(total, dim)
		if hi != 0 {
			return t, errors.New("the shape has more elements than can be counted")
		}
		total = lo
	}
	if total%8 != 0 || total/8 != t.end-t.begin {
		rep.add(Broken, "tensor %s has %d bytes, but its shape and dtype %s need %d bits; the header is damaged",
			quote(name), t.end-t.begin, dtype, total)
		return t, nil
	}
	rep.weigh(total/width, t.end-t.begin)
	return t, nil
}

// dtypeBits is the width of one element, 0 for a dtype that is not known.
func dtypeBits(dtype string) uint64 {
	switch dtype {
	case "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ":
		return 8
	case "I16", "U16", "F16", "BF16":
		return 16
	case "I32", "U32", "F32":
		return 32
	case "I64", "U64", "F64", "C64":
		return 64
	case "F4":
		return 4
	case "F6_E2M3", "F6_E3M2":
		return 6
	}
	return 0
}

// checkDuplicates reports names that occur twice: parsers differ in which of the two they take.
func checkDuplicates(tensors []tensorSpan, rep *report) {
	slices.SortFunc(tensors, func(a, b tensorSpan) int { return bytes.Compare(a.name, b.name) })
	for i := 1; i < len(tensors); i++ {
		if bytes.Equal(tensors[i-1].name, tensors[i].name) {
			rep.add(Broken, "tensor %s is there twice; loaders differ in which one they read", quote(tensors[i].name))
		}
	}
}

// checkLayout demands that the tensors follow each other from 0 to the end of the buffer.
func checkLayout(tensors []tensorSpan, buffer uint64, rep *report) {
	slices.SortFunc(tensors, func(a, b tensorSpan) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end))
	})
	var covered uint64
	for _, t := range tensors {
		switch {
		case t.begin > covered:
			rep.add(Broken, "tensor %s begins at byte %d of the buffer, leaving a hole of %d bytes", quote(t.name), t.begin, t.begin-covered)
		case t.begin < covered:
			rep.add(Broken, "tensor %s begins at byte %d of the buffer, inside the tensor before it, which ends at %d", quote(t.name), t.begin, covered)
		}
		covered = max(covered, t.end)
	}
	switch {
	case covered > buffer:
		rep.add(Broken, "the tensors need %d bytes but only %d are there; the file is cut short by %d bytes", covered, buffer, covered-buffer)
	case covered < buffer:
		rep.add(Broken, "%d bytes follow the last tensor and belong to none; loaders refuse the file", buffer-covered)
	}
}

// A jsonText walks through JSON that json.Valid has accepted, so that it needs no errors of its
// own. The standard decoder is of no use here: it hides duplicate keys and copies every string.
type jsonText struct {
	text []byte
	at   int
}

// peek returns the first byte of the next token.
func (j *jsonText) peek() byte {
	for j.text[j.at] == ' ' || j.text[j.at] == '\n' || j.text[j.at] == '\t' || j.text[j.at] == '\r' {
		j.at++
	}
	return j.text[j.at]
}

// members walks the object that comes next. each is called with every key, and has to pass over
// the value.
func (j *jsonText) members(each func(key []byte) error) error {
	j.peek()
	for j.at++; j.peek() != '}'; {
		key := unquote(j.value())
		j.peek()
		j.at++ // the colon
		if err := each(key); err != nil {
			return err
		}
		if j.peek() == ',' {
			j.at++
		}
	}
	j.at++
	return nil
}

// numbers reads the array of non-negative integers that comes next; it is never nil without an error.
func (j *jsonText) numbers() ([]uint64, error) {
	if j.peek() != '[' {
		return nil, errors.New("a list of integers is expected")
	}
	list := []uint64{}
	for j.at++; j.peek() != ']'; {
		raw := j.value()
		n, err := strconv.ParseUint(string(raw), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not a non-negative integer", quote(raw))
		}
		if len(list) == maxNumbers {
			return nil, fmt.Errorf("a list of more than %d numbers", maxNumbers)
		}
		list = append(list, n)
		if j.peek() == ',' {
			j.at++
		}
	}
	j.at++
	return list, nil
}

// value passes over one value of any kind and returns its text.
func (j *jsonText) value() []byte {
	j.peek()
	begin, depth := j.at, 0
	for {
		switch j.peek() {
		case '{', '[':
			depth++
			j.at++
		case '}', ']':
			depth--
			j.at++
		case ',', ':':
			j.at++
			continue
		case '"':
			for j.at++; j.text[j.at] != '"'; j.at++ {
				if j.text[j.at] == '\\' {
					j.at++
				}
			}
			j.at++
		default: // a number or a word; the enclosing object ends it at the latest
			for strings.IndexByte(" \n\t\r,:]}", j.text[j.at]) < 0 {
				j.at++
			}
		}
		if depth == 0 {
			return j.text[begin:j.at]
		}
	}
}

// unquote returns the content of a JSON string, which is a part of the text unless it has escapes.
func unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	var s string
	_ = json.Unmarshal(raw, &s) // valid by now
	return []byte(s)
}
