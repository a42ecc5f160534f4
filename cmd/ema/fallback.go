package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/event"
	"ema/internal/fallback"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

const (
	// waitersFile has who waits for models, in the store's state folder. It is replaced as a whole, as changed settings are.
	waitersFile = "waiting.json"
	// mostWaiters is how many may wait.
	mostWaiters = 1000
	// mostText is how much of a README or a configuration is read.
	mostText = 1 << 20
)

// A waiter waits for a model.
type waiter struct {
	ID      string    `json:"id"`
	Model   string    `json:"model"`
	Webhook string    `json:"webhook,omitempty"`
	Since   time.Time `json:"since"`
}

// standIns knows which models could stand in for another, and who waits for one. Its methods may be called concurrently.
type standIns struct {
	d *daemon

	mu      sync.Mutex
	read    map[model.ID]readFacts
	waiting []waiter
}

// readFacts are what the files of a commit have told.
type readFacts struct {
	commit string
	facts  fallback.Facts
}

// newStandIns remembers who waits.
func newStandIns(d *daemon) (*standIns, error) {
	s := &standIns{d: d, read: map[model.ID]readFacts{}}
	raw, err := os.ReadFile(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s.waiting)
	}
	if err != nil {
		return nil, &model.Error{Op: "read who waits for models", Class: model.DiskError, File: s.file(), Err: err, Hint: "remove the file: then those who wait are forgotten"}
	}
	return s, nil
}

func (s *standIns) file() string { return filepath.Join(s.d.line.Store.StateDir(), waitersFile) }

// keep stores who waits from now on. The lock is held.
func (s *standIns) keep(waiting []waiter) error {
	raw, err := json.Marshal(waiting)
	if err == nil {
		_, err = replaceFile(store.OS{}, s.file(), raw)
	}
	if err != nil {
		return &model.Error{Op: "store who waits for models", Class: model.DiskError, File: s.file(), Err: err}
	}
	s.waiting = waiting
	return nil
}

// run tells those who wait when their model is here, until ctx ends.
func (s *standIns) run(ctx context.Context) error {
	for {
		changes, err := s.d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool {
			change, ok := e.Data.(event.Change)
			return ok && change.To == model.Completed || e.Kind == event.KindStored
		}})
		if err != nil {
			return nil //nolint:nilerr // the daemon is going
		}
		s.arrived(model.ID{}) // while nobody listened
		for err == nil {
			var some []event.Event
			some, err = changes.Next(ctx)
			for _, e := range some {
				s.arrived(e.Model)
			}
		}
		changes.Close()
		if !errors.Is(err, event.ErrSlow) { // that only means that very much happened
			return nil
		}
	}
}

// arrived tells those who wait for a model, or for any when it is zero, if it is here as a whole. Who was told is forgotten
// afterwards: a crash in between tells twice.
func (s *standIns) arrived(id model.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []waiter
	for _, w := range s.waiting {
		of, err := model.ParseID(w.Model)
		if err != nil || !id.IsZero() && of != id || !s.whole(of) {
			rest = append(rest, w)
			continue
		}
		s.tell(of, w)
	}
	if len(rest) == len(s.waiting) {
		return
	}
	if err := s.keep(rest); err != nil {
		s.d.log.Warn("who was told may be told again", "error", err.Error())
	}
}

func (s *standIns) tell(id model.ID, w waiter) {
	s.d.bus.Tell(event.Event{Kind: event.KindAwaited, Model: id, Data: event.Awaited{ID: w.ID}})
	if w.Webhook != "" {
		s.d.webhooks.Send(w.Webhook, map[string]any{"type": "model_available", "model_id": id.Public(), "queue_id": w.ID, "timestamp": time.Now().UTC()})
	}
}

// whole reports whether any revision of a model is here as a whole.
func (s *standIns) whole(id model.ID) bool {
	m, err := s.d.line.Store.Model(id)
	return err == nil && m.Away == "" && slices.ContainsFunc(m.Revisions, complete)
}

