package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// TLS names the files of a certificate; both or none.
type TLS struct {
	Cert string // the certificate and its chain, in PEM
	Key  string // its private key, in PEM
	// Changed is told when the files have changed: nil when the new certificate is in use from now on, and otherwise
	// why the old one stays. It may be nil itself, and is called by one goroutine at a time.
	Changed func(err error)
}

// How long a peer may be silent before the kernel asks whether it still lives, and how many connections may be open.
const (
	keepAliveIdle   = 30 * time.Second
	keepAliveEvery  = 10 * time.Second
	keepAliveTries  = 3
	mostConnections = 20_000
	othersFiles     = 1024 // what the rest of the daemon may have open meanwhile: the store, downloads, the database
)

// Listen listens on a TCP address HOST:PORT; port 0 is any free one. Every address but those of this machine alone
// needs keys, unless insecure: then whoever reaches it may everything. With a certificate it speaks TLS 1.2 or later,
// and takes up a new certificate when the files change. It holds at most 20,000 connections, fewer where
// the limit of open files is low; others wait until one ends.
func Listen(ctx context.Context, address string, files TLS, keys, insecure bool) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: that is not HOST:PORT; write it like 127.0.0.1:8000", address)
	}
	certificate, err := loadCertificate(files)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	guarded := keys || insecure
	if !guarded && !onlyThisMachine(ctx, host) {
		return nil, unguarded(address)
	}
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveEvery, Count: keepAliveTries,
	}}
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, cannotListen(address, err)
	}
	if !guarded && !Loopback(l) { // the name has changed its meaning since
		return nil, errors.Join(unguarded(address), l.Close())
	}
	l = netutil.LimitListener(l, roomForConnections())
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: certificate.current,
			NextProtos: []string{"http/1.1"}, // see HTTPServer
		})
	}
	return l, nil
}

// Loopback reports whether l hears this machine alone.
func Loopback(l net.Listener) bool {
	at, err := netip.ParseAddrPort(l.Addr().String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// onlyThisMachine reports whether all addresses of host are loopback addresses.
func onlyThisMachine(ctx context.Context, host string) bool {
	if host == "" {
		return false // that is every address
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for _, a := range all {
		if !a.Unmap().IsLoopback() {
			return false
		}
	}
	return err == nil && len(all) > 0
}

func unguarded(address string) error {
	return fmt.Errorf("listen on %s: other machines reach that address, and without keys they could do everything; add auth.api_keys, listen on 127.0.0.1 or pass --insecure-no-auth", address)
}

// cannotListen says what to do about err.
func cannotListen(address string, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("listen on %s: another program uses that port; stop it or choose another server.listen: %w", address, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("listen on %s: this user may not use that port; choose one above 1023 as server.listen, or grant CAP_NET_BIND_SERVICE: %w", address, err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine has no such address; choose one of its own as server.listen: %w", address, err)
	}
	return fmt.Errorf("listen on %s: %w; check server.listen", address, err)
}

// roomForConnections is how many connections this process can hold and still open files.
func roomForConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return othersFiles
	}
	files := int(min(limit.Cur, 1<<20))
	return min(mostConnections, max(files-othersFiles, files/2))
}

// A certificate is read again when its files change.
type certificate struct {
	files TLS

	mu   sync.Mutex
	cert *tls.Certificate
	seen [2]version
}

// A version of a file; what replaces it has another one, even within the same tick of the clock.
type version struct {
	changed     time.Time
	size, inode int64
}

// loadCertificate reads a certificate; nil when none is named.
func loadCertificate(files TLS) (*certificate, error) {
	if files.Cert == "" && files.Key == "" {
		return nil, nil
	}
	if files.Cert == "" || files.Key == "" {
		return nil, errors.New("server.tls has one of cert and key; name both or none")
	}
	c := &certificate{files: files, seen: [2]version{versionOf(files.Cert), versionOf(files.Key)}}
	var err error
	c.cert, err = c.read()
	return c, err
}

func (c *certificate) read() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return nil, fmt.Errorf("the certificate %s with the key %s cannot be used: %w; check server.tls", c.files.Cert, c.files.Key, err)
	}
	return &cert, nil
}

// current is the certificate for a new connection. One that is half written is not taken; the next connection looks
// again if it changes further.
func (c *certificate) current(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := [2]version{versionOf(c.files.Cert), versionOf(c.files.Key)}
	if now == c.seen {
		return c.cert, nil
	}
	c.seen = now // before reading: what changes meanwhile is seen next time
	fresh, err := c.read()
	if err == nil {
		c.cert = fresh
	}
	if c.files.Changed != nil {
		c.files.Changed(err)
	}
	return c.cert, nil
}

func versionOf(path string) version {
	info, err := os.Stat(path)
	if err != nil {
		return version{}
	}
	v := version{changed: info.ModTime(), size: info.Size()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		v.inode = int64(s.Ino)
	}
	return v
}
