package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"ema/internal/model"
)

const (
	// probeEvery is the least time between two attempts to reach a host that does not answer.
	probeEvery = 5 * time.Second
	// probeConnect bounds the connecting of such an attempt. The kernel repeats a lost first packet
	// after 1, 2, 4 and 8 s, and a network that comes back is noticed by such a repetition only: after
	// 15 s it is better to begin anew than to wait for one that is 16 s away.
	probeConnect = 15 * time.Second
	// maxHold is the longest that a request is held back for a limit; for longer ones the caller is told.
	maxHold = 5 * time.Minute
	// lookAgain is how often who waits looks at the clock: timers stand still while a machine sleeps.
	lookAgain = 10 * time.Second
	// maxHosts bounds how many hosts are remembered.
	maxHosts = 1024
)

// hosts is what is known of each host, shared by all requests of this process. Every request passes
// it, so that what one has learnt holds for all: when a host wants no requests, and that it is gone.
type hosts struct {
	patience time.Duration // how long a host that has answered before is waited for
	also     bool          // and one that has not, while our own network is down
	perHost  int           // bulk requests at once, 0 = any number
	tell     func(host string, err error, wait time.Duration)
	lost     func() // called when a host is gone: connections to it are worth nothing
	now      func() time.Time

	mu sync.Mutex
	by map[string]*host
}

// A host is one server: a name and a port.
type host struct {
	*hosts
	name string
	bulk *semaphore.Weighted // nil = any number

	mu       sync.Mutex
	standing standing
	met      bool         // it has answered at least once
	answered time.Time    // when it last did
	next     time.Time    // no request before, unless the host is reachable
	away     time.Time    // since when it is unreachable
	why      *model.Error // the failure by which it was found limited or unreachable
	probing  bool         // one request is on its way, and all others wait for what comes of it
	changed  chan struct{}
	recent   outcomes
	quotas   [2]quota // of requests for metadata, and for the bytes of models
	rtt      time.Duration
}

// A standing is how a host may be spoken to.
type standing uint8

const (
	unmet       standing = iota // the first request connects alone
	reachable                   // by all
	limited                     // by nobody before a time, then by one, then by all
	unreachable                 // by one at a time
)

func newHosts(s Settings, lost func()) *hosts {
	return &hosts{
		patience: s.Patience, also: s.Steadfast, perHost: s.MaxConnsPerHost, tell: s.Tell, lost: lost,
		now: awake, by: make(map[string]*host),
	}
}

// awake is a clock that is not set: it counts the time that has really passed, that in which the
// machine slept included, which time.Now leaves out when two of its readings are compared.
func awake() time.Time {
	var running, all unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &running) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil {
		return time.Now()
	}
	slept := time.Duration(all.Nano() - running.Nano())
	return time.Now().Add(slept.Truncate(time.Second)) // both clocks were not read at the same time
}

// of returns the host of that name, which is host:port.
func (hs *hosts) of(name string) *host {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h, ok := hs.by[name]
	if ok {
		return h
	}
	if len(hs.by) >= maxHosts {
		maps.DeleteFunc(hs.by, func(_ string, h *host) bool { return h.idle() })
	}
	h = &host{hosts: hs, name: name, changed: make(chan struct{})}
	if hs.perHost > 0 {
		h.bulk = semaphore.NewWeighted(int64(hs.perHost))
	}
	hs.by[name] = h
	return h
}

// idle reports whether forgetting the host loses nothing that matters.
func (h *host) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.standing == reachable && h.now().Sub(h.answered) > time.Hour
}

// A pass is the right to send one request. It ends by exactly one of answered, failed or unused.
type pass struct {
	host  *host
	begun time.Time
	quota *quota // that it counts against until its answer comes; nil then
	probe bool   // it is the one request that may go
	away  bool   // and goes to find out whether the host is back
}

// A hold says why no request may go to a host now.
type hold struct {
	changed <-chan struct{} // closed when it may be otherwise
	most    time.Duration   // it may also be otherwise after this long
}

// A refusal is why a request does not go at all.
type refusal struct {
	class model.Class
	err   error
	after time.Duration
}

