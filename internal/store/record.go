package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"ema/internal/model"
)

// Record is what ema remembers of a revision that it completed: which of its files were wanted, and
// where they came from. It is a hint for people and for listings; the bytes are proven by sidecars.
type Record struct {
	ID               model.ID
	Revision, Commit string
	Include, Exclude []string     // the patterns that chose the files; empty for all
	Files            []model.File // wanted files, with their final digests
	Source           string       // where from, without secrets
	CompletedAt      time.Time
	Unlisted         bool // nobody has told whether Files are all that the commit has

	// Quarantined are files of the commit that were fetched and are kept from whoever loads the model: no link leads to them.
	Quarantined []Quarantined

	// proven is what the blob of each of Files was when its sidecar proved it, zero if none did: as long
	// as it is the same and the sidecar is there, a listing need not open that.
	proven []identity
}

// A Quarantined is a file that loading could harm.
type Quarantined struct {
	Path   string `json:"path"`
	Digest string `json:"digest"` // of its content, in hexadecimal digits
	Why    string `json:"why"`    // in words
}

type recordJSON struct {
	ID          string       `json:"id"`
	Revision    string       `json:"revision"`
	Commit      string       `json:"commit"`
	Include     []string     `json:"include,omitempty"`
	Exclude     []string     `json:"exclude,omitempty"`
	Source      string       `json:"source,omitempty"`
	CompletedAt time.Time    `json:"completed_at"`
	Unlisted    bool         `json:"unlisted,omitempty"`
	Files       []recordFile `json:"files"`

	Quarantined []Quarantined `json:"quarantined,omitempty"`
}

type recordFile struct {
	Path      string `json:"path"`
	Size      int64  `json:"size"`
	Digest    string `json:"digest"` // 64 hexadecimal digits: sha256; 40: git blob id
	PointerID string `json:"pointer_id,omitempty"`
	XetHash   string `json:"xet_hash,omitempty"`
	Modified  int64  `json:"proven_mtime_ns,omitempty"` // of the blob, when it was proven
	Inode     uint64 `json:"proven_inode,omitempty"`
}

// MarshalJSON writes the form in which records are kept.
func (r Record) MarshalJSON() ([]byte, error) {
	out := recordJSON{
		ID: r.ID.String(), Revision: r.Revision, Commit: r.Commit, Include: r.Include, Exclude: r.Exclude,
		Source: r.Source, CompletedAt: r.CompletedAt.UTC(), Unlisted: r.Unlisted, Files: make([]recordFile, len(r.Files)),
		Quarantined: r.Quarantined,
	}
	for i, f := range r.Files {
		out.Files[i] = recordFile{Path: f.Path, Size: f.Size, Digest: f.Digest.Hex(), PointerID: f.PointerID, XetHash: f.XetHash}
		if i < len(r.proven) {
			out.Files[i].Modified, out.Files[i].Inode = r.proven[i].mtime, r.proven[i].inode
		}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote, and refuses names and sizes that it cannot have written.
func (r *Record) UnmarshalJSON(raw []byte) error {
	var in recordJSON
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	id, err := model.ParseID(in.ID)
	if err != nil {
		return err
	}
	if !model.IsCommit(in.Commit) {
		return fmt.Errorf("record of %v: %q is not a commit", id, in.Commit)
	}
	files, proven := make([]model.File, len(in.Files)), make([]identity, len(in.Files))
	for i, f := range in.Files {
		d, err := model.ParseDigest(f.Digest)
		if err = errors.Join(err, model.CheckPath(f.Path)); err != nil {
			return fmt.Errorf("record of %v: %w", id, err)
		}
		if f.Size < 0 {
			return fmt.Errorf("record of %v: %s: size %d is negative", id, f.Path, f.Size)
		}
		files[i] = model.File{Path: f.Path, Size: f.Size, Digest: d, PointerID: f.PointerID, XetHash: f.XetHash}
		if f.Inode != 0 {
			proven[i] = identity{size: f.Size, mtime: f.Modified, inode: f.Inode}
		}
	}
	for _, q := range in.Quarantined {
		if err := model.CheckPath(q.Path); err != nil {
			return fmt.Errorf("record of %v: %w", id, err)
		}
	}
	*r = Record{id, in.Revision, in.Commit, in.Include, in.Exclude, files, in.Source, in.CompletedAt, in.Unlisted, in.Quarantined, proven}
	return nil
}

// readRecord reads a record; nil if there is none that can be read.
func readRecord(name string) *Record {
	raw, err := peek(name, make([]byte, 8<<10))
	if len(raw) == 8<<10 {
		raw, err = os.ReadFile(name) // a model of many files
	}
	if err != nil {
		return nil
	}
	r := new(Record)
	if r.UnmarshalJSON(raw) != nil {
		return nil
	}
	return r
}

// Record is what is remembered of a revision that was completed here; an error of class NotFound if
// there is nothing that can be read.
func (s *Store) Record(id model.ID, commit string) (Record, error) {
	if r := readRecord(s.recordPath(id, commit)); r != nil && r.ID == id && r.Commit == commit {
		return *r, nil
	}
	return Record{}, &model.Error{Op: "find", Class: model.NotFound, Model: id, Err: notHere{}, Hint: `"ema ls" shows what is here`}
}
