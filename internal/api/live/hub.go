// Package live tells clients over WebSocket what happens.
//
// One goroutine follows the bus, encodes each event once and appends batches to a list; each client walks that list at its
// own pace and writes what it finds there. So a client that has kept up costs one write per batch of bytes that all share, and
// one that hangs holds up nobody.
//
// What a client sends is read and ignored, up to 1 KiB at once, save for its pongs and its goodbye.
package live

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/event"
)

const (
	history       = 10_000  // messages that are kept for those who resume
	backlog       = 100_000 // events of the bus that may wait for the hub: nobody tells so many before it has read them
	pingEvery     = 20 * time.Second
	pongPatience  = 20 * time.Second
	writePatience = 30 * time.Second // for one write
	closePatience = 2 * time.Second  // for the client's goodbye
	mostRead      = 1 << 10          // bytes of a message of a client
	writeBuffer   = 8 << 10          // for each client
)

// Settings are what a hub needs to know. The zero Settings are the defaults.
type Settings struct {
	// BatchSize is how many messages go out at once at most; default 100.
	BatchSize int
	// BatchTimeout is how long a message waits for others at most; default 0.1 s.
	BatchTimeout time.Duration
	// Queue is how many messages may wait for a client before it is cut off, and of how many downloads and moves the progress may;
	// default 10,000, and never less than BatchSize.
	Queue int
	// AllowedOrigins are those of web pages that may connect, such as "https://dash.example.com", beside pages from the host
	// that the request is for. A * stands for any characters but a slash.
	AllowedOrigins []string
	// Refuse answers a request that gets no WebSocket; its error is a *Refusal. Default: its sentence as plain text.
	Refuse func(http.ResponseWriter, *http.Request, error)
}

func (s Settings) withDefaults() *Settings {
	if s.BatchSize <= 0 {
		s.BatchSize = 100
	}
	if s.BatchTimeout <= 0 {
		s.BatchTimeout = 100 * time.Millisecond
	}
	if s.Queue <= 0 {
		s.Queue = 10_000
	}
	s.Queue = max(s.Queue, s.BatchSize)
	s.AllowedOrigins = slices.Clone(s.AllowedOrigins)
	if s.Refuse == nil {
		s.Refuse = func(w http.ResponseWriter, _ *http.Request, err error) {
			status := http.StatusInternalServerError
			if r, ok := errors.AsType[*Refusal](err); ok {
				status = r.Status
			}
			http.Error(w, err.Error(), status)
		}
	}
	return &s
}

// A Hub tells all its clients what is told on a bus. Its methods are safe for concurrent use.
type Hub struct {
	bus      *event.Bus
	settings atomic.Pointer[Settings]

	over    chan struct{} // closed when the hub has ended
	clients sync.WaitGroup

	sent, superseded, slow atomic.Uint64

	mu       sync.Mutex
	ended    bool
	here     map[*client]bool // true for those that are told what is new, false for those that are being cut off
	last     *batch           // the end of the list
	kept     []*message       // solid ones that have left, the last `history` of which count; clients read its elements too
	gone     uint64           // resuming needs everything after this number, at first that with which Run begins
	wakeable chan struct{}    // closed always: who has something to write need not wait
}

// New makes a hub for what is told on bus from now on. Run tells it.
func New(bus *event.Bus, s Settings) *Hub {
	h := &Hub{
		bus: bus, over: make(chan struct{}), here: map[*client]bool{}, last: newBatch(nil), gone: bus.Seq(), wakeable: make(chan struct{}),
	}
	close(h.wakeable)
	h.settings.Store(s.withDefaults())
	return h
}

// Configure replaces the settings. Origins are those of the next client, the rest holds for all from the next batch on.
func (h *Hub) Configure(s Settings) { h.settings.Store(s.withDefaults()) }

// Stats are counts since the hub began.
type Stats struct {
	Clients    int    // that are connected now
	Sent       uint64 // messages, each counted for every client that it went to
	Dropped    uint64 // progress that a newer one had replaced before the client took it
	ClosedSlow uint64 // clients that were cut off because they left too much unread, or would not take a batch
}

