package verify

import (
	"errors"
	"fmt"
	"math/bits"
	"regexp"
	"strconv"
	"strings"
)

// maxNpyHeader bounds the text that describes an array; numpy itself trusts no more than 10,000 bytes.
const maxNpyHeader = 32 << 10

const npyMagic = "\x93NUMPY"

// checkNpy checks the arrays of a .npy file: a header that describes type and shape, then as many
// bytes as they need, or a pickle if the type holds objects. Several arrays may follow each other.
func checkNpy(c *cursor, rep *report) {
	rep.checked("npy")
	for arrays := 0; arrays == 0 || c.left() > 0; arrays++ {
		begin := c.at
		a, err := readNpyHeader(c)
		switch {
		case err != nil && arrays > 0:
			rep.add(Suspicious, "byte %d: the bytes after %d arrays are no array: %v", begin, arrays, err)
			return
		case err != nil:
			rep.fail("the header", err)
			return
		case a.objects:
			rep.add(Suspicious, "byte %d: an array of Python objects; loading it runs a pickle", begin)
			checkPickle(c, surelyPickle, rep)
			rep.format = "npy"
			return
		case a.strange != "":
			rep.add(Suspicious, "byte %d: the array's type %s is not known here; if it holds objects, loading it runs a pickle", begin, quote(a.strange))
			return
		case a.size > uint64(c.left()):
			rep.add(Broken, "byte %d: the array needs %d bytes but only %d follow; the file is cut short", c.at, a.size, c.left())
			return
		case a.size == uint64(c.left()):
			return // nothing to learn from the elements, which in an archive cannot be skipped
		}
		if err := c.skip(a.size); err != nil {
			rep.fail("the array", err)
			return
		}
	}
}

// An npyArray is what a header says of its array.
type npyArray struct {
	size    uint64 // bytes
	objects bool   // the elements are Python objects, pickled
	strange string // a type that is not understood, if there is one
}

// readNpyHeader reads the magic, the version, and the Python dictionary that describes the array
// (numpy.lib.format, versions 1 to 3).
func readNpyHeader(c *cursor) (npyArray, error) {
	var a npyArray
	p, err := c.take(len(npyMagic) + 2)
	if err != nil {
		return a, err
	}
	if string(p[:len(npyMagic)]) != npyMagic {
		return a, errors.New("it does not begin as a numpy array does")
	}
	version, n := p[len(npyMagic)], uint64(0)
	switch version {
	case 1:
		short, e := c.u16()
		n, err = uint64(short), e
	case 2, 3:
		long, e := c.u32()
		n, err = uint64(long), e
	default:
		return a, fmt.Errorf("version %d does not exist", version)
	}
	if err != nil {
		return a, err
	}
	if n > maxNpyHeader {
		return a, fmt.Errorf("%d bytes, more than any array needs", n)
	}
	text, err := c.take(int(n))
	if err != nil {
		return a, err
	}
	value, err := parsePython(string(text))
	if err != nil {
		return a, fmt.Errorf("not a Python dictionary: %w", err)
	}
	fields, ok := value.(pythonDict)
	if !ok || len(fields) != 3 || fields["descr"] == nil || fields["shape"] == nil {
		return a, errors.New("want a dictionary of descr, fortran_order and shape")
	}
	width := a.width(fields["descr"])
	count, err := elements(fields["shape"])
	if err != nil {
		return a, err
	}
	hi, size := bits.Mul64(count, width)
	if hi != 0 {
		return a, errors.New("an array larger than any file")
	}
	a.size = size
	return a, nil
}

// plainType matches the types whose size their name tells: byte order, kind, width, unit of time.
var plainType = regexp.MustCompile(`^[<>|=]?([biufcmMSUVa])([0-9]{1,9})(\[[0-9A-Za-z/]+\])?$`)

// width is the size of one element of the type that descr describes: a string, a subarray
// (type, shape), or a list of fields (name, type[, shape]).
func (a *npyArray) width(descr any) uint64 {
	switch d := descr.(type) {
	case string:
		if m := plainType.FindStringSubmatch(d); m != nil {
			n, _ := strconv.ParseUint(m[2], 10, 32) // nine digits at most
			if m[1] == "U" {
				n *= 4
			}
			return n
		}
		if kind := strings.TrimLeft(d, "<>|="); strings.HasPrefix(kind, "O") {
			a.objects = true
			return 8
		}
		if d == "?" || d == "|?" {
			return 1
		}
		a.strange = d
	case pythonTuple:
		if len(d) == 2 {
			return a.times(d[0], d[1])
		}
		a.strange = "tuple"
	case pythonList:
		var sum uint64
		for _, field := range d {
			f, ok := field.(pythonTuple)
			switch {
			case ok && len(f) == 2:
				sum += a.width(f[1])
			case ok && len(f) == 3:
				sum += a.times(f[1], f[2])
			default:
				a.strange = "list"
			}
		}
		return sum
	default:
		a.strange = fmt.Sprintf("%T", d)
	}
	return 0
}

// times is the width of a subarray.
func (a *npyArray) times(descr, shape any) uint64 {
	n, err := elements(shape)
	hi, width := bits.Mul64(n, a.width(descr))
	if err != nil || hi != 0 || width > 1<<40 {
		a.strange = "subarray"
		return 0
	}
	return width
}

// elements is the product of a shape: a tuple of numbers, or one number.
func elements(shape any) (uint64, error) {
	if n, ok := shape.(uint64); ok {
		return n, nil
	}
	dims, ok := shape.(pythonTuple)
	if !ok {
		return 0, errors.New("the shape is not a tuple")
	}
	product := uint64(1)
	for _, dim := range dims {
		n, ok := dim.(uint64)
		if !ok {
			return 0, errors.New("the shape has something else than numbers")
		}
		hi, lo := bits.Mul64(product, n)
		if hi != 0 {
			return 0, errors.New("the shape has more elements than can be counted")
		}
		product = lo
	}
	return product, nil
}
