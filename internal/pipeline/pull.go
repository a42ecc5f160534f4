package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/source"
	"ema/internal/store"
	"ema/internal/verify"
)

// A Request asks for a model to be here.
type Request struct {
	ID       model.ID
	Revision string // "" is the source's default
	Select   Selection
	To       string // a plain folder that is to hold the same files; "" for none

	Limit       limiter // bytes wait for it; nil for none
	Connections int     // most connections of this pull; 0 is as the Fetcher was set
	// Resolved is told once what the revision means and how much it is; nil when nobody asks.
	Resolved func(commit string, size model.Bytes)
	// Retried is told of each attempt that failed and will be repeated; nil when nobody asks.
	Retried func(host string, class model.Class, err error, wait time.Duration)
}

// limiter is what bytes wait for.
type limiter interface {
	Take(ctx context.Context, n int) error
	Piece(most int) int
}

// A Plan is what a Pull would do.
type Plan struct {
	Manifest *model.Manifest `json:"-"`
	Files    []PlannedFile   `json:"files"`
	Bytes    model.Bytes     `json:"bytes"`    // of all selected files, equal contents once
	Missing  model.Bytes     `json:"to_fetch"` // of these, not here
	Partial  model.Bytes     `json:"partial"`  // of Missing, already fetched by a pull that was interrupted
	Free     model.Bytes     `json:"free"`     // on the store's volume
	Reserve  model.Bytes     `json:"min_free"` // of Free, to be left free
	Warning  string          `json:"warning,omitempty"`
}

// A PlannedFile is one selected file and whether it is here.
type PlannedFile struct {
	Path string      `json:"path"`
	Size model.Bytes `json:"size"`
	Here bool        `json:"here"`
}

// A Result is a model that is available.
type Result struct {
	ID       model.ID      `json:"-"`
	Model    string        `json:"model"`
	Revision string        `json:"revision"`
	Commit   string        `json:"commit"`
	Path     string        `json:"path"` // of the snapshot, or of Request.To
	Files    int           `json:"files"`
	Bytes    model.Bytes   `json:"bytes"`
	Fetched  model.Bytes   `json:"fetched"` // received over the network, also what was fetched twice
	Took     time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"`
	Notes    []string      `json:"notes,omitempty"`         // what the user should know: stale answers, suspicious files
	Actions  []string      `json:"actions_taken,omitempty"` // of a Repair: what was done to which file, in words
}

// resolved is a request whose revision and files are known.
type resolved struct {
	Request
	manifest *model.Manifest
	wanted   []model.File
	notes    []string
	stale    bool                // the source could not be asked; manifest is what is here
	aside    []store.Quarantined // of the manifest's files, those that are kept from whoever loads the model

	mu     sync.Mutex            // guards digests that are computed while files are fetched
	single sync.Mutex            // held while a small file without a promised digest is staged; guards staged
	staged map[model.Digest]bool // contents of such files that are staged already
}

// patience is how long the source may take to say what is new when what is asked for is here already.
const patience = 10 * time.Second

// Plan says what Pull would fetch, without changing anything.
func (l *Line) Plan(ctx context.Context, req Request, p *Progress) (*Plan, error) {
	r, err := l.resolve(ctx, req, nil, p)
	if err != nil {
		return nil, err
	}
	free, err := l.Store.Free()
	if err != nil {
		return nil, err
	}
	if rec, err := l.Store.Record(r.ID, r.manifest.Commit); err == nil {
		adoptDigests(r.wanted, rec.Files)
	}
	plan := &Plan{Manifest: r.manifest, Free: free, Reserve: l.LeaveFree()}
	if len(r.notes) > 0 {
		plan.Warning = r.notes[0]
	}
	seen := map[model.Digest]bool{}
	for _, f := range r.wanted {
		blob, err := l.blob(r.ID, f)
		here := err == nil && blob.Size == f.Size && blob.Proof != store.Changed
		plan.Files = append(plan.Files, PlannedFile{f.Path, model.Bytes(f.Size), here})
		if seen[f.Digest] && !f.Digest.IsZero() {
			continue
		}
		seen[f.Digest] = true
		plan.Bytes += model.Bytes(f.Size)
		if !here {
			plan.Missing += model.Bytes(f.Size)
			written, _ := l.Store.Resumable(r.ID, f, r.manifest.Commit)
			plan.Partial += model.Bytes(written)
		}
	}
	return plan, nil
}

