package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"ema/internal/model"
)

// checkSnapshots looks at every file of every snapshot.
func (c *checkup) checkSnapshots() error {
	all, err := listed(c.s.snapshotsDir(c.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		name := filepath.Join(c.s.snapshotsDir(c.id), e.Name())
		switch {
		case ignoredByAll(e.Name()):
		case e.IsDir() && model.IsCommit(e.Name()):
			c.here[e.Name()] = true
			if err := c.checkInside(e.Name(), "."); err != nil {
				return err
			}
		case e.IsDir():
			c.stranger(name)
		default:
			c.add(Finding{
				Kind: Stranger, Path: name, Problem: "it lies among the snapshots and is no folder, so other tools refuse the whole model",
				Remedy: "move it elsewhere",
			}, mendSnapshots, nil)
		}
	}
	return nil
}

// checkInside looks at a folder of a snapshot.
func (c *checkup) checkInside(commit, dir string) error {
	all, err := listed(filepath.Join(c.s.Snapshot(c.id, commit), filepath.FromSlash(dir)))
	if err != nil {
		return err
	}
	for _, e := range all {
		file := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			if err := c.checkInside(commit, file); err != nil {
				return err
			}
		case e.Type()&fs.ModeSymlink != 0:
			c.checkLink(commit, file)
		case e.Type().IsRegular():
			c.checkCopy(commit, file, e)
		default:
			c.stranger(filepath.Join(c.s.Snapshot(c.id, commit), filepath.FromSlash(file)))
		}
	}
	return nil
}

// checkCopy looks at a plain file, as other tools put it where they can make no links.
func (c *checkup) checkCopy(commit, file string, e fs.DirEntry) {
	info, err := e.Info()
	w, known := c.wanted[commit][file]
	if err == nil && known && info.Size() != w.Size {
		c.add(Finding{
			Kind: SizeWrong, Path: filepath.Join(c.s.Snapshot(c.id, commit), filepath.FromSlash(file)), Remedy: "fetch it again with: ema repair " + c.spelled(commit),
			Problem: fmt.Sprintf("it has %d bytes instead of %d", info.Size(), w.Size),
		}, mendSnapshots, nil)
	}
}

// checkLink looks at one link of a snapshot.
func (c *checkup) checkLink(commit, file string) {
	name := filepath.Join(c.s.Snapshot(c.id, commit), filepath.FromSlash(file))
	target, err := os.Readlink(name)
	if err != nil {
		return // gone meanwhile
	}
	v := c.s.viewOf(c.id, commit)
	blob, inside := v.blobOf(name, target)
	if !inside {
		blob, inside = c.leadsInside(commit, file, name, target)
	}
	if !inside {
		return // said already
	}
	c.used[blob] = true
	f, known := c.wanted[commit][file]
	if known && f.ours && blob != f.Digest.Hex() {
		c.linkFinding(LinkWrong, commit, file, fmt.Sprintf("it leads to %.12s…, and %.12s… was pulled", blob, f.Digest.Hex()))
		return
	}
	if _, there := c.blobs[blob]; !there {
		if _, lies := c.stray(blob); !lies { // else checkColder says that its name is lost
			c.linkFinding(LinkDead, commit, file, "it leads to a content that is not here")
		}
		return
	}
	if filepath.IsAbs(target) {
		c.absolute(commit, file, blob)
	}
}

// leadsInside follows a link that does not lead into the model's blobs by its own text. It returns the blob to which it leads in the
// end; false when there is nothing more to say about it.
func (c *checkup) leadsInside(commit, file, name, target string) (blob string, ok bool) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, syscall.ELOOP):
		c.linkFinding(LinkLoop, commit, file, "it leads to itself")
		return "", false
	case err != nil:
		c.linkFinding(LinkDead, commit, file, fmt.Sprintf("it leads to %s, which is not there", target))
		return "", false
	}
	end, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", false // gone meanwhile
	}
	dirs := []string{c.s.blobsDir(c.id)}
	for _, t := range c.s.coldTiers() {
		dirs = append(dirs, c.s.tierBlobs(t, c.id))
	}
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil && filepath.Dir(end) == real {
			return filepath.Base(end), true
		}
	}
	if snap, err := filepath.EvalSymlinks(c.s.Snapshot(c.id, commit)); err == nil && within(snap, end) && info.Mode().IsRegular() && !filepath.IsAbs(target) {
		return "", false // another name of a plain file beside it
	}
	c.linkFinding(LinkOutside, commit, file, fmt.Sprintf("it leads to %s, out of the model's contents: tools that remove the model remove that", target))
	return "", false
}

// linkFinding notes a link that leads to the wrong place, and mends it when the right content is here.
func (c *checkup) linkFinding(kind FindingKind, commit, file, problem string) {
	name := filepath.Join(c.s.Snapshot(c.id, commit), filepath.FromSlash(file))
	f, known := c.wanted[commit][file]
	if known && c.has(f.File) {
		c.used[f.Digest.Hex()] = true
		c.add(Finding{Kind: kind, Path: name, Problem: problem, Remedy: byRebuild + "makes it lead to the content that was pulled, which is here"},
			mendSnapshots, c.linking(commit, file, f.Digest.Hex()))
		return
	}
	remedy := "fetch it again with: ema repair " + c.spelled(commit)
	if kind == LinkOutside {
		remedy = "put the file itself there, or pull the model again"
	}
	c.add(Finding{Kind: kind, Path: name, Problem: problem, Remedy: remedy}, mendSnapshots, nil)
}

