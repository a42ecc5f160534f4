package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"ema/internal/model"
)

const (
	// sampleEvery is how many answers pass between two whose contents are looked at.
	sampleEvery = 100
	// sampleSize bounds the contents that are looked at; larger answers are only counted.
	sampleSize = 4 << 20
	// aside is how long requests before and after the test may take.
	aside = 10 * time.Second
)

// A door is a server as its clients meet it: HTTP/1.1 over connections that stay open. It may be used from many
// goroutines.
type door struct {
	base      *url.URL
	transport *http.Transport
	timeout   time.Duration
	requests  [calls]*http.Request // patterns
	bodies    [calls][]byte
	sent      [calls]atomic.Int64
	key       string
}

// newDoor prepares the calls. Close it.
func newDoor(s LoadSettings) (*door, error) {
	base, err := parseBase(s.URL, s.AllowRemote)
	if err != nil {
		return nil, err
	}
	start, err := json.Marshal(manageRequest{s.Model, "start"})
	if err != nil {
		return nil, fmt.Errorf("model %q: %w", s.Model, err)
	}
	dial := s.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: s.Timeout, ControlContext: dialGuard(s.AllowRemote)}).DialContext
	}
	h1 := new(http.Protocols)
	h1.SetHTTP1(true)
	d := &door{base: base, timeout: s.Timeout, key: s.Key, transport: &http.Transport{
		DialContext: dial, Protocols: h1, DisableCompression: true,
		MaxConnsPerHost: s.Connections, MaxIdleConns: s.Connections, MaxIdleConnsPerHost: s.Connections,
		IdleConnTimeout: time.Minute,
	}}
	d.bodies[callStart] = start
	for c, r := range routes() {
		req, err := d.request(r.method, r.path)
		if err != nil {
			return nil, err
		}
		d.requests[c] = req
	}
	return d, nil
}

func (d *door) close() { d.transport.CloseIdleConnections() }

// request is a request without a body; one body after the other may be given to copies of it.
func (d *door) request(method, path string) (*http.Request, error) {
	req, err := http.NewRequest(method, d.base.JoinPath(path).String(), nil) //nolint:noctx // every copy gets one
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "ema-load-test")
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	if d.key != "" {
		req.Header.Set("Authorization", "Bearer "+d.key)
	}
	return req, nil
}

// parseBase is the address of a server, checked.
func parseBase(raw string, allowRemote bool) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("the URL of the server cannot be read; want http://host:port")
	case u.User != nil:
		return nil, fmt.Errorf("URL %s: a user and password in a URL end up in logs; pass a key instead", model.Redact(raw))
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("URL %q: want http://host:port or https://host:port", model.Redact(raw))
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("URL %s: without anything after a ? or #", model.Redact(raw))
	case !allowRemote && !loopback(u.Hostname()):
		return nil, fmt.Errorf("URL %s: %w", model.Redact(raw), ErrRemote)
	}
	return u, nil
}

// ErrRemote refuses to load another machine unless LoadSettings.AllowRemote says that its owner agrees.
var ErrRemote = errors.New("that is another machine, and a load test can take its service down")

// loopback reports whether a host is this machine by its name alone.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// dialGuard refuses addresses of other machines, whatever name has led there.
func dialGuard(allowRemote bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err == nil && !allowRemote && !loopback(host) {
			return ErrRemote
		}
		return err
	}
}

// call makes one call of the mix and reads the whole answer.
func (d *door) call(ctx context.Context, c call) outcome {
	if c == callStart {
		// One that we cut short may be served all the same, and then begin the download that we have just cancelled.
		longer, done := withGrace(ctx)
		defer done()
		ctx = longer
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	req := d.requests[c].WithContext(ctx)
	setBody(req, d.bodies[c])
	// RoundTrip, since a redirect is no answer here: it would lead the load to where nobody has asked for it.
	res, err := d.transport.RoundTrip(req)
	if err != nil {
		return failed(err)
	}
	defer res.Body.Close()
	o := outcome{status: res.StatusCode}
	var head []byte
	look := d.sent[c].Add(1)%sampleEvery == 1
	if look {
		head, err = io.ReadAll(io.LimitReader(res.Body, sampleSize))
		o.bytes = int64(len(head))
	}
	if err == nil {
		var n int64
		n, err = io.Copy(io.Discard, res.Body)
		o.bytes += n
	}
	if err != nil {
		f := failed(err)
		o.kind, o.because = f.kind, f.because
		return o
	}
	switch {
	case o.status == http.StatusTooManyRequests:
		o.kind = RateLimited
	case o.status >= 500:
		o.kind = ServerError
	case o.status >= 400:
		o.kind = ClientError
	case o.status < 200 || o.status >= 300:
		o.kind, o.because = Unexpected, fmt.Sprintf("%s: %s", routes()[c], res.Status)
	case look && o.bytes < sampleSize:
		if err := checkAnswer(routes()[c], res.Header, head); err != nil {
			o.kind, o.because = Unexpected, err.Error()
		}
	}
	return o
}

// grace is how long a request that changes something may go on after the test was stopped.
const grace = time.Second

// withGrace is a context that ends a little later than ctx.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }
}

func setBody(req *http.Request, body []byte) {
	if body == nil {
		return
	}
	req.ContentLength = int64(len(body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body = io.NopCloser(bytes.NewReader(body))
}

// failed says why there is no whole answer.
func failed(err error) outcome {
	o := outcome{kind: Broken, because: err.Error()}
	dialling, isOp := errors.AsType[*net.OpError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		o = outcome{kind: TimedOut}
	case errors.Is(err, syscall.ECONNREFUSED):
		o = outcome{kind: Refused}
	case isOp && dialling.Op == "dial":
		o.kind = Unconnected
	}
	return o
}

// checkAnswer reports whether an answer has what it always has, as one sentence.
func checkAnswer(r route, h http.Header, body []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		what := "no JSON object"
		if media, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil {
			what += " but " + media
		}
		return fmt.Errorf("the answer to %s is %s", r, what)
	}
	for _, name := range r.fields {
		if _, ok := fields[name]; !ok {
			return fmt.Errorf("the answer to %s has no field %q", r, name)
		}
	}
	return nil
}

// ask makes a request beside the test. The body of the answer is cut at sampleSize.
func (d *door) ask(ctx context.Context, method, path string, body []byte) (*http.Response, []byte, error) {
	req, err := d.request(method, path)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, aside)
	defer cancel()
	setBody(req, body)
	res, err := d.transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, nil, d.unreachable(ctx, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, sampleSize))
	if err != nil {
		return nil, nil, d.unreachable(ctx, path, err)
	}
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
		hint := "pass a key of this server"
		if d.key != "" {
			hint = "pass a key that may do this"
		}
		return res, b, &model.Error{Op: "load test", Class: model.Auth, URL: d.at(path), Err: errors.New(res.Status), Hint: hint}
	}
	return res, b, nil
}

func (d *door) at(path string) string { return d.base.JoinPath(path).String() }

// unreachable is the sentence about a server that does not answer.
func (d *door) unreachable(ctx context.Context, path string, err error) error {
	e := &model.Error{Op: "load test", Class: model.Reset, URL: d.at(path), Err: err, Hint: "is the server running, and is this its address?"}
	switch {
	case errors.Is(err, ErrRemote):
		e.Class, e.Hint, e.Err = model.Usage, "", ErrRemote
	case errors.Is(err, context.DeadlineExceeded):
		e.Class, e.Err = model.Timeout, fmt.Errorf("no answer in %v", aside)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return e
}
