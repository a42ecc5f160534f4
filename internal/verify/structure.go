package verify

import (
	"bytes"
	"io"
	"path"
	"strings"

	"ema/internal/model"
)

// headerBudget bounds what Structure reads of one file. Headers of real models are a few MiB, those
// with large vocabularies some tens; pickles in archives likewise.
const headerBudget = int64(128 * model.MiB)

// headSize is enough to recognise every format, and holds a whole LFS pointer.
const headSize = 1024

// How a pickle is looked for in a file. Pickles before protocol 2 have no magic, so that only names
// tell them from other data.
type pickleHint uint8

const (
	notPickle    pickleHint = iota
	maybePickle             // the name is used for pickles and for other things
	surelyPickle            // the name says so
)

// Structure checks the file r of size bytes as the format that its name and its first bytes say it
// has. Names win over magic where loaders go by the name. It reads headers only: at most 128 MiB and
// 100 MB of a safetensors header, whatever the file claims. It never fails: what cannot be read or
// understood is a Finding too. path is the file's name in the model. Safe for concurrent use.
func Structure(path string, r io.ReaderAt, size int64) Finding {
	var rep report
	structure(path, r, size, &rep)
	return rep.finding()
}

func structure(name string, r io.ReaderAt, size int64, rep *report) {
	ext := strings.ToLower(path.Ext(name))
	hint := pickleByName(ext)
	if size <= 0 {
		if ext == ".safetensors" || ext == ".gguf" || hint == surelyPickle {
			rep.add(Broken, "the file is empty")
		}
		return
	}
	b := &budget{headerBudget}
	head := make([]byte, min(size, headSize))
	if err := readAt(r, head, 0, b); err != nil {
		rep.fail("the first bytes", err)
		return
	}
	if p, ok := parsePointer(head, size); ok {
		rep.format = "lfs pointer"
		rep.add(Broken, "the file is not the content but the git LFS pointer to its %d bytes; "+
			"the server gave git's text instead of the file", p.size)
		return
	}

	has := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case ext == ".safetensors":
		checkSafetensors(r, size, rep)
	case ext == ".gguf":
		checkGGUF(newCursor(r, 0, size, b), rep)
	case ext == ".onnx":
		// protobuf: no rule of it would find damage that the hash does not
	case has("PK\x03\x04"), has("PK\x05\x06"), ext == ".npz", ext == ".zip":
		checkZip(name, r, size, b, rep)
	case has("\x93NUMPY"), ext == ".npy":
		checkNpy(newCursor(r, 0, size, b), rep)
	case has("GGUF"):
		checkGGUF(newCursor(r, 0, size, b), rep)
		if hint != notPickle { // "G" is a pickle opcode too, and torch goes by what it can load
			checkPickle(newCursor(r, 0, size, b), maybePickle, rep)
		}
	case hint != notPickle && compression(head) != "":
		rep.format = compression(head)
		rep.add(Unknown, "a %s file: what is inside is not checked, and may be a pickle that runs code when it is loaded", rep.format)
	case hint != notPickle, isPickleMagic(head):
		checkPickle(newCursor(r, 0, size, b), max(hint, maybePickle), rep)
	}
}

// pickleByName says what an extension promises about pickles. ".bin" is torch's, but also ONNX's,
// GGML's and many a tokenizer's.
func pickleByName(ext string) pickleHint {
	switch ext {
	case ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib":
		return surelyPickle
	case ".bin", ".dat", ".data", ".npy", ".npz", ".zip":
		return maybePickle
	}
	return notPickle
}

// isPickleMagic reports whether head begins with the PROTO opcode of a protocol that exists.
func isPickleMagic(head []byte) bool { return len(head) >= 2 && head[0] == 0x80 && head[1] <= 5 }

// compression names the container that head begins, of those in which pickles are known to travel.
func compression(head []byte) string {
	for _, c := range []struct{ magic, name string }{
		{"\x1f\x8b", "gzip"},
		{"BZh", "bzip2"},
		{"\xfd7zXZ\x00", "xz"},
		{"\x28\xb5\x2f\xfd", "zstd"},
		{"\x04\x22\x4d\x18", "lz4"},
		{"7z\xbc\xaf\x27\x1c", "7z"},
		{"]\x00\x00", "lzma"},
	} {
		if bytes.HasPrefix(head, []byte(c.magic)) {
			return c.name
		}
	}
	if len(head) >= 2 && head[0] == 0x78 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return "zlib" // RFC 1950: the first two bytes are a multiple of 31
	}
	if len(head) > 262 && string(head[257:262]) == "ustar" {
		return "tar"
	}
	return ""
}
