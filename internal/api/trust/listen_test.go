package trust

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, files TLS) net.Listener {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0", files, false, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestOtherMachinesAreHeardOnlyWithKeysOrInWords(t *testing.T) {
	for _, c := range []struct {
		address        string
		keys, insecure bool
		refused        bool
	}{
		{"127.0.0.1:0", false, false, false},
		{"[::1]:0", false, false, false},
		{"localhost:0", false, false, false},
		{"0.0.0.0:0", false, false, true},
		{":0", false, false, true},
		{"[::]:0", false, false, true},
		{"0.0.0.0:0", true, false, false},
		{":0", false, true, false},
	} {
		l, err := Listen(t.Context(), c.address, TLS{}, c.keys, c.insecure)
		if c.refused {
			if err == nil || !strings.Contains(err.Error(), "auth.api_keys") || !strings.Contains(err.Error(), "--insecure-no-auth") || !strings.Contains(err.Error(), c.address) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if errors.Is(err, unix.EADDRNOTAVAIL) && c.address == "[::1]:0" {
			continue // a machine without IPv6
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if Loopback(l) != (!c.keys && !c.insecure) {
			t.Errorf("%v is loopback: %v", l.Addr(), Loopback(l))
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWhyNobodyCanListenIsOneSentenceThatSaysWhatToDo(t *testing.T) {
	taken := listen(t, TLS{}).Addr().String()
	folder := t.TempDir()
	bad := filepath.Join(folder, "bad.pem")
	if err := os.WriteFile(bad, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		address string
		files   TLS
		says    []string
	}{
		{taken, TLS{}, []string{taken, "another program", "server.listen"}},
		{"192.0.2.1:8000", TLS{}, []string{"192.0.2.1:8000", "no such address", "server.listen"}},
		{"127.0.0.1", TLS{}, []string{"127.0.0.1", "HOST:PORT"}},
		{"127.0.0.1:0", TLS{Cert: bad}, []string{"cert and key"}},
		{"127.0.0.1:0", TLS{Cert: bad, Key: bad}, []string{bad, "server.tls"}},
		{"127.0.0.1:0", TLS{Cert: filepath.Join(folder, "none"), Key: bad}, []string{"none", "server.tls"}},
	} {
		_, err := Listen(t.Context(), c.address, c.files, true, false)
		for _, part := range c.says {
			if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %+v: %v; it does not say %q", c.address, c.files, err, part)
			}
		}
	}
	if err := cannotListen("127.0.0.1:80", &os.SyscallError{Syscall: "bind", Err: unix.EACCES}); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "1023") {
		t.Errorf("a port of root's: %v", err)
	}
}

func TestThereIsRoomForConnectionsAndForFiles(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if n := roomForConnections(); n > mostConnections || uint64(n) >= limit.Cur || n < int(min(limit.Cur, mostConnections)/2) {
		t.Errorf("of %d files %d may be connections", limit.Cur, n)
	}
}

// certify writes a fresh certificate for 127.0.0.1, valid for a test, with that name in it.
func certify(t *testing.T, files TLS, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{files.Cert: {Type: "CERTIFICATE", Bytes: cert}, files.Key: {Type: "PRIVATE KEY", Bytes: secret}} {
		// As whoever renews certificates does: replaced at once.
		if err := errors.Join(os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestANewCertificateIsUsedWithoutARestartAndABrokenOneIsNot(t *testing.T) {
	folder := t.TempDir()
	told := make(chan error, 10)
	files := TLS{Cert: filepath.Join(folder, "cert.pem"), Key: filepath.Join(folder, "key.pem"), Changed: func(err error) { told <- err }}
	certify(t, files, "first.example")
	l := listen(t, files)
	serve(t, l, http.NotFoundHandler(), Patience{})
	name := func() string {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}) // whose it is, is what the test asks
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // nothing was said
		if state := conn.ConnectionState(); state.Version < tls.VersionTLS12 || state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("it speaks %x, %s", state.Version, state.NegotiatedProtocol)
		}
		return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
	}
	last := func() error { // what was told before the handshake ended
		select {
		case err := <-told:
			return err
		default:
			return errors.New("nothing was told")
		}
	}
	if got := name(); got != "first.example" {
		t.Errorf("it is %s", got)
	}
	certify(t, files, "second.example")
	if got, err := name(), last(); got != "second.example" || err != nil {
		t.Errorf("after the change it is %s: %v", got, err)
	}
	if err := os.WriteFile(files.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := name(), last(); got != "second.example" || err == nil || !strings.Contains(err.Error(), files.Cert) {
		t.Errorf("with a broken file it is %s: %v", got, err)
	}
	if got := name(); got != "second.example" || len(told) > 0 {
		t.Errorf("and then %s; it was told %d times more", got, len(told))
	}
	certify(t, files, "third.example")
	if got, err := name(), last(); got != "third.example" || err != nil {
		t.Errorf("mended it is %s: %v", got, err)
	}
	if _, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("it speaks TLS 1.1")
	}
}

// serve serves until the test ends.
func serve(t *testing.T, l net.Listener, h http.Handler, p Patience) {
	t.Helper()
	s := HTTPServer(h, p, quiet())
	over := make(chan error, 1)
	go func() { over <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-over); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// dial connects, for at most ten seconds.
func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// say sends text and returns the status of the answer; 0 when there is none before the connection ends.
func say(t *testing.T, conn net.Conn, text string) int {
	t.Helper()
	_, err := io.WriteString(conn, text)
	res, got := http.ReadResponse(bufio.NewReader(conn), nil)
	if got != nil {
		if errors.Is(got, os.ErrDeadlineExceeded) {
			t.Fatalf("%.60q: the connection is neither answered nor ended (%v)", text, err)
		}
		return 0
	}
	defer res.Body.Close() //nolint:errcheck // read from a connection that is closed
	return res.StatusCode
}
