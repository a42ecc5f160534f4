package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

const (
	probes      = 8  // questions for sizes in flight
	maxListings = 64 // resolved models whose URLs are remembered; forgetting one costs a resolve
)

// A web serves models from ordinary web servers: one file, or a urlList. Nobody there knows our
// token, so it is never sent, not even to the endpoint.
type web struct {
	wire   *wire
	places places
	// listed says where the files of a commit are. A manifest has no place for URLs, which may be
	// signed and must not be stored.
	listed *recent[revisionKey, map[string]urlFile]
	// turn is held while a forgotten listing is fetched again, so that it is fetched once.
	turn chan struct{}
}

func newWeb(w *wire) *web {
	return &web{
		wire: w, places: newPlaces(),
		listed: newRecent[revisionKey, map[string]urlFile](maxListings),
		turn:   make(chan struct{}, 1),
	}
}

// Resolve lists the files behind a URL. The commit is made from what is known of their content:
// sha256 where the list gives it, else ETag or date, else nothing but size and URL.
func (s *web) Resolve(ctx context.Context, id model.ID, rev string) (*model.Manifest, error) {
	list, err := s.list(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.probe(ctx, id, list.files); err != nil {
		return nil, err
	}
	all, byPath := newListing(), make(map[string]urlFile, len(list.files))
	for _, f := range list.files {
		if err := all.add(f.File); err != nil {
			return nil, untrue(err, id)
		}
		byPath[f.Path] = f
	}
	m := &model.Manifest{ID: id, Canonical: list.id, Resolved: time.Now()}
	if m.Files, err = all.sorted(); err != nil {
		return nil, untrue(err, id)
	}
	m.Commit = model.CommitOf(m.Files, func(f model.File) string { return byPath[f.Path].identity() })
	if m.Revision, err = soleRevision(id, rev, m.Commit); err != nil {
		return nil, err
	}
	s.listed.put(revisionKey{id, m.Commit}, byPath)
	return m, nil
}

// list reads the document that id names, or makes a list of its only file.
func (s *web) list(ctx context.Context, id model.ID) (*urlList, error) {
	u, err := url.Parse(id.Name)
	if err != nil {
		return nil, &model.Error{Op: "resolve", Class: model.Usage, Model: id, Err: errors.New("it is not a URL")}
	}
	if !isURLList(u) {
		return &urlList{files: []urlFile{{File: model.File{Path: path.Base(u.Path), Size: model.SizeUnknown}, url: u}}}, nil
	}
	var list *urlList
	d := document{
		wire: s.wire, id: id, url: u,
		refused: func(a *answer) error { return webRefusal(a, "resolve") },
		decode: func(dec *json.Decoder) (err error) {
			list, err = readURLList(dec, u)
			return err
		},
	}
	said, err := d.get(ctx)
	if errors.Is(err, model.ErrUnsafePath) {
		return nil, untrue(err, id)
	}
	if _, ok := errors.AsType[*model.Error](err); err != nil && !ok {
		return nil, &model.Error{
			Op: "resolve", Class: model.Other, Model: id, URL: said.at.String(), Err: fmt.Errorf("the list of files is wrong: %w", err),
			Hint: `it should read {"files": [{"path": "…", "url": "…"}]}`,
		}
	}
	return list, err
}

// probe asks for what the list leaves out: sizes, and where there is no sha256 also what the server
// names the content, to notice a change later.
func (s *web) probe(ctx context.Context, id model.ID, files []urlFile) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(probes)
	for i := range files {
		f := &files[i]
		if f.Size >= 0 && !f.Digest.IsZero() {
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return &model.Error{Op: "resolve", Class: model.Cancelled, Model: id, Err: err}
			}
			return about(s.ask(ctx, f), id, f.Path)
		})
	}
	return g.Wait()
}

// ask completes f by a HEAD, or where that does not tell (links signed for GET refuse it) by a GET
// of one byte.
func (s *web) ask(ctx context.Context, f *urlFile) error {
	header := http.Header{"Accept-Encoding": {"identity"}}
	q := request{op: "resolve", method: http.MethodHead, by: s.wire.meta, url: f.url, header: header}
	a, err := s.wire.do(ctx, q)
	if err != nil {
		return err
	}
	size := a.ContentLength
	a.drop()
	if a.StatusCode != http.StatusOK || size < 0 {
		q.method, q.header = http.MethodGet, header.Clone()
		q.header.Set("Range", model.Segment{End: 1}.Header())
		if a, err = s.wire.do(ctx, q); err != nil {
			return err
		}
		defer a.drop()
		if size, err = sizeOf(a); err != nil {
			return err
		}
	}
	if f.Size >= 0 && f.Size != size {
		return &model.Error{
			Op: "resolve", Class: model.Integrity, URL: f.url.String(),
			Err: fmt.Errorf("the server has %d bytes of it, the list says %d", size, f.Size), Hint: "correct the list or the file",
		}
	}
	f.Size, f.etag, f.modified = size, a.Header.Get("ETag"), a.Header.Get("Last-Modified")
	return nil
}

