package demohub_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/demohub"
	"ema/internal/model"
)

func content(t interface {
	Helper()
	Fatal(...any)
}, e demohub.Entry,
) []byte {
	t.Helper()
	r, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(r, 0, e.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGeneratedContentIsTheSameFromEveryOffset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(0, 5000).Draw(t, "size")
		e := demohub.File("model.bin", model.Bytes(size))
		if rapid.Bool().Draw(t, "with a header") {
			e = demohub.GGUF("model.gguf", 3, model.Bytes(size))
		}
		all := content(t, e)
		from := rapid.Int64Range(0, e.Size()).Draw(t, "from")
		length := rapid.IntRange(0, 200).Draw(t, "length")
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, length)
		n, err := r.ReadAt(p, from)
		if n < length && err != io.EOF || n == length && err != nil && err != io.EOF {
			t.Fatalf("ReadAt(%d bytes, %d) of %d = %d, %v", length, from, e.Size(), n, err)
		}
		if want := all[from:min(from+int64(length), e.Size())]; !bytes.Equal(p[:n], want) {
			t.Fatalf("ReadAt(%d bytes, %d) differs from the whole", length, from)
		}
	})
}

func TestAHugeFileCostsNoMemory(t *testing.T) {
	e := demohub.File("model.bin", 60*model.GiB)
	r, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	a, b := make([]byte, 64), make([]byte, 64)
	for _, off := range []int64{0, 59 << 30} {
		if _, err := r.ReadAt(a, off); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(a, b) {
			t.Fatal("two places of the file are the same")
		}
		copy(b, a)
	}
	allocated := testing.AllocsPerRun(10, func() { _, _ = r.ReadAt(a, 30<<30) })
	if allocated > 1 {
		t.Errorf("reading allocates %v times", allocated)
	}
}

func TestHashesAreThoseOfTheReference(t *testing.T) {
	hello := demohub.Bytes("hello.txt", []byte("Hello, World!"))
	for want, e := range map[string]demohub.Entry{
		"b45ef6fec89518d314f546fd6c3025367b721684":                                hello,
		"dffd6021bb2bd5b0af676290809ec3a53191dd81c7f70a4b28688a362182986f":        hello.LFS(),
		"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391":                                demohub.File("empty", 0),
		model.SumSHA256(content(t, demohub.File("model.bin", 2*model.MiB))).Hex(): demohub.File("model.bin", 2*model.MiB),
	} {
		if d, err := e.Digest(); err != nil || d.Hex() != want {
			t.Errorf("digest of %s = %v, %v; want %s", e.Path, d, err, want)
		}
	}
}

func TestSafetensorsHeadersAreWhole(t *testing.T) {
	for _, size := range []model.Bytes{0, 1000, 4097, model.MiB, 3*model.MiB + 1} {
		for _, tensors := range []int{1, 7} {
			e := demohub.Safetensors("model.safetensors", tensors, size)
			b := content(t, e)
			if size >= 4097 && e.Size() != int64(size) {
				t.Errorf("%d bytes, want %d", e.Size(), size)
			}
			n := int64(binary.LittleEndian.Uint64(b))
			var header map[string]struct {
				DType   string
				Shape   []int64
				Offsets [2]int64 `json:"data_offsets"`
			}
			if err := json.Unmarshal(b[8:8+n], &header); err != nil {
				t.Fatal(err)
			}
			delete(header, "__metadata__")
			if len(header) != tensors {
				t.Errorf("%d tensors, want %d", len(header), tensors)
			}
			var spans [][2]int64
			for name, one := range header {
				if bytes := one.Shape[0] * map[string]int64{"BF16": 2, "U8": 1}[one.DType]; bytes != one.Offsets[1]-one.Offsets[0] {
					t.Errorf("%s: shape %v of %s in %v", name, one.Shape, one.DType, one.Offsets)
				}
				spans = append(spans, one.Offsets)
			}
			sort.Slice(spans, func(i, j int) bool {
				return spans[i][0] < spans[j][0] || spans[i][0] == spans[j][0] && spans[i][1] < spans[j][1]
			})
			at := int64(0)
			for _, s := range spans {
				if s[0] != at {
					t.Errorf("a tensor begins at %d, want %d", s[0], at)
				}
				at = s[1]
			}
			if 8+n+at != e.Size() {
				t.Errorf("header and tensors are %d bytes, the file %d", 8+n+at, e.Size())
			}
		}
	}
}

func TestGGUFHeadersAreWhole(t *testing.T) {
	for _, size := range []model.Bytes{0, 4097, 3*model.MiB + 1} {
		e := demohub.GGUF("model.gguf", 5, size)
		r := &gguf{t: t, b: content(t, e)}
		if string(r.take(4)) != "GGUF" || r.u32() != 3 {
			t.Fatal("no GGUF version 3")
		}
		tensors, pairs := r.u64(), r.u64()
		if tensors != 5 {
			t.Errorf("%d tensors, want 5", tensors)
		}
		for range pairs {
			key := r.text()
			switch kind := r.u32(); kind {
			case 4:
				r.u32()
			case 8:
				r.text()
			default:
				t.Fatalf("%s has type %d", key, kind)
			}
		}
		end := uint64(0)
		for range tensors {
			name := r.text()
			if dims := r.u32(); dims != 1 {
				t.Fatalf("%s has %d dimensions", name, dims)
			}
			elements, kind, offset := r.u64(), r.u32(), r.u64()
			if offset != (end+31)/32*32 {
				t.Errorf("%s begins at %d, the last ended at %d", name, offset, end)
			}
			end = offset + elements*map[uint32]uint64{0: 4, 24: 1}[kind]
		}
		start := uint64(r.at+31) / 32 * 32
		if start+end != uint64(e.Size()) {
			t.Errorf("header and tensors are %d bytes, the file %d", start+end, e.Size())
		}
	}
}