// Pull makes the selected files of a model available and returns where they are. When ctx ends it
// stops, keeps what it has for the next Pull, and returns ctx's error.
func (l *Line) Pull(ctx context.Context, req Request, p *Progress) (*Result, error) {
	begun := time.Now()
	lane := p.Watch.Lane()
	defer lane.End()
	r, err := l.resolve(source.WithLane(ctx, lane), req, lane, p)
	if err != nil {
		return nil, err
	}
	if req.Resolved != nil {
		req.Resolved(r.manifest.Commit, sum(r.wanted))
	}
	l.spare(r)
	path := l.Store.Snapshot(r.ID, r.manifest.Commit)
	if !l.upToDate(r) {
		if path, err = l.bring(ctx, r, lane, p); err != nil {
			if model.ClassOf(err) == model.Integrity && l.Memory != nil {
				l.Memory.Forget(ctx, r.manifest)
			}
			return nil, err
		}
	} else {
		p.Follow(r.wanted)
		here(p, r.wanted, nil)
		p.enter("done", func(s *Stage) {
			s.Files, s.FilesHere, s.Bytes, s.Here = len(r.wanted), len(r.wanted), sum(r.wanted), sum(r.wanted)
		})
	}
	if req.To != "" {
		p.enter("exporting", nil)
		lane.Enter(source.InWrite)
		if _, err := l.Store.Export(ctx, r.ID, r.manifest.Commit, r.wanted, req.To); err != nil {
			return nil, err
		}
		path = req.To
	}
	p.enter("done", nil)
	return &Result{
		ID: r.ID, Model: r.ID.Public(), Revision: r.manifest.Revision, Commit: r.manifest.Commit, Path: path,
		Files: len(r.wanted), Bytes: sum(r.wanted), Fetched: model.Bytes(p.Received.Load()),
		Took: time.Since(begun), Seconds: time.Since(begun).Seconds(), Notes: r.notes,
	}, nil
}

// resolve finds the commit and the files. When the source cannot be reached, what is here serves.
func (l *Line) resolve(ctx context.Context, req Request, lane *source.Lane, p *Progress) (*resolved, error) {
	p.enter("resolving", nil)
	r := &resolved{Request: req, staged: map[model.Digest]bool{}}
	here := l.local(req)
	switch {
	case here != nil && (l.Offline || model.IsCommit(req.Revision)): // a commit never means anything else
		r.manifest = here
	case l.Offline && req.ID.Scheme != model.Folder: // which needs no network
		if r.manifest = l.remembered(ctx, req); r.manifest == nil {
			return nil, &model.Error{
				Op: "pull", Class: model.Offline, Model: req.ID,
				Err: errors.New("it is not available on this machine and offline mode forbids the network"), Hint: "pull it once without --offline",
			}
		}
	case here != nil:
		err := l.askBriefly(ctx, r)
		if err != nil && (ctx.Err() != nil || !Unreachable(err)) {
			return nil, err
		}
		if err != nil {
			r.manifest, r.stale = here, true
			r.notes = append(r.notes, fmt.Sprintf("the source could not be asked (%v); what is here is commit %.12s", err, here.Commit))
		}
	default:
		if err := l.ask(ctx, r, lane, p); err != nil {
			return nil, err
		}
	}
	if c := r.manifest.Canonical; !c.IsZero() && c != req.ID {
		r.notes = append(r.notes, fmt.Sprintf("%s is called %s now", req.ID, c))
	}
	var err error
	if r.wanted, err = req.Select.Of(r.manifest.Files); err != nil {
		return nil, err
	}
	if len(r.wanted) == 0 {
		what := "it has no files"
		if len(r.manifest.Files) > 0 {
			what = fmt.Sprintf("none of its %d files matches --include/--exclude", len(r.manifest.Files))
		}
		return nil, &model.Error{Op: "pull", Class: model.NotFound, Model: req.ID, Err: errors.New(what), Hint: "see what there is with --dry-run and no pattern"}
	}
	return r, nil
}

// ask asks the source, and goes by what it said last when it cannot be asked: at once while that is
// fresh, else once all attempts have failed.
func (l *Line) ask(ctx context.Context, r *resolved, lane *source.Lane, p *Progress) error {
	if l.Memory != nil && l.Memory.Fresh(r.ID, r.Revision) {
		err := l.askBriefly(ctx, r)
		if l.instead(ctx, r, err, "") {
			return nil
		}
		if err == nil || ctx.Err() != nil || !Unreachable(err) {
			return err
		}
	}
	err := l.retry().Again(ctx, func(err error) {
		p.Retries.Add(1)
		p.Note.Store(err.Error())
		lane.Enter(source.InRetry)
	}, func(ctx context.Context) (err error) {
		r.manifest, err = l.Source.Resolve(ctx, r.ID, r.Revision)
		return err
	})
	if l.instead(ctx, r, err, ", which is stale") {
		return nil
	}
	return err
}

