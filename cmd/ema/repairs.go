package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/model"
)

// The kinds of repairs.
const (
	mendAuto  = "auto"          // as much as is needed: links, permissions, blocks
	mendFix   = "integrity_fix" // the same, under the name that people look for
	mendWhole = "redownload"    // all files are fetched anew
)

// repairs are those that somebody asked for over the network, or that the daemon wants by itself; each model is mended once at a time.
type repairs struct {
	d    *daemon
	todo chan *mend

	mu      sync.Mutex
	waiting map[model.ID]*mend
}

// A mend is one repair that waits or runs.
type mend struct {
	id   model.ID
	task *client.HealthTask // guarded by the clinic's lock
}

// mostRepairs is how many may wait.
const mostRepairs = 1000

func newRepairs(d *daemon) *repairs {
	return &repairs{d: d, todo: make(chan *mend, mostRepairs), waiting: map[model.ID]*mend{}}
}

// begin puts a model into the line of those to be mended.
func (r *repairs) begin(_ context.Context, id model.ID) (string, error) {
	_, existing, err := r.ask(id, mendAuto)
	if err != nil {
		return "", err
	}
	if existing {
		return id.Public() + ": its repair is under way already", nil
	}
	return id.Public() + ": verified now; what is damaged or missing is fetched again", nil
}

// ask puts a model into the line of those to be mended; existing says that it was there.
func (r *repairs) ask(id model.ID, kind string) (task client.HealthTask, existing bool, err error) {
	m, err := r.d.line.Store.Model(id)
	if err != nil {
		return task, false, named("repair", err)
	}
	if len(m.Revisions) == 0 {
		return task, false, notWhole("repair", id)
	}
	c := r.d.clinic
	r.mu.Lock()
	defer r.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if one := r.waiting[id]; one != nil {
		return *one.task, true, nil
	}
	one := &mend{id, &client.HealthTask{ID: rand.Text(), Kind: kind, State: client.TaskWaiting, Actions: []string{}, Estimate: c.estimate(time.Now().UTC(), m.Size)}}
	select {
	case r.todo <- one:
		r.waiting[id] = one
		c.chart(id).repair = one.task
		return *one.task, false, nil
	default:
		return task, false, &model.Error{Op: "repair", Class: model.RateLimited, Model: id, Err: errors.New("too many models wait for their repair already"), Hint: "try again later"}
	}
}

// under are the models that are mended, or wait for that.
func (r *repairs) under() map[model.ID]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[model.ID]bool{}
	for id := range maps.Keys(r.waiting) {
		all[id] = true
	}
	return all
}

// run mends one model after the other until ctx ends.
func (r *repairs) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case one := <-r.todo:
			r.mend(ctx, one)
		}
	}
}

// mend mends one model, as "ema repair" does.
func (r *repairs) mend(ctx context.Context, one *mend) {
	c := r.d.clinic
	c.mu.Lock()
	one.task.State, one.task.Begun = client.TaskRunning, new(time.Now().UTC())
	args := []string{"repair", one.id.Public(), "--quiet"}
	if one.task.Kind == mendWhole {
		args = append(args, "--anew")
	}
	c.mu.Unlock()
	var said bytes.Buffer
	code := r.d.execute(ctx, api.Command{Args: args}, &said, &said)
	text := strings.TrimPrefix(strings.TrimSpace(said.String()), "ema: ")
	r.mu.Lock()
	delete(r.waiting, one.id)
	r.mu.Unlock()
	c.mu.Lock()
	one.task.State, one.task.Ended, one.task.Percent, one.task.Estimate = client.TaskDone, new(time.Now().UTC()), 100, nil
	if code != 0 {
		one.task.State, one.task.Error = client.TaskFailed, text
	}
	c.mu.Unlock()
	if code == 0 {
		r.d.log.Info("repaired", "model", one.id.Public(), "result", text)
	} else if ctx.Err() == nil {
		r.d.log.Warn("not repaired", "model", one.id.Public(), "code", code, "said", text)
	}
	c.touched(one.id) // while it was mended nothing was said of it
}
