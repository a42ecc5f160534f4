package live

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"ema/internal/event"
	"ema/internal/model"
)

// Subprotocol is what browsers offer beside their key: they can set no headers, but want to see one of the subprotocols
// taken that they offer, and the one with the key never is.
const Subprotocol = "ema"

// A client is one connection. Save for what is said otherwise, it belongs to the goroutine that serves it.
type client struct {
	filter filter
	since  uint64             // what it has seen already, up to this number, it is not told
	past   []*message         // what it has missed and asked for, unfiltered. It is the hub's, and nobody changes it
	at     *batch             // the newest batch that it has taken
	queue  []*message         // taken and not yet sent
	drop   context.CancelFunc // ends the connection at once; for all

	// Solid messages that are told and not sent. The hub adds, the client subtracts. The past does not count: nobody is slow
	// for having asked for it.
	waiting atomic.Int64
	end     atomic.Pointer[batch] // the last that it may take; nil is any. The hub sets it when it cuts the client off
}

// ServeHTTP makes r a WebSocket that tells what happens from now on, or from ?since= on, until the client or the hub ends it.
// A request that it refuses is answered by Settings.Refuse.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.settings.Load()
	if !hijackable(w) {
		s.Refuse(w, r, &Refusal{Status: http.StatusNotImplemented, Err: usage("this connection can't become a WebSocket; use HTTP/1.1")})
		return
	}
	f, since, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		s.Refuse(w, r, err)
		return
	}
	// Without the end of r's context: whoever stops the server wants clients to hear a goodbye.
	ctx, drop := context.WithCancel(context.WithoutCancel(r.Context()))
	defer drop()
	c := &client{filter: f, since: since, drop: drop}
	// It joins before the handshake, so that it is told everything from the moment on at which it knows to be connected.
	if err := h.join(c); err != nil {
		s.Refuse(w, r, err)
		return
	}
	defer h.leave(c)
	g := &gate{ResponseWriter: w}
	conn, err := websocket.Accept(g, r, &websocket.AcceptOptions{
		OriginPatterns: patterns(s.AllowedOrigins), Subprotocols: []string{Subprotocol},
	})
	if err != nil {
		s.Refuse(w, r, g.refusal(err))
		return
	}
	conn.SetReadLimit(mostRead)
	defer context.AfterFunc(ctx, func() { _ = g.conn.Close() })() //nolint:errcheck // nobody is there to tell

	var others sync.WaitGroup
	left := make(chan struct{})
	others.Go(func() {
		defer close(left)
		ignore(ctx, conn)
	})
	ping := func() {
		others.Go(func() {
			patience, stop := context.WithTimeout(ctx, pongPatience)
			defer stop()
			// A ping that can't be sent is no sign of death: a batch is on its way, which has a deadline of its own.
			if conn.Ping(patience) != nil && patience.Err() != nil {
				drop()
			}
		})
	}
	code, reason := h.tell(conn, c, ping, left, r.Context().Done())
	if code != 0 {
		impatience := time.AfterFunc(closePatience, drop)
		_ = conn.Close(code, reason) //nolint:errcheck // the client will see, or is no longer there
		impatience.Stop()
	}
	_ = conn.CloseNow() //nolint:errcheck // it is closed in most cases
	others.Wait()
}

// ignore reads what nobody wants to know, and so sees pongs and the client's goodbye. It returns when the connection is over.
func ignore(ctx context.Context, conn *websocket.Conn) {
	for {
		_, message, err := conn.Reader(ctx)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, message); err != nil {
			return
		}
	}
}

