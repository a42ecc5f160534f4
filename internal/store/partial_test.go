package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/store"
)

// plainModel is what a Partial must be to its user, in the plainest way.
type plainModel struct {
	bytes   []byte
	written []int64 // prefix of each block
	synced  []int64 // of it, what a power loss must not take; 0 if it has grown since
	states  map[int64][]byte
	file    model.File
}

func newPlainModel(f model.File) *plainModel {
	n := int((f.Size + store.BlockSize - 1) / store.BlockSize)
	return &plainModel{bytes: make([]byte, f.Size), written: make([]int64, n), synced: make([]int64, n), states: map[int64][]byte{}, file: f}
}

func (m *plainModel) blockLen(i int) int64 {
	return min(store.BlockSize, m.file.Size-int64(i)*store.BlockSize)
}

func (m *plainModel) reach() (off int64) {
	for i, n := range m.written {
		off += n
		if n < m.blockLen(i) {
			break
		}
	}
	return off
}

func (m *plainModel) missing() (out []model.Segment) {
	for i, n := range m.written {
		start, end := int64(i)*store.BlockSize+n, int64(i)*store.BlockSize+m.blockLen(i)
		if start == end {
			continue
		}
		if k := len(out) - 1; k >= 0 && out[k].End == start {
			out[k].End = end
			continue
		}
		out = append(out, model.Segment{Start: start, End: end})
	}
	return out
}

// check compares what is written; checkBytes also whether it is what was written.
func (m *plainModel) check(t *rapid.T, p *store.Partial) {
	if got, want := p.Missing(), m.missing(); !slices.Equal(got, want) {
		t.Fatalf("missing %v, want %v", got, want)
	}
	if got := p.Written(0); got != m.reach() {
		t.Fatalf("Written(0) = %d, want %d", got, m.reach())
	}
	if _, upto := p.Checkpoint(); upto > m.reach() {
		t.Fatalf("checkpoint at %d, where only %d bytes are written", upto, m.reach())
	}
}

func (m *plainModel) checkBytes(t *rapid.T, p *store.Partial) {
	for i, n := range m.written {
		start := int64(i) * store.BlockSize
		b := make([]byte, n)
		if _, err := p.ReadAt(b, start); err != nil || !bytes.Equal(b, m.bytes[start:start+n]) {
			t.Fatalf("block %d reads other bytes than were written (%v)", i, err)
		}
	}
	state, upto := p.Checkpoint()
	if state == nil {
		return
	}
	if !bytes.Equal(state, hashState(m.bytes[:upto])) {
		t.Fatalf("checkpoint at %d is not the hash of what is there", upto)
	}
}

func hashState(b []byte) []byte {
	h := sha256.New()
	h.Write(b)
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // sha256 documents that it cannot fail
	}
	return state
}

