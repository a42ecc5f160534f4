package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ema/internal/model"
)

// FindingKind says what sort of disagreement a Finding is. The names are for programs and do not change.
type FindingKind string

// The kinds of findings.
const (
	RefAstray       FindingKind = "ref_astray"       // a ref names a commit that has no snapshot
	RefUnreadable   FindingKind = "ref_unreadable"   // a ref is not exactly 40 hexadecimal digits
	RefMissing      FindingKind = "ref_missing"      // nothing names a revision that was completed
	LinkDead        FindingKind = "link_dead"        // a snapshot's link leads nowhere
	LinkLoop        FindingKind = "link_loop"        // links lead to each other
	LinkOutside     FindingKind = "link_outside"     // a snapshot's link leads out of the model's folder
	LinkAbsolute    FindingKind = "link_absolute"    // a snapshot's link breaks when the folder is moved
	LinkWrong       FindingKind = "link_wrong"       // a snapshot's link leads to another content than was pulled
	FileMissing     FindingKind = "file_missing"     // a file that was pulled is not in its snapshot
	SnapshotMissing FindingKind = "snapshot_missing" // a revision that was completed has no snapshot
	SizeWrong       FindingKind = "size_wrong"       // a content has not the size that it should have
	BlobUnused      FindingKind = "blob_unused"      // no snapshot leads to a content
	BlobChanged     FindingKind = "blob_changed"     // a content's file changed since it was verified
	BlobLost        FindingKind = "blob_lost"        // a content's name leads nowhere
	BlobElsewhere   FindingKind = "blob_elsewhere"   // a content lies where ema has not put it
	BlobMisnamed    FindingKind = "blob_misnamed"    // a content's name is no hash
	PartialDead     FindingKind = "partial_dead"     // nobody goes on with a file that was being fetched
	ProofStale      FindingKind = "proof_stale"      // block checksums of what is gone, or unreadable ones
	RecordStale     FindingKind = "record_stale"     // the record of a revision that is gone, or an unreadable one
	JournalStale    FindingKind = "journal_stale"    // notes about a download, or a move, of what is gone
	LeftUnfinished  FindingKind = "unfinished"       // something was begun and not ended
	TierGone        FindingKind = "tier_away"        // the folder of a tier is not there
	NamesAlike      FindingKind = "names_alike"      // two models whose folders differ only in case
	Stranger        FindingKind = "stranger"         // it does not belong into the layout
)

// A Finding is one disagreement in a store, explained.
type Finding struct {
	Kind     FindingKind
	Model    model.ID // zero for what belongs to no model that can be named
	Path     string   // absolute
	Problem  string   // one sentence
	Remedy   string   // what will mend it, or what to do
	Harmless bool     // every model loads as it should in spite of it
}

// A flaw is a Finding with the way to mend it.
type flaw struct {
	Finding
	phase phase
	mend  func(ctx context.Context, w *Writer) error // nil: Rebuild can do nothing about it
}

// A phase is a part of Rebuild. What refers to something is mended after what it refers to.
type phase uint8

const (
	mendContents phase = iota
	mendSnapshots
	mendRefs
	mendLeftovers
	phases // how many there are
)

// byRebuild is the remedy of whatever Rebuild mends.
const byRebuild = `"ema store rebuild" `

// Check finds and explains every disagreement in the store's folder, in those of its tiers and in the state folder, in the order
// of models and paths. It reads names and metadata only, no content: that is for verifying. It changes nothing and needs no
// lock; while somebody writes to the store, something may be found that is only just being done, and it is harmless then.
func (s *Store) Check(ctx context.Context) ([]Finding, error) {
	flaws, err := s.survey(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]Finding, len(flaws))
	for i, f := range flaws {
		found[i] = f.Finding
	}
	return found, nil
}