// Stats says how it stands.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{Clients: len(h.here), Sent: h.sent.Load(), Dropped: h.superseded.Load(), ClosedSlow: h.slow.Load()}
}

// Run tells clients what is told on the bus until ctx ends, and may be called once. Then it says goodbye to all of them with the
// code 1001, and returns ctx's cause once none is left, which takes 2 s at most.
func (h *Hub) Run(ctx context.Context) error {
	defer h.end()
	since := h.gone
	for {
		sub, err := h.bus.Subscribe(event.Want{Since: since, Queue: backlog})
		if errors.Is(err, event.ErrGone) {
			since = h.restart()
			continue
		}
		if err != nil {
			return err
		}
		since, err = h.follow(ctx, sub, since)
		sub.Close()
		if !errors.Is(err, event.ErrSlow) {
			return err
		}
	}
}

// follow tells what sub collects, and returns the number of the last event that it has told.
func (h *Hub) follow(ctx context.Context, sub *event.Subscription, since uint64) (uint64, error) {
	var waiting []*message
	var due time.Time // when the first of those that wait has waited long enough
	for {
		until, stop := ctx, context.CancelFunc(func() {})
		if len(waiting) > 0 {
			until, stop = context.WithDeadline(ctx, due)
		}
		events, err := sub.Next(until)
		stop()
		s, now := h.settings.Load(), time.Now()
		if len(waiting) == 0 {
			due = now.Add(s.BatchTimeout)
		}
		for _, e := range events {
			since = e.Seq
			switch m, err := encode(e); {
			case err != nil:
				return since, fmt.Errorf("encode event %d of kind %q for clients: %w", e.Seq, e.Kind, err)
			case m != nil:
				waiting = append(waiting, m)
			}
		}
		waiting, _ = coalesce(waiting, backlog)
		for len(waiting) >= s.BatchSize {
			h.publish(waiting[:s.BatchSize:s.BatchSize], s)
			waiting = waiting[s.BatchSize:]
			due = now.Add(s.BatchTimeout)
		}
		timeout := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
		if len(waiting) > 0 && (err != nil || !now.Before(due)) {
			h.publish(waiting, s)
			waiting = nil
		}
		if err != nil && !timeout {
			return since, err
		}
	}
}

// publish appends a batch of messages, which is its own from now on, to the list.
func (h *Hub) publish(messages []*message, s *Settings) {
	b := newBatch(messages)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range messages {
		if !m.fleeting {
			h.kept = append(h.kept, m)
		}
	}
	if over := len(h.kept) - history; over > 0 {
		h.gone = h.kept[over-1].seq
		if over > history { // not each time, since it copies all
			h.kept = slices.Clone(h.kept[over:])
		}
	}
	for c, listens := range h.here {
		if listens && c.waiting.Add(int64(b.frame(c.filter).solid)) > int64(s.Queue) {
			h.cutOff(c)
		}
	}
	h.append(b)
}

// append comes last, after clients are cut off: whoever sees the new batch sees that it is not for him.
func (h *Hub) append(b *batch) {
	h.last.next = b
	close(h.last.done)
	h.last = b
}

// cutOff lets c have what has been told until now and no more. What waits is still sent, since resuming must begin after it, or
// the hub may no longer keep what is asked for.
func (h *Hub) cutOff(c *client) {
	c.end.Store(h.last)
	h.here[c] = false
	h.slow.Add(1)
}

// restart forgets everything, because the bus no longer has what follows it: every client has missed something.
func (h *Hub) restart() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept, h.gone = nil, h.bus.Seq()
	for c, listens := range h.here {
		if listens {
			h.cutOff(c)
		}
	}
	h.append(newBatch(nil))
	return h.gone
}

// end closes all clients and waits for them.
func (h *Hub) end() {
	h.mu.Lock()
	h.ended = true
	h.mu.Unlock()
	close(h.over)
	impatience := time.AfterFunc(closePatience, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for c := range h.here {
			c.drop()
		}
	})
	h.clients.Wait()
	impatience.Stop()
}