// tell writes to c what is for it until it has to end, and says with which code; 0 when nobody is there to read that.
func (h *Hub) tell(conn *websocket.Conn, c *client, ping func(), left, stopped <-chan struct{}) (websocket.StatusCode, string) {
	pings := time.NewTicker(pingEvery)
	defer pings.Stop()
	for {
		more := h.wakeable
		if len(c.queue)+len(c.past) == 0 {
			if c.at == c.end.Load() {
				return websocket.StatusTryAgainLater, "too many messages were waiting; resume with since="
			}
			more = c.at.done
		}
		select {
		case <-more:
			s := h.settings.Load()
			f := h.take(c, s)
			if f.count == 0 {
				continue
			}
			// Without ctx, whose end closes the connection under it.
			if err := conn.Write(context.Background(), websocket.MessageText, f.text); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) && c.end.Load() == nil {
					h.slow.Add(1)
				}
				return 0, ""
			}
			c.waiting.Add(int64(-f.solid))
			h.sent.Add(uint64(f.count))
		case <-pings.C:
			ping()
		case <-left:
			return 0, ""
		case <-h.over:
			return websocket.StatusGoingAway, "the daemon stops"
		case <-stopped:
			return websocket.StatusGoingAway, "the server stops"
		}
	}
}

// take is what c gets next; its solid messages are those that count as waiting until they are sent.
func (h *Hub) take(c *client, s *Settings) frame {
	if len(c.past) > 0 {
		return c.takePast(s.BatchSize)
	}
	b := c.following()
	if len(c.queue) == 0 && b != nil && b.following() == nil && b.after(c.since) && len(b.messages) <= s.BatchSize {
		c.at = b
		return b.frame(c.filter) // as nearly always: it keeps up, and what it gets is made already
	}
	fresh := b != nil
	for ; b != nil; b = c.following() {
		c.at = b
		for _, m := range b.messages {
			switch {
			case !c.filter.wants(m):
			case m.seq > c.since:
				c.queue = append(c.queue, m)
			case !m.fleeting:
				c.waiting.Add(-1)
			}
		}
	}
	if fresh {
		var gone int
		c.queue, gone = coalesce(c.queue, s.Queue)
		h.superseded.Add(uint64(gone))
	}
	n := min(len(c.queue), s.BatchSize)
	f := join(c.queue[:n])
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	return f
}

// takePast is the next of what c has missed.
func (c *client) takePast(most int) frame {
	var wanted []*message
	for len(c.past) > 0 && len(wanted) < most {
		if c.filter.wants(c.past[0]) {
			wanted = append(wanted, c.past[0])
		}
		c.past = c.past[1:]
	}
	f := join(wanted)
	f.solid = 0
	return f
}

// following is the next batch that c may take, nil while there is none.
func (c *client) following() *batch {
	if c.at == c.end.Load() {
		return nil
	}
	return c.at.following()
}

// join lets c be told what happens from now on, and gives it what it has missed.
func (h *Hub) join(c *client) error {
	newest := h.bus.Seq() // which may be ahead of what has left
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		return &Refusal{Status: http.StatusServiceUnavailable, Err: &model.Error{
			Op: "follow messages", Class: model.Cancelled, Err: errors.New("the daemon stops"), Hint: "connect again once it is back",
		}}
	}
	if c.since != 0 {
		if c.since < h.gone || c.since > newest {
			return &Refusal{Status: http.StatusGone, Err: fmt.Errorf("resume after message %d: %w", c.since, event.ErrGone)}
		}
		first, _ := slices.BinarySearchFunc(h.kept, c.since+1, bySeq)
		c.past = h.kept[first:len(h.kept):len(h.kept)]
	}
	c.at = h.last
	h.here[c] = true
	h.clients.Add(1)
	return nil
}

func (h *Hub) leave(c *client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.here, c)
	h.clients.Done()
}

func bySeq(m *message, seq uint64) int {
	switch {
	case m.seq < seq:
		return -1
	case m.seq > seq:
		return 1
	}
	return 0
}

// patterns are origins as the library matches them: of what has a meaning there, only * keeps it. The brackets of
// http://[::1]:8080 are part of an address.
func patterns(origins []string) []string {
	escape := strings.NewReplacer(`\`, `\\`, `[`, `\[`, `?`, `\?`)
	var all []string
	for _, o := range origins {
		all = append(all, escape.Replace(o))
	}
	return all
}
