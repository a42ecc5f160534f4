package model

import "time"

// SizeUnknown stands in File.Size where a source cannot tell the size beforehand.
const SizeUnknown int64 = -1

// A File is one path in a revision.
type File struct {
	// Path is relative, slash-separated and proven safe by CheckPath.
	Path string
	// Size in bytes, never negative in a resolved Manifest.
	Size int64
	// Digest of the content; zero when the source gave none.
	Digest Digest
	// PointerID is the git blob id of the LFS pointer (hub files with a sha256 only), kept because
	// the cache's trees/COMMIT.json records it. Empty when unknown.
	PointerID string
	// XetHash is the hub's Xet id, 64 hexadecimal digits; empty when there is none.
	XetHash string
}

// A Manifest is a revision of a model, resolved to an immutable commit and listed completely.
type Manifest struct {
	// ID as the caller wrote it; it names the folder in the store.
	ID ID
	// Canonical is the id that the source answered with, when it differs (a renamed model).
	Canonical ID
	// Revision is what was asked for: a branch, a tag, a commit.
	Revision string
	// Commit is 40 lower-case hexadecimal digits.
	Commit string
	// Files in path order, without folders.
	Files []File
	// Resolved is when the source answered.
	Resolved time.Time
	// Answer is how long it took until the source began to answer, connecting included; 0 when it was
	// not asked. It tells a near source from a far one.
	Answer time.Duration
	// Card is what the source says of the model.
	Card Card
}

// A Card is what a source says of a model; "" and nil are what it does not say.
type Card struct {
	Task    string // such as "text-generation"
	Library string // such as "transformers"
	License string // such as "apache-2.0"
	Bases   []ID   // models that this one was made from
}

// Bytes is the sum of the sizes of all files.
func (m *Manifest) Bytes() Bytes {
	var sum int64
	for _, f := range m.Files {
		sum += f.Size
	}
	return Bytes(sum)
}

// IsCommit reports whether rev is a full commit id (40 lower-case hexadecimal digits): the only
// shape that clients of the hub treat as immutable.
func IsCommit(rev string) bool { return len(rev) == 40 && isHex(rev) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
