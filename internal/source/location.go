package source

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/model"
)

// maxPlaces bounds how many files' locations are remembered. One more than are being read at a time
// would do; forgetting one costs a redirect.
const maxPlaces = 4096

// A revisionKey names the listing of a commit, a fileKey one of its files.
type (
	revisionKey struct {
		id     model.ID
		commit string
	}
	fileKey struct {
		revisionKey
		path string
	}
)

// places remembers where the redirects of each file ended. It lives in memory only, since those
// URLs are as good as a password for their file.
type places struct {
	*recent[fileKey, *place]
	// away is set once a file was found at another host than its source's. Until then nobody waits for
	// the first request of a file to come back: where there are no redirects, that is a round trip
	// saved for each of the others, and where there are some, it costs a few of them once.
	away *atomic.Bool
}

func newPlaces() places {
	return places{newRecent[fileKey, *place](maxPlaces), new(atomic.Bool)}
}

func (p places) of(m *model.Manifest, f model.File) *place {
	k := fileKey{revisionKey{m.ID, m.Commit}, f.Path}
	return p.recent.of(k, func() *place { return &place{turn: make(chan struct{}, 1), away: p.away} })
}

// A place is where one file's bytes are. Whoever holds the turn looks for it; the others wait, if it
// is likely that it is elsewhere.
type place struct {
	turn chan struct{}
	away *atomic.Bool
	mu   sync.Mutex
	now  *location // nil until found, and after it was forgotten
}

// A location is the end of a chain of redirects.
type location struct {
	url   *url.URL
	home  bool      // it is the hub itself
	renew time.Time // zero = it does not expire, as far as we can see
	first validator
}

// find returns the location, or nil and the duty to look for it: then settle must be called with what
// was found, or nil.
func (p *place) find(ctx context.Context) (at *location, settle func(*location), err error) {
	if at := p.known(); at != nil {
		return at, nil, nil
	}
	if !p.away.Load() {
		return nil, p.found, nil
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if at := p.known(); at != nil {
		<-p.turn
		return at, nil, nil
	}
	return nil, func(at *location) {
		p.found(at)
		<-p.turn
	}, nil
}

func (p *place) found(at *location) {
	if at == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = at
	if !at.home {
		p.away.Store(true)
	}
}

func (p *place) known() *location {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil && !p.now.renew.IsZero() && !time.Now().Before(p.now.renew) {
		p.now = nil
	}
	return p.now
}

// forget drops at, unless somebody has found a newer one meanwhile.
func (p *place) forget(at *location) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now == at {
		p.now = nil
	}
}

// A validator is by what a location named its content first: the ETag, or the date when there is
// none.
type validator struct {
	mu       sync.Mutex
	etag     string
	modified string
	// unheeded is set when the server does not understand its own ETag in If-Range, and would send
	// whole files for ever.
	unheeded bool
}

// ifRange is the header that makes the server send everything when the file has changed. Weak
// ETags may not be used so, and dates are weak (RFC 9110, section 13.1.5).
func (v *validator) ifRange() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.unheeded || strings.HasPrefix(v.etag, "W/") {
		return ""
	}
	return v.etag
}

// heed notes what came of an If-Range: a whole file whose ETag is the same as before means that the
// server cannot use the header.
func (v *validator) heed(ifRange string, covers, asked model.Segment) {
	if ifRange == "" || covers == asked {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.unheeded = true
}

// check compares an answer with the first one, or records it when it is the first. Weak and strong
// forms of one ETag agree: an edge that compresses text weakens it.
func (v *validator) check(h http.Header) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	etag, modified := h.Get("ETag"), h.Get("Last-Modified")
	switch {
	case v.etag != "" && etag != "":
		if opaque(etag) != opaque(v.etag) {
			return fmt.Errorf("its ETag is %s, before it was %s", clip(etag), clip(v.etag))
		}
	case v.etag == "" && etag == "" && v.modified != "" && modified != "":
		if modified != v.modified {
			return fmt.Errorf("it was modified on %s, before on %s", clip(modified), clip(v.modified))
		}
	case v.etag == "" && v.modified == "":
		v.etag, v.modified = etag, modified
	}
	return nil
}

// opaque strips an ETag of its weakness and quotes.
func opaque(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }

// renewal is when a signed link should be replaced: a little before it expires. The signer's clock
// is taken from the Date header of the redirect, so that a wrong clock here does no harm. Links
// without a date that we know, and those that seem expired already, are used until they fail.
func renewal(u *url.URL, signed http.Header, now time.Time) time.Time {
	expires, ok := expiry(u.Query())
	if !ok {
		return time.Time{}
	}
	begin := now
	if d, err := http.ParseTime(signed.Get("Date")); err == nil {
		begin = d
	}
	lifetime := expires.Sub(begin)
	if lifetime <= 0 {
		return time.Time{}
	}
	return now.Add(lifetime - min(lifetime/4, 30*time.Second))
}

// expiry reads "Expires" (CloudFront and old S3 links: unix seconds) and the pairs of Date and
// Expires of S3 and Google links.
func expiry(q url.Values) (time.Time, bool) {
	if n, err := strconv.ParseInt(q.Get("Expires"), 10, 64); err == nil && n > 0 && n < 1<<40 {
		return time.Unix(n, 0), true
	}
	for _, brand := range []string{"X-Amz-", "X-Goog-"} {
		date, err := time.Parse("20060102T150405Z", q.Get(brand+"Date"))
		seconds, err2 := strconv.ParseInt(q.Get(brand+"Expires"), 10, 32)
		if err == nil && err2 == nil {
			return date.Add(time.Duration(seconds) * time.Second), true
		}
	}
	return time.Time{}, false
}
