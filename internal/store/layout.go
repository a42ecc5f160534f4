package store

import (
	"crypto/rand"
	"encoding/hex"
	"path/filepath"
	"strconv"
	"strings"

	"ema/internal/model"
)

// The folder (reference/hub-protocol, section 16):
//
//	Path/CACHEDIR.TAG
//	Path/.locks/ema.owner                         who may write
//	Path/.locks/models--org--name/<etag>.lock     who fetches one blob, shared with other tools
//	Path/models--org--name/blobs/<etag>           complete content
//	                      /blobs/<etag>.<8 hex>.incomplete
//	                      /refs/<revision>        40 hexadecimal digits
//	                      /snapshots/<commit>/…   relative links into blobs
//	                      /trees/<commit>.json
//	                      /.ema/                  what is being built or taken apart, never looked at
//	StateDir/blocks/models--org--name/<etag>.crc  checksums: proof that a blob was verified here
//	        /partials/models--org--name/<etag>.journal
//	        /models/models--org--name/<commit>.json
const (
	ownerFile    = "ema.owner"
	buildDir     = ".ema"
	incomplete   = ".incomplete"
	suffixDigits = 8
	pinPrefix    = "ema-pin-"
)

func (s *Store) modelDir(id model.ID) string     { return filepath.Join(s.path, id.DirName()) }
func (s *Store) blobsDir(id model.ID) string     { return filepath.Join(s.modelDir(id), "blobs") }
func (s *Store) refsDir(id model.ID) string      { return filepath.Join(s.modelDir(id), "refs") }
func (s *Store) snapshotsDir(id model.ID) string { return filepath.Join(s.modelDir(id), "snapshots") }
func (s *Store) treesDir(id model.ID) string     { return filepath.Join(s.modelDir(id), "trees") }
func (s *Store) buildDir(id model.ID) string     { return filepath.Join(s.modelDir(id), buildDir) }
func (s *Store) locksDir() string                { return filepath.Join(s.path, ".locks") }

func (s *Store) blocksDir(id model.ID) string {
	return filepath.Join(s.state, "blocks", id.DirName())
}

func (s *Store) partialsDir(id model.ID) string {
	return filepath.Join(s.state, "partials", id.DirName())
}

func (s *Store) recordsDir(id model.ID) string {
	return filepath.Join(s.state, "models", id.DirName())
}

func (s *Store) blobPath(id model.ID, name string) string {
	return filepath.Join(s.blobsDir(id), name)
}

func (s *Store) sidecarPath(id model.ID, name string) string {
	return filepath.Join(s.blocksDir(id), name+".crc")
}

func (s *Store) journalPath(id model.ID, etag string) string {
	return filepath.Join(s.partialsDir(id), etag+".journal")
}

func (s *Store) recordPath(id model.ID, commit string) string {
	return filepath.Join(s.recordsDir(id), commit+".json")
}

// Snapshot is the path of a revision's folder, whether it exists or not.
func (s *Store) Snapshot(id model.ID, commit string) string {
	return filepath.Join(s.snapshotsDir(id), commit)
}

// etagOf names the blob of f while it is being fetched. A file whose digest the source does not
// know is named by everything that must be the same for a resume to make sense.
func etagOf(id model.ID, f model.File, validator string) string {
	if !f.Digest.IsZero() {
		return f.Digest.Hex()
	}
	parts := []string{id.String(), f.Path, strconv.FormatInt(f.Size, 10), validator}
	return model.SumSHA256([]byte(strings.Join(parts, "\x00"))).Hex()
}

// incompleteName is the name of a blob's data file before it is proven.
func incompleteName(etag, suffix string) string { return etag + "." + suffix + incomplete }

// etagOfIncomplete reads the blob's name out of any tool's partial file: "<etag>.incomplete" and
// "<etag>.<8 hex>.incomplete".
func etagOfIncomplete(name string) (string, bool) {
	rest, ok := strings.CutSuffix(name, incomplete)
	if !ok {
		return "", false
	}
	etag, suffix, found := strings.Cut(rest, ".")
	return etag, isBlobName(etag) && (!found || isHex(suffix) && len(suffix) == suffixDigits)
}

// isBlobName reports whether name is a digest as the cache writes it.
func isBlobName(name string) bool { return (len(name) == 40 || len(name) == 64) && isHex(name) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// newSuffix is a fresh name part, so that no two attempts ever share a file.
func newSuffix() string {
	var b [suffixDigits / 2]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// blockCount is the number of blocks of a file of size bytes.
func blockCount(size int64) int { return int((size + BlockSize - 1) / BlockSize) }

// blockLen is the length of block i of a file of size bytes.
func blockLen(i int, size int64) int64 { return min(BlockSize, size-int64(i)*BlockSize) }