// sizeOf reads the size of a file from the answer to a GET of its first byte.
func sizeOf(a *answer) (int64, error) {
	switch a.StatusCode {
	case http.StatusPartialContent:
		if got, err := parseContentRange(a.Header.Get("Content-Range")); err == nil {
			return got.total, nil
		}
	case http.StatusOK:
		if a.ContentLength >= 0 {
			return a.ContentLength, nil
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if a.Header.Get("Content-Range") == "bytes */0" { // an empty file has no first byte
			return 0, nil
		}
	default:
		return 0, webRefusal(a, "resolve")
	}
	return 0, &model.Error{
		Op: "resolve", Class: model.Other, URL: a.Request.URL.String(), Err: errors.New("the server does not tell its size"),
		Hint: "name the size in a list of files (*.ema.json)",
	}
}

// identity is the best that is known of the content.
func (f urlFile) identity() string {
	switch {
	case !f.Digest.IsZero():
		return f.Digest.String()
	case f.etag != "":
		return "etag " + opaque(f.etag)
	case f.modified != "":
		return "modified " + f.modified
	}
	return "url " + model.Redact(f.url.String()) // without its query: signatures change
}

// Open goes to the URL of the file. After a restart the list is not known any more; it is fetched
// again then, and must still be the same commit.
func (s *web) Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*Body, error) {
	where, err := s.where(ctx, m)
	if err != nil {
		return nil, err
	}
	at, ok := where[f.Path]
	if !ok || at.Size != f.Size {
		return nil, &model.Error{Op: "fetch", Class: model.Usage, Model: m.ID, File: f.Path, Err: errors.New("the manifest is not the one that was resolved")}
	}
	if f.Size == 0 {
		return emptyBody(hostPort(at.url)), nil
	}
	o := opening{
		wire: s.wire, id: m.ID, file: f, seg: seg, start: at.url, etag: at.etag, modified: at.modified,
		refused: func(a *answer) error { return webRefusal(a, "fetch") },
	}
	return o.open(ctx, s.places.of(m, f))
}

func (s *web) where(ctx context.Context, m *model.Manifest) (map[string]urlFile, error) {
	key := revisionKey{m.ID, m.Commit}
	if known := s.listed.get(key); known != nil {
		return known, nil
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, &model.Error{Op: "fetch", Class: model.Cancelled, Model: m.ID, Err: ctx.Err()}
	}
	defer func() { <-s.turn }()
	if known := s.listed.get(key); known != nil {
		return known, nil
	}
	now, err := s.Resolve(ctx, m.ID, "")
	if err != nil {
		return nil, err
	}
	if now.Commit != m.Commit {
		return nil, &model.Error{
			Op: "fetch", Class: model.Integrity, Model: m.ID,
			Err: errors.New("its files have changed since it was resolved"), Hint: "pull it again to get the new ones",
		}
	}
	return s.listed.get(key), nil
}

// webRefusal explains a failure by its status alone: ordinary servers have no codes.
func webRefusal(a *answer, op string) error {
	e := &model.Error{
		Op: op, URL: a.Request.URL.String(), After: retryAfter(a.Header, time.Now()),
		Err: errors.New("the server answered " + a.Status),
	}
	switch s := a.StatusCode; {
	case s == http.StatusNotFound, s == http.StatusGone:
		e.Class, e.Err, e.Hint = model.NotFound, ErrEntryNotFound, "check the URL"
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		e.Class, e.Hint = model.Auth, "the server wants a permission that a plain URL does not carry; get a new link if it was a signed one"
	case s == http.StatusTooManyRequests:
		e.Class = model.RateLimited
	case s == http.StatusRequestedRangeNotSatisfiable:
		e.Class = model.RangeRefused
	case s == http.StatusRequestTimeout, s >= 500:
		e.Class = model.ServerError
	}
	return e
}

// soleRevision is the revision of a source that has but one: the default's name, or its commit.
func soleRevision(id model.ID, rev, commit string) (string, error) {
	switch rev {
	case "", defaultRevision:
		return defaultRevision, nil
	case commit:
		return rev, nil
	}
	e := &model.Error{
		Op: "resolve", Class: model.NotFound, Model: id, Err: fmt.Errorf("%w: %q", ErrRevisionNotFound, clip(rev)),
		Hint: "URLs and folders have no branches; leave the revision out",
	}
	if model.IsCommit(rev) {
		e.Hint = "its content has changed since then; it is now " + strings.ToLower(commit)
	}
	return "", e
}
