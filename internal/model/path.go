package model

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of file names, as Linux file systems have them.
const (
	maxSegment = 255  // bytes in one name
	maxPath    = 4000 // bytes in a whole path, leaving room for the store's own folder in PATH_MAX
)

// ErrUnsafePath is what CheckPath wraps: a name that a source must not be allowed to give a file.
var ErrUnsafePath = errors.New("unsafe file name")

// CheckPath says whether a path that a source gave may become a file below a folder of ours.
// Refused are empty and absolute paths, "." and ".." segments, NUL and other control characters,
// backslashes and drive letters (they are separators elsewhere), invalid UTF-8, and names longer
// than file systems hold. Two dots inside a name are legal.
func CheckPath(p string) error {
	refuse := func(why string) error { return fmt.Errorf("%w %q: %s", ErrUnsafePath, clip(p), why) }
	switch {
	case p == "":
		return refuse("it is empty")
	case len(p) > maxPath:
		return refuse("it is longer than 4000 bytes")
	case p[0] == '/':
		return refuse("it is absolute")
	case !utf8.ValidString(p):
		return refuse("it is not UTF-8")
	case strings.ContainsRune(p, '\\'):
		return refuse("it contains a backslash")
	case len(p) > 1 && p[1] == ':':
		return refuse("it begins like a drive letter")
	}
	for i := range len(p) {
		if p[i] < 0x20 || p[i] == 0x7f {
			return refuse("it contains a control character")
		}
	}
	for seg := range strings.SplitSeq(p, "/") {
		switch {
		case seg == "":
			return refuse("it has an empty segment")
		case seg == "." || seg == "..":
			return refuse("it has a segment " + seg)
		case len(seg) > maxSegment:
			return refuse("a segment is longer than 255 bytes")
		}
	}
	return nil
}