func TestPartialIsWhatWasWrittenWhateverHappens(t *testing.T) {
	base, runs := memoryDir(t), 0
	noise := content(1, int(store.BlockSize)+1000)
	f := model.File{Path: "w.bin", Size: 2*store.BlockSize + 777, Digest: model.SumSHA256([]byte("anything"))}
	id := model.ID{Name: "acme/w"}
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(base, fmt.Sprint(runs))
		defer os.RemoveAll(dir)
		boots := 0
		var (
			w *world
			o *store.Writer
			p *store.Partial
		)
		var begin func()
		open := func(root string) {
			w = newRapidWorld(t, root, fmt.Sprint("boot ", boots))
			begin()
		}
		begin = func() {
			var err error
			if o, err = store.New(w.set).Own(ctx, "rapid", nil); err != nil {
				t.Fatal(err)
			}
			if p, err = o.Partial(ctx, id, f, ""); err != nil {
				t.Fatal(err)
			}
		}
		open(filepath.Join(dir, "root"))
		defer func() { _ = w.disk.Kill() }()
		m := newPlainModel(f)
		seed := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { m.check(t, p) },
			"write": func(t *rapid.T) {
				i := rapid.IntRange(0, len(m.written)-1).Draw(t, "block")
				room := m.blockLen(i) - m.written[i]
				if room == 0 {
					return
				}
				n := min(room, rapid.SampledFrom([]int64{1, 511, 70_000, 400_000, store.BlockSize}).Draw(t, "n"))
				seed++
				b := noise[seed%1000:][:n]
				off := int64(i)*store.BlockSize + m.written[i]
				if err := p.WriteAt(b, off, crcOf(b)); err != nil {
					t.Fatal(err)
				}
				copy(m.bytes[off:], b)
				m.written[i] += n
				m.synced[i] = 0
			},
			"write past the page cache": func(t *rapid.T) {
				i := rapid.IntRange(0, len(m.written)-1).Draw(t, "block")
				if m.written[i] > 0 || m.blockLen(i) < store.BlockSize {
					return
				}
				seed++
				b := bytes.Clone(noise[seed%1000:][:store.BlockSize]) // so large an allocation begins at a page
				off := int64(i) * store.BlockSize
				if err := p.WritePast(b, off, crcOf(b)); err != nil {
					t.Fatal(err)
				}
				copy(m.bytes[off:], b)
				m.written[i], m.synced[i] = store.BlockSize, 0
			},
			"refuse a gap": func(t *rapid.T) {
				i := rapid.IntRange(0, len(m.written)-1).Draw(t, "block")
				if m.written[i]+1 >= m.blockLen(i) {
					return // the next byte is another block's
				}
				if err := p.WriteAt([]byte{1}, int64(i)*store.BlockSize+m.written[i]+1, crcOf([]byte{1})); err == nil {
					t.Fatal("a write that leaves a gap was taken")
				}
			},
			"sync": func(t *rapid.T) {
				upto := m.reach()
				if err := p.Sync(hashState(m.bytes[:upto]), upto); err != nil {
					t.Fatal(err)
				}
				if p.Unsynced() != 0 {
					t.Fatalf("%d bytes are unsynced after a sync", p.Unsynced())
				}
				copy(m.synced, m.written)
			},
			"forget": func(t *rapid.T) {
				from := rapid.Int64Range(0, f.Size-1).Draw(t, "from")
				to := rapid.Int64Range(from+1, f.Size).Draw(t, "to")
				if err := p.Forget(model.Segment{Start: from, End: to}); err != nil {
					t.Fatal(err)
				}
				for i := from / store.BlockSize; i*store.BlockSize < to; i++ {
					m.written[i], m.synced[i] = 0, 0
				}
				if _, upto := p.Checkpoint(); upto > from {
					t.Fatalf("a checkpoint at %d outlived that %d was forgotten", upto, from)
				}
			},
			"kill": func(t *rapid.T) {
				if err := w.disk.Kill(); err != nil {
					t.Fatal(err)
				}
				w.disk.Restart()
				begin()
				m.checkBytes(t, p)
			},
			"power loss": func(t *rapid.T) {
				boots++
				old := w.root
				next := filepath.Join(dir, fmt.Sprint("after", boots))
				if err := w.disk.PowerLoss(rapid.Uint64().Draw(t, "seed"), next); err != nil {
					t.Fatal(err)
				}
				os.RemoveAll(old)
				os.RemoveAll(old + ".attic")
				open(next)
				for i := range m.written { // what is left may be less, but never something else
					start := int64(i) * store.BlockSize
					left := min(p.Written(start), start+m.blockLen(i)) - start
					if left > m.written[i] || left < m.synced[i] {
						t.Fatalf("block %d: %d bytes trusted, %d written, %d synced", i, left, m.written[i], m.synced[i])
					}
					m.written[i] = left
				}
				m.checkBytes(t, p)
			},
		})
	})
}

func newRapidWorld(t *rapid.T, root, boot string) *world {
	if err := os.MkdirAll(root, 0o777); err != nil {
		t.Fatal(err)
	}
	w, err := tryWorld(root, boot)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