// instead goes by what the source said last, if it could not be asked because of err; age says how old
// that is, in words.
func (l *Line) instead(ctx context.Context, r *resolved, err error, age string) bool {
	if err == nil || ctx.Err() != nil || !Unreachable(err) {
		return false
	}
	last := l.recall(ctx, r.Request)
	if last == nil {
		return false
	}
	at, form := last.Resolved.Local(), "15:04"
	if time.Since(at) > 12*time.Hour {
		form = "2006-01-02 15:04"
	}
	r.manifest = last
	r.notes = append(r.notes, fmt.Sprintf("the source could not be asked (%v); using its answer of %s%s", err, at.Format(form), age))
	return true
}

// askBriefly makes one attempt, which must do: nobody should wait long for news before working with
// what there is.
func (l *Line) askBriefly(ctx context.Context, r *resolved) error {
	brief, stop := context.WithTimeout(ctx, patience)
	defer stop()
	m, err := l.Source.Resolve(brief, r.ID, r.Revision)
	if err != nil && ctx.Err() == nil && brief.Err() != nil {
		err = &model.Error{Op: "resolve", Class: model.Timeout, Model: r.ID, Err: fmt.Errorf("no answer within %v", patience)}
	}
	r.manifest = m
	return err
}

// recall is what the source said last about what is asked for; nil when nobody remembers.
func (l *Line) recall(ctx context.Context, req Request) *model.Manifest {
	if l.Memory == nil {
		return nil
	}
	return l.Memory.Recall(ctx, req.ID, req.Revision)
}

// remembered is what the source said last, if all contents that it needs are here; else nil.
func (l *Line) remembered(ctx context.Context, req Request) *model.Manifest {
	last := l.recall(ctx, req)
	if last == nil {
		return nil
	}
	wanted, err := req.Select.Of(last.Files)
	if err != nil || len(wanted) == 0 {
		return nil
	}
	for _, f := range wanted {
		if blob, err := l.blob(req.ID, f); err != nil || blob.Size != f.Size {
			return nil
		}
	}
	return last
}

// Unreachable reports whether err says nothing about the model, only about the way to it.
func Unreachable(err error) bool {
	switch model.ClassOf(err) {
	case model.Timeout, model.Reset, model.Truncated, model.ServerError, model.RateLimited, model.Other:
		return true
	}
	return false
}

// local is the manifest of what earlier pulls made available, or nil if that is not all that req asks for.
func (l *Line) local(req Request) *model.Manifest {
	revision := req.Revision
	if revision == "" {
		revision = "main"
	}
	commit := revision
	if !model.IsCommit(commit) {
		var ok bool
		if commit, ok = l.Store.Ref(req.ID, commit); !ok {
			return nil
		}
	}
	rec, err := l.Store.Record(req.ID, commit)
	if err != nil {
		return nil
	}
	files, ok := l.Store.Tree(req.ID, commit)
	if !ok {
		files = rec.Files
		chosen := Selection{rec.Include, rec.Exclude}
		if chosen.some() && !chosen.equal(req.Select) {
			return nil // nothing here says what else the model has
		}
	}
	wanted, err := req.Select.Of(files)
	if l.Quarantine.Load() {
		wanted = slices.DeleteFunc(wanted, func(f model.File) bool {
			return slices.ContainsFunc(rec.Quarantined, func(q store.Quarantined) bool { return q.Path == f.Path })
		})
	}
	if err != nil || len(wanted) == 0 || !l.Store.Available(req.ID, commit, wanted) {
		return nil
	}
	return &model.Manifest{ID: req.ID, Revision: revision, Commit: commit, Files: files}
}

// upToDate reports whether all that r asks for is available and recorded: nothing is to be done.
func (l *Line) upToDate(r *resolved) bool {
	commit := r.manifest.Commit
	rec, err := l.Store.Record(r.ID, commit)
	if err != nil {
		return false
	}
	if !r.stale && !l.Offline && !model.IsCommit(r.manifest.Revision) {
		if at, ok := l.Store.Ref(r.ID, r.manifest.Revision); !ok || at != commit {
			return false
		}
	}
	adoptDigests(r.wanted, rec.Files)
	for _, f := range r.wanted {
		if !slices.ContainsFunc(rec.Files, func(x model.File) bool { return x.Path == f.Path && x.Digest == f.Digest }) {
			return false
		}
	}
	return l.Store.Available(r.ID, commit, r.wanted)
}

