package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ema/internal/model"
)

// treeJSON is trees/<commit>.json: all files of a commit, whatever was fetched of it
// (reference/hub-protocol, 16.6). The hub's client detects half-filled snapshots by it.
type treeJSON struct {
	Version int                 `json:"format_version"`
	Files   map[string]treeFile `json:"files"`
}

type treeFile struct {
	Size      int64  `json:"size"`
	BlobID    string `json:"blob_id"`
	LFSSHA256 string `json:"lfs_sha256,omitempty"`
	LFSSize   *int64 `json:"lfs_size,omitempty"`
	XetHash   string `json:"xet_hash,omitempty"`
}

// treeBytes lays out the tree; false if a file's size or blob id is unknown, since a tree that does
// not list everything would make complete snapshots look broken, and broken ones complete.
func treeBytes(files []model.File) ([]byte, bool) {
	t := treeJSON{Version: 1, Files: make(map[string]treeFile, len(files))}
	for _, f := range files {
		e := treeFile{Size: f.Size, XetHash: f.XetHash}
		switch f.Digest.Algo() {
		case model.GitSHA1:
			e.BlobID = f.Digest.Hex()
		case model.SHA256:
			e.BlobID, e.LFSSHA256, e.LFSSize = f.PointerID, f.Digest.Hex(), &f.Size
		}
		if e.BlobID == "" || f.Size < 0 {
			return nil, false
		}
		t.Files[f.Path] = e
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(t); err != nil {
		return nil, false
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), true
}

// Tree lists all files of a commit, whatever was fetched of them, in path order; false if nothing here
// tells them all.
func (s *Store) Tree(id model.ID, commit string) ([]model.File, bool) { return s.readTree(id, commit) }

// readTree reads a tree in path order. Like the hub's client it ignores as a whole what it does not
// understand.
func (s *Store) readTree(id model.ID, commit string) ([]model.File, bool) {
	raw, err := os.ReadFile(filepath.Join(s.treesDir(id), commit+".json"))
	if err != nil {
		return nil, false
	}
	files, err := parseTree(raw)
	return files, err == nil
}

var errTree = errors.New("not a tree of format version 1")

func parseTree(raw []byte) ([]model.File, error) {
	var t treeJSON
	if json.Unmarshal(raw, &t) != nil || t.Version != 1 || t.Files == nil {
		return nil, errTree
	}
	files := make([]model.File, 0, len(t.Files))
	for path, e := range t.Files {
		f := model.File{Path: path, Size: e.Size, XetHash: e.XetHash}
		name := e.BlobID
		if e.LFSSHA256 != "" {
			name, f.PointerID = e.LFSSHA256, e.BlobID
			if e.LFSSize != nil {
				f.Size = *e.LFSSize
			}
		}
		var err error
		if f.Digest, err = model.ParseDigest(name); err != nil || f.Size < 0 || model.CheckPath(path) != nil {
			return nil, errTree
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b model.File) int { return strings.Compare(a.Path, b.Path) })
	return files, nil
}