// survey is Check with the ways to mend what it finds.
func (s *Store) survey(ctx context.Context) ([]flaw, error) {
	found := s.checkTiers()
	dirs, strangers, err := s.modelFolders()
	if err != nil {
		return nil, diskError("check", model.ID{}, s.path, err)
	}
	found = append(found, strangers...)
	found = append(found, namesAlike(s, dirs)...)
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		id, ok := s.idOf(dir)
		if !ok || id.DirName() != dir {
			found = append(found, flaw{Finding: Finding{
				Kind: Stranger, Path: filepath.Join(s.path, dir), Harmless: true,
				Problem: "no model has a folder of that name", Remedy: "remove it, or rename it, if it is of no use",
			}})
			continue
		}
		flaws, err := s.surveyModel(id)
		if err != nil {
			return nil, diskError("check", id, "", err)
		}
		found = append(found, flaws...)
	}
	slices.SortStableFunc(found, func(a, b flaw) int {
		if c := strings.Compare(a.Model.String(), b.Model.String()); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	return found, nil
}

// checkTiers finds colder tiers that cannot be reached though something lies there.
func (s *Store) checkTiers() []flaw {
	var found []flaw
	for _, t := range s.coldTiers() {
		if err := s.reachTier(t); err != nil {
			remedy := "nothing is lost meanwhile"
			if e, ok := errors.AsType[*model.Error](err); ok {
				remedy = e.Hint
			}
			found = append(found, flaw{Finding: Finding{
				Kind: TierGone, Path: s.colder[t], Remedy: remedy,
				Problem: fmt.Sprintf("the folder of the %s tier is not there, so what lies in it cannot be read or checked", t),
			}})
		}
	}
	return found
}

// modelFolders lists the names of all models of which there is anything, sorted, and what else lies in the store's folder.
func (s *Store) modelFolders() (dirs []string, strangers []flaw, err error) {
	seen := map[string]bool{}
	entries, err := os.ReadDir(s.path)
	if ignoreMissing(err) != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		kind, _, typed := strings.Cut(name, "--")
		switch {
		case typed && kind == "models" && e.IsDir():
			seen[name] = true
		case typed && e.IsDir() && (kind == "datasets" || kind == "spaces" || kind == "kernels"):
		case name == ".locks", name == "CACHEDIR.TAG", name == "version.txt", ignoredByAll(name):
		default:
			strangers = append(strangers, flaw{Finding: Finding{
				Kind: Stranger, Path: filepath.Join(s.path, name), Harmless: true,
				Problem: "it is no folder of a model, and scans of other tools warn of it", Remedy: "move it elsewhere, if it is yours",
			}})
		}
	}
	for _, of := range []string{"blocks", "partials", "models"} {
		entries, err := os.ReadDir(filepath.Join(s.state, of))
		if ignoreMissing(err) != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "models--") {
				seen[e.Name()] = true
			}
		}
	}
	moves, err := os.ReadDir(s.movesDir())
	if ignoreMissing(err) != nil {
		return nil, nil, err
	}
	for _, e := range moves {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && strings.HasPrefix(name, "models--") {
			seen[name] = true
		}
	}
	for dir := range seen {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return dirs, strangers, nil
}

// ignoredByAll reports whether a name is one that desktops leave everywhere, and other tools' scans overlook.
func ignoredByAll(name string) bool {
	return name == ".DS_Store" || name == "Thumbs.db" || name == "desktop.ini"
}

// namesAlike finds models that would share a folder on a file system that does not tell case apart.
func namesAlike(s *Store, dirs []string) []flaw {
	var found []flaw
	first := map[string]string{}
	for _, dir := range dirs {
		lower := strings.ToLower(dir)
		other, twice := first[lower]
		if !twice {
			first[lower] = dir
			continue
		}
		id, _ := s.idOf(dir)
		found = append(found, flaw{Finding: Finding{
			Kind: NamesAlike, Model: id, Path: filepath.Join(s.path, dir), Harmless: true,
			Problem: fmt.Sprintf("it differs from %s only in case: one of both was probably misspelt", other),
			Remedy:  "remove the one that is not needed with: ema rm MODEL",
		}})
	}
	return found
}

// A checkup is the survey of one model.
type checkup struct {
	s     *Store
	id    model.ID
	found []flaw

	busy    bool                       // somebody fetches something of it now
	moving  bool                       // a move of it was begun
	records map[string]*Record         // by commit
	wanted  map[string]map[string]want // commit → path → what it should be, as far as anything tells
	sizes   map[string]int64           // of contents, as records and trees tell them
	blobs   map[string]*content        // what lies in blobs under any complete name
	used    map[string]bool            // names in blobs that snapshots lead to
	here    map[string]bool            // commits that have a snapshot
	refs    map[string]string          // that can be read
	broken  map[string]bool            // refs that cannot be read
}

// A want is what a file of a revision should be.
type want struct {
	model.File
	ours bool // a record says so, not only a tree
}

// A content is a name in a blobs folder.
type content struct {
	info fs.FileInfo // of the file that it leads to; nil if that is not there
	tier model.Tier
}

// surveyModel checks all that there is of one model.
func (s *Store) surveyModel(id model.ID) ([]flaw, error) {
	c := &checkup{
		s: s, id: id, records: map[string]*Record{}, wanted: map[string]map[string]want{}, sizes: map[string]int64{},
		blobs: map[string]*content{}, used: map[string]bool{}, here: map[string]bool{}, refs: map[string]string{}, broken: map[string]bool{},
	}
	var err error
	if c.busy, err = s.fetchingAny(id.DirName()); err != nil {
		return nil, err
	}
	for _, look := range []func() error{
		c.checkMove, c.readRecords, c.readTrees, c.readRefs, c.checkFolder, c.checkBlobs, c.checkSnapshots, c.checkRefs,
		c.checkRecords, c.checkUse, c.checkColder, c.checkProofs, c.checkJournals, c.checkBuilds,
	} {
		if err := look(); err != nil {
			return nil, err
		}
	}
	return c.found, nil
}

