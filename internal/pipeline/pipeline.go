// Package pipeline brings a model from first request to available, and keeps it so: it is the only
// room that knows the order of the steps.
//
//	resolve → select → what is here already → space → fetch → publish → snapshot → export
//
// pull.go is that story; verify.go checks what is here and repairs it with the same steps.
package pipeline

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/store"
)

// resolver is what the pipeline needs of a source beyond what the fetcher uses.
type resolver interface {
	Resolve(ctx context.Context, id model.ID, rev string) (*model.Manifest, error)
}

// memory is what is known of a source's answers without asking it.
type memory interface {
	// Recall is what the source said last about rev; nil when that is not known.
	Recall(ctx context.Context, id model.ID, rev string) *model.Manifest
	// Fresh reports whether that is so young that it may stand in for a new answer.
	Fresh(id model.ID, rev string) bool
	// Forget has the source asked again about m, of which something was not true.
	Forget(ctx context.Context, m *model.Manifest)
}

// A Line is one pipeline over one store. Its methods are safe for concurrent use as far as the store's
// one owner permits: those that change something wait for each other.
type Line struct {
	Store   *store.Store
	Source  resolver
	Memory  memory // of the source; nil = it remembers nothing
	Fetcher *fetch.Fetcher
	// Retry is how often the source is asked what a model consists of. Configure changes it later.
	Retry fetch.Retry
	// MinFree is the space that must stay free on the store's volume. Configure changes it later.
	MinFree model.Bytes
	// MostHot is what the store's hot tier may hold; 0 is no bound. Configure changes it later.
	MostHot model.Bytes
	// Offline forbids the network: only what is here already can be asked for.
	Offline bool
	// Command names this process to others that wait for the store, e.g. "ema pull org/name".
	Command string
	// Waiting is told once whenever another process must be waited for; nil means not to wait.
	Waiting func(store.Owner)
	// Hub is the address of the hub, for the records of what came from there.
	Hub string
	// Writer is the owner as which a daemon works on its store for all its life; nil means to own the
	// store for as long as a change takes.
	Writer *store.Writer
	// Parallel is how many files are hashed at once; 0 means 2.
	Parallel int
	// Run runs what reads and hashes a file that Verify and Repair check; nil runs it as everything else.
	Run func(context.Context, func(context.Context) error) error

	// Quarantine keeps files from the snapshot that loading could harm. It may change at any time.
	Quarantine atomic.Bool

	reserved   reservations
	configured sync.RWMutex // guards Retry, MinFree and MostHot once the Line is used
}

// Configure changes Retry, MinFree and MostHot while the Line is used; what runs follows them from its next step on.
func (l *Line) Configure(retry fetch.Retry, minFree, mostHot model.Bytes) {
	l.configured.Lock()
	defer l.configured.Unlock()
	l.Retry, l.MinFree, l.MostHot = retry, minFree, mostHot
}

// LeaveFree is the space that must stay free on the store's volume now.
func (l *Line) LeaveFree() model.Bytes {
	l.configured.RLock()
	defer l.configured.RUnlock()
	return l.MinFree
}

func (l *Line) retry() fetch.Retry {
	l.configured.RLock()
	defer l.configured.RUnlock()
	return l.Retry
}

// own is the right to change the store; done gives it back.
func (l *Line) own(ctx context.Context, waiting func(store.Owner)) (w *store.Writer, done func(), err error) {
	if l.Writer != nil {
		return l.Writer, func() {}, nil
	}
	if w, err = l.Store.Own(ctx, l.Command, waiting); err != nil {
		return nil, nil, err
	}
	return w, func() { _ = w.Close() }, nil //nolint:errcheck // only the lock is given up: nothing of the work can be lost
}

func (l *Line) parallel() int {
	if l.Parallel > 0 {
		return l.Parallel
	}
	return 2
}

// Progress is how a running Pull, Verify or Repair stands. It is for reading at any time from any
// goroutine; all but Stage only grow.
type Progress struct {
	fetch.Progress
	stage stage
}

// Stage is what a pipeline is doing, with the figures that belong to it.
type Stage struct {
	Name  string      // "resolving", "checking", "fetching", "publishing", "exporting", "done"
	Begun time.Time   // when this stage began
	Files int         // files that the whole job is about
	Bytes model.Bytes // bytes that the whole job is about
	Here  model.Bytes // of these, bytes that were here before
	// FilesHere are those of Files that were here before.
	FilesHere int
}
