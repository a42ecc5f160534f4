package host

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
)

// A Pool runs tasks on threads of its own, of one Class, and so many at once. A thread lives as long as there are tasks:
// a pool without work has none. It is safe for concurrent use.
//
// Only the task itself runs on such a thread; goroutines that it starts run where all others do. A task must not wait for
// another one of the same pool.
type Pool struct {
	threads *Threads
	name    string

	mu      sync.Mutex // guards what follows
	most    int
	class   Class
	changes int           // of class
	running map[*runs]int // the threads' numbers; 0 before it is known
	waiting []*task
}

// runs is a thread of a pool, as the class was after so many changes.
type runs struct {
	changes int
	io      IOPriority
}

// A task is what one caller waits for.
type task struct {
	io   IOPriority
	do   func() error
	err  error
	done chan struct{}
}

// errUnfinished is what a task ends with that ended its goroutine.
var errUnfinished = errors.New("the task has ended its goroutine")

// NewPool makes a pool of at most so many threads; 0 = one for each task. name is for problems. It starts nothing.
func (t *Threads) NewPool(name string, most int, c Class) *Pool {
	return &Pool{threads: t, name: name, most: most, class: c, running: map[*runs]int{}}
}

// Configure changes how many threads there may be, and how they run. It acts at once on tasks under way, but for a higher
// priority that is not permitted to a thread that has a lower one: the next task has it.
func (p *Pool) Configure(most int, c Class) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = most
	if p.class.Priority != c.Priority || !slices.Equal(p.class.Cores, c.Cores) {
		p.class = Class{c.Priority, slices.Clone(c.Cores)}
		p.changes++
		for _, tid := range p.running {
			if tid != 0 {
				_ = p.threads.start.set(tid, c) //nolint:errcheck // the next thread tells, if it cannot have that either
			}
		}
	}
	p.begin()
}

// Do runs fn on a thread of the pool, as soon as there is one, and returns what fn returns. While it waits for a thread,
// the end of ctx ends it; after that it waits for fn.
func (p *Pool) Do(ctx context.Context, fn func(context.Context) error) error {
	return p.DoAt(ctx, "", fn)
}

// DoAt is Do at that I/O priority.
func (p *Pool) DoAt(ctx context.Context, io IOPriority, fn func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := &task{io: io, do: func() error { return fn(ctx) }, err: errUnfinished, done: make(chan struct{})}
	p.mu.Lock()
	p.waiting = append(p.waiting, t)
	p.begin()
	p.mu.Unlock()
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	if i := slices.Index(p.waiting, t); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.mu.Unlock()
		return ctx.Err()
	}
	p.mu.Unlock()
	<-t.done
	return t.err
}

// begin starts threads for tasks that wait, as far as there may be more. The lock is held.
func (p *Pool) begin() {
	for len(p.waiting) > 0 && (p.most == 0 || len(p.running) < p.most) {
		r := &runs{changes: p.changes}
		p.running[r] = 0
		go p.thread(r, p.next())
	}
}

// next takes the task that has waited longest. The lock is held.
func (p *Pool) next() *task {
	t := p.waiting[0]
	p.waiting = slices.Delete(p.waiting, 0, 1)
	return t
}

// thread has this goroutine keep its thread, and work. It never gives it back: the thread ends with the goroutine, and
// so does what was set of it, which could not be taken back without permission.
func (p *Pool) thread(r *runs, t *task) {
	runtime.LockOSThread()
	if thisThread() != os.Getpid() {
		p.work(r, t)
		return
	}
	// The first thread of a process does not end before the process: others see its attributes as those of the process.
	// While this goroutine keeps it, another one gets another thread.
	kept := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(kept)
		p.work(r, t)
	}()
	<-kept
	runtime.UnlockOSThread()
}

// work does one task after the other, as long as there are any for this thread.
func (p *Pool) work(r *runs, t *task) {
	tid := thisThread()
	p.threads.join(tid)
	defer p.threads.leave(tid)
	p.mu.Lock()
	p.running[r], r.changes = tid, p.changes
	err := p.threads.start.set(tid, p.class) // under the lock, or a change at the same moment could be undone
	p.mu.Unlock()
	p.threads.problem(p.name, err)
	for t != nil {
		if t.io != r.io {
			p.threads.problem(p.name, p.threads.start.setIO(t.io))
			r.io = t.io
		}
		t = p.do(r, t)
	}
}

// do does a task, and returns the one that follows on this thread; nil = the thread ends.
func (p *Pool) do(r *runs, t *task) (next *task) {
	ended := true
	defer func() {
		next = p.following(r, ended)
		close(t.done) // not before: who waits for the task finds it gone
	}()
	t.err = t.do()
	ended = false
	return nil
}

// following is the next task of a thread. There is none when it has ended, when nothing waits, when there are too many
// threads now, or when its class is not that of the pool any more; then the thread counts no more.
func (p *Pool) following(r *runs, ended bool) *task {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !ended && len(p.waiting) > 0 && (p.most == 0 || len(p.running) <= p.most) && r.changes == p.changes {
		return p.next()
	}
	delete(p.running, r)
	p.begin()
	return nil
}

// Load is how many tasks run, and how many wait.
func (p *Pool) Load() (running, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.running), len(p.waiting)
}
