package source

import (
	"context"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// A pool counts the open connections for the bytes of models, to all hosts together.
type pool struct {
	most int    // 0 = any number
	drop func() // closes those that nobody uses

	mu      sync.Mutex
	dialing int
	open    map[*conn]struct{}
	freed   chan struct{} // closed when there is room again
}

func newPool(most int, drop func()) *pool {
	return &pool{most: most, drop: drop, open: make(map[*conn]struct{}), freed: make(chan struct{})}
}

// A conn is a connection that the pool knows of.
type conn struct {
	net.Conn
	pool *pool
	host string
	once sync.Once
}

// Close closes the connection and makes room for another.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.pool.gone(c) })
	return err
}

// over makes a dial that stays within the pool.
func (p *pool) over(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := p.reserve(ctx); err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, address)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.dialing--
		if err != nil {
			p.wake()
			return nil, err
		}
		c := &conn{Conn: raw, pool: p, host: address}
		p.open[c] = struct{}{}
		return c, nil
	}
}

// reserve waits until one more connection may be opened. Where requests are bounded by the same
// number, all that is in the way is connections that nobody uses, to other hosts most likely.
func (p *pool) reserve(ctx context.Context) error {
	for {
		p.mu.Lock()
		if p.most == 0 || len(p.open)+p.dialing < p.most {
			p.dialing++
			p.mu.Unlock()
			return nil
		}
		freed := p.freed
		p.mu.Unlock()
		p.drop()
		again := time.NewTimer(time.Second) // one that was in use may have become idle without a word
		select {
		case <-freed:
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		}
		again.Stop()
	}
}

func (p *pool) gone(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	p.wake()
}

// wake lets those who wait for room look again. The lock is held.
func (p *pool) wake() {
	close(p.freed)
	p.freed = make(chan struct{})
}

// links are the connections to one host.
type links struct {
	n   int
	rtt time.Duration // of one of them; 0 = unknown
}

func (p *pool) byHost() map[string]links {
	p.mu.Lock()
	defer p.mu.Unlock()
	by := make(map[string]links)
	for c := range p.open {
		of := by[c.host]
		of.n++
		if now, _, ok := c.roundTrip(); ok {
			of.rtt = now
		}
		by[c.host] = of
	}
	return by
}

// info is what the kernel tells of the connection; nil where it tells nothing.
func (c *conn) info() *unix.TCPInfo {
	tcp, isTCP := c.Conn.(syscall.Conn)
	if !isTCP {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	var info *unix.TCPInfo
	if raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }) != nil || err != nil {
		return nil
	}
	return info
}

// roundTrip is what the kernel has measured.
func (c *conn) roundTrip() (now, least time.Duration, ok bool) {
	info := c.info()
	if info == nil {
		return 0, 0, false
	}
	return time.Duration(info.Rtt) * time.Microsecond, time.Duration(info.Min_rtt) * time.Microsecond, info.Rtt > 0
}

// A Link is an open connection for the bytes of models, as its kernel sees it (tcp(7), TCP_INFO).
type Link struct {
	Local    string        // its address here, which no other has at the same time
	Host     string        // with its port
	RTT      time.Duration // smoothed
	MinRTT   time.Duration // the least that was seen
	Window   model.Bytes   // that the other side may have under way to us: what we have offered last
	Received model.Bytes   // since it was opened
	Disorder int64         // packets that came out of order: some before them were lost, or overtaken
}

// Links are the open connections for the bytes of models. It costs a system call for each.
func (s *Sources) Links() []Link {
	p := s.wire.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Link
	for c := range p.open {
		if i := c.info(); i != nil {
			all = append(all, Link{
				Local: c.LocalAddr().String(), Host: c.host, RTT: time.Duration(i.Rtt) * time.Microsecond, MinRTT: time.Duration(i.Min_rtt) * time.Microsecond,
				Window: model.Bytes(i.Rcv_wnd), Received: model.Bytes(i.Bytes_received), Disorder: int64(i.Rcv_ooopack),
			})
		}
	}
	return all
}

// RoundTrip is the median round-trip time of the open connections for the bytes of models, as the
// kernel smooths it, and the median of the least that it has seen on each; 0 when there are none. It
// costs a system call per connection, and nothing when nobody asks.
func (s *Sources) RoundTrip() (now, least time.Duration) {
	p := s.wire.pool
	var nows, leasts []time.Duration
	p.mu.Lock()
	for c := range p.open {
		if now, least, ok := c.roundTrip(); ok {
			nows, leasts = append(nows, now), append(leasts, least)
		}
	}
	p.mu.Unlock()
	return median(nows), median(leasts)
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[len(d)/2]
}
