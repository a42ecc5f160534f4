package api

import (
	"slices"
	"sync"
	"time"
)

// unanswered are the requests that wait for their answers, streams left out.
type unanswered struct {
	mu  sync.Mutex
	all map[*told]asked
}

// An asked is a request: the operation, and when it came.
type asked struct {
	operation string
	at        time.Time
}

func (u *unanswered) begin(t *told, operation string, at time.Time) {
	if slices.Contains(lasting(), operation) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = map[*told]asked{}
	}
	u.all[t] = asked{operation, at}
}

func (u *unanswered) end(t *told) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, t)
}

// Oldest is the request that has waited longest for its answer of those that wait now, streams left out: its operation, and for how
// long; 0 when none waits.
func (s *Server) Oldest(now time.Time) (operation string, waits time.Duration) {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	for _, a := range s.waiting.all {
		if w := now.Sub(a.at); w > waits {
			operation, waits = a.operation, w
		}
	}
	return operation, waits
}
