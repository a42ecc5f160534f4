package source

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// Open asks the hub where the file is, once per file, and goes straight there for all segments
// after the first. When a signed link stops working, the location is forgotten and the error is of
// class Expired: the next Open asks the hub again. Links about to expire are renewed beforehand.
func (h *hub) Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*Body, error) {
	if !model.IsCommit(m.Commit) {
		return nil, &model.Error{Op: "fetch", Class: model.Usage, Model: m.ID, File: f.Path, Err: errors.New("the manifest has no commit")}
	}
	if f.Size == 0 {
		return emptyBody(hostPort(h.wire.home)), nil // no range of nothing can be asked for
	}
	start, err := url.Parse(h.base + "/" + name(m) + "/resolve/" + m.Commit + "/" + escapePath(f.Path))
	if err != nil {
		return nil, &model.Error{Op: "fetch", Class: model.Usage, Model: m.ID, File: f.Path, Err: errors.New("id and path make no URL")}
	}
	o := opening{
		wire: h.wire, id: m.ID, file: f, seg: seg, start: start, hub: true,
		look:    func(res *http.Response, home bool) error { return promised(res, home, m, f) },
		refused: func(a *answer) error { return h.refusal(a, "fetch", m.ID, wantFile) },
	}
	return o.open(ctx, h.places.of(m, f))
}

// An opening is one attempt to open a segment of a file.
type opening struct {
	wire  *wire
	id    model.ID
	file  model.File
	seg   model.Segment
	start *url.URL // where the source says that the file is
	hub   bool     // start is at the hub: the endpoint gets the token
	// etag and modified are how the source named the content when it was resolved; empty = unknown.
	etag, modified string
	// look sees the headers of each hop; nil = nobody looks.
	look func(res *http.Response, home bool) error
	// refused explains a failure that the source itself answered with.
	refused func(a *answer) error
}

// open goes to where the file is known to be, or finds that out from start.
func (o opening) open(ctx context.Context, p *place) (*Body, error) {
	at, settle, err := p.find(ctx)
	if err != nil {
		return nil, o.fault(o.start)(model.Cancelled, err)
	}
	if at == nil {
		at, b, err := o.discover(ctx)
		settle(at)
		return b, err
	}
	ifRange := at.first.ifRange()
	a, err := o.ask(ctx, at.url, !at.home, ifRange)
	var b *Body
	if err == nil {
		b, err = o.accept(a, &at.first)
	}
	if err == nil {
		at.first.heed(ifRange, b.Segment, o.seg)
	} else if stale(err) && !at.home {
		p.forget(at)
	}
	return b, err
}

// discover follows the redirects from start; where they end is the location.
func (o opening) discover(ctx context.Context) (*location, *Body, error) {
	a, err := o.ask(ctx, o.start, false, "")
	if err != nil {
		return nil, nil, err
	}
	at := &location{
		url: a.Request.URL, home: a.home,
		renew: renewal(a.Request.URL, a.signed, time.Now()),
		first: validator{etag: o.etag, modified: o.modified},
	}
	b, err := o.accept(a, &at.first)
	if err != nil {
		return nil, nil, err
	}
	return at, b, nil
}

// stale reports whether a failure may be the fault of the location, so that asking the hub again
// may give a better one: an expired link, but also an edge that broke.
func stale(err error) bool {
	switch model.ClassOf(err) {
	case model.Expired, model.ServerError, model.NotFound, model.Timeout, model.Reset:
		return true
	}
	return false
}

// ask requests the segment. A whole file is asked for without a range: some servers are better at
// that, and none is worse.
func (o opening) ask(ctx context.Context, u *url.URL, away bool, ifRange string) (*answer, error) {
	header := http.Header{"Accept-Encoding": {"identity"}}
	if o.seg != (model.Segment{End: o.file.Size}) {
		header.Set("Range", o.seg.Header())
		if ifRange != "" {
			header.Set("If-Range", ifRange)
		}
	}
	a, err := o.wire.do(ctx, request{
		op: "fetch", method: http.MethodGet, by: o.wire.bulk, url: u, header: header, hub: o.hub, away: away, look: o.look,
	})
	return a, about(err, o.id, o.file.Path)
}

// accept turns an answer into a body if it is what was asked for, and ends it otherwise.
func (o opening) accept(a *answer, first *validator) (*Body, error) {
	if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusPartialContent {
		defer a.drop()
		if a.home || a.Request.URL.String() == o.start.String() {
			return nil, about(o.refused(a), o.id, o.file.Path)
		}
		return nil, o.elsewhere(a)
	}
	fault := o.fault(a.Request.URL)
	if err := first.check(a.Header); err != nil {
		defer a.drop()
		return nil, fault(model.Integrity, fmt.Errorf("it changed while downloading, although its commit is pinned: %w", err))
	}
	covers, class, err := covered(a.Response, o.file, o.seg)
	if err != nil {
		defer a.drop()
		return nil, fault(class, err)
	}
	return &Body{
		ReadCloser: &counted{stream: a.stream(fault), left: covers.Len()},
		Segment:    covers,
		Host:       hostPort(a.Request.URL),
		FirstByte:  a.took,
	}, nil
}

