package demohub

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// PipeListener is a net.Listener whose connections are net.Pipe pairs: an http.Server on it runs in a
// testing/synctest bubble, where sockets would never fall quiet. Make it with NewPipeListener, in the
// bubble.
type PipeListener struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
	count   atomic.Int64
}

// NewPipeListener makes a listener that accepts what its Dial connects.
func NewPipeListener() *PipeListener {
	return &PipeListener{dialled: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept waits for the next Dial; after Close it returns net.ErrClosed.
func (l *PipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.dialled:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Dial connects to the listener, whatever network and address say: it fits http.Transport.DialContext.
// Each connection has an address of its own.
func (l *PipeListener) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	name := pipeAddr(fmt.Sprintf("pipe-%d", l.count.Add(1)))
	select {
	case l.dialled <- pipeConn{server, pipeAddr(addr), name}:
		return pipeConn{client, name, pipeAddr(addr)}, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr(addr), Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close refuses further connections; those that exist live on.
func (l *PipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is "pipe".
func (l *PipeListener) Addr() net.Addr { return pipeAddr("pipe") }

// DialHosts makes a DialContext that chooses the listener by "host:port": two hubs, or a hub and its CDN.
func DialHosts(hosts map[string]*PipeListener) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		l := hosts[addr]
		if l == nil {
			return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr(addr), Err: &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}}
		}
		return l.Dial(ctx, network, addr)
	}
}

type pipeConn struct {
	net.Conn
	local, remote pipeAddr
}

func (c pipeConn) LocalAddr() net.Addr  { return c.local }
func (c pipeConn) RemoteAddr() net.Addr { return c.remote }

type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }
