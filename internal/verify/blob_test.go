package verify

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/store"
)

// noise is n bytes that do not repeat, the same in every run.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b) //nolint:errcheck // never fails
	return b
}

func sums(data []byte) []uint32 {
	list := []uint32{}
	for block := range slices.Chunk(data, int(BlockSize)) {
		list = append(list, crc32.Checksum(block, crc32.MakeTable(crc32.Castagnoli)))
	}
	return list
}

func blob(t testing.TB, data []byte, size int64, want model.Digest, blocks []uint32) Result {
	t.Helper()
	res, err := Blob(context.Background(), bytes.NewReader(data), size, want, blocks, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestBlocksAreThoseOfTheStore(t *testing.T) {
	if BlockSize != store.BlockSize {
		t.Fatalf("blocks of %d bytes here, of %d in the store", BlockSize, store.BlockSize)
	}
}

func TestBlobProvesContent(t *testing.T) {
	hello := []byte("Hello, World!")
	for promise, c := range map[string]struct {
		data []byte
		want string
	}{
		"a sha256":                {hello, "dffd6021bb2bd5b0af676290809ec3a53191dd81c7f70a4b28688a362182986f"},
		"a git blob id":           {hello, "b45ef6fec89518d314f546fd6c3025367b721684"},
		"the git id of nothing":   {nil, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"},
		"the git id of a config":  {[]byte("{}\n"), "0967ef424bce6791893e9a57bb952f80fd536e93"},
		"a sha256 of many blocks": {noise(3<<20 + 77), model.SumSHA256(noise(3<<20 + 77)).Hex()},
	} {
		t.Run(promise, func(t *testing.T) {
			want, err := model.ParseDigest(c.want)
			if err != nil {
				t.Fatal(err)
			}
			res := blob(t, c.data, int64(len(c.data)), want, nil)
			if !res.OK || res.Digest != want || res.Damaged != nil || res.Read != int64(len(c.data)) {
				t.Errorf("result = %+v", res)
			}
			if !slices.Equal(res.Blocks, sums(c.data)) || res.Blocks == nil {
				t.Errorf("blocks = %v, want %v", res.Blocks, sums(c.data))
			}
		})
	}
}

func TestBlobWithoutDigestIsHashedButNotProven(t *testing.T) {
	data := []byte("x")
	res := blob(t, data, 1, model.Digest{}, sums(data))
	if res.OK || res.Digest != model.SumSHA256(data) {
		t.Errorf("result = %+v", res)
	}
	if len(res.Damaged) != 0 {
		t.Errorf("damaged = %v, but the checksums fit", res.Damaged)
	}
}

// Flipping any one bit is found, and located to its block.
func TestEveryFlippedBitIsFoundAndLocated(t *testing.T) {
	const size = 3<<20 + 12345
	data := noise(size)
	want, blocks := model.SumSHA256(data), sums(data)
	rapid.Check(t, func(t *rapid.T) {
		bit := rapid.OneOf(
			rapid.IntRange(0, 8*size-1),
			rapid.SampledFrom([]int{0, 8<<20 - 1, 8 << 20, 8*size - 1}),
		).Draw(t, "bit")
		data[bit/8] ^= 1 << (bit % 8)
		defer func() { data[bit/8] ^= 1 << (bit % 8) }()
		res, err := Blob(context.Background(), bytes.NewReader(data), size, want, blocks, Options{Ahead: rapid.Bool().Draw(t, "ahead"), Locate: rapid.Bool().Draw(t, "locate")})
		if err != nil {
			t.Fatal(err)
		}
		block := int64(bit) / 8 / BlockSize
		seg := model.Segment{Start: block * BlockSize, End: min((block+1)*BlockSize, size)}
		if res.OK || !slices.Equal(res.Damaged, []model.Segment{seg}) {
			t.Fatalf("bit %d: OK %v, damaged %v, want %v", bit, res.OK, res.Damaged, seg)
		}
	})
}

// Damage of any shape is named exactly: every damaged block and no other, merged.
func TestDamageIsNamedBlockForBlock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5<<20).Draw(t, "size")
		data := noise(size)
		want, blocks := model.SumSHA256(data), sums(data)
		bad := make([]bool, len(blocks))
		for _, at := range rapid.SliceOfN(rapid.IntRange(0, size-1), 0, 4).Draw(t, "flipped") {
			data[at] ^= 0x55
		}
		cut := rapid.SampledFrom([]int{size, size, rapid.IntRange(0, size).Draw(t, "cut")}).Draw(t, "length")
		now := sums(data[:cut])
		for i := range bad {
			bad[i] = min((i+1)<<20, size) > cut || now[i] != blocks[i]
		}
		res, err := Blob(context.Background(), bytes.NewReader(data[:cut]), int64(size), want, blocks, Options{Ahead: rapid.Bool().Draw(t, "ahead"), Locate: rapid.Bool().Draw(t, "locate")})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]bool, len(bad))
		last := int64(-1)
		for _, s := range res.Damaged {
			if s.Start <= last || s.Len() <= 0 || s.Start%BlockSize != 0 {
				t.Fatalf("segments %v are not apart, in order and on blocks", res.Damaged)
			}
			last = s.End
			for at := s.Start; at < s.End; at += BlockSize {
				got[at/BlockSize] = true
			}
		}
		if !slices.Equal(got, bad) || res.Read != int64(cut) || res.OK == slices.Contains(bad, true) {
			t.Fatalf("damaged %v, want blocks %v; %+v", res.Damaged, bad, res)
		}
	})
}

