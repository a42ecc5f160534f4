package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ema/internal/model"
)

// readRefs reads which commits are named how.
func (c *checkup) readRefs() error {
	dir := c.s.refsDir(c.id)
	return filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		if e.IsDir() || ignoredByAll(e.Name()) {
			return nil
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		ref := filepath.ToSlash(rel)
		if !e.Type().IsRegular() || model.CheckRevision(ref) != nil || isTemporary(e.Name()) {
			c.stranger(name)
			return nil
		}
		var buf [64]byte
		text, err := peek(name, buf[:])
		if err != nil {
			return nil // gone meanwhile
		}
		if commit, ok := parseRef(text); ok {
			c.refs[ref] = commit
			return nil
		}
		c.unreadable(ref, name, strings.TrimSpace(string(text)))
		return nil
	})
}

// isTemporary reports whether a ref is one that another tool was writing when it was killed.
func isTemporary(name string) bool {
	rest, ok := strings.CutSuffix(name, ".tmp")
	dot := strings.LastIndexByte(rest, '.')
	return ok && dot > 0 && len(rest)-dot-1 == suffixDigits && isHex(rest[dot+1:])
}

// unreadable notes a ref that is no commit. Spaces around one are what editors and shells leave, and enough to make the hub's
// client refuse the model.
func (c *checkup) unreadable(ref, name, commit string) {
	c.broken[ref] = true
	f := Finding{Kind: RefUnreadable, Path: name, Problem: "it is not exactly 40 hexadecimal digits, so no tool can follow it"}
	if !model.IsCommit(commit) {
		if commit = c.latest(ref); commit == "" {
			f.Remedy = "name the revision again with: ema pull " + c.id.Public() + "@" + ref
			c.add(f, mendRefs, nil)
			return
		}
	}
	f.Remedy = byRebuild + "makes it name " + commit[:12]
	c.add(f, mendRefs, c.naming(ref, commit))
}

// latest is the commit that was completed last under the name of a ref; empty if none was.
func (c *checkup) latest(ref string) string {
	var best *Record
	for _, r := range c.records {
		if r.Revision == ref && (best == nil || r.CompletedAt.After(best.CompletedAt)) {
			best = r
		}
	}
	if best == nil {
		return ""
	}
	return best.Commit
}

// naming writes a ref, if its snapshot is there by now.
func (c *checkup) naming(ref, commit string) func(context.Context, *Writer) error {
	return func(_ context.Context, w *Writer) error {
		if _, err := os.Stat(w.Snapshot(c.id, commit)); err != nil {
			return ignoreMissing(err)
		}
		if err := w.adopt(w.snapshotsDir(c.id)); err != nil { // what it leads to is durable first
			return err
		}
		if err := w.saveNames(); err != nil {
			return err
		}
		return w.nameRevision(c.id, ref, commit)
	}
}

// checkRefs compares refs with snapshots, both ways.
func (c *checkup) checkRefs() error {
	if c.busy {
		return nil // the hub's own client writes the ref before the files
	}
	for ref, commit := range c.refs {
		name := filepath.Join(c.s.refsDir(c.id), filepath.FromSlash(ref))
		if _, err := os.Lstat(filepath.Join(c.s.modelDir(c.id), ".no_exist", commit)); c.here[commit] || err == nil {
			continue // it may only be known what is not in that commit
		}
		if c.revivable(commit) {
			continue // its snapshot is what is missing
		}
		f := Finding{Kind: RefAstray, Path: name, Problem: "it names commit " + commit[:12] + ", of which nothing is here"}
		if other := c.latest(ref); other != "" && c.here[other] {
			f.Remedy = byRebuild + "makes it name " + other[:12] + ", which is here"
			c.add(f, mendRefs, c.naming(ref, other))
			continue
		}
		if some := c.records[commit]; some != nil && c.someOf(some) {
			continue // checkRecords says what is missing
		}
		f.Remedy = byRebuild + "removes it; bring what it names with: ema pull " + c.id.Public() + "@" + ref
		c.add(f, mendRefs, func(_ context.Context, w *Writer) error {
			if _, err := os.Lstat(w.Snapshot(c.id, commit)); err == nil {
				return nil
			}
			return w.removeRef(name)
		})
	}
	for commit, r := range c.records {
		_, taken := c.refs[r.Revision]
		if !c.here[commit] && !c.revivable(commit) || c.named(commit) || taken || c.broken[r.Revision] || !model.IsCommit(r.Revision) && c.latest(r.Revision) != commit {
			continue
		}
		c.add(Finding{
			Kind: RefMissing, Path: filepath.Join(c.s.refsDir(c.id), filepath.FromSlash(r.Revision)), Harmless: len(c.refs) > 0,
			Problem: "no ref names commit " + commit[:12] + ", which was pulled under this name: other tools may remove it",
			Remedy:  byRebuild + "names it",
		}, mendRefs, c.naming(r.Revision, commit))
	}
	return nil
}

func (c *checkup) someOf(r *Record) bool {
	for _, f := range r.Files {
		if c.has(f) {
			return true
		}
	}
	return false
}

// checkProofs finds block checksums that prove nothing.
func (c *checkup) checkProofs() error {
	all, err := listed(c.s.blocksDir(c.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		name := filepath.Join(c.s.blocksDir(c.id), e.Name())
		blob, t, whole := parseSidecarName(e.Name())
		_, gone := os.Lstat(c.s.blobPath(c.id, blob))
		problem := ""
		switch {
		case !whole:
			problem = "it was being written, and is no proof of any content"
		case errors.Is(gone, fs.ErrNotExist):
			if _, lies := c.stray(blob); lies {
				continue // the content can be found again, and this is its proof
			}
			problem = "it is the proof of a content that is gone"
		case c.s.Has(t) && t != c.s.tierOf(c.id, blob):
			if c.moving {
				continue
			}
			problem = "it is the proof of a copy that is gone"
		default:
			var buf [sidecarHeader]byte
			head, err := peek(name, buf[:])
			if _, _, err2 := parseSidecarHeader(head); err == nil && err2 != nil {
				problem = "it cannot be read, so the content counts as unverified"
			}
		}
		if problem != "" {
			c.add(Finding{
				Kind: ProofStale, Path: name, Harmless: true, Problem: problem, Remedy: byRebuild + "removes it",
			}, mendLeftovers, removing(name))
		}
	}
	return nil
}

// checkJournals finds notes about downloads whose files are gone.
func (c *checkup) checkJournals() error {
	all, err := listed(c.s.partialsDir(c.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		etag, whole := strings.CutSuffix(e.Name(), ".journal")
		if busy, err := c.s.fetching(c.id.DirName(), stem(e.Name())); err != nil || busy {
			if err != nil {
				return err
			}
			continue
		}
		name := filepath.Join(c.s.partialsDir(c.id), e.Name())
		if raw, err := os.ReadFile(name); whole && err == nil {
			if j, err := parseJournal(raw); err == nil && j.etag == etag && isFile(os.Lstat(c.s.blobPath(c.id, incompleteName(j.etag, j.suffix)))) {
				continue
			}
		}
		c.add(Finding{
			Kind: JournalStale, Path: name, Harmless: true, Problem: "it is about a file that was being fetched and is gone", Remedy: byRebuild + "removes it",
		}, mendLeftovers, removing(name))
	}
	return nil
}