// absolute notes a link that should be relative.
func (c *checkup) absolute(commit, file, blob string) {
	c.add(Finding{
		Kind: LinkAbsolute, Path: filepath.Join(c.s.Snapshot(c.id, commit), filepath.FromSlash(file)), Harmless: true,
		Problem: "it is an absolute link, which breaks when the folder is moved or mounted elsewhere", Remedy: byRebuild + "makes it relative",
	}, mendSnapshots, c.linking(commit, file, blob))
}

// linking makes a file of a snapshot a link to a content. It replaces links only.
func (c *checkup) linking(commit, file, blob string) func(context.Context, *Writer) error {
	return func(_ context.Context, w *Writer) error {
		name := filepath.Join(w.Snapshot(c.id, commit), filepath.FromSlash(file))
		info, err := os.Lstat(name)
		if err == nil && info.Mode()&fs.ModeSymlink == 0 || ignoreMissing(err) != nil {
			return err
		}
		if err := w.folder(w.buildDir(c.id)); err != nil {
			return err
		}
		if err := w.adopt(w.blobsDir(c.id), w.Snapshot(c.id, commit)); err != nil {
			return err
		}
		if err := w.ownFolders(c.id, w.Snapshot(c.id, commit), path.Dir(file)); err != nil {
			return err
		}
		w.changed(filepath.Dir(name))
		tmp := filepath.Join(w.buildDir(c.id), "link."+newSuffix())
		if err := w.disk.Symlink(relativeTo(file, blob), tmp); err != nil {
			return err
		}
		if err := w.rename(tmp, name); err != nil {
			return errors.Join(err, w.remove(tmp))
		}
		return nil
	}
}

// relativeTo is the link from a snapshot's file to a blob of any name.
func relativeTo(file, blob string) string {
	return strings.Repeat("../", 2+strings.Count(file, "/")) + "blobs/" + blob
}

// checkRecords compares what was pulled with what is there.
func (c *checkup) checkRecords() error {
	for commit, r := range c.records {
		if !c.here[commit] {
			c.checkGone(commit, r)
			continue
		}
		for _, f := range r.Files {
			name := filepath.Join(c.s.Snapshot(c.id, commit), filepath.FromSlash(f.Path))
			if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			switch _, cold := c.stray(f.Digest.Hex()); {
			case c.has(f):
				c.used[f.Digest.Hex()] = true
				c.add(Finding{
					Kind: FileMissing, Path: name, Problem: "it was pulled, and is not in the snapshot", Remedy: byRebuild + "links it: its content is here",
				}, mendSnapshots, c.linking(commit, f.Path, f.Digest.Hex()))
			case cold && c.blobs[f.Digest.Hex()] == nil:
				c.add(Finding{
					Kind: FileMissing, Path: name, Problem: "it was pulled, and is not in the snapshot", Remedy: byRebuild + "links it: its content lies in a colder tier",
				}, mendSnapshots, nil)
			default:
				c.add(Finding{
					Kind: FileMissing, Path: name, Problem: "it was pulled, and neither it nor its content is here",
					Remedy: "fetch it again with: ema repair " + c.spelled(commit),
				}, mendSnapshots, nil)
			}
		}
	}
	return nil
}

// checkGone judges a record whose snapshot is not there: it was lost, or another tool has removed it.
func (c *checkup) checkGone(commit string, r *Record) {
	name := c.s.Snapshot(c.id, commit)
	some := false
	for _, f := range r.Files {
		some = some || c.has(f)
	}
	switch {
	case c.revivable(commit):
		for _, f := range r.Files {
			c.used[f.Digest.Hex()] = true
		}
		c.add(Finding{
			Kind: SnapshotMissing, Path: name, Problem: "the revision was completed and all its contents are here, but its snapshot is not",
			Remedy: byRebuild + "makes it again",
		}, mendSnapshots, func(ctx context.Context, w *Writer) error {
			if _, err := w.checkFiles(c.id, r.Files); err != nil {
				return err
			}
			if err := w.adopt(w.blobsDir(c.id), w.blocksDir(c.id)); err != nil {
				return err
			}
			if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return w.build(ctx, c.id, name, r.Files)
		})
	case some && c.named(commit):
		c.add(Finding{
			Kind: SnapshotMissing, Path: name, Problem: "the revision was completed, but its snapshot and some of its contents are not here",
			Remedy: "fetch it again with: ema pull " + c.id.Public() + "@" + commit,
		}, mendSnapshots, nil)
	default:
		record := c.s.recordPath(c.id, commit)
		c.add(Finding{
			Kind: RecordStale, Path: record, Harmless: true, Problem: "it remembers a revision that was removed", Remedy: byRebuild + "removes it",
		}, mendLeftovers, removing(record))
	}
}

// revivable reports whether a revision without a snapshot can be had again, and was not removed on purpose: whoever removes a
// revision removes its refs, and the contents that no other one uses.
func (c *checkup) revivable(commit string) bool {
	r := c.records[commit]
	if r == nil || c.here[commit] {
		return false
	}
	alone := c.named(commit)
	for _, f := range r.Files {
		if !c.has(f) {
			return false
		}
		alone = alone || !c.shown(f.Digest.Hex())
	}
	return alone
}

// shown reports whether a snapshot that is here wants a content.
func (c *checkup) shown(blob string) bool {
	if c.used[blob] {
		return true
	}
	for commit := range c.here {
		for _, f := range c.wanted[commit] {
			if f.Digest.Hex() == blob {
				return true
			}
		}
	}
	return false
}

// named reports whether a ref names a commit.
func (c *checkup) named(commit string) bool {
	for _, at := range c.refs {
		if at == commit {
			return true
		}
	}
	return false
}