// elsewhere explains the refusal of a host that the source sent us to. It knows nothing of users: a
// 401 or 403 from it is about the signature of the link.
func (o opening) elsewhere(a *answer) error {
	e := &model.Error{
		Op: "fetch", Model: o.id, File: o.file.Path, URL: a.Request.URL.String(),
		After: retryAfter(a.Header, time.Now()), Err: errors.New("the storage host answered " + a.Status),
	}
	switch s := a.StatusCode; {
	case s == http.StatusBadRequest, s == http.StatusUnauthorized, s == http.StatusForbidden, s == http.StatusGone:
		e.Class, e.Err = model.Expired, fmt.Errorf("the signed link is no longer accepted (%s)", a.Status)
	case s == http.StatusRequestedRangeNotSatisfiable:
		e.Class = model.RangeRefused
	case s == http.StatusTooManyRequests:
		e.Class = model.RateLimited
	case s == http.StatusNotFound, s == http.StatusRequestTimeout, s >= 500: // 404: an edge out of order; the hub has the file
		e.Class = model.ServerError
	}
	return e
}

func (o opening) fault(u *url.URL) func(model.Class, error) error {
	return func(class model.Class, err error) error {
		return &model.Error{Op: "fetch", Class: class, Model: o.id, File: o.file.Path, URL: u.String(), Err: err}
	}
}

// covered says which bytes of f an answer brings, given that seg was asked for. Everything that
// could put a byte at the wrong offset is refused here, before a byte is read.
func covered(res *http.Response, f model.File, seg model.Segment) (model.Segment, model.Class, error) {
	none := model.Segment{}
	if enc := res.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return none, model.Integrity, fmt.Errorf("the server sends it encoded as %q although it was asked not to", clip(enc))
	}
	if res.StatusCode == http.StatusPartialContent {
		got, err := parseContentRange(res.Header.Get("Content-Range"))
		switch {
		case err != nil: // also multipart/byteranges, which has none
			return none, model.RangeRefused, err
		case got.total != f.Size:
			return none, model.Integrity, fmt.Errorf("the server has %d bytes of it, the listing says %d", got.total, f.Size)
		case got.covers != seg:
			return none, model.RangeRefused, fmt.Errorf("the server sends bytes %v instead of %v", got.covers, seg)
		case res.ContentLength >= 0 && res.ContentLength != seg.Len():
			return none, model.Integrity, fmt.Errorf("the server announces %d bytes for a range of %d", res.ContentLength, seg.Len())
		}
		return seg, 0, nil
	}
	if ext := strings.ToLower(path.Ext(f.Path)); isHTML(res.Header) && !strings.Contains(ext, "htm") {
		return none, model.ServerError, ErrCaptivePortal
	}
	if res.ContentLength >= 0 && res.ContentLength != f.Size {
		return none, model.Integrity, fmt.Errorf("the server has %d bytes of it, the listing says %d", res.ContentLength, f.Size)
	}
	return model.Segment{End: f.Size}, 0, nil
}

// promised compares what the hub says of a file with its listing: commit, size and hash. A proxy
// with stale answers in between shows here. The headers of other hosts mean other things, e.g. the
// ETag of a CDN is the id of its own object.
func promised(res *http.Response, home bool, m *model.Manifest, f model.File) error {
	if !home || res.StatusCode >= 400 {
		return nil
	}
	lie := func(format string, args ...any) error {
		return &model.Error{
			Op: "fetch", Class: model.Integrity, Model: m.ID, File: f.Path, URL: res.Request.URL.String(),
			Err: fmt.Errorf(format, args...), Hint: "a proxy with stale answers may be in between",
		}
	}
	if c := res.Header.Get("X-Repo-Commit"); c != "" && c != m.Commit {
		return lie("the hub serves it from commit %q, the listing is of %s", clip(c), m.Commit)
	}
	if s := res.Header.Get("X-Linked-Size"); s != "" && s != strconv.FormatInt(f.Size, 10) {
		return lie("the hub says it has %q bytes, the listing says %d", clip(s), f.Size)
	}
	etag := res.Header.Get("X-Linked-ETag")
	if etag == "" && !redirects(res) {
		etag = res.Header.Get("ETag")
	}
	// Only hashes of one kind can disagree: mirrors use other 40-digit ETags for large files.
	if d, err := model.ParseDigest(opaque(etag)); err == nil && d.Algo() == f.Digest.Algo() && d != f.Digest {
		return lie("the hub says it is %v, the listing says %v", d, f.Digest)
	}
	return nil
}

// emptyBody is the content of a file without any.
func emptyBody(host string) *Body {
	return &Body{ReadCloser: http.NoBody, Host: host}
}
