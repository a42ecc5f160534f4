package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ema/internal/model"
)

// checkBlobs looks at every name in the blobs folder.
func (c *checkup) checkBlobs() error {
	all, err := listed(c.s.blobsDir(c.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		name := e.Name()
		if etag, part := partialOf(name); part {
			if err := c.checkPartial(name, etag); err != nil {
				return err
			}
			continue
		}
		if ignoredByAll(name) {
			continue
		}
		b := &content{tier: c.s.tierOf(c.id, name)}
		c.blobs[name] = b
		path := c.s.blobPath(c.id, name)
		info, err := os.Stat(path)
		switch {
		case err != nil:
			c.lost(name, b.tier, err)
			continue
		case !info.Mode().IsRegular():
			delete(c.blobs, name)
			c.stranger(path)
			continue
		}
		b.info = info
		c.judge(name, b, e.Type()&fs.ModeSymlink != 0)
	}
	return nil
}

// partialOf reads the blob's name out of any tool's unfinished file.
func partialOf(name string) (etag string, ok bool) {
	if etag, ok = strings.CutSuffix(name, ".downloadInProgress"); ok { // of llama.cpp
		return etag, isBlobName(etag)
	}
	return etagOfIncomplete(name)
}

// judge compares a content's file with what it should be.
func (c *checkup) judge(name string, b *content, link bool) {
	path := c.s.blobPath(c.id, name)
	if link && b.tier == model.Hot {
		target, _ := os.Readlink(path) // for a message only
		c.add(Finding{
			Kind: BlobElsewhere, Path: path, Harmless: true,
			Problem: fmt.Sprintf("it leads to %s, where ema has not put it: whoever removes that removes a part of the model", target),
			Remedy:  "keep that file, or set the folder of the tier it lies in",
		}, mendContents, nil)
	}
	changed := isBlobName(name) && prove(c.s.sidecarIn(b.tier, c.id, name), b.info) == Changed
	size, known := c.sizes[name]
	switch {
	case known && size != b.info.Size():
		c.add(Finding{
			Kind: SizeWrong, Path: path, Remedy: c.repair(),
			Problem: fmt.Sprintf("it has %d bytes instead of %d", b.info.Size(), size),
		}, mendContents, nil)
	case changed:
		c.add(Finding{
			Kind: BlobChanged, Path: path,
			Problem: "its file was changed or replaced since its content was verified", Remedy: "see whether it is right with: ema verify " + c.id.Public(),
		}, mendContents, nil)
	}
}

// repair is the remedy of what only the source can mend.
func (c *checkup) repair() string { return "fetch it again with: ema repair " + c.id.Public() }

// lost notes a content's name that leads nowhere.
func (c *checkup) lost(name string, t model.Tier, err error) {
	path := c.s.blobPath(c.id, name)
	target, _ := os.Readlink(path) // for a message only
	switch found, ok := c.stray(name); {
	case errors.Is(err, syscall.ELOOP):
		c.add(Finding{Kind: LinkLoop, Path: path, Problem: "it leads to itself", Remedy: c.repair()}, mendContents, nil)
	case t != model.Hot && c.s.reachTier(t) != nil:
		// said of the whole tier
	case ok:
		c.strayed(name, found)
	default:
		c.add(Finding{
			Kind: BlobLost, Path: path, Remedy: c.repair(), Problem: fmt.Sprintf("it leads to %s, which is not there", target),
		}, mendContents, nil)
	}
}

// strayed notes a content whose name is lost and that lies in a colder tier.
func (c *checkup) strayed(name string, t model.Tier) {
	c.add(Finding{
		Kind: BlobLost, Path: c.s.blobPath(c.id, name),
		Problem: fmt.Sprintf("its name is gone or leads nowhere, but it lies in the %s tier", t), Remedy: byRebuild + "makes its name lead there",
	}, mendContents, func(_ context.Context, w *Writer) error {
		if isFile(os.Stat(w.blobPath(c.id, name))) || !isFile(os.Lstat(w.blobIn(t, c.id, name))) {
			return nil // somebody was faster
		}
		if err := w.adopt(w.tierBlobs(t, c.id), w.blobsDir(c.id)); err != nil {
			return err
		}
		if err := w.saveNames(); err != nil { // the content's own name first
			return err
		}
		return w.point(c.id, name, t)
	})
}

// stray is a colder tier in which a content lies, whole as far as its size tells.
func (c *checkup) stray(name string) (model.Tier, bool) {
	for _, t := range c.s.coldTiers() {
		if c.s.reachTier(t) != nil {
			continue
		}
		info, err := os.Lstat(c.s.blobIn(t, c.id, name))
		size, known := c.sizes[name]
		if err == nil && info.Mode().IsRegular() && (!known || info.Size() == size) {
			return t, true
		}
	}
	return "", false
}

// has reports whether a content is here, with the size that it should have.
func (c *checkup) has(f model.File) bool {
	b := c.blobs[f.Digest.Hex()]
	return b != nil && b.info != nil && b.info.Size() == f.Size
}

// checkPartial notes a file that was being fetched and with which nobody will go on.
func (c *checkup) checkPartial(name, etag string) error {
	busy, err := c.s.fetching(c.id.DirName(), etag)
	if err != nil || busy || c.moving && strings.HasSuffix(name, "."+movingSuffix+incomplete) {
		return err
	}
	if raw, err := os.ReadFile(c.s.journalPath(c.id, etag)); err == nil {
		if j, err := parseJournal(raw); err == nil && incompleteName(j.etag, j.suffix) == name {
			return nil // the next pull goes on with it
		}
	}
	c.add(Finding{
		Kind: PartialDead, Path: c.s.blobPath(c.id, name), Harmless: true,
		Problem: "it was being fetched, and no ema will go on with it", Remedy: `"ema gc" removes it when it is a day old`,
	}, mendLeftovers, nil)
	return nil
}

// checkUse finds contents that no snapshot leads to, and names that are no hashes.
func (c *checkup) checkUse() error {
	for name, b := range c.blobs {
		path := c.s.blobPath(c.id, name)
		switch {
		case !isBlobName(name) && c.used[name]:
			c.add(Finding{
				Kind: BlobMisnamed, Path: path, Harmless: true,
				Problem: "its name is no hash, so ema cannot prove its content", Remedy: `pull the model once to have it under its hash`,
			}, mendContents, nil)
		case !isBlobName(name):
			c.stranger(path)
		case !c.used[name] && b.info != nil && !c.busy && !c.promised(name):
			c.add(Finding{
				Kind: BlobUnused, Path: path, Harmless: true,
				Problem: "no snapshot leads to it", Remedy: `"ema gc" removes it when it is a day old`,
			}, mendContents, nil)
		}
	}
	return nil
}

// promised reports whether a revision of which something else was found to be amiss wants a content: then it is of use.
func (c *checkup) promised(name string) bool {
	for commit, r := range c.records {
		for _, f := range r.Files {
			if f.Digest.Hex() == name && c.revivable(commit) {
				return true
			}
		}
	}
	return false
}

// checkColder finds contents in colder tiers to which no name leads.
func (c *checkup) checkColder() error {
	for _, t := range c.s.coldTiers() {
		if c.s.reachTier(t) != nil {
			continue
		}
		all, err := listed(c.s.tierBlobs(t, c.id))
		if err != nil {
			return err
		}
		for _, e := range all {
			name := e.Name()
			path := c.s.blobIn(t, c.id, name)
			if etag, part := etagOfIncomplete(name); part {
				busy, err := c.s.fetching(c.id.DirName(), etag)
				if err != nil {
					return err
				}
				if !busy && !c.moving {
					c.add(Finding{
						Kind: PartialDead, Path: path, Harmless: true,
						Problem: "it was being moved there, and no move will go on with it", Remedy: `"ema gc" removes it when it is a day old`,
					}, mendLeftovers, nil)
				}
				continue
			}
			b := c.blobs[name]
			switch {
			case !isBlobName(name):
				c.stranger(path)
			case b != nil && (b.tier == t || b.info == nil): // in use, or told of by its name
			case b == nil && c.needed(name):
				c.strayed(name, t)
			case !c.moving:
				c.add(Finding{
					Kind: BlobUnused, Path: path, Harmless: true,
					Problem: "no name in the store leads to it", Remedy: `"ema gc" removes it when it is a day old`,
				}, mendContents, nil)
			}
		}
	}
	return nil
}

// needed reports whether a snapshot or a record wants a content.
func (c *checkup) needed(name string) bool {
	for _, r := range c.records {
		for _, f := range r.Files {
			if f.Digest.Hex() == name {
				return true
			}
		}
	}
	return c.used[name]
}

// checkBuilds finds what a crash left half built, or half taken apart.
func (c *checkup) checkBuilds() error {
	all, err := listed(c.s.buildDir(c.id))
	if err != nil || c.busy {
		return err
	}
	for _, e := range all {
		c.add(Finding{
			Kind: LeftUnfinished, Path: filepath.Join(c.s.buildDir(c.id), e.Name()), Harmless: true,
			Problem: "it was being built, or taken apart, and nobody looks at it", Remedy: `"ema gc" removes it when it is a day old`,
		}, mendLeftovers, nil)
	}
	return nil
}
