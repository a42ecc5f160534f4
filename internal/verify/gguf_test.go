package verify

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"slices"
	"strings"
	"testing"
)

// A ggufWriter writes GGUF headers, right ones and wrong ones.
type ggufWriter struct {
	bytes.Buffer
	ord binary.AppendByteOrder
}

func (w *ggufWriter) u32(v uint32) *ggufWriter { w.Write(w.ord.AppendUint32(nil, v)); return w }
func (w *ggufWriter) u64(v uint64) *ggufWriter { w.Write(w.ord.AppendUint64(nil, v)); return w }
func (w *ggufWriter) str(s string) *ggufWriter { w.u64(uint64(len(s))); w.WriteString(s); return w }

func (w *ggufWriter) tensor(name string, kind uint32, offset uint64, dims ...uint64) *ggufWriter {
	w.str(name).u32(uint32(len(dims)))
	for _, d := range dims {
		w.u64(d)
	}
	return w.u32(kind).u64(offset)
}

// data pads to 32 and appends n bytes.
func (w *ggufWriter) data(n int) []byte {
	for w.Len()%32 != 0 {
		w.WriteByte(0)
	}
	w.Write(make([]byte, n))
	return w.Bytes()
}

func newGGUF(version uint32, tensors, keys uint64) *ggufWriter {
	w := &ggufWriter{ord: binary.LittleEndian}
	w.WriteString("GGUF")
	return w.u32(version).u64(tensors).u64(keys)
}

// knownGGUF is the example of the format's reference: 144 bytes, one F32 tensor of four elements.
func knownGGUF(t testing.TB) []byte {
	t.Helper()
	data, err := hex.DecodeString("4747554603000000010000000000000001000000000000001400000000000000" +
		"67656e6572616c2e617263686974656374757265" + "0800000005000000000000006c6c616d61" +
		"01000000000000007401000000040000000000000000000000" + "0000000000000000" +
		strings.Repeat("00", 26) + "0000803f000000400000404000008040")
	if err != nil {
		t.Fatal(err)
	}
	if len(data) != 144 {
		t.Fatalf("the example has %d bytes", len(data))
	}
	return data
}

