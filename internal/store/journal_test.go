package store

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"

	"ema/internal/model"
)

func sampleJournal() (*journal, []byte) {
	j := &journal{
		etag: model.SumSHA256([]byte("x")).Hex(), suffix: "0123abcd", size: 2*BlockSize + 10, boot: "boot",
		entries: []entry{newEntry(7, BlockSize) | durableBit, newEntry(8, 100), 0},
	}
	j.slots[0] = checkpoint{seq: 3, upto: 5, state: []byte("state")}
	j.slots[1] = checkpoint{seq: 4, upto: BlockSize + 100, state: []byte("newer")}
	b := make([]byte, journalSize(j.size))
	copy(b, j.header())
	copy(b[bootOffset:], j.bootRecord())
	for i, c := range j.slots {
		copy(b[slotOffset+i*slotLen:], c.slot())
	}
	for i, e := range j.entries {
		binary.LittleEndian.PutUint64(b[entryOffset+i*entryLen:], uint64(e))
	}
	return j, b
}

func TestJournalReadsWhatItWrote(t *testing.T) {
	want, b := sampleJournal()
	got, err := parseJournal(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.etag != want.etag || got.suffix != want.suffix || got.size != want.size || got.boot != want.boot ||
		!slices.Equal(got.entries, want.entries) || got.slots[got.newest()].upto != want.slots[1].upto ||
		!bytes.Equal(got.slots[got.newest()].state, []byte("newer")) {
		t.Fatalf("read %+v, want %+v", got, want)
	}
	if got.entries[0].len() != BlockSize || !got.entries[0].durable() || got.entries[1].crc() != 8 {
		t.Fatalf("entries are %x", got.entries)
	}
}

func TestADamagedSlotLeavesTheOneBefore(t *testing.T) {
	_, b := sampleJournal()
	b[slotOffset+slotLen+30] ^= 1
	j, err := parseJournal(b)
	if err != nil {
		t.Fatal(err)
	}
	if c := j.slots[j.newest()]; c.upto != 5 || string(c.state) != "state" {
		t.Fatalf("newest checkpoint is %+v, want the one at 5", c)
	}
}

func TestAnotherBootTrustsOnlyWhatIsDurableOrProven(t *testing.T) {
	for promise, c := range map[string]struct {
		size  int64
		prove func(int, entry) (bool, error)
		want  []int64 // trusted prefix of each block
		upto  int64   // of the newest checkpoint
	}{
		"the same boot trusts all":             {2*BlockSize + 10, nil, []int64{BlockSize, 100, 0}, BlockSize + 100},
		"what cannot be proven is missing":     {2*BlockSize + 10, func(int, entry) (bool, error) { return false, nil }, []int64{BlockSize, 0, 0}, 5},
		"what can be proven stays":             {2*BlockSize + 10, func(i int, _ entry) (bool, error) { return i == 1, nil }, []int64{BlockSize, 100, 0}, BlockSize + 100},
		"a shorter file lost what lay beyond":  {BlockSize + 99, nil, []int64{BlockSize, 0, 0}, 5},
		"of an empty file nothing is believed": {0, nil, []int64{0, 0, 0}, 0},
	} {
		t.Run(promise, func(t *testing.T) {
			j, _ := sampleJournal()
			if _, _, err := j.distrust(c.size, c.prove); err != nil {
				t.Fatal(err)
			}
			for i, n := range c.want {
				if j.entries[i].len() != n {
					t.Errorf("block %d: %d bytes trusted, want %d", i, j.entries[i].len(), n)
				}
			}
			if got := j.slots[j.newest()].upto; got != c.upto {
				t.Errorf("checkpoint at %d, want %d", got, c.upto)
			}
		})
	}
}

func FuzzJournal(f *testing.F) {
	_, b := sampleJournal()
	f.Add(b)
	f.Add(b[:entryOffset])
	f.Add([]byte(journalMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		reseal(b) // so that the fuzzer gets past the checksums
		j, err := parseJournal(b)
		if err != nil {
			return
		}
		if _, _, err := j.distrust(j.size, nil); err != nil {
			t.Fatal(err)
		}
		at := int64(0)
		for _, seg := range j.missing() {
			if seg.Start < at || seg.End <= seg.Start || seg.End > j.size {
				t.Fatalf("missing %v of %d bytes", j.missing(), j.size)
			}
			at = seg.End
		}
		if r := j.reach(0); r < 0 || r > j.size {
			t.Fatalf("reaches %d of %d bytes", r, j.size)
		}
		for _, c := range j.slots {
			if c.upto > j.reach(0) || len(c.state) > maxState {
				t.Fatalf("trusts a checkpoint at %d with %d bytes of state", c.upto, len(c.state))
			}
		}
		if !isBlobName(j.etag) || !isHex(j.suffix) {
			t.Fatalf("takes %q and %q for parts of a file name", j.etag, j.suffix)
		}
	})
}

func reseal(b []byte) {
	for _, span := range [][2]int{{0, headerLen}, {bootOffset, bootOffset + bootLen}, {slotOffset, slotOffset + slotLen}, {slotOffset + slotLen, slotOffset + 2*slotLen}} {
		if len(b) >= span[1] {
			binary.LittleEndian.PutUint32(b[span[1]-4:], crc32.Checksum(b[span[0]:span[1]-4], castagnoli))
		}
	}
}

func FuzzSidecar(f *testing.F) {
	f.Add(sidecarBytes(identity{BlockSize + 1, 2, 3}, []uint32{4, 5}))
	f.Add(sidecarBytes(identity{}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= sidecarHeader {
			binary.LittleEndian.PutUint32(b[44:], crc32.Checksum(b[:44], castagnoli))
			binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], castagnoli))
		}
		who, crcs, err := parseSidecar(b)
		if err == nil && !bytes.Equal(sidecarBytes(who, crcs), b) {
			t.Fatalf("%x is read as %+v with %d checksums", b, who, len(crcs))
		}
	})
}

func FuzzRef(f *testing.F) {
	f.Add([]byte("1111111111111111111111111111111111111111"))
	f.Add([]byte("1111111111111111111111111111111111111111\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := parseRef(b); ok && (len(b) != 40 || !isHex(c)) {
			t.Fatalf("%q is taken for a commit", b)
		}
	})
}

func FuzzTree(f *testing.F) {
	tree, _ := treeBytes([]model.File{{Path: "a/b.json", Size: 3, Digest: model.SumGitBlob([]byte("{}\n"))}})
	f.Add(tree)
	f.Add([]byte(`{"format_version":1,"files":{"../x":{"size":1,"blob_id":"0967ef424bce6791893e9a57bb952f80fd536e93"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := parseTree(b)
		if err != nil {
			return
		}
		for _, file := range files {
			if model.CheckPath(file.Path) != nil || file.Size < 0 || file.Digest.IsZero() {
				t.Fatalf("takes %+v for a file", file)
			}
		}
	})
}

func FuzzRecord(f *testing.F) {
	r := Record{ID: model.ID{Name: "acme/x"}, Commit: "1111111111111111111111111111111111111111", Files: []model.File{{Path: "a", Size: 1, Digest: model.SumGitBlob([]byte("a"))}}}
	b, err := r.MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if r.UnmarshalJSON(b) != nil {
			return
		}
		for _, file := range r.Files {
			if model.CheckPath(file.Path) != nil || file.Size < 0 || file.Digest.IsZero() {
				t.Fatalf("takes %+v for a file", file)
			}
		}
	})
}
