package verify

import (
	"encoding/binary"
	"strings"
	"testing"
)

// npy makes a version 1 file from the text of its header.
func npy(header string, data int) string {
	return npyMagic + "\x01\x00" + string(binary.LittleEndian.AppendUint16(nil, uint16(len(header)))) + header + strings.Repeat("\x00", data)
}

func TestNpy(t *testing.T) {
	header := func(descr, shape string) string {
		return "{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + ", }   \n"
	}
	long := npyMagic + "\x02\x00" + "\x40\x00\x00\x00" + (header("'<f4'", "(2,)") + strings.Repeat(" ", 64))[:64]
	objects := npy(header("'|O'", "(1,)"), 0)
	for promise, c := range map[string]struct {
		data  string
		want  Verdict
		words string
	}{
		"an array of floats is sound":           {npy(header("'<f4'", "(3, 4)"), 48), OK, ""},
		"a scalar is sound":                     {npy(header("'<i8'", "()"), 8), OK, ""},
		"a shape without comma is one number":   {npy(header("'|u1'", "(5)"), 5), OK, ""},
		"numbers of Python 2 are read":          {npy(header("'|u1'", "(2L, 3L)"), 6), OK, ""},
		"text has four bytes a letter":          {npy(header("'<U3'", "(2,)"), 24), OK, ""},
		"times have a unit":                     {npy(header("'<M8[25s]'", "(2,)"), 16), OK, ""},
		"fields add up":                         {npy(header("[('a', '<f4'), (('title', 'b'), '|u1', (2, 2))]", "(3,)"), 24), OK, ""},
		"version 2 is read":                     {long + "12345678", OK, ""},
		"two arrays may follow each other":      {npy(header("'|u1'", "(2,)"), 2) + npy(header("'|u1'", "(2,)"), 2), OK, ""},
		"a missing byte is found":               {npy(header("'<f4'", "(3, 4)"), 47), Broken, "needs 48 bytes but only 47"},
		"a missing header is found":             {npy(header("'<f4'", "(3, 4)"), 0)[:30], Broken, "cut short"},
		"other bytes behind it are suspicious":  {npy(header("'|u1'", "(2,)"), 9), Suspicious, "no array"},
		"harmless objects stay suspicious":      {objects + harmlessPickle, Suspicious, "runs a pickle"},
		"dangerous objects are found":           {objects + dangerousPickle, Dangerous, `"os"`},
		"objects in a field are found":          {npy(header("[('a', '<f4'), ('b', [('c', '|O')])]", "(1,)"), 0) + dangerousPickle, Dangerous, `"os"`},
		"objects in a second array are found":   {npy(header("'|u1'", "(2,)"), 2) + objects + dangerousPickle, Dangerous, `"os"`},
		"a type that hides objects is told":     {npy(header("'i4,O'", "(1,)"), 12), Suspicious, "not known here"},
		"a shape beyond counting is refused":    {npy(header("'<f4'", "(4294967296, 4294967296)"), 0), Broken, "counted"},
		"an array beyond any file is refused":   {npy(header("'<f8'", "(18446744073709551615,)"), 0), Broken, "larger than any"},
		"a negative shape is refused":           {npy(header("'<f4'", "(-1,)"), 0), Broken, "dictionary"},
		"code instead of a header is refused":   {npy("__import__('os').getpid()", 0), Broken, "dictionary"},
		"a header that is a list is refused":    {npy("[1, 2]", 0), Broken, "want a dictionary"},
		"deep nesting is refused":               {npy(strings.Repeat("(", 40), 0), Broken, "nested"},
		"a version that does not exist is told": {npyMagic + "\x09\x00\x00\x00", Broken, "version 9"},
		"a header of a gigabyte is refused":     {npyMagic + "\x02\x00\x00\x00\x00\x40", Broken, "more than any array"},
	} {
		t.Run(promise, func(t *testing.T) {
			wantVerdict(t, check("x.npy", []byte(c.data)), c.want, c.words)
			npz := check("x.npz", zipFile(t, zipPart{name: "arr_0.npy", data: c.data, method: zipDeflated}))
			wantVerdict(t, npz, c.want, c.words)
			if npz.Format != "npz" {
				t.Errorf("format = %q", npz.Format)
			}
		})
	}
}
