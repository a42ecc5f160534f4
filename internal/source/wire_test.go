package source

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ema/internal/model"
)

func TestRedirectsAreFollowedWithCare(t *testing.T) {
	for promise, c := range map[string]struct {
		location string
		class    model.Class
		says     string
	}{
		"never in a circle":              {"/acme/tiny/resolve/" + commit1 + "/" + big, model.ServerError, "more than 5 redirects"},
		"never to a file":                {"file:///etc/passwd", model.ServerError, `"file://"`},
		"never to another protocol":      {"ftp://host/x", model.ServerError, `"ftp://"`},
		"never to something unreadable":  {"http://[::1:bad/", model.ServerError, "no URL"},
		"never to nowhere":               {"", model.ServerError, "without a target"},
		"never to a host without a name": {"http:///x", model.Usage, "neither"},
	} {
		t.Run(promise, func(t *testing.T) {
			r, s, m := opened(t)
			r.resolve = func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Location", c.location)
				w.WriteHeader(302)
				return true
			}
			_, err := readSegment(t, s, m, big, model.Segment{End: 5})
			classIs(t, err, c.class)
			mentions(t, err, c.says)
			if n := r.count("resolve"); n > maxHops+1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestOnlyPermittedHostsAreSpokenTo(t *testing.T) {
	dialled := func(s *Settings) *[]string {
		var to []string
		s.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
			to = append(to, address)
			return nil, errors.New("no network here")
		}
		return &to
	}
	web := func(u string) model.ID { return model.ID{Scheme: model.HTTPS, Name: u} }
	for promise, c := range map[string]struct {
		set  Settings
		id   model.ID
		want string // the address dialled; empty = refused before
	}{
		"the endpoint":                         {Settings{Endpoint: "https://hub.test"}, tiny, "hub.test:443"},
		"the endpoint, whatever is allowed":    {Settings{Endpoint: "http://hub.test:81/sub", AllowedHosts: []string{"x"}}, tiny, "hub.test:81"},
		"the endpoint by default":              {Settings{}, tiny, "huggingface.co:443"},
		"any https host by default":            {Settings{}, web("https://files.test/a.bin"), "files.test:443"},
		"a host that a pattern allows":         {Settings{AllowedHosts: []string{"*.FILES.test"}}, web("https://a.files.test/a.bin"), "a.files.test:443"},
		"a host with a port that is allowed":   {Settings{AllowedHosts: []string{"a.test:8443"}}, web("https://a.test:8443/a.bin"), "a.test:8443"},
		"no host that no pattern allows":       {Settings{AllowedHosts: []string{"*.files.test"}}, web("https://evil.test/a.bin"), ""},
		"no other port than the allowed one":   {Settings{AllowedHosts: []string{"a.test:8443"}}, web("https://a.test:444/a.bin"), ""},
		"no http":                              {Settings{}, web("http://files.test/a.bin"), ""},
		"no http because the endpoint is http": {Settings{Endpoint: "http://hub.test"}, web("http://files.test/a.bin"), ""},
		"http when it is allowed":              {Settings{AllowHTTP: true}, web("http://files.test/a.bin"), "files.test:80"},
		"http on loopback":                     {Settings{}, web("http://127.0.0.1:99/a.bin"), "127.0.0.1:99"},
		"http on loopback by IPv6":             {Settings{}, web("http://[::1]:99/a.bin"), "[::1]:99"},
		"nothing when offline, the hub":        {Settings{Offline: true}, tiny, ""},
		"nothing when offline, a URL":          {Settings{Offline: true}, web("https://files.test/a.bin"), ""},
	} {
		t.Run(promise, func(t *testing.T) {
			to := dialled(&c.set)
			c.set.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
			s, err := New(c.set)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			_, err = s.Resolve(t.Context(), c.id, "")
			switch {
			case c.want != "":
				classIs(t, err, model.Reset)
				if len(*to) == 0 || (*to)[0] != c.want {
					t.Errorf("dialled %q, want %s", *to, c.want)
				}
			case c.set.Offline:
				classIs(t, err, model.Offline)
				_, err = s.Open(t.Context(), &model.Manifest{ID: tiny, Commit: commit1}, model.File{Path: "a", Size: 1}, model.Segment{End: 1})
				classIs(t, err, model.Offline)
			default:
				classIs(t, err, model.Usage)
			}
			if c.want == "" && len(*to) != 0 {
				t.Errorf("dialled %q", *to)
			}
		})
	}
	t.Run("also behind redirects, from https to http", func(t *testing.T) {
		srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://cdn.test/x")
			w.WriteHeader(302)
		}))
		defer srv.Close()
		s, err := New(Settings{Endpoint: srv.URL, CertFiles: []string{certOf(t, srv)}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Resolve(t.Context(), tiny, "")
		classIs(t, err, model.Usage)
		mentions(t, err, "cdn.test", "not encrypted")
	})
}

// certOf writes the certificate of a TLS server to a file.
func certOf(t testing.TB, srv *httptest.Server) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCertificates(t *testing.T) {
	content := noise(300_000)
	var protocols []string
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		protocols = append(protocols, req.Proto)
		if strings.HasPrefix(req.URL.Path, "/api/") {
			writeJSON(w, map[string]any{"id": "acme/tiny", "sha": commit1, "siblings": []any{
				map[string]any{"rfilename": big, "size": len(content), "blobId": model.SumGitBlob(content).Hex()},
			}})
			return
		}
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // it reports the handshake that is refused below
	srv.StartTLS()
	defer srv.Close()
	use := func(t *testing.T, set Settings) error {
		t.Helper()
		set.Endpoint, protocols = srv.URL, nil
		s, err := New(set)
		if err != nil {
			return err
		}
		defer s.Close()
		m, err := s.Resolve(t.Context(), tiny, "")
		if err != nil {
			return err
		}
		got, err := readSegment(t, s, m, big, model.Segment{Start: 7, End: 222_222})
		if err == nil && !bytes.Equal(got, content[7:222_222]) {
			t.Error("other bytes came")
		}
		return err
	}
	pemFile := certOf(t, srv)
	t.Run("of an unknown authority are refused with a hint", func(t *testing.T) {
		e := classIs(t, use(t, Settings{}), model.Other)
		mentions(t, e, "SSL_CERT_FILE")
	})
	t.Run("of a named authority are accepted, with HTTP/2 for metadata only", func(t *testing.T) {
		if err := use(t, Settings{CertFiles: CertFilesFromEnv(func(k string) string { return map[string]string{"REQUESTS_CA_BUNDLE": pemFile}[k] })}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(protocols, []string{"HTTP/2.0", "HTTP/1.1"}) {
			t.Errorf("protocols %q", protocols)
		}
	})
	t.Run("may lie in a folder", func(t *testing.T) {
		if err := use(t, Settings{CertFiles: []string{filepath.Dir(pemFile)}, NoHTTP2: true, HTTP2Bulk: true}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(protocols, []string{"HTTP/1.1", "HTTP/2.0"}) {
			t.Errorf("protocols %q", protocols)
		}
	})
	t.Run("that are none are refused when sources are made", func(t *testing.T) {
		none := filepath.Join(t.TempDir(), "none.pem")
		mentions(t, classIs(t, use(t, Settings{CertFiles: []string{none}}), model.Usage), "none.pem", "REQUESTS_CA_BUNDLE")
		if err := os.WriteFile(none, []byte("hello"), 0o600); err != nil {
			t.Fatal(err)
		}
		mentions(t, classIs(t, use(t, Settings{CertFiles: []string{none}}), model.Usage), "none.pem", "PEM")
	})
	t.Run("are not spoken where TLS is not", func(t *testing.T) {
		plain := httptest.NewServer(http.NotFoundHandler())
		defer plain.Close()
		s, err := New(Settings{Endpoint: strings.Replace(plain.URL, "http:", "https:", 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Resolve(t.Context(), tiny, "")
		mentions(t, classIs(t, err, model.Other), "does not speak TLS")
	})
}

// A proxy that records what it is asked for, and takes every host to be one server.
func recordingProxy(t *testing.T, to string) (_ *url.URL, asked func() []string) {
	var mu sync.Mutex
	var lines []string
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		lines = append(lines, req.Method+" "+req.Host)
		mu.Unlock()
		if req.Method != http.MethodConnect {
			forward.ServeHTTP(w, req)
			return
		}
		up, err := net.Dial("tcp", target.Host)
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		down, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer down.Close()
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = io.Copy(up, down); _ = up.(*net.TCPConn).CloseWrite() })
		_, _ = io.Copy(down, up)
		_ = down.Close()
		wg.Wait()
	}))
	t.Cleanup(srv.Close)
	u, _ := url.Parse(srv.URL)
	return u, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(lines) }
}

