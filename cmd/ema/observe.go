package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
}

// watchUses counts uses by other programs until ctx ends. Where that cannot be it says so and does nothing.
func (d *daemon) watchUses(ctx context.Context) error {
	opens, err := host.NewOpens()
	if err != nil {
		d.log.Warn("uses by other programs are not counted", "error", err.Error())
		return nil
	}
	d.log.Info("uses by other programs are counted", "by", opens.How())
	l := &lookout{d: d, opens: opens, seen: tier.NewObserver(), sizes: map[string]model.Bytes{}, folders: map[string]model.ID{}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := opens.Run(ctx, func(o host.Open) { l.opened(ctx, o) })
		if err != nil && ctx.Err() == nil {
			d.log.Warn("uses by other programs are no longer counted", "error", err.Error())
		}
		return nil
	})
	g.Go(func() error { return l.follow(ctx) })
	return g.Wait()
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
				if e.Kind == event.KindTier {
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
	if err != nil {
		l.d.log.Warn("uses by other programs are not counted", "error", err.Error())
	}
	for _, k := range models {
		if !l.watch(k.ID) {
			return
		}
	}
}

// watch watches the folders of one model, as far as there are any. It is false where nothing more can be watched.
func (l *lookout) watch(id model.ID) bool {
	for _, dir := range l.d.line.Store.BlobFolders(id) {
		err := l.opens.Add(dir)
		l.mu.Lock()
		if err == nil {
			l.folders[dir] = id
		} else if _, watched := l.folders[dir]; watched {
			delete(l.folders, dir)
			l.opens.Remove(dir)
		}
		l.mu.Unlock()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.d.log.Warn("uses of a model are not counted", "model", id.Public(), "error", err.Error())
			return false
		}
	}
	return true
}

// opened counts a use, if the open is one.
func (l *lookout) opened(ctx context.Context, o host.Open) {
	if o.Lost || o.By == host.Self || strings.HasSuffix(o.Path, ".incomplete") {
		return
	}
	l.mu.Lock()
	id, known := l.folders[filepath.Dir(o.Path)]
	l.mu.Unlock()
	if !known {
		return
	}
	size, err := l.size(o.Path)
	if err != nil || !l.seen.Opened(id, size, func() model.Bytes { return l.largest(id) }, time.Now()) {
		return
	}
	if o.By == host.Unknown && !others(o.Path) {
		l.seen.Withdraw(id)
		return
	}
	if err := l.d.used(ctx, model.Use{Model: id, At: time.Now().UTC(), By: model.UseByOpen, OK: true}); err != nil && ctx.Err() == nil {
		l.d.log.Warn("use not counted", "model", id.Public(), "error", err.Error())
	}
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

// others reports whether another program has a file open now. It tells a program that loads a model from this one, which opens
// files to verify and to move them; programs that it may not look at are not seen.
func others(path string) bool {
	open, err := host.LookForFilesInUse()
	return err == nil && open.Sees(path)
}

// largest is the size of the largest content of a model.
func (l *lookout) largest(id model.ID) (most model.Bytes) {
	for _, path := range l.d.line.Store.BlobPaths(id) {
		if info, err := os.Stat(path); err == nil {
			most = max(most, model.Bytes(info.Size()))
		}
	}
	return most
}
