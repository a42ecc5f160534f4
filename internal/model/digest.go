package model

import (
	"crypto/sha1" //nolint:gosec // git blob ids are sha1; the hub names small files by them
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
)

// Algo names how a Digest was computed. The zero Algo means that the digest is unknown.
type Algo uint8

// The hashes that hubs give for files.
const (
	Unknown Algo = iota
	SHA256       // sha256 of the content: LFS and Xet files
	GitSHA1      // git blob id, sha1("blob " + decimal length + "\0" + content): small files
)

// A Digest is the hash that names and proves the content of a file. It is comparable and fit to be
// a map key; the zero Digest stands for "the source gave no hash".
type Digest struct {
	algo Algo
	sum  [sha256.Size]byte
}

// ParseDigest reads a digest from bare hexadecimal as hubs write it: 64 digits are a sha256, 40 are
// a git blob id. Anything else (a masked hash of asterisks, an S3 etag) is an error.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	switch len(s) {
	case 2 * sha256.Size:
		d.algo = SHA256
	case 2 * sha1.Size:
		d.algo = GitSHA1
	default:
		return Digest{}, fmt.Errorf("digest %q: want 64 (sha256) or 40 (git blob id) hexadecimal digits", clip(s))
	}
	if _, err := hex.Decode(d.sum[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: not hexadecimal", clip(s))
	}
	return d, nil
}

// NewDigest makes a digest from a finished hash sum of 32 (SHA256) or 20 (GitSHA1) bytes.
func NewDigest(algo Algo, sum []byte) Digest {
	d := Digest{algo: algo}
	copy(d.sum[:], sum)
	return d
}

// SumSHA256 returns the sha256 digest of b.
func SumSHA256(b []byte) Digest { return Digest{algo: SHA256, sum: sha256.Sum256(b)} }

// SumGitBlob returns the git blob id of b.
func SumGitBlob(b []byte) Digest {
	h := Digest{algo: GitSHA1}.NewHash(int64(len(b)))
	h.Write(b)
	return NewDigest(GitSHA1, h.Sum(nil))
}

// Algo says how d was computed.
func (d Digest) Algo() Algo { return d.algo }

// IsZero reports whether d is unknown.
func (d Digest) IsZero() bool { return d.algo == Unknown }

// Hex returns the bare lower-case hexadecimal form, which is also the blob's file name in the
// Hugging Face cache; it is empty for the zero Digest.
func (d Digest) Hex() string {
	switch d.algo {
	case SHA256:
		return hex.EncodeToString(d.sum[:])
	case GitSHA1:
		return hex.EncodeToString(d.sum[:sha1.Size])
	}
	return ""
}

// String returns the digest with its algorithm, e.g. "sha256:8aa3…".
func (d Digest) String() string {
	switch d.algo {
	case SHA256:
		return "sha256:" + d.Hex()
	case GitSHA1:
		return "git:" + d.Hex()
	}
	return "unknown"
}

// NewHash returns a hash that computes digests of d's algorithm over a content of size bytes (a
// git blob id begins with the length). An unknown digest is computed as sha256. The hash's state
// can be saved and restored: it implements encoding.BinaryMarshaler and BinaryUnmarshaler.
func (d Digest) NewHash(size int64) hash.Hash {
	if d.algo == GitSHA1 {
		h := sha1.New() //nolint:gosec // see the import
		h.Write([]byte("blob " + strconv.FormatInt(size, 10) + "\x00"))
		return h
	}
	return sha256.New()
}

// Sum makes a digest of d's algorithm (sha256 if d is unknown) from a finished hash.
func (d Digest) Sum(h hash.Hash) Digest {
	if d.algo == GitSHA1 {
		return NewDigest(GitSHA1, h.Sum(nil))
	}
	return NewDigest(SHA256, h.Sum(nil))
}

// clip shortens foreign text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