func TestGGUF(t *testing.T) {
	big := &ggufWriter{ord: binary.BigEndian}
	big.WriteString("GGUF")
	big.u32(3).u64(1).u64(1).str("k").u32(8).str("v").tensor("t", 0, 0, 4)
	twoTensors := func(second uint64) []byte {
		return newGGUF(3, 2, 0).tensor("a", 8, 0, 32).tensor("b", 0, second, 2, 2).data(64 + 16)
	}
	for promise, c := range map[string]struct {
		data  []byte
		want  Verdict
		words string
	}{
		"the reference's example is sound":      {knownGGUF(t), OK, ""},
		"version 2 is sound":                    {newGGUF(2, 1, 0).tensor("t", 0, 0, 4).data(16), OK, ""},
		"big-endian files are read":             {big.data(16), OK, ""},
		"big-endian files are checked":          {big.data(0)[:big.Len()-17], Broken, "cut short"},
		"a vocabulary without tensors is sound": {newGGUF(3, 0, 1).str("k").u32(2).u32(7).Bytes()[:39], OK, ""},
		"arrays of all widths are passed over": {func() []byte {
			w := newGGUF(3, 0, 3).str("a").u32(9).u32(5).u64(3).u32(1).u32(2).u32(3)
			w.str("b").u32(9).u32(8).u64(2).str("x").str("yy")
			return w.str("c").u32(12).u64(0).Bytes()
		}(), OK, ""},
		"padding between tensors is kept":         {twoTensors(64), OK, ""},
		"a tensor that leaves a hole is refused":  {twoTensors(96), Broken, "want 64"},
		"a tensor inside another is refused":      {twoTensors(32), Broken, "want 64"},
		"a missing byte is found":                 {knownGGUF(t)[:143], Broken, "cut short"},
		"an end inside the keys is found":         {knownGGUF(t)[:60], Broken, "cut short"},
		"another magic is refused":                {[]byte("GGML\x03\x00\x00\x00"), Broken, "GGUF"},
		"version 1 is refused":                    {newGGUF(1, 0, 0).Bytes(), Broken, "version 1"},
		"version 4 is refused":                    {newGGUF(4, 0, 0).Bytes(), Broken, "version 4"},
		"more tensors than bytes are refused":     {newGGUF(3, 1<<40, 0).Bytes(), Broken, "tensors"},
		"more keys than bytes are refused":        {newGGUF(3, 0, 1<<63).Bytes(), Broken, "keys"},
		"a key beyond the file is refused":        {append(newGGUF(3, 0, 1).u64(60000).Bytes(), make([]byte, 13)...), Broken, "cut short"},
		"a key longer than allowed is refused":    {append(newGGUF(3, 0, 1).u64(1<<62).Bytes(), make([]byte, 13)...), Broken, "allowed are 65535"},
		"an empty key is refused":                 {newGGUF(3, 0, 1).str("").u32(4).u32(1).Bytes(), Broken, "empty name"},
		"a key twice is refused":                  {newGGUF(3, 0, 2).str("k").u32(4).u32(1).str("k").u32(4).u32(1).Bytes(), Broken, "twice"},
		"a value type that is not is refused":     {newGGUF(3, 0, 1).str("k").u32(13).u32(1).Bytes(), Broken, "value type 13"},
		"a string beyond all is refused":          {newGGUF(3, 0, 1).str("k").u32(8).u64(1 << 63).Bytes(), Broken, "string of"},
		"an array of arrays is refused":           {newGGUF(3, 0, 1).str("k").u32(9).u32(9).u64(1).Bytes(), Broken, "array of arrays"},
		"an array beyond the file is refused":     {newGGUF(3, 0, 1).str("k").u32(9).u32(10).u64(1 << 62).Bytes(), Broken, "room"},
		"strings beyond the file are refused":     {newGGUF(3, 0, 1).str("k").u32(9).u32(8).u64(1 << 61).Bytes(), Broken, "room"},
		"an alignment of 0 is refused":            {newGGUF(3, 0, 1).str("general.alignment").u32(4).u32(0).Bytes(), Broken, "power of two"},
		"an alignment of 48 is refused":           {newGGUF(3, 0, 1).str("general.alignment").u32(4).u32(48).Bytes(), Broken, "power of two"},
		"an alignment as text is refused":         {newGGUF(3, 0, 1).str("general.alignment").u32(8).str("32").Bytes(), Broken, "u32"},
		"an alignment of its own is kept":         {newGGUF(3, 2, 1).str("general.alignment").u32(4).u32(8).tensor("a", 24, 0, 3).tensor("b", 24, 8, 1).data(9), OK, ""},
		"five dimensions are refused":             {newGGUF(3, 1, 0).tensor("t", 0, 0, 1, 1, 1, 1, 1).data(4), Broken, "5 dimensions"},
		"a negative dimension is refused":         {newGGUF(3, 1, 0).tensor("t", 0, 0, 1<<63).data(4), Broken, "counted"},
		"dimensions beyond counting are refused":  {newGGUF(3, 1, 0).tensor("t", 0, 0, 1<<40, 1<<40).data(4), Broken, "counted"},
		"half a block is refused":                 {newGGUF(3, 1, 0).tensor("t", 12, 0, 128).data(144), Broken, "multiple of its type's 256"},
		"a name of 64 bytes is refused":           {newGGUF(3, 1, 0).tensor(strings.Repeat("n", 64), 0, 0, 1).data(4), Broken, "allowed are 63"},
		"a tensor twice is refused":               {newGGUF(3, 3, 0).tensor("t", 0, 0, 1).tensor("a", 0, 32, 1).tensor("t", 0, 64, 1).data(68), Broken, "twice"},
		"a first offset that is not 0 is refused": {newGGUF(3, 1, 0).tensor("t", 0, 32, 1).data(36), Broken, "want 0"},
		"a type of tomorrow cannot be checked":    {newGGUF(3, 2, 0).tensor("t", 99, 0, 8).tensor("u", 0, 64, 1).data(68), Unknown, "type 99"},
		"after it, tensors must still fit":        {newGGUF(3, 2, 0).tensor("t", 99, 0, 8).tensor("u", 0, 64, 1).data(67), Broken, "cut short"},
		"after it, tensors must still be aligned": {newGGUF(3, 2, 0).tensor("t", 99, 0, 8).tensor("u", 0, 63, 1).data(67), Broken, "multiple of 32"},
		"a retired type cannot be checked":        {newGGUF(3, 1, 0).tensor("t", 31, 0, 32).data(18), Unknown, "type 31"},
	} {
		t.Run(promise, func(t *testing.T) {
			wantVerdict(t, check("model.gguf", c.data), c.want, c.words)
		})
	}
}

func TestGGUFIsKnownByItsMagic(t *testing.T) {
	if f := check("llava.bin", knownGGUF(t)); f.Format != "gguf" || f.Verdict != OK {
		t.Errorf("finding = %+v", f)
	}
}

