package host

import (
	"fmt"
	"os"
	"sync"
)

// A Priority is how much of the processors threads get where there is too little for all. Empty is Normal.
type Priority string

const (
	High        Priority = "high"         // before other programs; it needs the permission
	Normal      Priority = "normal"       // as this process was started
	BelowNormal Priority = "below_normal" // after other programs
	Idle        Priority = "idle"         // what nobody else wants
)

// An IOPriority is how soon a disk serves threads, where its scheduler makes a difference. Empty is what goes with the
// Priority: usual, and with Idle that of low.
type IOPriority string

const (
	IOHigh   IOPriority = "high"   // the first best-effort level
	IONormal IOPriority = "normal" // the usual best-effort level
	IOLow    IOPriority = "low"    // what nobody else wants
)

// A Class is how threads run that do one kind of work. The zero Class is as this process was started.
type Class struct {
	Priority Priority
	Cores    []int // the only ones that they run on, of those that this process was started with; none = on all of these
}

// Threads are those of this process: those that its pools have made, and all others, on which Go runs goroutines as it
// pleases. Go never clones a new thread from one that a goroutine keeps for itself, so what is set of a pool's thread
// stays there. It is safe for concurrent use. There is one for a process.
type Threads struct {
	tell  func(problem string)
	start attributes

	mu     sync.Mutex // guards what follows
	pooled map[int]bool
	told   map[string]bool
}

// NewThreads is made before anything is set. tell is told once of everything that this system does not let be set; work
// goes on without that. tell must be quick, and may be called concurrently.
func NewThreads(tell func(problem string)) *Threads {
	t := &Threads{tell: tell, pooled: map[int]bool{}, told: map[string]bool{}}
	var err error
	if t.start, err = readAttributes(0); err != nil {
		t.problem("threads", fmt.Errorf("how they run cannot be read: %w", err))
	}
	return t
}

// Main sets how all threads run that are no pool's, also those that are not made yet: these are clones of the others.
func (t *Threads) Main(c Class) {
	t.mu.Lock()
	err := t.setOthers(c)
	t.mu.Unlock()
	t.problem("main", err)
}

// setOthers looks for threads until it finds no new one: a thread that was cloned before its parent was set is in the
// next list. The lock is held.
func (t *Threads) setOthers(c Class) (failed error) {
	set := map[int]bool{}
	for grown := true; grown; {
		grown = false
		all, err := threadsOf(os.Getpid())
		if err != nil {
			return err
		}
		for _, tid := range all {
			if set[tid] || t.pooled[tid] {
				continue
			}
			set[tid], grown = true, true
			if err := t.start.set(tid, c); err != nil {
				failed = err
			}
		}
	}
	return failed
}

// join says that a thread is a pool's.
func (t *Threads) join(tid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pooled[tid] = true
}

// leave says that a pool's thread ends.
func (t *Threads) leave(tid int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.pooled, tid)
}

// problem tells what cannot be set, unless it was told before.
func (t *Threads) problem(of string, err error) {
	if err == nil {
		return
	}
	text := of + ": " + err.Error()
	t.mu.Lock()
	before := t.told[text]
	t.told[text] = true
	t.mu.Unlock()
	if !before {
		t.tell(text)
	}
}
