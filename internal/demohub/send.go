package demohub

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// pieceSize is the most that is written, and counted, at once; a file is sent by larger ones.
const (
	pieceSize = 128 << 10
	filePiece = 4 << 20
)

// send puts an answer on the wire. Where a client has gone, it just returns.
func (h *Hub) send(w http.ResponseWriter, r *http.Request, a *answer, row *Request) {
	ctx := r.Context()
	if a.silence != 0 && wait(ctx, a.silence) != nil {
		return
	}
	if a.early {
		abort(ctx, w)
		return
	}
	for key, values := range a.header {
		w.Header()[key] = values
	}
	bodiless := a.status == http.StatusNotModified || a.status == http.StatusNoContent
	if a.length >= 0 && !bodiless {
		w.Header().Set("Content-Length", strconv.FormatInt(a.length, 10))
	}
	h.meter.status(row, a.status)
	w.WriteHeader(a.status)
	if r.Method == http.MethodHead || a.body == nil || bodiless {
		return
	}
	if row.Kind == Bulk {
		h.meter.transfer(+1)
		defer h.meter.transfer(-1)
	}
	t := transfer{hub: h, w: w, a: a, row: row}
	switch err := t.run(ctx); {
	case err == errStopped && a.ending == resetting:
		abort(ctx, w)
	case err != nil && a.length < 0 && r.ProtoMajor == 1:
		abort(ctx, w) // returning would end a chunked body as if it were complete
	}
}

// transfer is the sending of one body.
type transfer struct {
	hub *Hub
	w   http.ResponseWriter
	a   *answer
	row *Request
	due time.Time // when the next piece may go, if paced
}

type stopped struct{}

func (stopped) Error() string { return "the answer ends here, as was asked" }

// errStopped ends a transfer that has come to its fault.
var errStopped error = stopped{}

func (t *transfer) run(ctx context.Context) error {
	a := t.a
	src, err := a.body.open()
	if err != nil {
		return err
	}
	defer src.Close()
	span := a.span
	if a.length >= 0 && a.length < span.Len() {
		span.End = span.Start + a.length // net/http lets nobody write more than was announced
	}
	flusher := http.NewResponseController(t.w)
	if a.length < 0 || a.stop >= 0 {
		if err := flusher.Flush(); err != nil { // before the body: a short one would otherwise get a length
			return err
		}
	}
	write, most := t.buffered(src, t.w), int64(pieceSize)
	if f, ok := src.(*os.File); ok && a.flip < 0 && !a.gzip {
		write, most = t.sendfile(f), filePiece
	}
	var packed *gzip.Writer
	if a.gzip {
		packed = gzip.NewWriter(counted{t})
		write = t.buffered(src, packed)
	}
	for off := span.Start; off < span.End; {
		n := min(most, span.End-off)
		if a.stop >= 0 {
			n = min(n, a.stop-(off-span.Start))
			if n <= 0 {
				if err := flusher.Flush(); err != nil {
					return err
				}
				if a.ending != stalling {
					return errStopped
				}
				if err := wait(ctx, forever(a.pause)); err != nil {
					return err
				}
				a.stop = -1
				continue
			}
		}
		n, paced, err := t.pace(ctx, n)
		if err != nil {
			return err
		}
		if packed == nil {
			t.hub.meter.sent(t.row, n) // before, so that no client has seen a byte that is not counted
		}
		wrote, err := write(off, n)
		if packed == nil && wrote != n {
			t.hub.meter.sent(t.row, wrote-n)
		}
		if err == nil && paced {
			err = flusher.Flush()
		}
		if err != nil {
			return err
		}
		off += wrote
	}
	if packed != nil {
		return packed.Close()
	}
	if a.stop == span.Len() && a.ending == resetting {
		if err := flusher.Flush(); err != nil {
			return err
		}
		return errStopped
	}
	return nil
}

// pace waits until the next piece may go and says how large it is: a fortieth of a second of the rate
// that holds now, for which the piece is paid before it goes. So a transfer never exceeds its rate.
func (t *transfer) pace(ctx context.Context, n int64) (piece int64, paced bool, err error) {
	rate := t.a.trickle
	if rate == 0 && t.row.Kind == Bulk {
		rate = t.hub.share()
	}
	if rate <= 0 {
		return n, false, nil
	}
	n = min(n, max(1, int64(rate)/40))
	now := time.Now()
	if t.due.Before(now.Add(-100 * time.Millisecond)) { // a slow client must not be made up for by a burst
		t.due = now
	}
	t.due = t.due.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return n, true, wait(ctx, max(1, t.due.Sub(now)))
}

// share is the rate of one bulk transfer now; 0 is no cap.
func (h *Hub) share() model.Bytes {
	s := h.current()
	rate := s.rate
	if s.collapsed > 0 {
		if running := h.meter.transfers(); running > s.collapse {
			part := max(1, s.collapsed/model.Bytes(running))
			if rate == 0 || part < rate {
				rate = part
			}
		}
	}
	return rate
}

// buffered writes a piece through a buffer, where a byte can be flipped.
func (t *transfer) buffered(src io.ReaderAt, dst io.Writer) func(off, n int64) (int64, error) {
	return func(off, n int64) (int64, error) {
		pooled := t.hub.buffer.Get().(*[]byte)
		defer t.hub.buffer.Put(pooled)
		p := (*pooled)[:n]
		got, err := src.ReadAt(p, off)
		if err != nil && (err != io.EOF || got < len(p)) {
			return 0, err
		}
		if at := t.a.flip - off; t.a.flip >= 0 && at >= 0 && at < int64(len(p)) {
			p[at] ^= 0xff
		}
		wrote, err := dst.Write(p)
		return int64(wrote), err
	}
}

// sendfile lets the kernel copy a piece: net/http hands a limited *os.File down to the TCP connection.
func (t *transfer) sendfile(f *os.File) func(off, n int64) (int64, error) {
	return func(off, n int64) (int64, error) {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			return 0, err
		}
		return io.CopyN(t.w, f, n)
	}
}

// counted meters what a compressor writes.
type counted struct{ *transfer }

func (c counted) Write(p []byte) (int, error) {
	c.hub.meter.sent(c.row, int64(len(p)))
	n, err := c.w.Write(p)
	c.hub.meter.sent(c.row, int64(n-len(p)))
	return n, err
}

// wait returns after d, or with the context's error when the request is over; a negative d is for ever.
func wait(ctx context.Context, d time.Duration) error {
	if d < 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func forever(d time.Duration) time.Duration {
	if d <= 0 {
		return -1
	}
	return d
}

// abort breaks the connection: a TCP connection by RST, any other by closing it.
func abort(ctx context.Context, w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: net/http takes this for "reset the stream"
	}
	defer conn.Close()
	under := conn
	if secured, ok := conn.(*tls.Conn); ok {
		under = secured.NetConn()
	}
	if tcp, ok := under.(*net.TCPConn); ok {
		drain(ctx, tcp)
		_ = tcp.SetLinger(0) // if the other end has gone already, there is nothing left to break
		_ = tcp.Close()
	}
}

// drain gives the kernel time to deliver what was written: RST throws away what still waits in the send
// buffer, and then a reset "after n bytes" would be a reset somewhere before.
func drain(ctx context.Context, conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for range 500 {
		left := 0
		if raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil || left == 0 {
			return
		}
		if wait(ctx, time.Millisecond) != nil {
			return
		}
	}
}