// A sparse is a file of any size that consists of a beginning and a pattern repeated; it counts what
// is read of it.
type sparse struct {
	head, pattern []byte
	size, read    int64
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.size-off))
	for done := 0; done < n; {
		at, from := off+int64(done), s.head
		if at >= int64(len(s.head)) {
			at = (at - int64(len(s.head))) % int64(len(s.pattern))
			from = s.pattern
		}
		done += copy(p[done:n], from[at:])
	}
	s.read += int64(n)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestHeaderChecksOfHugeFilesReadHeadersOnly(t *testing.T) {
	const size = 60 << 30
	header := `{"a":{"dtype":"U8","shape":[64424509440],"data_offsets":[0,64424509440]}}`
	zeros := make([]byte, 64<<10)
	st := &sparse{head: safetensors(header, 0), pattern: zeros, size: int64(8+len(header)) + size}
	gg := &sparse{head: newGGUF(3, 1, 0).tensor("t", 24, 0, size-64).data(0), pattern: zeros, size: size}
	for name, s := range map[string]*sparse{"m.safetensors": st, "m.gguf": gg} {
		f := Structure(name, s, s.size)
		if f.Verdict != OK || s.read > 64<<10 {
			t.Errorf("%s: %+v after %d bytes", name, f, s.read)
		}
	}
}

func TestHostileHugeFilesStopAtTheBudget(t *testing.T) {
	const size = 60 << 30
	for name, s := range map[string]*sparse{
		// strings just too large to be skipped within the buffer
		"m.gguf": {head: newGGUF(3, 0, 1).str("k").u32(9).u32(8).u64(1 << 20).Bytes(), pattern: append(binary.LittleEndian.AppendUint64(nil, 100_000), make([]byte, 100_000)...), size: size},
		// one pickle after another
		"m.pkl": {pattern: []byte("\x80\x04X\xf0\x01\x00\x00" + strings.Repeat("x", 0x1f0) + "0N."), size: size},
		"m.bin": {head: []byte("\x80\x04I"), pattern: bytes.Repeat([]byte("1"), 64<<10), size: size},
	} {
		t.Run(name, func(t *testing.T) {
			f := Structure(name, s, s.size)
			if f.Verdict < Unknown || s.read > headerBudget+headSize {
				t.Errorf("%+v after %d bytes", f, s.read)
			}
		})
	}
}

func TestBlocksOfEveryType(t *testing.T) {
	type ggmlType struct {
		id              uint32
		name            string
		elements, bytes uint64
	}
	types := []ggmlType{
		{0, "F32", 1, 4},
		{1, "F16", 1, 2},
		{2, "Q4_0", 32, 18},
		{3, "Q4_1", 32, 20},
		{6, "Q5_0", 32, 22},
		{7, "Q5_1", 32, 24},
		{8, "Q8_0", 32, 34},
		{9, "Q8_1", 32, 36},
		{10, "Q2_K", 256, 84},
		{11, "Q3_K", 256, 110},
		{12, "Q4_K", 256, 144},
		{13, "Q5_K", 256, 176},
		{14, "Q6_K", 256, 210},
		{15, "Q8_K", 256, 292},
		{16, "IQ2_XXS", 256, 66},
		{17, "IQ2_XS", 256, 74},
		{18, "IQ3_XXS", 256, 98},
		{19, "IQ1_S", 256, 50},
		{20, "IQ4_NL", 32, 18},
		{21, "IQ3_S", 256, 110},
		{22, "IQ2_S", 256, 82},
		{23, "IQ4_XS", 256, 136},
		{24, "I8", 1, 1},
		{25, "I16", 1, 2},
		{26, "I32", 1, 4},
		{27, "I64", 1, 8},
		{28, "F64", 1, 8},
		{29, "IQ1_M", 256, 56},
		{30, "BF16", 1, 2},
		{34, "TQ1_0", 256, 54},
		{35, "TQ2_0", 256, 66},
		{39, "MXFP4", 32, 17},
		{40, "NVFP4", 64, 36},
		{41, "Q1_0", 128, 18},
		{42, "Q2_0", 64, 18},
	}
	for _, typ := range types {
		data := newGGUF(3, 1, 0).tensor("t", typ.id, 0, 3*typ.elements).data(int(3 * typ.bytes))
		t.Run(typ.name, func(t *testing.T) {
			wantVerdict(t, check("m.gguf", data), OK)
			wantVerdict(t, check("m.gguf", data[:len(data)-1]), Broken, "cut short")
			if typ.elements > 1 {
				half := newGGUF(3, 1, 0).tensor("t", typ.id, 0, 3*typ.elements-typ.elements/2).data(int(3 * typ.bytes))
				wantVerdict(t, check("m.gguf", half), Broken, "multiple of")
			}
		})
	}
	for id := range uint32(60) {
		known := slices.ContainsFunc(types, func(typ ggmlType) bool { return typ.id == id })
		if n, _ := ggmlBlock(id); (n > 0) != known {
			t.Errorf("type %d: known = %v, want %v", id, n > 0, known)
		}
	}
}