func TestLengthIsProvenToo(t *testing.T) {
	data := noise(2<<20 + 5)
	size := int64(len(data))
	want := model.SumSHA256(data)
	if res := blob(t, append(bytes.Clone(data), 'x'), size, want, sums(data)); res.OK || !res.Longer || len(res.Damaged) != 0 {
		t.Errorf("a longer file: %+v", res)
	}
	short := blob(t, data[:size-1], size, want, nil)
	if short.OK || short.Longer || short.Read != size-1 || short.Damaged != nil {
		t.Errorf("a shorter file: %+v", short)
	}
	if res := blob(t, data, size, want, sums(data)[:1]); !res.OK {
		t.Errorf("checksums of another blob: %+v", res)
	}
	if res := blob(t, data, size, want, []uint32{1, 2, 3}); !res.OK || res.Damaged != nil {
		t.Errorf("the hash decides, not wrong checksums: %+v", res)
	}
	if _, err := Blob(t.Context(), strings.NewReader(""), -1, want, nil, Options{}); model.ClassOf(err) != model.Usage {
		t.Errorf("a negative size: %v", err)
	}
}

func TestProgressAddsUpAndCancellingActsWithinOneRead(t *testing.T) {
	data := noise(3<<20 + 1)
	for _, ahead := range []bool{false, true} {
		var sum int64
		res, err := Blob(t.Context(), bytes.NewReader(data), int64(len(data)), model.SumSHA256(data), nil, Options{Ahead: ahead, Progress: func(n int64) { sum += n }})
		if err != nil || !res.OK || sum != int64(len(data)) {
			t.Fatalf("progress of %d bytes of %d; %v", sum, len(data), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		sum = 0
		res, err = Blob(ctx, bytes.NewReader(data), int64(len(data)), model.SumSHA256(data), nil, Options{Ahead: ahead, Progress: func(n int64) {
			sum += n
			cancel()
		}})
		if !errors.Is(err, context.Canceled) || sum > readSize || res.OK {
			t.Fatalf("cancelled after %d bytes: %v, %+v", sum, err, res)
		}
	}
}

func TestUnreadableBytesAreADiskError(t *testing.T) {
	data := noise(1 << 20)
	for _, at := range []int64{0, 300 << 10, 1 << 20} {
		for _, ahead := range []bool{false, true} {
			_, err := Blob(t.Context(), failing{bytes.NewReader(data), at}, 1<<20, model.SumSHA256(data), nil, Options{Ahead: ahead})
			if model.ClassOf(err) != model.DiskError || !strings.Contains(err.Error(), "input/output error") {
				t.Errorf("a disk that fails at %d: %v", at, err)
			}
		}
	}
}

func BenchmarkBlob(b *testing.B) {
	const size = 256 << 20
	data := noise(size)
	for name, algo := range map[string]model.Algo{"sha256": model.SHA256, "git": model.GitSHA1} {
		b.Run("size=256MiB/hash="+name, func(b *testing.B) {
			want := model.NewDigest(algo, nil)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Blob(b.Context(), bytes.NewReader(data), size, want, nil, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("size=256MiB/hash=sha256/only", func(b *testing.B) { // the bound: nothing but the hash
		b.SetBytes(size)
		h := model.Digest{}.NewHash(size)
		for b.Loop() {
			h.Write(data)
		}
	})
}