func TestProxyOfTheEnvironment(t *testing.T) {
	info := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"sha": commit1, "siblings": []any{map[string]any{"rfilename": "a", "size": 1, "blobId": commit2}}})
	})
	clear := func(t *testing.T) {
		for _, v := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "REQUEST_METHOD"} {
			t.Setenv(v, "")
		}
	}
	resolve := func(t *testing.T, set Settings) error {
		s, err := New(set)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Resolve(t.Context(), tiny, "")
		return err
	}
	t.Run("carries plain HTTP", func(t *testing.T) {
		clear(t)
		srv := httptest.NewServer(info)
		defer srv.Close()
		proxy, asked := recordingProxy(t, srv.URL)
		t.Setenv("HTTP_PROXY", proxy.String())
		if err := resolve(t, Settings{Endpoint: "http://hub.test"}); err != nil {
			t.Fatal(err)
		}
		if got := asked(); !slices.Equal(got, []string{"GET hub.test"}) {
			t.Errorf("the proxy was asked for %q", got)
		}
	})
	t.Run("tunnels TLS", func(t *testing.T) {
		clear(t)
		srv := httptest.NewTLSServer(info)
		defer srv.Close()
		proxy, asked := recordingProxy(t, srv.URL)
		t.Setenv("HTTPS_PROXY", proxy.String())
		if err := resolve(t, Settings{Endpoint: "https://example.com", CertFiles: []string{certOf(t, srv)}}); err != nil {
			t.Fatal(err)
		}
		if got := asked(); !slices.Equal(got, []string{"CONNECT example.com:443"}) {
			t.Errorf("the proxy was asked for %q", got)
		}
	})
	t.Run("is left out for NO_PROXY", func(t *testing.T) {
		clear(t)
		proxy, asked := recordingProxy(t, "http://127.0.0.1:1")
		t.Setenv("HTTP_PROXY", proxy.String())
		t.Setenv("NO_PROXY", ".test")
		var to string
		err := resolve(t, Settings{Endpoint: "http://hub.test", Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			to = address
			return nil, syscall.ECONNREFUSED
		}})
		classIs(t, err, model.Reset)
		if got := asked(); len(got) != 0 || to != "hub.test:80" {
			t.Errorf("the proxy was asked for %q; dialled %s", got, to)
		}
	})
	t.Run("is not quoted with its password when it is no proxy", func(t *testing.T) {
		for _, v := range []string{"http://user:s3cret@[bad:port/", "ftp://s3cret", "http://"} {
			clear(t)
			t.Setenv("HTTPS_PROXY", v)
			_, err := New(Settings{})
			classIs(t, err, model.Usage)
			mentions(t, err, "HTTPS_PROXY")
		}
	})
	t.Run("may be written without a scheme", func(t *testing.T) {
		clear(t)
		t.Setenv("HTTP_PROXY", "proxy.test:3128")
		var to string
		err := resolve(t, Settings{Endpoint: "http://hub.test", Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			to = address
			return nil, syscall.ECONNREFUSED
		}})
		classIs(t, err, model.Reset)
		if to != "proxy.test:3128" {
			t.Errorf("dialled %s", to)
		}
	})
}