// adoptDigests completes files whose source gives no hash by what was computed when they came.
func adoptDigests(files, known []model.File) {
	for i, f := range files {
		if !f.Digest.IsZero() {
			continue
		}
		if k := slices.IndexFunc(known, func(x model.File) bool { return x.Path == f.Path && x.Size == f.Size }); k >= 0 {
			files[i].Digest = known[k].Digest
		}
	}
}

// bring does the work of a Pull as the store's owner.
func (l *Line) bring(ctx context.Context, r *resolved, lane *source.Lane, p *Progress) (string, error) {
	lane.Enter(source.InIdle)
	w, done, err := l.own(ctx, l.Waiting)
	if err != nil {
		return "", err
	}
	defer done()
	if l.upToDate(r) { // whoever had the store before us may have brought the same
		return l.Store.Snapshot(r.ID, r.manifest.Commit), nil
	}
	lane.Enter(source.InHash)
	p.enter("checking", func(s *Stage) { s.Files, s.Bytes = len(r.wanted), sum(r.wanted) })
	p.Follow(r.wanted)
	missing, bad, err := l.missing(ctx, w, r.ID, r.wanted, p)
	if err != nil {
		return "", err
	}
	if missing, err = w.Borrow(ctx, r.ID, missing); err != nil { // what other models here have is not fetched
		return "", err
	}
	here(p, r.wanted, missing)
	reserved, err := l.reserve(ctx, r.ID, r.manifest.Commit, missing)
	if err != nil {
		return "", err
	}
	defer reserved.end()
	lane.Enter(source.InIdle) // the connections have lanes of their own
	p.enter("fetching", func(s *Stage) { s.Here, s.FilesHere = s.Bytes-sum(missing), s.Files-len(missing) })
	if err := l.fetch(ctx, w, r, missing, bad, reserved, p); err != nil {
		return "", err
	}
	p.enter("publishing", nil)
	lane.Enter(source.InSync)
	l.inspect(r)
	if len(r.wanted) == 0 {
		return "", &model.Error{
			Op: "pull", Class: model.Integrity, Model: r.ID, Err: fmt.Errorf("loading any of its files could do harm: %s: %s", r.aside[0].Path, r.aside[0].Why),
			Hint: "look at what it would do; with health.quarantine off a pull installs it all the same",
		}
	}
	files, chosen := l.together(r)
	return w.Commit(ctx, r.manifest, files, store.Record{
		Include: chosen.Include, Exclude: chosen.Exclude, Source: l.origin(r.ID), CompletedAt: time.Now().UTC(), Quarantined: r.aside,
	})
}

// spare leaves out of what is wanted the files that an earlier pull of the commit has put aside, as long as that is the policy.
func (l *Line) spare(r *resolved) {
	if !l.Quarantine.Load() {
		return
	}
	rec, err := l.Store.Record(r.ID, r.manifest.Commit)
	if err != nil {
		return
	}
	for _, q := range rec.Quarantined {
		before := len(r.wanted)
		r.wanted = slices.DeleteFunc(r.wanted, func(f model.File) bool { return f.Path == q.Path && (f.Digest.IsZero() || f.Digest.Hex() == q.Digest) })
		if len(r.wanted) < before {
			r.putAside(q)
		}
	}
}

// putAside notes that a file is kept from whoever loads the model.
func (r *resolved) putAside(q store.Quarantined) {
	r.aside = append(r.aside, q)
	r.notes = append(r.notes, fmt.Sprintf("%s: quarantined, so no program will load it: %s", q.Path, q.Why))
}

// here says which of the wanted files are here. One with the content of a missing file is not.
func here(p *Progress, wanted, missing []model.File) {
	paths, contents := map[string]bool{}, map[model.Digest]bool{}
	for _, f := range missing {
		paths[f.Path], contents[f.Digest] = true, !f.Digest.IsZero()
	}
	for _, f := range wanted {
		if !paths[f.Path] && !contents[f.Digest] {
			p.Here(f)
		}
	}
}

// together is what was asked for now and what earlier pulls of the same commit brought, so that parts of
// a model add up; and what chose them: nothing, when these are all files.
func (l *Line) together(r *resolved) ([]model.File, Selection) {
	files, commit := slices.Clone(r.wanted), r.manifest.Commit
	if rec, err := l.Store.Record(r.ID, commit); err == nil {
		asked := map[string]bool{}
		for _, f := range files {
			asked[f.Path] = true
		}
		for _, f := range rec.Files {
			if !asked[f.Path] && l.Store.Available(r.ID, commit, []model.File{f}) {
				files = append(files, f)
			}
		}
	}
	if len(files) >= len(r.manifest.Files) {
		return files, Selection{}
	}
	return files, r.Select
}

