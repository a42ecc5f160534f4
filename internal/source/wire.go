package source

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sync/semaphore"

	"ema/internal/model"
)

// maxHops bounds the redirects of one request; real hubs need one or two.
const maxHops = 5

// pingAfter is how long an HTTP/2 connection may be silent before it is asked whether it lives, and
// then how long it may take to answer: all its requests would wait for a dead one.
const pingAfter = 15 * time.Second

// A wire carries requests: it knows which hosts may be spoken to, who gets the token, and which
// redirects are followed.
type wire struct {
	bulk, meta *http.Transport
	hosts      *hosts
	pool       *pool
	names      *names              // nil = the system's resolver is asked each time
	total      *semaphore.Weighted // bulk requests to all hosts together; nil = any number
	agent      string
	home       *url.URL // the hub's endpoint
	token      string   // for home only
	plain      bool     // http:// is allowed everywhere
	allowed    []string
	offline    bool
	answers    *Answers      // nil = none are kept
	patience   time.Duration // for one read of a body
}

func newWire(s Settings) (*wire, error) {
	s = s.withDefaults()
	home, err := s.endpoint()
	if err := errors.Join(err, s.check()); err != nil {
		return nil, err
	}
	roots, err := trusted(s.CertFiles)
	if err != nil {
		return nil, err
	}
	if s.Proxy == nil {
		if s.Proxy, err = environmentProxy(); err != nil {
			return nil, err
		}
	}
	w := &wire{
		bulk: transport(s, roots), meta: transport(s, roots),
		agent: s.UserAgent, home: home, token: s.Token,
		plain: s.AllowHTTP, allowed: s.AllowedHosts, offline: s.Offline,
		patience: max(s.ReadTimeout, 0), answers: s.Answers,
	}
	w.hosts = newHosts(s, w.idle)
	w.pool = newPool(s.MaxConns, w.bulk.CloseIdleConnections)
	if s.MaxConns > 0 {
		w.total = semaphore.NewWeighted(int64(s.MaxConns))
	}
	dial := s.Dial
	if dial == nil {
		if w.names, err = newNames(s.DNS); err != nil {
			return nil, err
		}
		dial = dialer(s, w.names)
	}
	w.meta.DialContext = impatient(dial)
	w.bulk.DialContext = w.pool.over(impatient(dial))
	w.bulk.DisableCompression = true
	w.bulk.MaxConnsPerHost = s.MaxConnsPerHost
	w.bulk.Protocols = protocols(s.HTTP2Bulk)
	w.meta.DisableCompression = s.NoCompression
	w.meta.Protocols = protocols(!s.NoHTTP2)
	return w, nil
}

// idle closes the connections that nobody uses.
func (w *wire) idle() {
	w.bulk.CloseIdleConnections()
	w.meta.CloseIdleConnections()
}

func (w *wire) close() {
	w.idle()
	if w.names != nil {
		w.names.close()
	}
}

// A request is one question, with all the redirects that its answer takes.
type request struct {
	op     string // for errors
	method string
	by     http.RoundTripper // the wire's bulk or meta
	url    *url.URL
	header http.Header
	hub    bool // it is about a model of the hub: the endpoint gets the token
	away   bool // it begins where a redirect has led away from the endpoint: nobody gets the token
	// look sees the response of every hop, the final one included, before its body is read. home
	// says that the hub itself is speaking: what others say about the hub's files counts nothing.
	look func(res *http.Response, home bool) error
}

// An answer is the final response to a request.
type answer struct {
	*http.Response
	ctx    context.Context // of the request, for the one reader of the body
	cancel context.CancelCauseFunc
	home   bool          // it began at the hub, and no hop left the endpoint's origin
	signed http.Header   // of the last redirect; nil when there was none
	took   time.Duration // of the last hop, from request to headers
	leave  func(ok bool) // ends the last hop: others may have its place
	// patience is how long a read of the body may wait; 0 = for ever.
	patience time.Duration
}

