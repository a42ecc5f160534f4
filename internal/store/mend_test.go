package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

func TestMendingFetchesOnlyWhatIsDamaged(t *testing.T) {
	big := content(9, 5<<20+99)
	s := sampleOf("acme/big", commit1, "w.safetensors", big)
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")}, s)
	f := s.m.Files[0]
	name := blobFile(w.Store, s, 0)
	damaged := slices.Clone(big)
	damaged[3<<20+5] ^= 1 // known to be bad
	damaged[1<<20+7] ^= 1 // found while copying
	if err := os.WriteFile(name, damaged, 0o666); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	p, err := w.Mend(t.Context(), s.m.ID, f, []model.Segment{{Start: 3<<20 + 5, End: 3<<20 + 6}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want := []model.Segment{{Start: 1 << 20, End: 2 << 20}, {Start: 3 << 20, End: 4 << 20}}
	if got := p.Missing(); !slices.Equal(got, want) {
		t.Fatalf("missing %v, want %v", got, want)
	}
	if _, upto := p.Checkpoint(); upto != 1<<20 {
		t.Errorf("what was copied is hashed up to %d, and not up to the first bad block", upto)
	}
	for _, seg := range want {
		if err := p.WriteAt(big[seg.Start:seg.End], seg.Start, crcOf(big[seg.Start:seg.End])); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil { // and it is resumed like any other
		t.Fatal(err)
	}
	if _, err := pull(t.Context(), w, s, nil); err != nil {
		t.Fatal(err)
	}
	if b, err := w.Blob(s.m.ID, f.Digest); err != nil || b.Proof != store.Proven {
		t.Errorf("blob = %+v, %v", b, err)
	}
	if err := checkTruth(w.Store, s); err != nil {
		t.Error(err)
	}
	old := make([]byte, len(big))
	if _, err := reader.ReadAt(old, 0); err != nil || !slices.Equal(old, damaged) {
		t.Errorf("a reader of the old file sees it change (%v)", err)
	}
}
