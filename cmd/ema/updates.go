package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/config"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

const (
	// updatesFile has what must be known of updates after a restart, in the store's state folder. It is replaced as a whole, as
	// changed settings are: a new file is written and synced, then it takes the name, then the folder is synced.
	updatesFile = "updates.json"
	// asking is the pause between questions to sources, so that a thousand models are no burst.
	asking = time.Second
	// hushed is how long no source is asked after one could not be reached.
	hushed = 10 * time.Minute
	// soonestAsked is over how long the first questions after a start are spread.
	soonestAsked = 10 * time.Minute
)

// A turned is what is kept of one model's updates.
type turned struct {
	Skip     string   `json:"skip,omitempty"`     // the commit that was rolled back: it is not fetched again by itself
	Previous []string `json:"previous,omitempty"` // commits that an update replaced: they go when nobody has wanted them back
}

// turns is the content of updatesFile, by the ids of models. A line's lock guards the file.
type turns map[string]turned

func readTurns(s *store.Store) (turns, error) {
	raw, err := os.ReadFile(filepath.Join(s.StateDir(), updatesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return turns{}, nil
	}
	all := turns{}
	if err == nil {
		err = json.Unmarshal(raw, &all)
	}
	if err != nil {
		return nil, &model.Error{Op: "read what is known of updates", Class: model.DiskError, File: filepath.Join(s.StateDir(), updatesFile), Err: err, Hint: "remove the file: then rollbacks are forgotten"}
	}
	return all, nil
}

// write replaces the file, durably.
func (t turns) write(s *store.Store) error {
	file := filepath.Join(s.StateDir(), updatesFile)
	raw, err := json.Marshal(t)
	if err == nil {
		err = os.MkdirAll(s.StateDir(), 0o777)
	}
	if err == nil {
		_, err = replaceFile(store.OS{}, file, raw)
	}
	if err != nil {
		return &model.Error{Op: "store what is known of updates", Class: model.DiskError, File: file, Err: err}
	}
	return nil
}

// change changes what is kept of one model.
func (l *line) changeTurned(id model.ID, change func(*turned)) error {
	l.turning.Lock()
	defer l.turning.Unlock()
	all, err := readTurns(l.Store)
	if err != nil {
		return err
	}
	one := all[id.String()]
	change(&one)
	if one.Skip == "" && len(one.Previous) == 0 {
		delete(all, id.String())
	} else {
		all[id.String()] = one
	}
	return all.write(l.Store)
}

// turned is what is kept of one model.
func (l *line) turned(id model.ID) turned {
	l.turning.Lock()
	defer l.turning.Unlock()
	all, _ := readTurns(l.Store) //nolint:errcheck // whoever changes it is told
	return all[id.String()]
}

// A followed is a branch of a model that is here.
type followed struct {
	id       model.ID
	revision string
	current  store.Revision
	m        store.Model
}

// follows is the branch of a model that updates are about: main before others; false when it has none, since it was asked for by a
// commit or came by another tool.
func follows(m store.Model) (followed, bool) {
	var found []followed
	for _, r := range m.Revisions {
		for _, ref := range r.Refs {
			if r.Record != nil && !store.IsPin(ref) {
				found = append(found, followed{m.ID, ref, r, m})
			}
		}
	}
	if len(found) == 0 {
		return followed{}, false
	}
	slices.SortFunc(found, func(a, b followed) int {
		return cmp.Or(-cmp.Compare(word(a.revision == "main"), word(b.revision == "main")), cmp.Compare(a.revision, b.revision))
	})
	return found[0], true
}

func word(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// previous are the commits that can be rolled back to, the newest first.
func (f followed) previous() []store.Revision {
	var all []store.Revision
	for _, r := range f.m.Revisions {
		if r.Commit != f.current.Commit && r.State == store.Available {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b store.Revision) int { return came(b).Compare(came(a)) })
	return all
}

// came is when ema brought a revision; zero when another tool has.
func came(r store.Revision) time.Time {
	if r.Record == nil {
		return time.Time{}
	}
	return r.Record.CompletedAt
}

// A newer is what a source has said.
type newer struct {
	latest string
	bytes  model.Bytes // to be fetched, at most
}

// newest asks the source of a model what its branch leads to, and how much of that is not here.
func (l *line) newest(ctx context.Context, f followed) (newer, error) {
	under, cancel := context.WithTimeout(ctx, sourcePatience)
	defer cancel()
	m, err := l.Source.Resolve(under, f.id, f.revision)
	if err != nil {
		return newer{}, err
	}
	n := newer{latest: m.Commit}
	if m.Commit == f.current.Commit {
		return n, nil
	}
	plan, err := l.Plan(ctx, f.request(), &pipeline.Progress{})
	if err != nil {
		return newer{}, err
	}
	n.bytes = plan.Missing - plan.Partial
	return n, nil
}

// request asks for what the branch leads to now, by the patterns by which it was asked for before.
func (f followed) request() pipeline.Request {
	return pipeline.Request{ID: f.id, Revision: f.revision, Select: pipeline.Selection{Include: f.current.Record.Include, Exclude: f.current.Record.Exclude}}
}

// updates asks the sources of models, tells what is newer, and fetches it where that is wanted. Its methods may be called concurrently.
type updates struct {
	d       *daemon
	wake    chan struct{}
	began   time.Time
	mu      sync.Mutex
	known   map[model.ID]answered
	now     bool      // all are to be asked
	silence time.Time // until when nobody is asked
}

// An answered is what the source of a model has said last.
type answered struct {
	newer
	at    time.Time // when it was asked; zero never
	err   error     // why it could not be
	told  string    // the commit that was told of
	force bool      // it is to be asked now
}

func newUpdates(d *daemon) *updates {
	return &updates{d: d, wake: make(chan struct{}, 1), began: time.Now(), known: map[model.ID]answered{}}
}

func (u *updates) settings() config.Updates { return u.d.settingsNow().Updates }

// run asks until ctx ends.
func (u *updates) run(ctx context.Context) error {
	for ctx.Err() == nil {
		models, err := u.d.line.Store.Models(ctx)
		if err != nil && ctx.Err() == nil {
			u.d.log.Warn("updates", "error", err.Error())
		}
		next := time.Now().Add(time.Hour)
		for _, m := range models {
			f, ok := follows(m)
			if !ok {
				continue
			}
			due := u.due(f.id)
			if due.After(time.Now()) {
				if due.Before(next) {
					next = due
				}
				continue
			}
			u.ask(ctx, f)
			if pause(ctx, asking) != nil {
				return nil
			}
		}
		u.tidy(ctx, models)
		u.mu.Lock()
		u.now = false
		u.mu.Unlock()
		if !wait(ctx, max(time.Until(next), asking), u.wake) {
			return nil
		}
	}
	return nil
}

// due is when the source of a model is asked next.
func (u *updates) due(id model.ID) time.Time {
	set := u.settings()
	u.mu.Lock()
	defer u.mu.Unlock()
	k := u.known[id]
	interval := set.CheckIntervalHours.Duration()
	switch {
	case u.now || k.force:
		return time.Time{}
	case set.Policy == "pin":
		return time.Now().Add(24 * time.Hour)
	case u.silence.After(time.Now()):
		return u.silence
	case k.at.IsZero(): // of many models not all at once
		h := fnv.New32a()
		h.Write([]byte(id.String()))
		return u.began.Add(time.Duration(float64(h.Sum32()) / (1 << 32) * float64(min(interval, soonestAsked))))
	}
	return k.at.Add(interval)
}

// ask asks the source of a model, and tells and does what follows.
func (u *updates) ask(ctx context.Context, f followed) {
	n, err := u.d.line.newest(ctx, f)
	if ctx.Err() != nil {
		return
	}
	u.mu.Lock()
	k := u.known[f.id]
	k.at, k.err, k.force = time.Now(), err, false
	if err == nil {
		k.newer = n
	} else if pipeline.Unreachable(err) {
		u.silence = time.Now().Add(hushed)
	}
	tell := err == nil && n.latest != f.current.Commit && n.latest != k.told
	if tell {
		k.told = n.latest
	}
	u.known[f.id] = k
	u.mu.Unlock()
	u.d.habits.told.Add(1)
	if err != nil {
		u.d.log.Info("updates: the source was not asked", "model", f.id.Public(), "error", err.Error())
		return
	}
	if !tell {
		return
	}
	skip := u.d.line.turned(f.id).Skip == n.latest
	u.d.log.Info("update available", "model", f.id.Public(), "revision", f.revision, "current", f.current.Commit, "latest", n.latest, "download", n.bytes.String(), "rolled_back", skip)
	if skip {
		return
	}
	u.d.bus.Tell(event.Event{Kind: event.KindUpdate, Model: f.id, Data: event.Update{Revision: f.revision, Current: f.current.Commit, Latest: n.latest, Download: n.bytes}})
	u.d.incident(model.Info, "update_available", f.id, fmt.Sprintf("%s leads to %s, and %s are to be fetched", f.revision, n.latest, n.bytes))
	if u.settings().Policy == "auto" {
		if _, err := u.apply(ctx, f, model.LowPriority); err != nil && ctx.Err() == nil {
			u.d.log.Warn("update not begun", "model", f.id.Public(), "error", err.Error())
		}
	}
}

// apply queues the download of what the branch leads to now, and remembers what it replaces.
func (u *updates) apply(ctx context.Context, f followed, p model.Priority) (model.Download, error) {
	err := u.d.line.changeTurned(f.id, func(t *turned) {
		t.Skip = ""
		if !slices.Contains(t.Previous, f.current.Commit) {
			t.Previous = append(t.Previous, f.current.Commit)
		}
	})
	if err != nil {
		return model.Download{}, err
	}
	r := f.request()
	d, _, err := u.d.queue.Add(ctx, model.Download{Model: f.id, Revision: f.revision, Include: r.Select.Include, Exclude: r.Select.Exclude, Priority: p})
	return d, err
}

// tidy removes the commits that an update replaced so long ago that nobody wants them back: never one that a name leads to, that is
// pinned or open, and only while what replaced it is here as a whole.
func (u *updates) tidy(ctx context.Context, models []store.Model) {
	keep := u.settings().KeepPreviousHours.Duration()
	if keep <= 0 {
		return
	}
	u.d.line.turning.Lock()
	all, err := readTurns(u.d.line.Store)
	u.d.line.turning.Unlock()
	if err != nil {
		u.d.log.Warn("updates", "error", err.Error())
		return
	}
	for _, m := range models {
		t, f := all[m.ID.String()], followed{}
		if f, _ = follows(m); f.revision == "" || len(t.Previous) == 0 {
			continue
		}
		for _, commit := range replaced(f, t, time.Now().Add(-keep)) {
			u.remove(ctx, m.ID, commit)
		}
	}
}

// replaced are those of the commits that an update replaced which may go: what took their place came before that time.
func replaced(f followed, t turned, before time.Time) (gone []string) {
	if f.current.State != store.Available || came(f.current).IsZero() || !came(f.current).Before(before) {
		return nil
	}
	for _, commit := range t.Previous {
		for _, r := range f.m.Revisions {
			if r.Commit == commit && r.Commit != f.current.Commit && len(r.Refs) == 0 {
				gone = append(gone, commit)
			}
		}
	}
	return gone
}

// remove removes one commit that was replaced.
func (u *updates) remove(ctx context.Context, id model.ID, commit string) {
	err := u.d.inQuiet(ctx, func(q quiet) {
		plan, err := u.d.line.Store.PlanRemove(id, commit)
		one := u.d.carryOut(ctx, q, api.Cleaned{Model: id, Action: client.CleanupRemoveRevision, Reason: "it was replaced by an update"}, plan, err, false)
		if one.Err == nil && one.Action == client.CleanupRemoveRevision {
			if err := u.d.line.changeTurned(id, func(t *turned) {
				t.Previous = slices.DeleteFunc(t.Previous, func(c string) bool { return c == commit })
			}); err != nil {
				u.d.log.Warn("updates", "error", err.Error())
			}
		}
	})
	if err != nil && ctx.Err() == nil {
		u.d.log.Warn("what an update replaced was not removed", "model", id.Public(), "error", err.Error())
	}
}

// latest is what is known to be newest of a model, for answers about all models; "" when nobody knows.
func (u *updates) latest(id model.ID) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.known[id].latest
}

// Updates is what is known, without asking anybody.
func (u *updates) Updates(ctx context.Context) (client.Updates, error) {
	all := client.Updates{Updates: []client.ModelUpdate{}, Policy: u.settings().Policy}
	models, err := u.d.line.Store.Models(ctx)
	if err != nil {
		return all, err
	}
	u.mu.Lock()
	known := maps.Clone(u.known)
	u.mu.Unlock()
	for _, m := range models {
		if f, ok := follows(m); ok {
			all.Updates = append(all.Updates, updateOf(f, known[m.ID], u.d.line.turned(m.ID)))
		}
	}
	slices.SortFunc(all.Updates, func(a, b client.ModelUpdate) int { return strings.Compare(a.Model, b.Model) })
	return all, nil
}

// updateOf is what is known of one model, for answers.
func updateOf(f followed, k answered, t turned) client.ModelUpdate {
	one := client.ModelUpdate{Model: f.id.Public(), Revision: f.revision, Current: f.current.Commit, RolledBack: t.Skip, Previous: []client.PreviousVersion{}}
	if k.latest != "" {
		one.Latest, one.Available = new(k.latest), new(k.latest != f.current.Commit)
		one.DownloadMB = new(float64(k.bytes) / float64(model.MiB))
		if k.latest == f.current.Commit {
			one.DownloadMB = new(0.0)
		}
	}
	if !k.at.IsZero() {
		one.CheckedAt = new(k.at.UTC())
	}
	if k.err != nil {
		one.Error = k.err.Error()
	}
	for _, r := range f.previous() {
		p := client.PreviousVersion{Commit: r.Commit, SizeMB: float64(r.Size) / float64(model.MiB)}
		if at := came(r); !at.IsZero() {
			p.CompletedAt = new(at.UTC())
		}
		one.Previous = append(one.Previous, p)
	}
	return one
}

// followed is the branch of a model that is followed.
func (u *updates) followed(op string, id model.ID) (followed, error) {
	m, err := u.d.line.Store.Model(id)
	if err != nil {
		return followed{}, named(op, err)
	}
	f, ok := follows(m)
	if !ok {
		return f, notFollowed(op, id)
	}
	return f, nil
}

func notFollowed(op string, id model.ID) error {
	return &model.Error{
		Op: op, Class: model.NotFound, Model: id, Err: errors.New("it follows no branch: it was asked for by a commit, or another tool has brought it"),
		Hint: "follow one with: ema pull " + shellWord(id.Public()),
	}
}

// Look asks the source of one model now; of all, soon.
func (u *updates) Look(ctx context.Context, id model.ID) (client.Updates, error) {
	if id.IsZero() {
		u.mu.Lock()
		u.now = true
		u.mu.Unlock()
		nudge(u.wake)
		return u.Updates(ctx)
	}
	all := client.Updates{Updates: []client.ModelUpdate{}, Policy: u.settings().Policy}
	f, err := u.followed("look for updates", id)
	if err != nil {
		return all, err
	}
	u.ask(ctx, f)
	u.mu.Lock()
	k := u.known[id]
	u.mu.Unlock()
	if k.err != nil {
		return all, k.err
	}
	all.Updates = append(all.Updates, updateOf(f, k, u.d.line.turned(id)))
	return all, ctx.Err()
}

// Apply begins the download of what the source has now.
func (u *updates) Apply(ctx context.Context, id model.ID) (model.Download, error) {
	f, err := u.followed("update", id)
	if err != nil {
		return model.Download{}, err
	}
	return u.apply(ctx, f, model.NormalPriority)
}

// Rollback has the branch lead to an earlier commit.
func (u *updates) Rollback(ctx context.Context, id model.ID, commit string) (client.RolledBack, error) {
	_, open, err := u.d.door.shut(ctx) // no download may move the branch meanwhile
	if err != nil {
		return client.RolledBack{}, err
	}
	defer open()
	back, err := u.d.line.rollBack(ctx, u.d.line.Writer, id, commit)
	if err == nil {
		u.d.stored(id, "rolled back")
		u.d.incident(model.Info, "rolled_back", id, back.Message)
	}
	return back, err
}

// rollBack has the branch of a model lead to an earlier commit, "" for the one before. That the other one is not fetched again by
// itself is noted before: dying in between leaves the branch where it was.
func (l *line) rollBack(ctx context.Context, w *store.Writer, id model.ID, commit string) (client.RolledBack, error) {
	m, err := l.Store.Model(id)
	if err != nil {
		return client.RolledBack{}, named("roll back", err)
	}
	f, ok := follows(m)
	if !ok {
		return client.RolledBack{}, notFollowed("roll back", id)
	}
	if commit == "" {
		earlier := f.previous()
		if len(earlier) == 0 {
			return client.RolledBack{}, &model.Error{
				Op: "roll back", Class: model.NotFound, Model: id, Err: errors.New("no other commit of it is here as a whole"),
				Hint: "fetch one with: ema pull " + shellWord(id.Public()) + "@COMMIT",
			}
		}
		commit = earlier[0].Commit
	}
	back := client.RolledBack{
		Success: true, Message: fmt.Sprintf("%s: %s leads to %.12s again", id.Public(), f.revision, commit), Model: id.Public(), Revision: f.revision, From: f.current.Commit, To: commit,
	}
	if commit == f.current.Commit {
		return back, nil
	}
	if err := l.changeTurned(id, func(t *turned) {
		t.Skip = f.current.Commit
		t.Previous = slices.DeleteFunc(t.Previous, func(c string) bool { return c == commit })
	}); err != nil {
		return client.RolledBack{}, err
	}
	return back, w.Point(ctx, id, f.revision, commit)
}
