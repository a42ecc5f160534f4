package pipeline

import (
	"context"
	"fmt"
	"slices"

	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/verify"
)

// open prepares a large file, going on where an earlier run stopped. It may wait for another program
// that fetches the same blob into the same cache; when that has brought it, there is nothing to do.
func (l *Line) open(ctx context.Context, w *store.Writer, r *resolved, f model.File) (fetch.Sink, error) {
	before, errBefore := l.blob(r.ID, f)
	p, err := w.Partial(ctx, r.ID, f, r.manifest.Commit)
	if err != nil {
		return nil, err
	}
	after, err := l.blob(r.ID, f)
	if err != nil || after.Size != f.Size || errBefore == nil && after == before {
		return p, nil
	}
	if right, err := l.adopt(ctx, w, r.ID, f, after.Path); err != nil || !right {
		return p, nil // whoever wrote it brought something else: fetch it as if it were not there
	}
	return nil, p.Discard()
}

// adopt proves a blob that somebody else wrote.
func (l *Line) adopt(ctx context.Context, w *store.Writer, id model.ID, f model.File, blob string) (right bool, err error) {
	failed := verify.Files(ctx, []verify.Item{item(id, f, blob)}, verify.Workers{Parallel: 1}, func(it verify.Item, res verify.Result, e error) {
		if err = e; err == nil && res.OK {
			right, err = true, w.Prove(id, it.Digest, res.Blocks)
		}
	})
	if failed != nil {
		return false, failed
	}
	return right, err
}

// leftovers publishes small files that an earlier run fetched and had no time to publish, and returns
// what else is missing.
func (l *Line) leftovers(ctx context.Context, w *store.Writer, r *resolved, missing []model.File, p *Progress) ([]model.File, error) {
	var staged []*store.Staged
	var rest []model.File
	for _, f := range missing {
		content, ok := []byte(nil), false
		if f.Size <= store.BlockSize && !f.Digest.IsZero() {
			content, ok = w.Leftover(r.ID, f)
		}
		if !ok {
			rest = append(rest, f)
			continue
		}
		s, err := w.StageSmall(r.ID, f, content, f.Digest)
		if err != nil {
			return nil, err
		}
		staged = append(staged, s)
		p.Written.Add(f.Size)
		p.FilesDone.Add(1)
		p.Here(f)
	}
	for batch := range slices.Chunk(staged, batchFiles) {
		if err := w.Publish(ctx, batch); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// computed records the digest of a file whose source gave none. What fetch hands over has one.
func (r *resolved) computed(f model.File, d model.Digest) {
	if !f.Digest.IsZero() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, files := range [][]model.File{r.wanted, r.manifest.Files} {
		for i := range files {
			if files[i].Path == f.Path {
				files[i].Digest = d
			}
		}
	}
}

// inspect looks at the structure of what was fetched. The hash decides availability: what a source
// promised and is malformed all the same is published, and said in words; but what loading could harm is put aside where that
// is the policy.
func (l *Line) inspect(r *resolved) {
	var wanted []model.File
	for _, f := range r.wanted {
		blob, err := l.blob(r.ID, f)
		if err != nil {
			wanted = append(wanted, f)
			continue // Commit reports it
		}
		finding, err := Structure(f.Path, blob.Path, f.Size)
		if err == nil && finding.Verdict == verify.Dangerous && l.Quarantine.Load() {
			r.putAside(store.Quarantined{Path: f.Path, Digest: f.Digest.Hex(), Why: finding.Problems[0]})
			continue
		}
		wanted = append(wanted, f)
		if err != nil || finding.Verdict < verify.Suspicious {
			continue
		}
		for _, problem := range finding.Problems {
			r.notes = append(r.notes, fmt.Sprintf("%s: %s: %s", f.Path, finding.Verdict, problem))
		}
	}
	r.wanted = wanted
}

func sum(files []model.File) model.Bytes {
	m := model.Manifest{Files: files}
	return m.Bytes()
}
