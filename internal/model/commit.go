package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// CommitOf makes a commit id for files that have none, as those of folders and URLs: the first 40 hexadecimal digits of the
// sha256 over the files in the order of their paths, one line per file with its quoted path, its size, and what identity says that
// its content is. Equal content has equal commits, wherever it lies.
func CommitOf(files []File, identity func(File) string) string {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	sum := sha256.New()
	for _, f := range sorted {
		fmt.Fprintf(sum, "%q %d %q\n", f.Path, f.Size, identity(f))
	}
	return hex.EncodeToString(sum.Sum(nil))[:40]
}