// origin says where a model comes from, without secrets.
func (l *Line) origin(id model.ID) string {
	if id.Scheme == model.Hub {
		return l.Hub
	}
	return id.Public()
}

// missing returns the files whose content is not here, equal contents once. Blobs that another tool
// left, or that changed since they were proven, are hashed now: those that are right are adopted as they are. Of others bad
// says which bytes are wrong, by their paths, where that is known.
func (l *Line) missing(ctx context.Context, w *store.Writer, id model.ID, wanted []model.File, p *Progress) (missing []model.File, bad map[string][]model.Segment, err error) {
	bad = map[string][]model.Segment{}
	var unproven []verify.Item
	byPath := map[string]model.File{}
	seen := map[model.Digest]bool{}
	for _, f := range wanted {
		if !f.Digest.IsZero() {
			if seen[f.Digest] {
				continue
			}
			seen[f.Digest] = true
		}
		blob, err := l.blob(id, f)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && blob.Size != f.Size:
			missing = append(missing, f)
		case err != nil:
			return nil, nil, err
		case blob.Proof == store.Proven:
			if err := w.Tidy(id, f.Digest); err != nil {
				return nil, nil, err
			}
		default:
			byPath[f.Path] = f
			it := item(id, f, blob.Path)
			it.Blocks, _ = l.Store.Blocks(id, f.Digest) //nolint:errcheck // without them all of it is fetched
			it.Progress = func(n int64) { p.Hashed.Add(n) }
			unproven = append(unproven, it)
		}
	}
	err = verify.Files(ctx, unproven, verify.Workers{Parallel: l.parallel()}, func(it verify.Item, res verify.Result, err error) {
		if err == nil && res.OK {
			err = w.Prove(id, it.Digest, res.Blocks)
		}
		if err != nil || !res.OK {
			missing = append(missing, byPath[it.Path])
		}
		if err == nil && len(res.Damaged) > 0 {
			bad[it.Path] = res.Damaged
		}
	})
	// Large files first: they decide how long it takes, and small ones fill the gaps.
	slices.SortStableFunc(missing, func(a, b model.File) int { return int(min(max(b.Size-a.Size, -1), 1)) })
	return missing, bad, err
}

// blob is the stored content of f; fs.ErrNotExist when there is none, or nobody can say which it is.
func (l *Line) blob(id model.ID, f model.File) (store.Blob, error) {
	if f.Digest.IsZero() {
		return store.Blob{}, fs.ErrNotExist
	}
	return l.Store.Blob(id, f.Digest)
}

// fetch brings the missing files and publishes them. Files in mend are copies of published blobs of
// which only some blocks are to be fetched.
func (l *Line) fetch(ctx context.Context, w *store.Writer, r *resolved, missing []model.File, mend map[string][]model.Segment, reserved *reservation, p *Progress) error {
	if len(missing) == 0 {
		return nil
	}
	missing, err := l.leftovers(ctx, w, r, missing, p)
	if err != nil {
		return err
	}
	pub := newPublisher(w)
	job := fetch.Job{
		Manifest: r.manifest, Files: missing, Progress: &p.Progress,
		Connections: r.Connections, Retried: r.Retried,
		Open: func(ctx context.Context, f model.File) (fetch.Sink, error) {
			if bad := mend[f.Path]; bad != nil {
				return w.Mend(ctx, r.ID, f, bad)
			}
			s, err := l.open(ctx, w, r, f)
			if err == nil {
				reserved.taken(f.Path)
			}
			return s, err
		},
		Large: func(ctx context.Context, f model.File, s fetch.Sink, d model.Digest) error {
			staged, err := s.(*store.Partial).Stage(d)
			if err != nil {
				return err
			}
			r.computed(f, d)
			return pub.add(ctx, pub.large, staged)
		},
		Small: func(ctx context.Context, f model.File, content []byte, d model.Digest) error {
			if f.Digest.IsZero() {
				// Equal contents are not known beforehand then, and one blob cannot be staged twice.
				r.single.Lock()
				defer r.single.Unlock()
				if r.computed(f, d); r.staged[d] {
					return nil
				}
			}
			staged, err := w.StageSmall(r.ID, f, content, d)
			if err != nil {
				return err
			}
			reserved.taken(f.Path)
			if f.Digest.IsZero() {
				r.staged[d] = true
			}
			return pub.add(ctx, pub.small, staged)
		},
	}
	if r.Limit != nil {
		job.Limit = r.Limit
	}
	return pub.during(ctx, func(ctx context.Context) error { return l.Fetcher.Fetch(ctx, job) })
}
