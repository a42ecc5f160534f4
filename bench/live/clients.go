package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"
)

// mark comes before the number of a change and the time at which it was told, in nanoseconds.
const mark = "change "

// patience is how long what was told may take to arrive before it counts as missing.
const patience = 10 * time.Second

// clients listen.
type clients struct {
	each   []*client
	delays [16]delays // several, so that clients do not wait for each other
	ended  sync.WaitGroup
	stop   func()
}

type client struct {
	conn     *websocket.Conn
	next     atomic.Int64 // number of the change that has to come
	missing  atomic.Int64
	disorder atomic.Int64
}

type delays struct {
	mu sync.Mutex
	*hdrhistogram.Histogram
}

// newHistogram holds delays in microseconds, to a minute, with three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
}

// listen connects n clients.
func listen(ctx context.Context, url string, n int) (*clients, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &clients{each: make([]*client, n)}
	for i := range c.delays {
		c.delays[i].Histogram = newHistogram()
	}
	c.stop = func() {
		cancel()
		c.ended.Wait()
	}
	var g errgroup.Group
	g.SetLimit(32)
	for i := range c.each {
		g.Go(func() error {
			conn, _, err := websocket.Dial(ctx, url, nil)
			if err != nil {
				return fmt.Errorf("connect client %d: %w", i, err)
			}
			conn.SetReadLimit(-1)
			one := &client{conn: conn}
			c.each[i] = one
			c.ended.Go(func() {
				defer conn.CloseNow() //nolint:errcheck // it is over in any case
				one.read(ctx, &c.delays[i%len(c.delays)])
			})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// hang connects a client that never reads.
func hang(ctx context.Context, url string) (release func(), err error) {
	dialer := net.Dialer{}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(4 << 10) // so that it is felt soon
		}
		return conn, err
	}}
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	return func() { _ = conn.CloseNow() }, nil //nolint:errcheck // it is over in any case
}

// read notes what comes until the connection ends.
func (c *client) read(ctx context.Context, d *delays) {
	var text bytes.Buffer
	for {
		_, r, err := c.conn.Reader(ctx)
		if err != nil {
			return
		}
		text.Reset()
		if _, err := text.ReadFrom(r); err != nil {
			return
		}
		c.note(text.Bytes(), time.Now(), d)
	}
}

// note looks for the marks only: to understand JSON 200,000 times a second would measure the clients.
func (c *client) note(text []byte, now time.Time, d *delays) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		_, rest, found := bytes.Cut(text, []byte(mark))
		if !found {
			return
		}
		n, rest := number(rest)
		sent, rest := number(rest)
		text = rest
		switch next := c.next.Load(); {
		case n < next:
			c.disorder.Add(1)
			continue
		case n > next:
			c.missing.Add(n - next)
		}
		c.next.Store(n + 1)
		_ = d.RecordValue(max(1, (now.UnixNano()-sent)/1000)) //nolint:errcheck // more than a minute is missing for the result
	}
}

// number reads digits, and skips what ends them.
func number(text []byte) (int64, []byte) {
	end := bytes.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		return -1, nil
	}
	n, err := strconv.ParseInt(string(text[:end]), 10, 64)
	if err != nil {
		return -1, nil
	}
	return n, text[end+1:]
}

func (c *clients) reset() {
	for i := range c.delays {
		d := &c.delays[i]
		d.mu.Lock()
		d.Reset()
		d.mu.Unlock()
	}
}

// A result is what clients have noted since reset.
type result struct {
	delivered, missing, disorder int64
	p50, p99, most               time.Duration
}

// result waits until each client has got so many changes since it began, or has lost patience.
func (c *clients) result(ctx context.Context, changes int64) (r result) {
	end := time.Now().Add(patience)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for _, one := range c.each {
		for one.next.Load() < changes && time.Now().Before(end) && ctx.Err() == nil {
			<-poll.C
		}
		r.missing += one.missing.Load() + changes - one.next.Load()
		r.disorder += one.disorder.Load()
	}
	all := newHistogram()
	for i := range c.delays {
		d := &c.delays[i]
		d.mu.Lock()
		all.Merge(d.Histogram)
		d.mu.Unlock()
	}
	at := func(q float64) time.Duration { return time.Duration(all.ValueAtQuantile(q)) * time.Microsecond }
	r.delivered, r.p50, r.p99, r.most = all.TotalCount(), at(50), at(99), at(100)
	return r
}