func complete(r store.Revision) bool {
	return r.State == store.Available || r.State == store.Unverified
}

// Await has somebody told when a model is available.
func (s *standIns) Await(ctx context.Context, a api.Await) (client.Awaited, error) {
	w := waiter{ID: rand.Text(), Model: a.Model.String(), Webhook: a.Webhook, Since: time.Now().UTC()}
	done := client.Awaited{Success: true, Message: a.Model.Public() + ": you will be told when it is available", Model: a.Model.Public(), ID: w.ID, Waiting: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.whole(a.Model) {
		done.Message, done.Waiting = a.Model.Public()+": it is available", false
		s.tell(a.Model, w)
		return done, nil
	}
	if len(s.waiting) >= mostWaiters {
		return done, &model.Error{Op: "wait for a model", Class: model.RateLimited, Model: a.Model, Err: errors.New("too many wait already"), Hint: "give some up: DELETE /models/fallback/queue/ID"}
	}
	if a.Start {
		if _, _, err := s.d.queue.Add(ctx, model.Download{Model: a.Model, Priority: model.NormalPriority}); err != nil {
			return done, err
		}
	}
	if err := s.keep(append(slices.Clone(s.waiting), w)); err != nil {
		return done, err
	}
	if _, wait := s.standing(a.Model); wait != nil {
		done.Estimate = new(time.Now().UTC().Add(*wait))
	}
	return done, nil
}

// Waiters are those who wait.
func (s *standIns) Waiters(context.Context) (client.Waiters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := client.Waiters{Waiting: []client.Waiter{}}
	for _, w := range s.waiting {
		name := w.Model
		if id, err := model.ParseID(w.Model); err == nil {
			name = id.Public()
		}
		all.Waiting = append(all.Waiting, client.Waiter{ID: w.ID, Model: name, Since: w.Since, Webhook: w.Webhook != ""})
	}
	return all, nil
}

// GiveUp ends waiting.
func (s *standIns) GiveUp(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(s.waiting), func(w waiter) bool { return w.ID == id })
	if len(rest) == len(s.waiting) {
		return &model.Error{Op: "wait no more", Class: model.NotFound, Err: errors.New("nobody waits by that id")}
	}
	return s.keep(rest)
}

// standing is how a model stands that is not here, in the words of availability_status, and how long it will take; nil when nobody
// can tell.
func (s *standIns) standing(id model.ID) (string, *time.Duration) {
	for _, d := range s.d.queue.List() {
		if d.Model != id {
			continue
		}
		if f, ok := s.d.standing(d.ID); ok && f.ETA > 0 {
			return client.AvailabilityDownloading, &f.ETA
		}
		switch {
		case runs(d.State):
			return client.AvailabilityDownloading, nil
		case d.State == model.Paused:
			return client.AvailabilityPaused, nil
		}
		return client.AvailabilityQueued, nil
	}
	return client.AvailabilityMissing, nil
}

// Suggest are the models that could stand in for one; see the API.
func (s *standIns) Suggest(ctx context.Context, w api.Wanted) (client.Fallbacks, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.d.line.suggest(ctx, w, s.read, s.standing)
}

