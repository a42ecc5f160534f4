// Package event says what just happened, over a bus that never blocks the teller.
//
// Tellers know no listeners. A listener that is slow gets the progress of a download merged into its
// newest figure, never loses anything else, and is cut off rather than waited for; it resumes by the
// number of the last event that it saw.
package event

import (
	"time"

	"ema/internal/model"
)

// Kind says what an event tells, and so which type its Data has.
type Kind string

// The kinds of events.
const (
	KindProgress Kind = "progress" // Progress: how far a download is; a newer one replaces it
	KindState    Kind = "state"    // Change: a download went from one state to another
	KindRetry    Kind = "retry"    // Retry: an attempt failed and will be repeated
	KindLimit    Kind = "limit"    // Limit: another bandwidth limit holds
	KindSpace    Kind = "space"    // Space: there is too little room on the disk
	KindStored   Kind = "stored"   // Stored: what the store holds of a model is not what it was
	KindMove     Kind = "move"     // Move: how far a model is on its way from one tier to another
	KindTier     Kind = "tier"     // Tier: the folder of a tier is no longer as it was
	KindAwaited  Kind = "awaited"  // Awaited: a model is available that somebody waited for
	KindUpdate   Kind = "update"   // Update: the source of a model has something newer
	KindHealth   Kind = "health"   // Health: a model is no longer as well, or as bad, as it was

	KindPerformance  Kind = "performance"  // Performance: a figure of how everything runs has become worse, or is as it was again
	KindBench        Kind = "bench"        // Benchmark: how far a benchmark is
	KindOptimization Kind = "optimization" // Optimization: a setting was changed by itself, or back
)

// An Event is one thing that happened. It is a value; nobody changes its Data once it is told.
type Event struct {
	// Seq numbers events in the order in which they were told, with gaps. The bus sets it.
	Seq uint64
	// At is when it was told, in UTC. The bus sets it.
	At       time.Time
	Kind     Kind
	Download string   // id of the download concerned; "" when it concerns all
	Model    model.ID // zero when none is concerned
	Data     any      // Progress, Change, Retry, Limit, Space, Stored, Move, Tier, Health, Update, Awaited, Benchmark, Performance or Optimization, by Kind
}

// Progress is how far a download is.
type Progress struct {
	State       model.State
	Done, Total model.Bytes   // Total is 0 while unknown
	Rate        float64       // bytes per second
	ETA         time.Duration // 0 while unknown
	Connections int           // that are busy
	Note        string        // the newest reason for waiting or changing course
}

// Change is a step in the life of a download.
type Change struct {
	From, To model.State
	Reason   string    // in words; "" when there is nothing to say
	NextTry  time.Time // when To is model.Retrying
}

// Retry is an attempt that failed and will be repeated.
type Retry struct {
	Host  string // that was asked
	Class model.Class
	Error string
	Wait  time.Duration // until it is repeated
}

// Limit is the bandwidth limit that holds from now on.
type Limit struct {
	Rate model.Bytes // per second; 0 is unlimited
	Why  string      // what set it
}

// Space is a lack of room on the disk.
type Space struct {
	Short  model.Bytes // how much is missing
	Reason string      // in words, with its figures
}

// Stored is a change of what the store holds of the event's model, or of any when it names none: something was
// removed, repaired, found damaged, moved or pinned. It is told once the change can be seen. What a download brings is told by
// its Change to model.Completed.
type Stored struct {
	Why string // in words: "removed", "repaired", "damaged", "verified", "collected", "moved", "pinned", "unpinned"
}

// The states of a move.
const (
	MoveWaiting   = "waiting" // for its turn
	MoveMoving    = "moving"  // a newer event of this state replaces it, as with Progress
	MoveDone      = "done"
	MoveFailed    = "failed" // Move.Error says why; what was moved stays moved
	MoveCancelled = "cancelled"
)

// Move is how far the event's model is on its way from one tier to another.
type Move struct {
	From, To    model.Tier
	Done, Total model.Bytes
	State       string // one of the Move constants
	Error       string // in words; "" unless it failed
}

// Tier is how the folder of a tier stands from now on.
type Tier struct {
	Tier    model.Tier
	State   string // ready, missing, read_only or full
	Problem string // in words, with what to do; "" when it is ready
}

// Health is how well the event's model is from now on.
type Health struct {
	From, To model.Condition
	Severity model.Severity
	Message  string // the worst of what is wrong; that all is well, when it is again
	Advice   string // what to do, in the imperative; "" when nothing is to be done
}

// Performance is a figure that has become worse, or is as it was again.
type Performance struct {
	Metric      string // by group and name, such as api.average_response_time_ms
	Severity    model.Severity
	Message     string
	Advice      string // what to do, in the imperative; "" when nothing is to be done
	Before, Now float64
}

// Update is something newer that the source of the event's model has.
type Update struct {
	Revision        string      // the branch
	Current, Latest string      // commits
	Download        model.Bytes // that would be fetched, at most
}

// Optimization is how a change of a setting stands that was made by itself.
type Optimization struct {
	ID, Rule      string
	Key, From, To string
	Status        string  // measuring, checking, confirming, kept, undone, undone_by_user or superseded
	Reason        string  // for that status, in words
	Figure        string  // by which it is judged
	Better        float64 // the part of the figure by which it became better; 0 while that is unknown
}

// Awaited says that the event's model is available, to one who waited for it.
type Awaited struct{ ID string }

// The states of a benchmark.
const (
	BenchmarkRunning   = "running" // a newer event of this state replaces it, as with Progress
	BenchmarkCompleted = "completed"
	BenchmarkFailed    = "failed" // Benchmark.Error says why
	BenchmarkCancelled = "cancelled"
)

// Benchmark is how far a benchmark is.
type Benchmark struct {
	ID    string
	State string        // one of the Benchmark constants
	Suite string        // that runs; "" when it is over
	Step  string        // what is measured, in words; "" when it is over
	Part  float64       // of it that is done, 0 to 1
	Took  time.Duration // until now
	Left  time.Duration // that it still takes, at most; 0 when it is over
	Error string        // in words; "" unless it failed
}

// fleeting reports whether a newer event of the same subject makes e worthless: then nobody has to be told of all.
func (e Event) fleeting() (subject string, yes bool) {
	switch {
	case e.Kind == KindProgress:
		return e.Download, true
	case e.Kind == KindMove:
		m, ok := e.Data.(Move)
		return "move " + e.Model.String(), ok && m.State == MoveMoving
	case e.Kind == KindBench:
		b, ok := e.Data.(Benchmark)
		return "benchmark " + b.ID, ok && b.State == BenchmarkRunning
	}
	return "", false
}
