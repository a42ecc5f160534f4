package verify

import (
	"bytes"
	"strconv"
	"strings"

	"ema/internal/model"
)

// A pointer is what git stores in place of a large file.
type pointer struct {
	digest model.Digest
	size   int64
}

// parsePointer reads the text of a git LFS pointer (version 1, also under its former name): lines
// of "key value" with the version first, less than 1024 bytes in all. head is the file's beginning.
func parsePointer(head []byte, size int64) (pointer, bool) {
	if size >= 1024 || int64(len(head)) < size {
		return pointer{}, false
	}
	text := string(bytes.TrimSuffix(head, []byte("\n")))
	first, rest, _ := strings.Cut(text, "\n")
	if first != "version https://git-lfs.github.com/spec/v1" && first != "version https://hawser.github.com/spec/v1" {
		return pointer{}, false
	}
	p := pointer{size: -1}
	for line := range strings.SplitSeq(rest, "\n") {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "oid":
			d, err := model.ParseDigest(strings.TrimPrefix(value, "sha256:"))
			if err != nil {
				return pointer{}, false
			}
			p.digest = d
		case "size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return pointer{}, false
			}
			p.size = n
		}
	}
	return p, !p.digest.IsZero() && p.size >= 0
}