// suggest finds models that could stand in for one. read has what files have told before, and takes in what they tell now.
func (l *line) suggest(ctx context.Context, w api.Wanted, read map[model.ID]readFacts, standing func(model.ID) (string, *time.Duration)) (client.Fallbacks, error) {
	answer := client.Fallbacks{Model: w.Model.Public(), Suggestions: []client.Fallback{}}
	models, err := l.Store.Models(ctx)
	if err != nil {
		return answer, err
	}
	asked := fallback.Facts{Model: w.Model}
	var all []fallback.Facts
	status := map[model.ID]string{}
	here := map[model.ID]bool{}
	for _, m := range models {
		here[m.ID] = true
		f := l.traits(ctx, m, read)
		if f.Available {
			status[m.ID] = client.AvailabilityAvailable
		} else {
			status[m.ID], f.Wait = standing(m.ID)
		}
		if m.ID == w.Model {
			asked = f
		} else if w.MaxSize == 0 || f.Size <= w.MaxSize {
			all = append(all, f)
		}
	}
	for id := range read {
		if !here[id] {
			delete(read, id)
		}
	}
	if !here[w.Model] { // nothing of it is here: what its source said last, and its name
		status[w.Model], asked.Wait = standing(w.Model)
		if l.Memory != nil {
			if m := l.Memory.Recall(ctx, w.Model, ""); m != nil {
				asked = asked.FromSource(m.Card)
			}
		}
		asked = asked.FromName()
	}
	if w.Task != "" {
		asked.Task = w.Task
	}
	answer.Status, answer.Wait = status[w.Model], seconds(asked.Wait)
	if asked.Available {
		answer.Wait = new(0.0)
	}
	for _, s := range fallback.Suggest(asked, all, w.Most, w.AlsoAway) {
		one := client.Fallback{
			Model: s.Model.Public(), Score: s.Score, Available: s.Available, Status: status[s.Model], Wait: seconds(s.Wait), SizeMB: float64(s.Size) / float64(model.MiB),
			Parameters: figure(s.Parameters), Bits: figure(s.Bits), Task: s.Task, Architectures: append([]string{}, s.Architectures...), Reasons: s.Reasons,
		}
		if s.Available {
			one.Wait = new(0.0)
		}
		answer.Suggestions = append(answer.Suggestions, one)
	}
	return answer, nil
}

// figure is nil for 0, which is a figure that nobody knows.
func figure(v float64) *float64 {
	if v == 0 {
		return nil
	}
	return &v
}

// traits are what is known of a model of which something is here.
func (l *line) traits(ctx context.Context, m store.Model, read map[model.ID]readFacts) fallback.Facts {
	var r store.Revision
	for _, one := range byName(m.Revisions) { // the one that a loader would find comes first
		if r.Commit == "" || !complete(r) && complete(one) {
			r = one
		}
	}
	known, ok := read[m.ID]
	if !ok || known.commit != r.Commit {
		known = readFacts{r.Commit, l.readFacts(ctx, m.ID, r)}
		read[m.ID] = known
	}
	f := known.facts
	f.Size, f.Available = m.Size, r.Commit != "" && complete(r) && m.Away == ""
	return f
}

// readFacts reads what the files of a commit tell.
func (l *line) readFacts(ctx context.Context, id model.ID, r store.Revision) fallback.Facts {
	f := fallback.Facts{Model: id}
	var elements, bytes uint64
	var says string
	dir := l.Store.Snapshot(id, r.Commit)
	for _, file := range r.Files {
		name := filepath.Join(dir, filepath.FromSlash(file.Path))
		switch {
		case file.State == store.Incomplete:
		case file.Path == "config.json":
			f = f.FromConfig(head(name))
		case file.Path == "README.md":
			f = f.FromCard(head(name))
		case strings.HasSuffix(file.Path, ".safetensors"), strings.HasSuffix(file.Path, ".gguf"):
			found, err := pipeline.Structure(file.Path, name, file.Size)
			if err == nil {
				elements, bytes, says = elements+found.Elements, bytes+found.Bytes, found.Architecture
			}
		}
	}
	if l.Memory != nil {
		if m := l.Memory.Recall(ctx, id, ""); m != nil {
			f = f.FromSource(m.Card)
		}
	}
	return f.FromTensors(elements, bytes, says).FromName()
}

// head is the beginning of a file; nil when it cannot be read.
func head(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, mostText))
	if err != nil {
		return nil
	}
	return text
}

// sure is a score as people read it.
func sure(score float64) string { return fmt.Sprintf("%.0f %%", 100*score) }