// do sends q and follows its redirects by hand. The token goes to the endpoint's origin and stays
// there once a redirect has left it: neither a subdomain nor a way back gets it. On success the
// caller must end the answer by drop, or by closing the reader that read made.
func (w *wire) do(ctx context.Context, q request) (*answer, error) {
	fail := func(u *url.URL, class model.Class, err error) error {
		return &model.Error{Op: q.op, Class: class, URL: u.String(), Hint: hintFor(err), Err: err}
	}
	if w.offline {
		return nil, &model.Error{
			Op: q.op, Class: model.Offline, URL: q.url.String(), Err: errors.New("this needs the network, and offline mode forbids it"),
			Hint: "unset HF_HUB_OFFLINE or leave out --offline",
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	a := &answer{ctx: ctx, cancel: cancel, home: q.hub && !q.away, patience: w.patience}
	u := q.url
	for hops := 0; ; hops++ {
		a.home = a.home && sameOrigin(u, w.home)
		if err := w.permits(u, q.hub); err != nil {
			cancel(nil)
			return nil, fail(u, model.Usage, err)
		}
		res, err := w.send(ctx, q, u, a)
		if errors.Is(err, errBegin) {
			u, hops, a.home, a.signed = q.url, -1, q.hub && !q.away, nil
			continue
		}
		if err != nil {
			cancel(nil)
			return nil, err
		}
		a.Response = res
		if q.look != nil {
			if err := q.look(res, a.home); err != nil {
				a.drop()
				return nil, err
			}
		}
		if !redirects(res) {
			return a, nil
		}
		next, err := w.follow(u, res.Header.Get("Location"))
		if err == nil && hops == maxHops {
			err = fmt.Errorf("more than %d redirects", maxHops)
		}
		if err != nil {
			a.drop()
			return nil, fail(u, model.ServerError, err)
		}
		a.discard()
		a.leave(true)
		a.signed, u = res.Header, next
	}
}

// errBegin says that a request should go once more where it began.
var errBegin = errors.New("the host that a redirect led to cannot be reached")

// send makes one hop of q, for which it waits until the host may be asked. A host that has answered
// before and cannot be reached now is waited for too: a request that never left may be repeated. But
// where a redirect has led to such a host, it may lead to a better one meanwhile: then the error is
// errBegin. A request that began behind the redirect fails, since its source can ask anew.
func (w *wire) send(ctx context.Context, q request, u *url.URL, a *answer) (*http.Response, error) {
	h, lane := w.hosts.of(hostPort(u)), laneOf(ctx)
	defer lane.Enter(InBody)
	for {
		lane.Enter(InGate)
		p, release, err := w.turn(ctx, h, q, u)
		if err != nil {
			return nil, err
		}
		var connected atomic.Bool
		hop := httptrace.WithClientTrace(ctx, lane.trace(connected.Load, func() {
			connected.Store(true)
			p.connected()
		}))
		if p.away {
			hop = context.WithValue(hop, probing{}, true)
		}
		begin := time.Now()
		res, err := q.by.RoundTrip(w.ask(hop, q, u, a.home))
		if err == nil {
			p.answered(res)
			a.took = time.Since(begin)
			a.leave = once(func(ok bool) { p.over(ok); release() })
			return res, nil
		}
		release()
		class, err := classify(err, context.Cause(ctx))
		failure := &model.Error{Op: q.op, Class: class, URL: u.String(), Hint: hintFor(err), Err: err}
		if class == model.Cancelled {
			p.unused()
			return nil, failure
		}
		switch again := p.failed(failure, connected.Load()); {
		case !again || q.away:
			return nil, failure
		case u != q.url:
			return nil, errBegin
		}
	}
}

// turn waits until q may go to h: for a connection of the budget, and for the host. Whoever waits for
// the host leaves the connection to others.
func (w *wire) turn(ctx context.Context, h *host, q request, u *url.URL) (*pass, func(), error) {
	fail := func(class model.Class, err error, after time.Duration) error {
		return &model.Error{Op: q.op, Class: class, URL: u.String(), Hint: hintFor(err), After: after, Err: err}
	}
	for {
		release, err := w.occupy(ctx, h, q.by == http.RoundTripper(w.bulk))
		if err != nil {
			return nil, nil, fail(model.Cancelled, err, 0)
		}
		p, hold, no := h.ask(q.by == http.RoundTripper(w.bulk), q.away)
		if p != nil {
			return p, release, nil
		}
		release()
		if no != nil {
			return nil, nil, fail(no.class, no.err, no.after)
		}
		if err := hold.wait(ctx); err != nil {
			return nil, nil, fail(model.Cancelled, err, 0)
		}
	}
}

// occupy takes a connection of the host's budget and of that of all hosts, when bulk. The transport
// has bounds too, but who waits there has passed the host's gate and would not hear of its limits.
func (w *wire) occupy(ctx context.Context, h *host, bulk bool) (release func(), err error) {
	var taken []*semaphore.Weighted
	release = func() {
		for _, s := range taken {
			s.Release(1)
		}
	}
	for _, s := range []*semaphore.Weighted{h.bulk, w.total} {
		if s == nil || !bulk {
			continue
		}
		if s.Acquire(ctx, 1) != nil {
			release()
			return nil, context.Cause(ctx)
		}
		taken = append(taken, s)
	}
	return release, nil
}

// once makes f count the first time only.
func once(f func(bool)) func(bool) {
	var o sync.Once
	return func(ok bool) { o.Do(func() { f(ok) }) }
}

// ask builds the request of one hop. The transport is called directly, not through http.Client,
// whose errors would quote signed links in full.
func (w *wire) ask(ctx context.Context, q request, u *url.URL, home bool) *http.Request {
	req := (&http.Request{
		Method: q.method, URL: u, Host: u.Host, Header: make(http.Header, len(q.header)+2),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	for k, v := range q.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", w.agent)
	if home && w.token != "" {
		req.Header.Set("Authorization", "Bearer "+w.token)
	}
	return req
}

// permits says whether u may be spoken to at all. Unencrypted hops are fine where the hub itself is
// asked without encryption, and on loopback.
func (w *wire) permits(u *url.URL, hub bool) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return fmt.Errorf("%q is neither http:// nor https://", model.Redact(u.String()))
	case sameOrigin(u, w.home):
		return nil
	case u.Scheme == "http" && !w.plain && !(hub && w.home.Scheme == "http") && !loopback(u.Hostname()):
		return fmt.Errorf("http:// to %s is not encrypted; allow it in the configuration if you mean it", u.Host)
	case len(w.allowed) == 0:
		return nil
	}
	for _, pattern := range w.allowed {
		for _, name := range []string{u.Hostname(), hostPort(u)} {
			if ok, _ := path.Match(strings.ToLower(pattern), strings.ToLower(name)); ok {
				return nil
			}
		}
	}
	return fmt.Errorf("%s is not among the allowed hosts; add it to sources.allowed if you trust it", u.Host)
}

// follow finds the target of a redirect. Both relative and absolute ones keep their own query.
func (w *wire) follow(from *url.URL, location string) (*url.URL, error) {
	if location == "" {
		return nil, errors.New("a redirect without a target")
	}
	next, err := from.Parse(location)
	if err != nil {
		return nil, errors.New("a redirect whose target is no URL")
	}
	next.Fragment, next.RawFragment = "", ""
	if next.Scheme != "http" && next.Scheme != "https" {
		return nil, fmt.Errorf("a redirect to %q, which is neither http:// nor https://", next.Scheme+"://")
	}
	return next, nil
}

// stream makes the reader of the answer's body.
func (a *answer) stream(fault func(model.Class, error) error) *stream {
	return newStream(a.ctx, a.cancel, a.Body, a.patience, a.leave, fault)
}

// drop ends an answer that nobody will read on.
func (a *answer) drop() {
	a.discard()
	a.cancel(nil)
	a.leave(a.StatusCode < 500 && a.StatusCode != http.StatusTooManyRequests)
}

// discard closes the body, after reading its rest when that is cheaper than a new connection.
func (a *answer) discard() {
	if a.ContentLength >= 0 && a.ContentLength <= int64(4*model.KiB) {
		a.text(int64(4 * model.KiB))
	}
	_ = a.Body.Close()
}

// text reads the beginning of the body, most bytes of it, as far as it comes. It is used for words
// that explain an error, so that a failure to read them is no error of its own.
func (a *answer) text(most int64) []byte {
	if a.patience > 0 {
		defer time.AfterFunc(a.patience, func() { a.cancel(errStalled) }).Stop()
	}
	b, _ := io.ReadAll(io.LimitReader(a.Body, most))
	return b
}

func redirects(res *http.Response) bool {
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// hostPort is the host with its port, which the scheme implies when it is not written.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// transport makes a transport without a total timeout. ReadBufferSize stays at 4 KiB on purpose: a
// Read at least as large as the buffer bypasses it, so that a small buffer means no copies.
func transport(s Settings, roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                 s.Proxy,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   s.ConnectTimeout,
		ResponseHeaderTimeout: s.HeaderTimeout,
		DisableKeepAlives:     s.NoKeepAlive,
		MaxIdleConns:          s.MaxIdleConns,
		MaxIdleConnsPerHost:   cmp.Or(s.MaxConnsPerHost, s.MaxIdleConns),
		IdleConnTimeout:       s.IdleTimeout,
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
		ReadBufferSize:        int(4 * model.KiB),
	}
}

func protocols(http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(http2)
	return p
}

// environmentProxy reads the proxy variables now, not once per process as net/http does, so that
// each New sees what its caller sees. A value that is no proxy is an error that does not quote it,
// for it may hold a password; the parser of x/net would ask for a host named "http" instead.
func environmentProxy() (func(*http.Request) (*url.URL, error), error) {
	config := httpproxy.FromEnvironment()
	for name, value := range map[string]string{"HTTP_PROXY": config.HTTPProxy, "HTTPS_PROXY": config.HTTPSProxy} {
		if value != "" && !isProxy(value) {
			return nil, fmt.Errorf("%s is not the URL of a proxy; want http://host:port", name)
		}
	}
	choose := config.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }, nil
}

func isProxy(value string) bool {
	if !strings.Contains(value, "://") {
		value = "http://" + value // host:port is common
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" {
		return false
	}
	return slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)
}

// trusted is the system's pool of authorities and those of files; nil means the system's alone.
func trusted(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a container without any: the files must do
	}
	for _, f := range files {
		inside, err := filepath.Glob(filepath.Join(f, "*")) // REQUESTS_CA_BUNDLE may name a folder
		if err != nil || len(inside) == 0 {
			inside = []string{f}
		}
		found := false
		for _, f := range inside {
			pem, err := os.ReadFile(f)
			if err != nil {
				return nil, fmt.Errorf("certificates: %w; check SSL_CERT_FILE, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE", err)
			}
			found = pool.AppendCertsFromPEM(pem) || found
		}
		if !found {
			return nil, fmt.Errorf("certificates: %s holds no certificate in PEM form", f)
		}
	}
	return pool, nil
}