// ask returns a pass, or why there is none now, or why there is none at all. Who has somewhere else
// to go does not wait for a host that is unreachable.
func (h *host) ask(bulk, elsewhere bool) (*pass, *hold, *refusal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	left := h.next.Sub(now)
	q := &h.quotas[0]
	if bulk {
		q = &h.quotas[1]
	}
	switch {
	case h.standing == reachable:
		if wait := q.spent(now); wait > 0 {
			return nil, &hold{h.changed, min(wait, lookAgain)}, nil
		}
		q.asked++
		return &pass{host: h, begun: now, quota: q}, nil, nil
	case h.standing == unreachable && (h.probing || left > 0) && (elsewhere || !h.probing && !h.awaited(now)):
		return nil, nil, &refusal{class: h.why.Class, err: h.why.Err}
	case h.probing:
		return nil, &hold{h.changed, lookAgain}, nil
	case h.standing == limited && left > maxHold:
		return nil, nil, &refusal{model.RateLimited, fmt.Errorf("%s wants no request before %s", h.name, clock(left)), left}
	case left > 0:
		return nil, &hold{h.changed, min(left, lookAgain)}, nil
	}
	h.probing = true
	if h.standing == unreachable {
		h.next = now.Add(probeEvery)
	}
	q.asked++
	return &pass{host: h, begun: now, quota: q, probe: true, away: h.standing == unreachable}, nil, nil
}

// clock is a time of the day, for people.
func clock(in time.Duration) string { return time.Now().Add(in).Format(time.TimeOnly) }

// awaited reports whether it makes sense to wait for a host that is unreachable. One that has never
// answered may be a mistake in writing.
func (h *host) awaited(now time.Time) bool {
	return (h.met || h.also && ownNetworkDown(h.why)) && now.Sub(h.away) < h.patience
}

// ownNetworkDown reports whether err says that we reach nobody, rather than that one host is not there:
// that no name server answered, or that there is no way out of this machine.
func ownNetworkDown(err error) bool {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return !e.IsNotFound
	}
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.ENETDOWN)
}

