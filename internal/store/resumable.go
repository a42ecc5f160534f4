package store

import (
	"os"
	"syscall"

	"ema/internal/model"
)

// Resumable says what an earlier, interrupted fetch of f left: bytes that are written, and bytes of
// disk space that they and the room reserved for the rest take already. Both are 0 when there is
// nothing. It is an estimate for plans, made without the blob's lock: Writer.Partial decides.
func (s *Store) Resumable(id model.ID, f model.File, validator string) (written, allocated int64) {
	etag := etagOf(id, f, validator)
	raw, err := os.ReadFile(s.journalPath(id, etag))
	if err != nil {
		return 0, 0
	}
	j, err := parseJournal(raw)
	if err != nil || j.size != f.Size {
		return 0, 0
	}
	info, err := os.Stat(s.blobPath(id, incompleteName(j.etag, j.suffix)))
	if err != nil {
		return 0, 0
	}
	written = f.Size
	for _, seg := range j.missing() {
		written -= seg.Len()
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		allocated = min(st.Blocks*512, f.Size)
	}
	return written, allocated
}
