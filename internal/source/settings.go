package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

// DefaultEndpoint is the hub that is asked when nobody names another.
const DefaultEndpoint = "https://huggingface.co"

// Settings say how to reach sources. The zero value works: the public hub, without a token.
type Settings struct {
	// Endpoint is the hub's base URL, with or without a path below it; empty = DefaultEndpoint.
	Endpoint string
	// Token is sent to the endpoint's host as a bearer, and to no other host; empty = anonymous.
	Token string
	// UserAgent identifies us; empty = "ema".
	UserAgent string

	// ConnectTimeout bounds the dial, and once more the TLS handshake; 0 = 30 s.
	ConnectTimeout time.Duration
	// HeaderTimeout bounds the wait from request to response headers; 0 = 60 s.
	HeaderTimeout time.Duration
	// ReadTimeout is how long a read may wait for its first byte. It never limits a whole body, and
	// time that the reader spends elsewhere does not count. 0 = 30 s, negative = no limit.
	ReadTimeout time.Duration

	// MaxConnsPerHost caps the bulk connections to one host; a further Open waits. 0 = no cap.
	MaxConnsPerHost int
	// MaxConns caps the bulk connections to all hosts together, unused ones included: they make room
	// for others. A further Open waits. 0 = no cap.
	MaxConns int
	// MaxIdleConns is how many unused connections are kept, all hosts together; 0 = 100.
	MaxIdleConns int
	// IdleTimeout is how long an unused connection is kept; 0 = 30 s.
	IdleTimeout time.Duration
	// NoKeepAlive uses each connection for one request only.
	NoKeepAlive bool
	// NoPersistence closes connections a second after their last use, so that none are left when a
	// download has ended.
	NoPersistence bool
	// NoHTTP2 keeps metadata on HTTP/1.1. Bulk is on HTTP/1.1 unless HTTP2Bulk is set: streams of
	// one HTTP/2 connection share one congestion window, so that parallel ranges gain nothing.
	NoHTTP2   bool
	HTTP2Bulk bool
	// NoCompression asks for metadata as it is. Model bytes are never compressed.
	NoCompression bool
	// Nagle leaves TCP_NODELAY off.
	Nagle bool
	// SocketBuffer is the size of the receive and send buffers of each connection in bytes; 0 = the
	// kernel tunes them, which is better unless memory is scarce.
	SocketBuffer int

	// Patience is how long a host is waited for that has answered before and cannot be reached now;
	// then its requests fail. 0 = 15 min, negative = it is not waited for.
	Patience time.Duration
	// Steadfast waits in the same way for hosts that have never answered, while it is this machine's own network that
	// is down: no name server answers, or there is no route. A daemon that starts before its network wants that; a
	// person at a terminal wants to hear of it.
	Steadfast bool
	// Tell is called when a host begins to be waited for: it has a limit (err is of class RateLimited),
	// or cannot be reached; wait is how long at most, 0 = requests fail instead. nil = nobody is told.
	// It may be called by several goroutines at once and must not block.
	Tell func(host string, err error, wait time.Duration)

	// Answers keeps what the hub says about models; nil = it is asked each time.
	Answers *Answers

	// DNS says how names become addresses.
	DNS DNS

	// AllowedHosts are patterns ("cdn.example.org", "*.example.org", "10.0.0.7:8080") of hosts that
	// may be spoken to besides the endpoint's; empty = all.
	AllowedHosts []string
	// AllowHTTP permits http:// beyond loopback addresses and an endpoint that is http:// itself.
	AllowHTTP bool
	// Offline forbids the network: everything but folders fails with class Offline.
	Offline bool

	// CertFiles are PEM files of certificate authorities to trust besides the system's.
	CertFiles []string
	// Proxy chooses a proxy for a request; nil = HTTPS_PROXY, HTTP_PROXY and NO_PROXY as they are
	// when New is called.
	Proxy func(*http.Request) (*url.URL, error)
	// Dial opens connections; nil = an ordinary TCP dial, to which DNS, Nagle and
	// SocketBuffer apply.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// withDefaults replaces what is automatic by its value.
func (s Settings) withDefaults() Settings {
	automatic := func(d *time.Duration, otherwise time.Duration) {
		if *d == 0 {
			*d = otherwise
		}
	}
	automatic(&s.ConnectTimeout, 30*time.Second)
	automatic(&s.HeaderTimeout, time.Minute)
	automatic(&s.ReadTimeout, 30*time.Second)
	automatic(&s.IdleTimeout, 30*time.Second)
	automatic(&s.Patience, 15*time.Minute)
	automatic(&s.DNS.TTL, 5*time.Minute)
	if s.NoPersistence {
		s.IdleTimeout = min(s.IdleTimeout, time.Second)
	}
	if s.Endpoint == "" {
		s.Endpoint = DefaultEndpoint
	}
	if s.UserAgent == "" {
		s.UserAgent = "ema"
	}
	if s.MaxIdleConns == 0 {
		s.MaxIdleConns = 100
	}
	return s
}

// endpoint parses Settings.Endpoint.
func (s Settings) endpoint() (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(s.Endpoint, "/"))
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return nil, errors.New("the endpoint is not an http:// or https:// URL; check HF_ENDPOINT and --endpoint")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the endpoint carries more than a host and a path; remove the rest, and give the token by HF_TOKEN")
	}
	return u, nil
}

// check reports what New cannot work with.
func (s Settings) check() error {
	for _, c := range []byte(s.Token) { // without printing it
		if c <= ' ' || c >= 0x7f {
			return errors.New("the token contains a blank or an unprintable character; copy it again")
		}
	}
	for _, p := range s.AllowedHosts {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("allowed host %q is not a pattern; use a name or *.name", p)
		}
	}
	for _, d := range []time.Duration{s.ConnectTimeout, s.HeaderTimeout, s.IdleTimeout, s.DNS.TTL} {
		if d < 0 {
			return fmt.Errorf("a timeout of %v is not possible; 0 is the default", d)
		}
	}
	if _, err := servers(s.DNS.Servers); err != nil {
		return err
	}
	if s.SocketBuffer < 0 || s.MaxConns < 0 || s.MaxConnsPerHost < 0 || s.MaxIdleConns < 0 {
		return errors.New("numbers of connections and socket buffers cannot be negative")
	}
	return nil
}
