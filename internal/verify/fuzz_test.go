package verify

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"testing"
)

// A counted reader counts what is read of it.
type counted struct {
	io.ReaderAt
	n int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}

// fuzz checks what every reader promises for any bytes: no panic, the same finding each time,
// words for whatever is not clean, few of them, and no more reading than the file is worth.
func fuzz(t *testing.T, name string, data []byte) Finding {
	c := &counted{ReaderAt: bytes.NewReader(data)}
	f := Structure(name, c, int64(len(data)))
	if again := check(name, data); !reflect.DeepEqual(f, again) {
		t.Fatalf("%+v, and the second time %+v", f, again)
	}
	if (len(f.Problems) > 0) != (f.Verdict > OK) || len(f.Problems) > maxSaid+1 {
		t.Fatalf("verdict %v with %d problems", f.Verdict, len(f.Problems))
	}
	for _, p := range f.Problems {
		if len(p) > 2000 {
			t.Fatalf("a problem of %d bytes", len(p))
		}
	}
	// Members of an archive are read for their magic, for their content, and may overlap.
	if limit := 100*int64(len(data)) + 1<<20; c.n > limit {
		t.Fatalf("read %d bytes of %d", c.n, len(data))
	}
	return f
}

func FuzzSafetensors(f *testing.F) {
	f.Add(knownSafetensors(f))
	f.Add(safetensors(`{"__metadata__":{"a":"b\""},"\u0061":{"dtype":"F4","shape":[2,1],"data_offsets":[0,1]}}`, 1))
	f.Add(safetensors(`{"a":{"x":[{}],"dtype":"?","shape":[],"data_offsets":[0,1]}}`, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if fuzz(t, "m.safetensors", data).Verdict != OK {
			return
		}
		// What is called sound is so by another reading of the rules.
		header := data[8:]
		dec := json.NewDecoder(bytes.NewReader(header))
		var tensors map[string]json.RawMessage
		if err := dec.Decode(&tensors); err != nil {
			t.Fatal(err)
		}
		var covered int64
		for name, raw := range tensors {
			var v struct {
				Offsets []int64 `json:"data_offsets"`
			}
			if name == "__metadata__" {
				continue
			}
			if err := json.Unmarshal(raw, &v); err != nil || len(v.Offsets) != 2 {
				t.Fatalf("%s: %v", raw, err)
			}
			covered += v.Offsets[1] - v.Offsets[0]
		}
		n := int64(data[0]) | int64(data[1])<<8 | int64(data[2])<<16 | int64(data[3])<<24
		if 8+n+covered != int64(len(data)) {
			t.Fatalf("%d bytes with a header of %d and tensors of %d", len(data), n, covered)
		}
	})
}

func FuzzGGUF(f *testing.F) {
	f.Add(knownGGUF(f))
	f.Add(newGGUF(2, 1, 2).str("general.alignment").u32(4).u32(64).str("b").u32(9).u32(8).u64(2).str("x").str("").tensor("t", 12, 0, 256).data(144))
	f.Add(newGGUF(3, 2, 0).tensor("t", 99, 0, 8).tensor("u", 0, 64, 1).data(68))
	f.Fuzz(func(t *testing.T, data []byte) { fuzz(t, "m.gguf", data) })
}

func FuzzPickle(f *testing.F) {
	for _, v := range pickleVectors(f) {
		f.Add(v.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		surely := fuzz(t, "m.pkl", data)
		maybe := fuzz(t, "m.bin", data)
		if surely.Verdict == OK && maybe.Verdict > OK {
			t.Fatalf("clean as .pkl, %+v as .bin", maybe)
		}
		// An import behind a whole, clean pickle is found wherever it is.
		if surely.Verdict == OK && surely.Format == "pickle" {
			more := check("m.pkl", append(bytes.Clone(data), dangerousPickle...))
			if more.Verdict != Dangerous {
				t.Fatalf("a dangerous pickle behind it: %+v", more)
			}
		}
	})
}

func FuzzZip(f *testing.F) {
	sound := zipFile(f, torchParts(harmlessPickle, nil)...)
	f.Add(sound)
	f.Add(zip64End(zipFile(f, torchParts(dangerousPickle, func(p *zipPart) { p.large = true })...)))
	f.Add(zipFile(f, zipPart{name: "a.npy", data: npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}", 2), method: zipDeflated}))
	f.Add(withSecondEnd(sound))
	f.Fuzz(func(t *testing.T, data []byte) { fuzz(t, "m.zip", data) })
}

func FuzzNpy(f *testing.F) {
	f.Add([]byte(npy("{'descr': [('a', '<f4'), (('t', 'b'), '|u1', (2,))], 'fortran_order': False, 'shape': (2,), }\n", 12)))
	f.Add([]byte(npy("{'descr': '|O', 'fortran_order': True, 'shape': ()}", 0) + harmlessPickle))
	f.Fuzz(func(t *testing.T, data []byte) { fuzz(t, "m.npy", data) })
}

func FuzzPointer(f *testing.F) {
	f.Add([]byte(lfsPointer))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, ok := parsePointer(data, int64(len(data))); ok && (p.size < 0 || p.digest.IsZero()) {
			t.Fatalf("a pointer to nothing: %+v", p)
		}
		fuzz(t, "model", data)
	})
}
