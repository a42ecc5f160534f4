package source

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// stagger is how long one address may take before the next is tried beside it (RFC 8305).
const stagger = 250 * time.Millisecond

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// probing marks the context of a request that finds out whether a host is back.
type probing struct{}

// impatient makes such a request's dial give up early; see probeConnect.
func impatient(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if ctx.Value(probing{}) != nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, probeConnect)
			defer cancel()
		}
		return dial(ctx, network, address)
	}
}

// dialer makes connections as s wants them, to the addresses that names finds; when names is nil, to
// those that the system finds.
func dialer(s Settings, names *names) dialFunc {
	d := &net.Dialer{Timeout: s.ConnectTimeout}
	if s.SocketBuffer > 0 {
		// Before the connection is made: the window scale is agreed on in its first packet.
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var receive, send error
			err := c.Control(func(fd uintptr) {
				receive = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, s.SocketBuffer)
				send = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, s.SocketBuffer)
			})
			return errors.Join(err, receive, send)
		}
	}
	dial := d.DialContext
	if names != nil {
		dial = names.dialer(d)
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if tcp, ok := c.(*net.TCPConn); ok && err == nil && s.Nagle { // TCP_NODELAY is Go's default
			err = tcp.SetNoDelay(false)
		}
		return c, err
	}
}

// dialer makes d dial the addresses that n finds. Where none of them answers, they are looked up anew
// the next time: the host may have moved.
func (n *names) dialer(d *net.Dialer) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if d.Timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, d.Timeout)
			defer cancel()
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return d.DialContext(ctx, network, address)
		}
		addrs, err := n.traced(ctx, host)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		one := func(ctx context.Context, a netip.Addr) (net.Conn, error) {
			return d.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		}
		first, rest := addrs, []netip.Addr(nil)
		if n.preferIPv4 {
			first, rest = families(addrs)
		} else {
			first = alternate(addrs)
		}
		c, err := race(ctx, first, one)
		if err != nil && len(rest) > 0 && ctx.Err() == nil {
			c, err = race(ctx, rest, one)
		}
		if err != nil && ctx.Err() == nil {
			n.doubt(host)
		}
		return c, err
	}
}

// race connects to the first address that answers: each is tried when the one before has failed or
// is slow. All others are given up.
func race(ctx context.Context, addrs []netip.Addr, dial func(context.Context, netip.Addr) (net.Conn, error)) (net.Conn, error) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	var failed error
	for started, ended := 0, 0; ended < len(addrs); {
		if started < len(addrs) {
			a := addrs[started]
			running.Go(func() {
				c, err := dial(ctx, a)
				select {
				case results <- result{c, err}:
				case <-ctx.Done(): // too late: somebody else was faster
					if c != nil {
						_ = c.Close()
					}
				}
			})
			started++
		}
		var next <-chan time.Time
		if started < len(addrs) {
			next = time.After(stagger)
		}
		select {
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			if ended++; failed == nil {
				failed = r.err // the first address is the one that should work
			}
		case <-next:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, failed
}

// families tells IPv4 addresses and others apart; without any IPv4, the others come first.
func families(addrs []netip.Addr) (first, rest []netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			first = append(first, a)
		} else {
			rest = append(rest, a)
		}
	}
	if first == nil {
		return rest, nil
	}
	return first, rest
}

// alternate puts addresses of both families in turns, beginning with the family of the first.
func alternate(addrs []netip.Addr) []netip.Addr {
	four, six := families(addrs)
	if len(addrs) > 0 && !addrs[0].Is4() && len(six) > 0 {
		four, six = six, four
	}
	turns := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(four), len(six)) {
		if i < len(four) {
			turns = append(turns, four[i])
		}
		if i < len(six) {
			turns = append(turns, six[i])
		}
	}
	return turns
}
