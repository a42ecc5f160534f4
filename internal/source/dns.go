package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// DNS says how names become addresses. The zero value asks the system each time.
type DNS struct {
	// Cache remembers addresses. When they are older than TTL they are asked for again; while that
	// fails or takes long, the old ones are used, up to a day. That a name does not exist is not
	// remembered.
	Cache bool
	// TTL is how long an address counts as fresh, whatever its own TTL is, which resolvers do not
	// tell; 0 = 5 min.
	TTL time.Duration
	// PreferIPv4 tries addresses of IPv6 only after all of IPv4 have failed. Otherwise both are tried
	// by turns, and the first that answers is used.
	PreferIPv4 bool
	// Servers are asked, in this order, instead of those of the system: IP addresses, with a port
	// when it is not 53. The next is asked when one does not answer or fails, not when it says that
	// the name does not exist. The file of local names is still read first.
	Servers []string
}

const (
	// staleFor is how long an old answer is better than none.
	staleFor = 24 * time.Hour
	// lookupPatience is how long one server may take, and refreshPatience how long a refresh may keep
	// somebody waiting who could have the old answer.
	lookupPatience  = 5 * time.Second
	refreshPatience = time.Second
	// refreshEvery is the least time between refreshes that fail.
	refreshEvery = 5 * time.Second
	maxNames     = 4096
)

// names finds addresses.
type names struct {
	cache      bool
	ttl        time.Duration
	preferIPv4 bool
	resolvers  []*net.Resolver
	now        func() time.Time

	ctx    context.Context // of lookups, which outlive who asked first
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	known  map[string]*addresses
	asking map[string]*question
}

// addresses are what was known of a name.
type addresses struct {
	list   []netip.Addr
	at     time.Time // when they were right
	fresh  time.Time // until when nobody needs to ask
	failed time.Time // the last refresh that failed
}

// A question is a lookup on its way, for all that need it.
type question struct {
	done chan struct{}
	list []netip.Addr
	err  error
}

// newNames returns nil where the system does all that is wanted.
func newNames(d DNS) (*names, error) {
	if !d.Cache && !d.PreferIPv4 && len(d.Servers) == 0 {
		return nil, nil
	}
	list, err := servers(d.Servers)
	if err != nil {
		return nil, err
	}
	n := &names{
		cache: d.Cache, ttl: d.TTL, preferIPv4: d.PreferIPv4, now: awake,
		known: make(map[string]*addresses), asking: make(map[string]*question),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	for _, s := range list {
		n.resolvers = append(n.resolvers, &net.Resolver{
			PreferGo: true, // the system's own would ask the system's servers
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				c, err := new(net.Dialer).DialContext(ctx, network, s.String())
				if err == nil {
					// The resolver reads until its own timeout, whatever becomes of the context.
					context.AfterFunc(ctx, func() { _ = c.Close() })
				}
				return c, err
			},
		})
	}
	if len(list) == 0 {
		n.resolvers = []*net.Resolver{net.DefaultResolver}
	}
	return n, nil
}

// servers parses the addresses of DNS servers.
func servers(list []string) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			all = append(all, netip.AddrPortFrom(a, 53))
			continue
		}
		ap, err := netip.ParseAddrPort(s)
		if err != nil || ap.Port() == 0 {
			return nil, fmt.Errorf("DNS server %q is not an IP address, with or without a port; names cannot be used here", s)
		}
		all = append(all, ap)
	}
	return all, nil
}

// close ends lookups and waits for them.
func (n *names) close() {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.cancel()
	n.wg.Wait()
}

// lookup finds the addresses of host, in the order in which they should be tried; at least one.
func (n *names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	now := n.now()
	old := n.known[host]
	if old != nil && now.Sub(old.at) >= staleFor {
		old = nil
	}
	if old != nil && (now.Before(old.fresh) || now.Sub(old.failed) < refreshEvery) {
		n.mu.Unlock()
		return old.list, nil
	}
	q := n.asking[host]
	if q == nil {
		if n.closed {
			n.mu.Unlock()
			return nil, net.ErrClosed
		}
		q = &question{done: make(chan struct{})}
		n.asking[host] = q
		n.wg.Go(func() { n.answer(host, q) })
	}
	n.mu.Unlock()

	var late <-chan time.Time
	if old != nil {
		t := time.NewTimer(refreshPatience)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-q.done:
	case <-late:
		return old.list, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if q.err != nil && old != nil {
		return old.list, nil
	}
	return q.list, q.err
}

// answer looks host up and remembers what it finds.
func (n *names) answer(host string, q *question) {
	q.list, q.err = n.ask(n.ctx, host)
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	old := n.known[host]
	switch {
	case q.err == nil && n.cache:
		if len(n.known) >= maxNames {
			clear(n.known) // nobody speaks to that many hosts
		}
		n.known[host] = &addresses{list: q.list, at: now, fresh: now.Add(n.ttl)}
	case q.err != nil && old != nil:
		kept := *old
		kept.failed = now
		n.known[host] = &kept
	}
	delete(n.asking, host)
	close(q.done)
}

// ask asks one server after the other.
func (n *names) ask(ctx context.Context, host string) ([]netip.Addr, error) {
	var failed error
	for _, r := range n.resolvers {
		list, err := n.askOne(ctx, r, host)
		if err == nil {
			return list, nil
		}
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			return nil, err
		}
		if failed == nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

func (n *names) askOne(ctx context.Context, r *net.Resolver, host string) ([]netip.Addr, error) {
	if r != net.DefaultResolver { // which asks several servers, with patience of its own
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookupPatience)
		defer cancel()
	}
	list, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i] = list[i].Unmap() // IPv4 comes mapped into IPv6
	}
	if len(list) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	return list, nil
}

// doubt makes the next lookup of host ask, since what is known of it does not work.
func (n *names) doubt(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.known[host]; old != nil {
		kept := *old
		kept.fresh = time.Time{}
		n.known[host] = &kept
	}
}