func TestConnectionsAreAsSet(t *testing.T) {
	t.Run("no more per host than the cap", func(t *testing.T) {
		_, s, m := opened(t, func(s *Settings) { s.MaxConnsPerHost = 2 })
		open := func(ctx context.Context) (*Body, error) {
			return s.Open(ctx, m, fileOf(t, m, big), model.Segment{Start: 1, End: 99_999})
		}
		var held []*Body
		for range 2 {
			b, err := open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			held = append(held, b)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := open(ctx)
		classIs(t, err, model.Cancelled)
		if _, err := io.Copy(io.Discard, held[0]); err != nil {
			t.Fatal(err)
		}
		b, err := open(t.Context()) // on the connection that is free now
		if err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
	})
	t.Run("buffers and TCP_NODELAY", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		option := func(set Settings, level, name int) (value int) {
			c, err := dialer(set.withDefaults(), nil)(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			raw, err := c.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if e := raw.Control(func(fd uintptr) { value, err = syscall.GetsockoptInt(int(fd), level, name) }); e != nil || err != nil {
				t.Fatal(e, err)
			}
			return value
		}
		if option(Settings{}, syscall.IPPROTO_TCP, syscall.TCP_NODELAY) == 0 || option(Settings{Nagle: true}, syscall.IPPROTO_TCP, syscall.TCP_NODELAY) != 0 {
			t.Error("TCP_NODELAY is not as set")
		}
		if got := option(Settings{SocketBuffer: 65536}, syscall.SOL_SOCKET, syscall.SO_RCVBUF); got != 2*65536 { // Linux doubles it
			t.Errorf("SO_RCVBUF = %d", got)
		}
	})
	t.Run("one request each without keep-alive", func(t *testing.T) {
		_, s, m := opened(t, func(s *Settings) { s.NoKeepAlive = true })
		ctx, fresh := connections(t.Context())
		for range 3 {
			b, err := s.Open(ctx, m, fileOf(t, m, big), model.Segment{End: 10})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, b)
			_ = b.Close()
		}
		if fresh() != 4 {
			t.Errorf("%d connections for 4 requests", fresh())
		}
	})
	t.Run("what cannot work is refused", func(t *testing.T) {
		for _, set := range []Settings{{Endpoint: "hub.test"}, {Endpoint: "ftp://hub.test"}, {AllowedHosts: []string{"[a"}}, {SocketBuffer: -1}, {MaxConnsPerHost: -1}} {
			_, err := New(set)
			classIs(t, err, model.Usage)
		}
	})
}