// add notes a finding; mend may be nil.
func (c *checkup) add(f Finding, p phase, mend func(ctx context.Context, w *Writer) error) {
	f.Model = c.id
	c.found = append(c.found, flaw{f, p, mend})
}

// listed reads a folder that may be missing.
func listed(dir string) ([]fs.DirEntry, error) {
	all, err := os.ReadDir(dir)
	return all, ignoreMissing(err)
}

// fetchingAny reports whether somebody holds the lock of any blob of a model.
func (s *Store) fetchingAny(dirName string) (bool, error) {
	locks, err := listed(filepath.Join(s.locksDir(), dirName))
	if err != nil {
		return false, err
	}
	for _, e := range locks {
		etag, ok := strings.CutSuffix(e.Name(), ".lock")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		if busy, err := s.fetching(dirName, etag); busy || err != nil {
			return busy, err
		}
	}
	return false, nil
}

// spelled is the model as it is typed, with a revision unless that is main.
func (c *checkup) spelled(commit string) string {
	name := commit[:min(12, len(commit))]
	for ref, at := range c.refs {
		if at == commit && ref == defaultRevision {
			return c.id.Public()
		}
	}
	return c.id.Public() + "@" + name
}

// checkMove finds a move that was cut short.
func (c *checkup) checkMove() error {
	name := c.s.movePath(c.id)
	if _, err := os.Lstat(name); err != nil {
		return ignoreMissing(err)
	}
	if _, err := os.Lstat(c.s.modelDir(c.id)); errors.Is(err, fs.ErrNotExist) {
		c.add(Finding{
			Kind: JournalStale, Path: name, Harmless: true,
			Problem: "it is about a move of a model that is gone", Remedy: byRebuild + "removes it",
		}, mendLeftovers, removing(name))
		return nil
	}
	c.moving = true
	c.add(Finding{
		Kind: LeftUnfinished, Path: name, Harmless: true,
		Problem: "a move between tiers was begun and is not done; the model is whole meanwhile", Remedy: "move it again, to where it is to lie",
	}, mendLeftovers, nil)
	return nil
}

// removing is how to mend what is only to go.
func removing(name string) func(context.Context, *Writer) error {
	return func(_ context.Context, w *Writer) error { return w.remove(name) }
}

// readRecords reads what is remembered of completed revisions.
func (c *checkup) readRecords() error {
	all, err := listed(c.s.recordsDir(c.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		name := filepath.Join(c.s.recordsDir(c.id), e.Name())
		commit, whole := strings.CutSuffix(e.Name(), ".json")
		r := readRecord(name)
		if !whole || r == nil || r.ID.DirName() != c.id.DirName() || r.Commit != commit {
			c.add(Finding{
				Kind: RecordStale, Path: name, Harmless: true,
				Problem: "it is no record that can be read, so nobody remembers what was wanted of this revision", Remedy: byRebuild + "removes it",
			}, mendLeftovers, removing(name))
			continue
		}
		c.records[commit] = r
		c.wants(commit, r.Files, true)
	}
	return nil
}

// readTrees reads the lists of all files that commits have.
func (c *checkup) readTrees() error {
	all, err := listed(c.s.treesDir(c.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		commit, whole := strings.CutSuffix(e.Name(), ".json")
		if !whole || !model.IsCommit(commit) {
			c.stranger(filepath.Join(c.s.treesDir(c.id), e.Name()))
			continue
		}
		if files, ok := c.s.readTree(c.id, commit); ok {
			c.wants(commit, files, false)
		}
	}
	return nil
}

// wants notes what the files of a commit should be.
func (c *checkup) wants(commit string, files []model.File, ours bool) {
	if c.wanted[commit] == nil {
		c.wanted[commit] = map[string]want{}
	}
	for _, f := range files {
		if _, known := c.wanted[commit][f.Path]; known || f.Digest.IsZero() {
			continue
		}
		c.wanted[commit][f.Path] = want{f, ours}
		c.sizes[f.Digest.Hex()] = f.Size
	}
}

func (c *checkup) stranger(name string) {
	if ignoredByAll(filepath.Base(name)) {
		return
	}
	c.add(Finding{
		Kind: Stranger, Path: name, Harmless: true,
		Problem: "it does not belong into the layout of a cache", Remedy: "remove it, if it is yours",
	}, mendLeftovers, nil)
}

// checkFolder finds what lies beside the folders that a model has.
func (c *checkup) checkFolder() error {
	all, err := listed(c.s.modelDir(c.id))
	if err != nil {
		return err
	}
	for _, e := range all {
		switch name := e.Name(); name {
		case "blobs", "refs", "snapshots", "trees", ".no_exist", buildDir:
		default:
			c.stranger(filepath.Join(c.s.modelDir(c.id), name))
		}
	}
	return nil
}