type gguf struct {
	t  *testing.T
	b  []byte
	at int
}

func (g *gguf) take(n int) []byte {
	if g.at+n > len(g.b) {
		g.t.Fatalf("the header ends at %d of %d", g.at, len(g.b))
	}
	g.at += n
	return g.b[g.at-n : g.at]
}
func (g *gguf) u32() uint32  { return binary.LittleEndian.Uint32(g.take(4)) }
func (g *gguf) u64() uint64  { return binary.LittleEndian.Uint64(g.take(8)) }
func (g *gguf) text() string { return string(g.take(int(g.u64()))) }

func TestFolderListsRegularFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"config.json": "{}\n", "sub/model.bin": "weights"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := demohub.Folder(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if entries[1].Path != "sub/model.bin" || string(content(t, entries[1])) != "weights" {
		t.Errorf("the second entry is %s: %q", entries[1].Path, content(t, entries[1]))
	}
	if _, err := demohub.Folder(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there is no mistake")
	}
}

func TestGenerateReadsSpecifications(t *testing.T) {
	entries, err := demohub.Generate("200x4KiB-1MiB,3x2MiB,2x0")
	if err != nil || len(entries) != 205 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	low, high := int64(1<<40), int64(0)
	for _, e := range entries[:200] {
		low, high = min(low, e.Size()), max(high, e.Size())
	}
	if low < 4<<10 || high > 1<<20 || low > 8<<10 || high < 512<<10 {
		t.Errorf("sizes from %d to %d, want them spread from 4 KiB to 1 MiB", low, high)
	}
	if e := entries[202]; e.Path != "model2-00003-of-00003.safetensors" || e.Size() != 2<<20 {
		t.Errorf("the last shard is %s, %d bytes", e.Path, e.Size())
	}
	again, err := demohub.Generate("200x4KiB-1MiB,3x2MiB,2x0")
	if err != nil || !bytes.Equal(content(t, entries[7]), content(t, again[7])) {
		t.Errorf("a second time it is another model: %v", err)
	}
	for _, wrong := range []string{"", "3", "x4KiB", "0x4KiB", "3x", "3x4kb", "3x1MiB-4KiB", "1x1,2", "999999999999x1", "1x99999999999TiB", "-1x4", "1x-1"} {
		if _, err := demohub.Generate(wrong); err == nil {
			t.Errorf("Generate(%q) finds nothing wrong", wrong)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	for _, seed := range []string{"reset-after=3MiB", "stall-after=1,5s", "header=ETag,\"x,y\"", "redirect-to=file:///x", "shift-range=-7", "silence=0s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := demohub.ParseFault(text)
		if err != nil {
			return
		}
		again, err := demohub.ParseFault(fault.String())
		if err != nil || again.String() != fault.String() {
			t.Fatalf("%q was read as %q, and that as %q, %v", text, fault, again, err)
		}
	})
}

func TestReferenceModel(t *testing.T) {
	tensors, err := hex.DecodeString("38000000000000007b2261223a7b226474797065223a22463332222c227368617065223a5b325d2c22646174615f6f666673657473223a5b302c385d7d7d20200000803f000000c0")
	if err != nil {
		t.Fatal(err)
	}
	base := serveHub(t, demohub.New(demohub.Repo("acme/tiny-llama",
		demohub.Bytes("model.safetensors", tensors).LFS(), demohub.Bytes("config.json", []byte("{}\n")))))
	var info struct {
		SHA      string
		Siblings []struct {
			Name   string `json:"rfilename"`
			Size   int64
			BlobID string `json:"blobId"`
			LFS    struct {
				SHA256      string
				Size        int64
				PointerSize int
			}
		}
	}
	getJSON(t, base+"/api/models/acme/tiny-llama?blobs=True", &info)
	if !model.IsCommit(info.SHA) || len(info.Siblings) != 2 {
		t.Fatalf("info is %+v", info)
	}
	small, large := info.Siblings[0], info.Siblings[1]
	if small.Name != "config.json" || small.Size != 3 || small.BlobID != "0967ef424bce6791893e9a57bb952f80fd536e93" {
		t.Errorf("config.json is %+v", small)
	}
	if large.BlobID != "19e1ea4a2962d9ec1c57eb435fdf5e1d7f0c9716" || large.LFS.PointerSize != 127 || large.LFS.Size != 72 ||
		large.LFS.SHA256 != "8aa3e2b342431367d957dd15ae6263303c3f27376d40e2d1bbec7012945eecf1" {
		t.Errorf("model.safetensors is %+v", large)
	}
	var plain struct{ Siblings []map[string]any }
	getJSON(t, base+"/api/models/acme/tiny-llama", &plain)
	if len(plain.Siblings) != 2 || len(plain.Siblings[0]) != 1 {
		t.Errorf("without blobs=true siblings are %v", plain.Siblings)
	}
}
