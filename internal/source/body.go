package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"ema/internal/model"
)

// errStalled is the cause with which a stream gives up a connection that went silent.
var errStalled = errors.New("no byte came")

// A stream is the body of an answer whose failures are explained: whatever Read returns besides
// io.EOF is a *model.Error. It adds no buffer, so that a large Read reaches the connection.
type stream struct {
	body     io.ReadCloser
	patience time.Duration
	watchdog *time.Timer // armed during a Read only, so that a slow consumer is not taken for a stall
	cause    func() error
	cancel   context.CancelCauseFunc
	fault    func(model.Class, error) error // completes an error with what it was about
	leave    func(ok bool)                  // tells how the request ended
	broken   bool                           // the body is not what it should be, and not by our wish
	closed   bool
}

// newStream reads body, the answer to a request whose context is ctx and is ended by cancel.
func newStream(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, patience time.Duration,
	leave func(ok bool), fault func(model.Class, error) error,
) *stream {
	s := &stream{
		body: body, patience: patience, leave: leave, fault: fault,
		cause: func() error { return context.Cause(ctx) }, cancel: cancel,
	}
	if patience > 0 {
		s.watchdog = time.AfterFunc(patience, func() { cancel(errStalled) })
		s.watchdog.Stop()
	}
	return s
}

func (s *stream) Read(p []byte) (int, error) {
	if s.closed {
		return 0, s.fault(model.Usage, errors.New("read after close"))
	}
	if s.watchdog != nil {
		s.watchdog.Reset(s.patience)
	}
	n, err := s.body.Read(p)
	if s.watchdog != nil {
		s.watchdog.Stop()
	}
	if err == nil || err == io.EOF {
		return n, err
	}
	class, err := classify(err, s.cause())
	s.broken = class != model.Cancelled
	if errors.Is(err, errStalled) {
		err = fmt.Errorf("%w for %v", err, s.patience)
	}
	return n, s.fault(class, err)
}

// Close ends the request. Before io.EOF this closes the connection: draining the rest of a range
// would cost more than a new connection.
func (s *stream) Close() error {
	s.closed = true
	if s.watchdog != nil {
		s.watchdog.Stop()
	}
	err := s.body.Close()
	s.cancel(nil)
	s.leave(!s.broken)
	return err
}

// A counted reader delivers exactly the promised number of bytes, or an error.
type counted struct {
	*stream
	left int64
	err  error // sticky
}

func (c *counted) Read(p []byte) (int, error) {
	switch {
	case c.err != nil:
		return 0, c.err
	case c.left == 0:
		c.err = c.end()
		c.leave(!c.broken)
		return 0, c.err
	case int64(len(p)) > c.left:
		p = p[:c.left]
	}
	n, err := c.stream.Read(p)
	c.left -= int64(n)
	if err != nil {
		c.err = err
		if c.left > 0 && (err == io.EOF || model.ClassOf(err) == model.Truncated) {
			c.broken = true
			c.err = c.fault(model.Truncated, fmt.Errorf("the body ended %d bytes early", c.left))
		}
		c.leave(!c.broken) // with io.EOF, the connection is free already
	}
	return n, c.err
}

// end looks for bytes beyond the promised ones. When the length was announced, net/http has said
// io.EOF with the last byte already, so this happens for chunked answers only.
func (c *counted) end() error {
	var one [1]byte
	n, err := c.stream.Read(one[:])
	switch {
	case n > 0:
		c.broken = true
		return c.fault(model.Integrity, errors.New("the server sent more bytes than it should"))
	case err == nil:
		return io.EOF
	}
	return err
}
