package source

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A Phase is what somebody who fetches does at one moment.
type Phase int

// The phases. Those up to InBody are entered here, the others by who fetches.
const (
	InIdle      Phase = iota // nothing: there is no work
	InGate                   // waits until the host may be asked: it said to wait, or all connections are in use
	InDNS                    // waits for an address
	InConnect                // waits for a connection, and then for that of a proxy behind it
	InTLS                    // shakes hands
	InFirstByte              // has asked, and waits for the answer
	InBody                   // waits for bytes
	InLimiter                // waits for a limit on the bandwidth
	InHash                   // waits because the hash is behind
	InMemory                 // waits for a buffer
	InWrite                  // writes to the file
	InSync                   // waits for what was written to be durable
	InRetry                  // waits before it tries again
)

// Phases are all of them but InIdle, in the order in which a byte passes them.
func Phases() []Phase {
	return []Phase{InGate, InDNS, InConnect, InTLS, InFirstByte, InBody, InLimiter, InHash, InMemory, InWrite, InSync, InRetry}
}

// String is the phase's name in the API.
func (p Phase) String() string {
	return [...]string{"idle", "gate", "dns", "connect", "tls", "first_byte", "body", "limiter", "hash", "memory", "write", "sync", "retry"}[p]
}

// Spent is how long the lanes of a watch were in each phase, added up: with four lanes it grows by four seconds each second.
type Spent [InRetry + 1]time.Duration

// Since is what was spent after earlier.
func (s Spent) Since(earlier Spent) Spent {
	for p := range s {
		s[p] -= earlier[p]
	}
	return s
}

// Busy is all of it but InIdle.
func (s Spent) Busy() (all time.Duration) {
	for _, p := range Phases() {
		all += s[p]
	}
	return all
}

// A Watch measures where time goes. The zero value is ready; it is safe for concurrent use.
type Watch struct {
	mu    sync.Mutex
	spent Spent // of lanes that have ended
	lanes []*Lane
}

// A Lane is somebody who does one thing after the other, and is always in exactly one phase. A nil Lane measures nothing.
type Lane struct {
	watch *Watch
	mu    sync.Mutex
	spent Spent
	phase Phase
	since time.Time
}

// Lane begins one, in the phase InIdle. It has to be ended.
func (w *Watch) Lane() *Lane {
	l := &Lane{watch: w, since: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lanes = append(w.lanes, l)
	return l
}

// Spent is how long all lanes were in each phase, until now.
func (w *Watch) Spent() Spent {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.spent
	for _, l := range w.lanes {
		for p, d := range l.sum() {
			all[p] += d
		}
	}
	return all
}

// sum is how long it was in each phase, until now.
func (l *Lane) sum() Spent {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.spent
	s[l.phase] += time.Since(l.since)
	return s
}

// Enter ends the phase that it is in and begins p; it returns the one that it was in.
func (l *Lane) Enter(p Phase) (was Phase) {
	if l == nil {
		return InIdle
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spent[l.phase] += now.Sub(l.since)
	was, l.phase, l.since = l.phase, p, now
	return was
}

// End ends the lane. Its time stays with the watch.
func (l *Lane) End() {
	if l == nil {
		return
	}
	w := l.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, d := range l.sum() {
		w.spent[p] += d
	}
	w.lanes = slices.DeleteFunc(w.lanes, func(o *Lane) bool { return o == l })
}

type laneKey struct{}

// WithLane has what a source does on behalf of ctx measured by a lane. When that is over, the lane is in phase InBody.
func WithLane(ctx context.Context, l *Lane) context.Context {
	return context.WithValue(ctx, laneKey{}, l)
}

// laneOf is the lane that measures what is done on behalf of ctx; nil when there is none.
func laneOf(ctx context.Context) *Lane {
	l, _ := ctx.Value(laneKey{}).(*Lane) //nolint:errcheck // none is nil
	return l
}

// trace is what net/http and the dialer tell of one hop of a request. A connection that is made for it may come later than another one
// that has become free: then what is told of it is no longer about the hop, which got says.
func (l *Lane) trace(got func() bool, connected func()) *httptrace.ClientTrace {
	t := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		connected()
		l.Enter(InFirstByte)
	}}
	if l == nil {
		return t
	}
	enter := func(p Phase) {
		if !got() {
			l.Enter(p)
		}
	}
	t.GetConn = func(string) { enter(InConnect) }
	t.DNSStart = func(httptrace.DNSStartInfo) { enter(InDNS) }
	t.DNSDone = func(httptrace.DNSDoneInfo) { enter(InConnect) }
	t.TLSHandshakeStart = func() { enter(InTLS) }
	t.TLSHandshakeDone = func(tls.ConnectionState, error) { enter(InConnect) }
	return t
}

// traced is a lookup that is told to who traces the request, as one of the system's resolver is.
func (n *names) traced(ctx context.Context, host string) ([]netip.Addr, error) {
	t := httptrace.ContextClientTrace(ctx)
	if t != nil && t.DNSStart != nil {
		t.DNSStart(httptrace.DNSStartInfo{Host: host})
	}
	found, err := n.lookup(ctx, host)
	if t != nil && t.DNSDone != nil {
		t.DNSDone(httptrace.DNSDoneInfo{Err: err})
	}
	return found, err
}
