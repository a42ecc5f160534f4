package store

import (
	"cmp"
	"context"
	"slices"

	"ema/internal/model"
)

// Rebuild mends what Check finds, as far as that needs no source, and returns what it has mended: names of contents that lie in a colder
// tier, links and whole snapshots whose contents are here, refs, and then it removes notes about what is gone. It never
// removes a content, neither whole nor in part, nor a plain file of a snapshot; that is for Remove. Models for which spare
// is true are left alone, since something else is done to them now; nil spares none.
//
// What refers to something is mended when that is durable, so a crash between any two steps leaves nothing worse than it
// was, and Rebuild can be called again. Called twice, it finds nothing more to do.
func (w *Writer) Rebuild(ctx context.Context, spare func(model.ID) bool) ([]Finding, error) {
	var mended []Finding
	for p := range phases {
		found, err := w.survey(ctx) // again for each: what the one before has mended counts
		if err != nil {
			return mended, err
		}
		for _, f := range found {
			if f.phase != p || f.mend == nil || spare != nil && spare(f.Model) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return mended, err
			}
			switch err := f.mend(ctx, w); {
			case err == nil:
				mended = append(mended, f.Finding)
			case model.ClassOf(err) != model.Integrity: // of something that is in the way, Check tells again
				return mended, diskError("rebuild", f.Model, f.Path, err)
			}
		}
		if err := w.saveNames(); err != nil {
			return mended, diskError("rebuild", model.ID{}, w.path, err)
		}
	}
	slices.SortStableFunc(mended, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Model.String(), b.Model.String()), cmp.Compare(a.Path, b.Path))
	})
	return mended, nil
}
