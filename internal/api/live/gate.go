package live

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"time"

	"ema/internal/model"
)

// A gate stands between the handshake and the server. It holds back what the library answers to a handshake that it refuses, so
// that Refuse answers instead, and it keeps the connection.
type gate struct {
	http.ResponseWriter
	status int
	conn   net.Conn
}

// Hijack gives the library a connection whose writes have a deadline, and a larger buffer than the server's 4 KiB: most batches
// then go out in one piece, which makes a broadcast a quarter cheaper.
func (g *gate) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	g.conn = hurried{conn}
	return g.conn, bufio.NewReadWriter(buffered.Reader, bufio.NewWriterSize(g.conn, writeBuffer)), nil
}

// WriteHeader lets only the good answer pass.
func (g *gate) WriteHeader(status int) {
	g.status = status
	if status == http.StatusSwitchingProtocols {
		g.ResponseWriter.WriteHeader(status)
	}
}

// Write drops the text of a refusal.
func (g *gate) Write(p []byte) (int, error) { return len(p), nil }

// refusal is what the library has said.
func (g *gate) refusal(err error) error {
	class := model.Usage
	if g.status == http.StatusForbidden {
		class = model.Auth
	}
	return &Refusal{Status: g.status, Err: &model.Error{Op: "follow messages", Class: class, Err: errors.Unwrap(err)}}
}

// hijackable reports whether the connection behind w can be had: once the handshake is answered it is too late to ask.
func hijackable(w http.ResponseWriter) bool {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return false
		}
	}
}

// A hurried connection gives up a write that takes too long. A context for each would do the same for far more.
type hurried struct{ net.Conn }

func (c hurried) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
