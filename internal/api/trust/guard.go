package trust

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/rs/cors"
)

// Settings are what a Guard goes by. The zero Settings let nobody in.
type Settings struct {
	Keys           []Key
	DefaultRole    Role     // of those who show no key, where there are keys; None shuts them out
	AllowedHosts   []string // names by which browsers may call: HOST or HOST:PORT, * for any part between two dots
	AllowedOrigins []string // pages that may use the API: SCHEME://HOST[:PORT]
	Loopback       bool     // the listener is bound to loopback: see Loopback
	Insecure       bool     // where there are no keys and the listener is not bound to loopback, everybody may everything
	PerMinute      int      // calls per minute of one key, or of one address without one; 0 = unlimited
	Burst          int      // calls at once; at least 1
	MaxBody        int64    // bytes of a request's body; 0 = 1 MiB
	// Open are paths that need no key, besides /healthz and /readyz: a path, or with a final slash all below it. They
	// are for what is no secret, such as the files of the dashboard. Links of other pages may lead there.
	Open []string
	// Refuse answers with an error, a *Denied; its headers are set already. nil answers in plain text.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
}

const (
	defaultMaxBody = 1 << 20 // bytes
	// mostKnown bounds how many keys and addresses are remembered, each with about 200 bytes. The one that was
	// heard of longest ago makes room. With the limits that are usual its bucket is full again by then, so that
	// nothing is lost; more addresses than that at once are a flood that no limit per address can stop.
	mostKnown = 10_000
)

// A Guard stands before the handlers of a daemon. Make one with New; it is safe for concurrent use.
type Guard struct {
	rules    atomic.Pointer[rules]
	suspects *lru.Cache[string, *suspect] // by address
}

// rules are Settings, made ready. They do not change.
type rules struct {
	Settings
	keys    []secret
	hosts   []hostPattern
	origins map[string]bool
	cors    *cors.Cors // nil when no origins are listed
	headers headers
	calls   *calls // nil when unlimited
}

// headers are what every answer bears. Their values are shared by all, so that none is made for each.
type headers struct{ nosniff, deny, sameOrigin []string }

// set sets them: no page of others may show ours in a frame, where it could lead clicks astray, nor load anything from here.
func (h *headers) set(to http.Header) {
	to["X-Content-Type-Options"], to["X-Frame-Options"], to["Cross-Origin-Resource-Policy"] = h.nosniff, h.deny, h.sameOrigin
}

// New makes a Guard, or says which setting is wrong.
func New(s Settings) (*Guard, error) {
	suspects, err := lru.New[string, *suspect](mostKnown)
	if err != nil {
		return nil, err
	}
	g := &Guard{suspects: suspects}
	return g, g.Configure(s)
}

// Configure makes s hold from the next request on. When a setting is wrong, nothing changes.
func (g *Guard) Configure(s Settings) error {
	r := &rules{
		Settings: s, origins: map[string]bool{},
		headers: headers{nosniff: []string{"nosniff"}, deny: []string{"DENY"}, sameOrigin: []string{"same-origin"}},
	}
	if len(s.Keys) == 0 && !s.Loopback && !s.Insecure {
		return errors.New("without keys everybody could steer this daemon from other machines; add auth.api_keys, listen on a loopback address or pass --insecure-no-auth")
	}
	var errs []error
	for _, k := range s.Keys {
		known, err := k.secret()
		errs = append(errs, err)
		r.keys = append(r.keys, known)
	}
	for _, h := range s.AllowedHosts {
		p, err := parseHostPattern(h)
		errs = append(errs, err)
		r.hosts = append(r.hosts, p)
	}
	var listed []string
	for _, o := range s.AllowedOrigins {
		origin, err := parseOrigin(o)
		errs = append(errs, err)
		r.origins[origin.String()] = true
		listed = append(listed, origin.String())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(listed) > 0 {
		r.cors = crossOrigin(listed)
	}
	if r.MaxBody == 0 {
		r.MaxBody = defaultMaxBody
	}
	if r.Refuse == nil {
		r.Refuse = plainly
	}
	if s.PerMinute > 0 {
		// Who had used up the old limit does not get a full new one by each change of something else.
		if was := g.rules.Load(); was != nil && was.calls != nil && was.PerMinute == s.PerMinute && was.Burst == s.Burst {
			r.calls = was.calls
		} else {
			var err error
			if r.calls, err = newCalls(s.PerMinute, s.Burst); err != nil {
				return err
			}
		}
	}
	g.rules.Store(r)
	return nil
}

// Wrap lets through to next what may pass, with the Identity of who asks in its context, its key taken out and its
// body bounded: reading more than MaxBody fails with a *http.MaxBytesError. All else is refused.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rules := g.rules.Load()
		key, r := takeKey(r)
		rules.headers.set(w.Header())
		if err := rules.outside(r); err != nil {
			rules.refuse(w, r, err)
			return
		}
		inside := func(w http.ResponseWriter, r *http.Request) {
			who, err := g.admit(rules, key, w, r)
			if err != nil {
				rules.refuse(w, r, err)
				return
			}
			r = r.WithContext(With(r.Context(), who))
			if r.Body != http.NoBody {
				r.Body = http.MaxBytesReader(w, r.Body, rules.MaxBody)
			}
			next.ServeHTTP(w, r)
		}
		if rules.cors == nil {
			inside(w, r)
			return
		}
		rules.cors.ServeHTTP(w, r, inside)
	})
}

