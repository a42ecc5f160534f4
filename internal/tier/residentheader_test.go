package tier

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
)

// describe writes a GGUF header with values of all kinds, and two tensors.
func describe(order binary.AppendByteOrder, vocabulary int) []byte {
	text := func(b []byte, s string) []byte { return append(order.AppendUint64(b, uint64(len(s))), s...) }
	b := order.AppendUint32([]byte("GGUF"), 3)
	b = order.AppendUint64(b, 2)
	b = order.AppendUint64(b, 15)
	for kind, width := range []int{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8} {
		if width > 0 {
			b = order.AppendUint32(text(b, "key"), uint32(kind))
			b = append(b, make([]byte, width)...)
		}
	}
	b = text(order.AppendUint32(text(b, "general.name"), 8), "a name")
	b = order.AppendUint32(order.AppendUint32(text(b, "tokens"), 9), 8)
	b = order.AppendUint64(b, uint64(vocabulary))
	for range vocabulary {
		b = text(b, "token")
	}
	b = order.AppendUint32(order.AppendUint32(text(b, "scores"), 9), 6)
	b = append(order.AppendUint64(b, uint64(vocabulary)), make([]byte, 4*vocabulary)...)
	b = order.AppendUint32(order.AppendUint32(text(b, "merges"), 9), 9) // a list of two lists of three bytes
	b = order.AppendUint64(b, 2)
	for range 2 {
		b = append(order.AppendUint64(order.AppendUint32(b, 0), 3), 1, 2, 3)
	}
	for dimensions := range uint32(2) {
		b = order.AppendUint32(text(b, "blk.0.weight"), dimensions)
		b = append(b, make([]byte, 8*dimensions)...)
		b = order.AppendUint64(order.AppendUint32(b, 0), 4096)
	}
	return b
}

func TestTheLengthOfAHeader(t *testing.T) {
	const size = int64(200 * model.MiB)
	tensors := func(n uint64, begin string) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), begin...) }
	little, big := describe(binary.LittleEndian, 50_000), describe(binary.BigEndian, 3)
	for promise, c := range map[string]struct {
		content []byte
		want    int64
	}{
		"of safetensors is what it says":                      {tensors(1234567, `{"a":`), 1234567 + 8},
		"of safetensors is not beyond what the format allows": {tensors(100_000_001, `{"a":`), headerUnknown},
		"of a GGUF is where its tensors are described":        {little, int64(len(little))},
		"of a GGUF of the other byte order, too":              {big, int64(len(big))},
		"of a GGUF cut short is unknown":                      {little[:len(little)-1], headerUnknown},
		"of a GGUF with a kind of value that there is not is unknown": {
			append(describe(binary.LittleEndian, 0)[:24], 0, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0), headerUnknown,
		},
		"of a GGUF with a count beyond all files is unknown": {
			append([]byte("GGUF\x03\x00\x00\x00"), bytes.Repeat([]byte{255}, 500)...), headerUnknown,
		},
		"of anything else is unknown": {bytes.Repeat([]byte{7}, 100), headerUnknown},
	} {
		t.Run(promise, func(t *testing.T) {
			n, err := header(bytes.NewReader(append(c.content, make([]byte, 8)...)[:len(c.content)]), size)
			if err != nil || n != c.want {
				t.Errorf("%d, %v; want %d", n, err, c.want)
			}
		})
	}
	for _, tiny := range []string{"", "{}", "GGUF"} {
		if n, err := header(strings.NewReader(tiny), int64(len(tiny))); err != nil || n != int64(len(tiny)) {
			t.Errorf("of %q all is kept: %d, %v", tiny, n, err)
		}
	}
}

// The demo hub makes its files on its own: its headers end where the zeros or the data begin.
func TestTheHeadersOfTheDemoHubAreFound(t *testing.T) {
	for _, e := range []demohub.Entry{demohub.Safetensors("a", 12, 2*model.MiB), demohub.GGUF("b", 12, 2*model.MiB)} {
		f, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		n, err := header(io.NewSectionReader(f, 0, e.Size()), e.Size())
		if err != nil || n < 200 || n > 64<<10 {
			t.Errorf("%d, %v", n, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(describe(binary.LittleEndian, 2), int64(1000))
	f.Add(describe(binary.BigEndian, 2), int64(10))
	f.Add([]byte("\x05\x00\x00\x00\x00\x00\x00\x00{}"), int64(10))
	f.Fuzz(func(t *testing.T, content []byte, size int64) {
		n, err := header(bytes.NewReader(content), max(size, int64(len(content))))
		if err != nil || n < 0 || n > max(size, int64(len(content)), headerUnknown) {
			t.Fatalf("%d, %v of %d bytes", n, err, len(content))
		}
	})
}