// wait ends when a request may have become possible.
func (w *hold) wait(ctx context.Context) error {
	t := time.NewTimer(w.most)
	defer t.Stop()
	select {
	case <-w.changed:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settle ends a probe and lets those who wait look again. The host's lock is held.
func (h *host) settle(p *pass) {
	if p.probe {
		p.probe, h.probing = false, false
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// connected notes that the host accepts connections: nobody needs to wait for the first any longer.
func (p *pass) connected() {
	h := p.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.standing == unmet {
		h.standing = reachable
		h.settle(p)
	}
}

// answered notes that the headers of an answer have come.
func (p *pass) answered(res *http.Response) {
	h := p.host
	asked := time.Duration(0)
	if res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable {
		asked = retryAfter(res.Header, time.Now())
	}
	h.mu.Lock()
	now := h.now()
	h.met, h.answered = true, now
	p.counted(res.Header, now)
	var told *model.Error
	switch {
	case asked > 0:
		if until := now.Add(asked); h.standing != limited || until.After(h.next) {
			h.next = until
			told = &model.Error{
				Op: "ask", Class: model.RateLimited, URL: res.Request.URL.String(), After: asked,
				Err: fmt.Errorf("it answered %s and wants no request before %s", res.Status, clock(asked)),
			}
			h.standing, h.why = limited, told
		}
		h.settle(p)
	case h.standing == limited && !p.probe: // it was asked before the limit; only who comes after lifts it
	case h.standing != reachable || p.probe:
		h.standing, h.why = reachable, nil
		h.settle(p)
	}
	h.mu.Unlock()
	if told != nil {
		h.told(told, asked)
	}
}

// failed notes that no answer came: why, and whether the request had a connection. It reports whether
// the request should wait for the host and be sent again.
func (p *pass) failed(why *model.Error, connected bool) (again bool) {
	h := p.host
	h.mu.Lock()
	h.recent.add(false)
	now := h.now()
	p.counted(nil, now)
	switch {
	case h.answered.After(p.begun), connected && why.Class != model.Timeout, why.Class == model.Other:
		// Others get through, or it refuses us in its own way: it is there.
		if p.probe {
			h.standing = reachable
		}
		h.settle(p)
		h.mu.Unlock()
		return false
	case h.standing == limited && !p.probe: // it began before the limit, which holds
		h.mu.Unlock()
		return !connected
	}
	first := h.standing != unreachable
	if first {
		h.away, h.next = now, p.begun.Add(probeEvery)
		if connected {
			h.next = now // a connection that was made long ago says little
		}
	}
	h.standing, h.why = unreachable, why
	h.settle(p)
	awaited := h.awaited(now)
	h.mu.Unlock()
	if first {
		h.lost()
		wait := time.Duration(0)
		if awaited {
			wait = h.patience
		}
		h.told(why, wait)
	}
	return awaited && !connected
}

// unused gives a pass back by which nothing was learnt.
func (p *pass) unused() {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.counted(nil, p.host.now())
	if p.probe {
		p.host.settle(p)
	}
}

// counted ends the request's part in its quota: an answer says how much is left of that, and without one
// the host may not have seen the request. The host's lock is held.
func (p *pass) counted(answer http.Header, now time.Time) {
	q := p.quota
	if q == nil {
		return
	}
	p.quota = nil
	waited := q.spent(now) > 0
	q.asked--
	q.heard(answer, now)
	if waited && q.spent(now) == 0 {
		p.host.settle(&pass{}) // who waited may look again
	}
}

// over notes how the whole attempt ended, body included.
func (p *pass) over(ok bool) {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	p.host.recent.add(ok)
}

func (h *host) told(err *model.Error, wait time.Duration) {
	if h.tell != nil {
		h.tell(h.name, err, wait)
	}
}

// outcomes are the last attempts, of which at most 32 count.
type outcomes struct {
	failed uint32 // a bit for each, the last one lowest
	n      int
}

// fewOutcomes are too few to speak of a rate.
const fewOutcomes = 8

func (o *outcomes) add(ok bool) {
	o.failed <<= 1
	if !ok {
		o.failed |= 1
	}
	o.n = min(o.n+1, 32)
}

// rate is the part of them that succeeded; 1 when there were none.
func (o *outcomes) rate() float64 {
	if o.n == 0 {
		return 1
	}
	return 1 - float64(bits.OnesCount32(o.failed))/float64(o.n)
}

// A HostStatus is what is known of a host.
type HostStatus struct {
	Host        string        // host:port
	Open        int           // connections for the bytes of models, idle ones included
	Until       time.Time     // no request before: it has a limit; zero = it has none
	Away        time.Time     // since when it cannot be reached; zero = it can
	Err         error         // why it is limited or away; nil otherwise
	SuccessRate float64       // of the last 32 attempts, bodies included; 1 when there were none
	Attempts    int           // how many of them there were
	RTT         time.Duration // the last known round-trip time; 0 = unknown
}

// Hosts lists the hosts that were asked for anything, by name. It is safe for concurrent use.
func (s *Sources) Hosts() []HostStatus {
	open := s.wire.pool.byHost()
	hs := s.wire.hosts
	hs.mu.Lock()
	all := slices.Collect(maps.Values(hs.by))
	hs.mu.Unlock()
	list := make([]HostStatus, 0, len(all))
	for _, h := range all {
		list = append(list, h.status(open[h.name]))
	}
	slices.SortFunc(list, func(a, b HostStatus) int { return cmp.Compare(a.Host, b.Host) })
	return list
}

func (h *host) status(open links) HostStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	if open.rtt > 0 {
		h.rtt = open.rtt
	}
	s := HostStatus{Host: h.name, Open: open.n, SuccessRate: h.recent.rate(), Attempts: h.recent.n, RTT: h.rtt}
	now := h.now()
	switch h.standing {
	case limited:
		s.Until, s.Err = time.Now().Add(h.next.Sub(now)), h.why
	case unreachable:
		s.Away, s.Err = time.Now().Add(h.away.Sub(now)), h.why
	}
	return s
}

// SuccessRate is the part of the last attempts that succeeded at the host which err is about. It is
// unknown for errors that are not about a host, and after less than 8 attempts.
func (s *Sources) SuccessRate(err error) (rate float64, known bool) {
	e, ok := errors.AsType[*model.Error](err)
	if !ok || e.URL == "" {
		return 1, false
	}
	u, bad := url.Parse(e.URL)
	if bad != nil {
		return 1, false
	}
	s.wire.hosts.mu.Lock()
	h := s.wire.hosts.by[hostPort(u)]
	s.wire.hosts.mu.Unlock()
	if h == nil {
		return 1, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.recent.rate(), h.recent.n >= fewOutcomes
}