// outside refuses what no key makes right.
func (r *rules) outside(req *http.Request) *Denied {
	if strings.ContainsFunc(req.URL.Path, func(c rune) bool { return c < ' ' || c == 0x7f }) ||
		strings.Contains(req.URL.Path, "..") && slices.Contains(strings.FieldsFunc(req.URL.Path, func(c rune) bool { return c == '/' || c == '\\' }), "..") {
		return &Denied{Status: http.StatusBadRequest, Message: `the path has a ".." or a control character in it`, Hint: "write it without"}
	}
	if !r.hostAllowed(req.Host) {
		return &Denied{
			Status: http.StatusForbidden, Message: "the request is for a host name that is not known to be ours, as those of pages that attack this machine are",
			Hint: "use the address that ema listens on, or add the name to server.allowed_hosts",
		}
	}
	if !r.originAllowed(req) {
		return &Denied{
			Status: http.StatusForbidden, Message: "a web page of another origin sent this",
			Hint: "add its origin to server.allowed_origins if it may use ema",
		}
	}
	return nil
}

// admit says who asks, and refuses those who may not ask, or not as often.
func (g *Guard) admit(rules *rules, key shown, w http.ResponseWriter, r *http.Request) (Identity, error) {
	now := time.Now()
	from := peerOf(r)
	who, err := g.identify(rules, key, from, now, rules.open(r.URL.Path))
	if who.Local = from.loopback || rules.Loopback; who.Local {
		return who, err
	}
	if rules.calls == nil {
		return who, err
	}
	id := "address " + from.address
	if who.Name != "" {
		id = "key " + who.Name
	}
	if tooMany := rules.calls.count(id, now, w.Header()); tooMany != nil {
		return who, tooMany
	}
	return who, err
}

// open reports whether a path needs no key.
func (r *rules) open(path string) bool {
	if path == "/healthz" || path == "/readyz" {
		return true
	}
	return slices.ContainsFunc(r.Open, func(o string) bool {
		return path == o || strings.HasSuffix(o, "/") && o != "/" && strings.HasPrefix(path, o)
	})
}

// refuse answers with err.
func (r *rules) refuse(w http.ResponseWriter, req *http.Request, err error) {
	if d, ok := errors.AsType[*Denied](err); ok {
		d.Mark(w.Header())
	}
	r.Refuse(w, req, err)
}

func plainly(w http.ResponseWriter, _ *http.Request, err error) {
	status := http.StatusForbidden
	if d, ok := errors.AsType[*Denied](err); ok {
		status = d.Status
	}
	http.Error(w, err.Error(), status)
}

// Local makes all who come this way admins of this machine: for the daemon's socket, which hears nobody else.
func Local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(With(r.Context(), Identity{Role: Admin, Local: true})))
	})
}
