package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/event"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/tier"
)

// A lookout counts uses of models by other programs, which open their files.
type lookout struct {
	d     *daemon
	opens *host.Opens
	seen  *tier.Observer

	sizes map[string]model.Bytes // by path, for the one who hears of opens

	mu      sync.Mutex
	folders map[string]model.ID // that are watched
	said    map[string]bool     // what is wrong, and was logged
	looked  time.Time           // when it was last looked who has a file open
}

// watchUses counts uses by other programs until ctx ends. Where that cannot be it says so and does nothing.
func (d *daemon) watchUses(ctx context.Context) error {
	opens, err := host.NewOpens()
	if err != nil {
		d.log.Warn("uses by other programs are not counted", "error", err.Error())
		return nil
	}
	d.log.Info("uses by other programs are counted", "by", opens.How())
	l := &lookout{
		d: d, opens: opens, seen: tier.NewObserver(), sizes: map[string]model.Bytes{}, folders: map[string]model.ID{}, said: map[string]bool{},
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := opens.Run(ctx, l.opened)
		if err != nil && ctx.Err() == nil {
			d.log.Warn("uses by other programs are no longer counted", "error", err.Error())
		}
		return nil
	})
	g.Go(func() error { return l.follow(ctx) })
	return g.Wait()
}

// warn logs what is wrong, unless it was logged before: it would be with every model, or with every open.
func (l *lookout) warn(text string, about ...any) {
	l.mu.Lock()
	said := l.said[text]
	l.said[text] = true
	l.mu.Unlock()
	if !said {
		l.d.log.Warn(text, about...)
	}
}

// follow watches the folders of the models that there are.
func (l *lookout) follow(ctx context.Context) error {
	for {
		changes, err := l.d.bus.Subscribe(event.Want{Filter: func(e event.Event) bool {
			change, ok := e.Data.(event.Change)
			return ok && change.To == model.Completed || e.Kind == event.KindStored || e.Kind == event.KindTier
		}})
		if err != nil {
			return nil //nolint:nilerr // the daemon is going
		}
		l.watchAll(ctx)
		for err == nil {
			var some []event.Event
			some, err = changes.Next(ctx)
			for _, e := range some {
				if e.Kind == event.KindTier || e.Model == (model.ID{}) { // any may have changed
					l.watchAll(ctx)
				} else {
					l.watch(e.Model)
				}
			}
		}
		changes.Close()
		if !errors.Is(err, event.ErrSlow) { // that only means that very much happened
			return nil
		}
	}
}

func (l *lookout) watchAll(ctx context.Context) {
	models, err := l.d.line.Store.Models(ctx)
	if err != nil && ctx.Err() == nil {
		l.d.log.Warn("uses by other programs are not counted", "error", err.Error())
	}
	for _, k := range models {
		l.watch(k.ID)
	}
}

// watch watches the folders of one model, as far as there are any.
func (l *lookout) watch(id model.ID) {
	for _, dir := range l.d.line.Store.BlobFolders(id) {
		l.mu.Lock()
		l.folders[dir] = id // before anything is heard of it
		l.mu.Unlock()
		err := l.opens.Add(dir)
		if err == nil {
			continue
		}
		l.opens.Remove(dir) // it may have been watched before
		l.mu.Lock()
		delete(l.folders, dir)
		l.mu.Unlock()
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, host.ErrTooManyWatched):
			l.warn("uses of some models are not counted", "error", err.Error())
		default:
			l.warn("uses of a model are not counted", "model", id.Public(), "error", err.Error())
		}
	}
}

// opened counts a use, if the open is one.
func (l *lookout) opened(o host.Open) {
	if o.Lost {
		l.warn("so many files were opened at once that some uses may not have been counted")
		return
	}
	if o.By == host.Self || strings.HasSuffix(o.Path, ".incomplete") {
		return
	}
	l.mu.Lock()
	id, known := l.folders[filepath.Dir(o.Path)]
	l.mu.Unlock()
	if !known {
		return
	}
	now := time.Now()
	l.d.clinic.touched(id) // it may have been opened to be written to
	size, err := l.size(o.Path)
	if err != nil || !l.seen.Opened(id, size, func() bool { return l.large(id) }, now) {
		return
	}
	if o.By == host.Unknown && l.d.line.own.may(id, o.Path, now) && !l.others(o.Path, now) {
		l.seen.Withdraw(id)
		return
	}
	l.d.used(model.Use{Model: id, At: now.UTC(), By: model.UseByOpen, OK: true})
}

// size is that of a content, which never changes. It is asked for once: some programs open files very often.
func (l *lookout) size(path string) (model.Bytes, error) {
	if size, known := l.sizes[path]; known {
		return size, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if len(l.sizes) >= mostSizes {
		clear(l.sizes)
	}
	l.sizes[path] = model.Bytes(info.Size())
	return l.sizes[path], nil
}

// mostSizes is how many sizes are remembered.
const mostSizes = 10_000

// others reports whether another program has a file open now: then not only this one has opened it. Looking costs as much as there
// are processes, and this one may open thousands of files: it looks once a second at most.
func (l *lookout) others(path string, now time.Time) bool {
	l.mu.Lock()
	early := now.Sub(l.looked) < time.Second
	if !early {
		l.looked = now
	}
	l.mu.Unlock()
	if early {
		return false
	}
	open, err := host.LookForFilesInUse()
	return err == nil && open.Sees(path)
}

// large reports whether a model has a file of more than 1 MiB: then smaller ones are no use of it.
func (l *lookout) large(id model.ID) bool {
	return slices.ContainsFunc(l.d.line.Store.BlobPaths(id), func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && info.Size() > int64(model.MiB)
	})
}
