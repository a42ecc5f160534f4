package verify

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

const lfsPointer = "version https://git-lfs.github.com/spec/v1\n" +
	"oid sha256:dffd6021bb2bd5b0af676290809ec3a53191dd81c7f70a4b28688a362182986f\nsize 13\n"

func TestFormatIsChosenByNameAndMagic(t *testing.T) {
	tar := strings.Repeat("\x00", 257) + "ustar" + strings.Repeat("\x00", 250)
	for _, c := range []struct {
		promise, name, data, format string
		want                        Verdict
	}{
		{"a pointer in place of weights is broken", "model.safetensors", lfsPointer, "lfs pointer", Broken},
		{"a pointer under any name is broken", "tokenizer.json", lfsPointer, "lfs pointer", Broken},
		{"a former pointer is broken", "a.bin", strings.Replace(lfsPointer, "git-lfs.github", "hawser.github", 1), "lfs pointer", Broken},
		{"a pointer with text behind it is a text", "a.txt", lfsPointer + strings.Repeat("x", 1000), "", NotApplicable},
		{"a text about pointers is a text", "README.md", "version https://git-lfs.github.com/spec/v1\nis the first line\n", "", NotApplicable},
		{"text is not checked", "config.json", "{}", "", NotApplicable},
		{"onnx is not checked", "model.onnx", "\x80\x04cos\ngetpid\n)R.", "", NotApplicable},
		{"empty weights are broken", "model.safetensors", "", "", Broken},
		{"an empty text is fine", "a.txt", "", "", NotApplicable},
		{"a name wins over a magic", "model.safetensors", "GGUF" + strings.Repeat("\x00", 99), "safetensors", Broken},
		{"names are known in capitals", "MODEL.GGUF", "x", "gguf", Broken},
		{"a compressed pickle is not checked", "a.pkl", "\x1f\x8b\x08", "gzip", Unknown},
		{"a zlib pickle is not checked", "a.joblib", "\x78\x9c\x00", "zlib", Unknown},
		{"an old torch file in a tar is not checked", "a.pth", tar, "tar", Unknown},
		{"a tar of something else is not looked at", "a.tar", tar, "", NotApplicable},
		{"a gzip of something else is not looked at", "a.tar.gz", "\x1f\x8b\x08", "", NotApplicable},
	} {
		t.Run(c.promise, func(t *testing.T) {
			f := check("sub/"+c.name, []byte(c.data))
			wantVerdict(t, f, c.want)
			if f.Format != c.format {
				t.Errorf("format = %q, want %q", f.Format, c.format)
			}
			if c.want == Unknown && !f.Bad() || c.want == NotApplicable && f.Bad() {
				t.Errorf("Bad() = %v of %v", f.Bad(), f.Verdict)
			}
		})
	}
}

func TestClaimsOfSmallFilesAllocateNothing(t *testing.T) {
	claims := map[string][]byte{
		"m.safetensors": append([]byte{0, 0xe1, 0xf5, 0x05, 0, 0, 0, 0}, "{}"...), // a header of 99,999,999 bytes
		"m.gguf":        newGGUF(3, 1<<30, 1<<16).str("k").u32(9).u32(8).u64(1 << 40).Bytes(),
		"m.pkl":         []byte("\x80\x04\x8d\xff\xff\xff\xff\x00\x00\x00\x00"),
		"m.npy":         []byte(npyMagic + "\x02\x00\xff\xff\xff\x7f{}"),
		"m.zip":         zip64End(bytes.Replace(zipFile(t, zipPart{name: "x", data: "y"}), []byte{1, 0, 1, 0}, []byte{0xfe, 0xff, 0xfe, 0xff}, 1)),
	}
	for name, data := range claims {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f := check(name, data)
			runtime.ReadMemStats(&after)
			wantVerdict(t, f, Broken)
			if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
				t.Errorf("%d bytes were allocated for a file of %d", got, len(data))
			}
		})
	}
}

// failing is a disk that breaks at an offset.
type failing struct {
	io.ReaderAt
	at int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, errors.New("input/output error")
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestUnreadableFilesAreUnknownAndShortOnesBroken(t *testing.T) {
	gguf := string(knownGGUF(t))
	files := map[string]string{
		"m.safetensors": string(knownSafetensors(t)),
		"m.gguf":        gguf,
		"m.pkl":         harmlessPickle,
		"m.pt":          string(zipFile(t, torchParts(harmlessPickle, nil)...)),
		"m.npy":         npy("{'descr': '|u1', 'fortran_order': False, 'shape': (9,)}", 9),
	}
	for name, data := range files {
		t.Run(name, func(t *testing.T) {
			size := int64(len(data))
			for at := range size {
				broken := Structure(name, failing{strings.NewReader(data), at}, size)
				if broken.Verdict != Unknown && broken.Verdict != OK || at == 0 && broken.Verdict != Unknown {
					t.Errorf("a disk that fails at %d: %+v", at, broken)
				}
				short := Structure(name, strings.NewReader(data[:at]), size) // shorter than its own metadata says
				if short.Verdict < Suspicious {
					t.Errorf("a file of %d bytes instead of %d: %+v", at, size, short)
				}
			}
		})
	}
}
