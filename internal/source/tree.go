package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"ema/internal/model"
)

// maxPages bounds a listing: at a thousand entries per page this is far beyond maxFiles.
const maxPages = 10_000

// An entry is one line of a tree listing.
type entry struct {
	Type    string `json:"type"`
	Path    string `json:"path"`
	OID     string `json:"oid"` // git blob id; for LFS files that of the pointer
	Size    *int64 `json:"size"`
	LFS     *lfs   `json:"lfs"`
	XetHash string `json:"xetHash"`
}

type lfs struct {
	OID  string `json:"oid"` // sha256 of the content
	Size *int64 `json:"size"`
}

// A sibling is one file in the information about a revision, the same facts by other names.
type sibling struct {
	Name   string `json:"rfilename"`
	Size   *int64 `json:"size"`
	BlobID string `json:"blobId"`
	LFS    *struct {
		SHA256 string `json:"sha256"`
		Size   *int64 `json:"size"`
	} `json:"lfs"`
}

// file is what an entry says about its file. The blob id of an LFS file is that of its pointer and
// proves nothing about its content, so a useless sha256 leaves the digest unknown.
func (e entry) file() (model.File, error) {
	f := model.File{Path: e.Path}
	blame := func(format string, args ...any) error { return &fileError{e.Path, fmt.Errorf(format, args...)} }
	sizes := []*int64{e.Size}
	hash := e.OID
	if e.LFS != nil {
		sizes = append(sizes, e.LFS.Size)
		hash = e.LFS.OID
		if d, err := model.ParseDigest(e.OID); err == nil && d.Algo() == model.GitSHA1 {
			f.PointerID = d.Hex()
		}
	}
	known := false
	for _, size := range sizes {
		switch {
		case size == nil:
		case known && *size != f.Size:
			return f, blame("the hub gives two sizes, %d and %d bytes", f.Size, *size)
		default:
			f.Size, known = *size, true
		}
	}
	if !known {
		return f, blame("the hub gives no size")
	}
	if masked(hash) || masked(e.XetHash) {
		return f, blame("%w: the hub hides its hash from those without access", ErrGated)
	}
	want := model.GitSHA1
	if e.LFS != nil {
		want = model.SHA256
	}
	if d, err := model.ParseDigest(hash); err == nil && d.Algo() == want {
		f.Digest = d
	}
	if d, err := model.ParseDigest(e.XetHash); err == nil && d.Algo() == model.SHA256 {
		f.XetHash = d.Hex() // not a sha256, but of the same shape
	}
	return f, nil
}

// masked recognises the asterisks that stand for hashes in listings of gated models.
func masked(hash string) bool { return hash != "" && strings.Trim(hash, "*") == "" }

// treeURL is the first page of the listing of a commit, for a model of that name.
func (h *hub) treeURL(name, commit string) (*url.URL, error) {
	return url.Parse(h.base + "/api/models/" + name + "/tree/" + commit + "?recursive=true&expand=false")
}

// tree lists all files of m's commit, page by page; with recall, only pages that are kept count.
func (h *hub) tree(ctx context.Context, m *model.Manifest, recall bool) (*listing, error) {
	u, err := h.treeURL(name(m), m.Commit)
	if err != nil {
		return nil, &model.Error{Op: "resolve", Class: model.Usage, Model: m.ID, Err: errors.New("the id makes no URL")}
	}
	all, seen := newListing(), make(map[string]struct{})
	for {
		seen[u.String()] = struct{}{}
		var page []model.File
		_, next, err := h.get(ctx, document{id: m.ID, url: u, pinned: true, recall: recall, decode: func(dec *json.Decoder) (err error) {
			page, err = readTree(dec)
			return err
		}})
		if err != nil {
			return nil, err
		}
		for _, f := range page {
			if err := all.add(f); err != nil {
				return nil, h.unacceptable(err, m.ID, u)
			}
		}
		if next == nil {
			return all, nil
		}
		if _, again := seen[next.String()]; again {
			return nil, untrue(errors.New("the pages of the listing go round in a circle"), m.ID)
		}
		if len(seen) == maxPages {
			return nil, untrue(fmt.Errorf("the listing has more than %d pages", maxPages), m.ID)
		}
		u = next
	}
}

// readTree reads one page. What is neither file nor folder (a submodule) has no bytes to fetch.
func readTree(dec *json.Decoder) (page []model.File, err error) {
	err = eachElement(dec, func(int) error {
		var e entry
		if err := dec.Decode(&e); err != nil {
			return err
		}
		if e.Type != "file" {
			return nil
		}
		f, err := e.file()
		if err != nil {
			return err
		}
		if len(page) == maxFiles {
			return errTooMany
		}
		page = append(page, f)
		return nil
	})
	return page, err
}
