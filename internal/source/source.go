// Package source resolves a model's revision into files with sizes and digests, and opens ranges
// of those files.
//
// Hubs differ and change; everybody else sees the interface Source. Nothing here retries, limits
// or stores: one call is one attempt, and a failure is a *model.Error whose Class says what may be
// done about it. But no request goes to a host that wants none, or that is known to be gone: it waits,
// with all others to that host (see Settings.Patience). Secrets (the token, signed links) stay in memory: no error and no file holds them.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"ema/internal/model"
)

// A Source resolves revisions and opens ranges. It is safe for concurrent use. It makes one attempt
// per call and classifies failures; retrying is the caller's.
type Source interface {
	// Resolve finds the commit that rev means now, and lists all files of that commit. An empty rev
	// is the source's default (main). The error names the file when one of them is unacceptable;
	// then nothing of the model can be used.
	Resolve(ctx context.Context, id model.ID, rev string) (*model.Manifest, error)
	// Open begins to read seg of f, a file of the resolved m. The context governs the whole body,
	// not only the opening; the caller closes the body.
	Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*Body, error)
}

// A Body delivers the bytes of one answer. Reading goes on the connection directly, without a copy
// in between, and delivers exactly Segment.Len() bytes: an earlier end is an error of class
// Truncated, a later one of class Integrity. Read to io.EOF, the connection serves the next
// request; closed before, it is dropped. One goroutine at a time may read.
type Body struct {
	io.ReadCloser
	// Segment is what the body really covers: the one asked for, or the whole file when the server
	// ignored the range.
	Segment model.Segment
	// Host is host:port of the final hop, since connection budgets are per host; empty for folders.
	Host string
	// FirstByte is the time from the last request to its response headers.
	FirstByte time.Duration
}

// Sentinels to branch on with errors.Is. They are wrapped in a *model.Error.
var (
	ErrNoToken          = errors.New("not found, or private")
	ErrBadToken         = errors.New("the hub does not accept the token")
	ErrGated            = errors.New("access is gated")
	ErrNotPermitted     = errors.New("the token lacks the permission")
	ErrDisabled         = errors.New("the hub has disabled this model")
	ErrRepoNotFound     = errors.New("no such model")
	ErrRevisionNotFound = errors.New("no such revision")
	ErrEntryNotFound    = errors.New("no such file in this revision")
	ErrCaptivePortal    = errors.New("got a web page instead of an answer")
)

// Sources routes each model to the source that its scheme names. It implements Source.
type Sources struct {
	byScheme map[model.Scheme]Source
	wire     *wire
}

// New makes sources from settings. It connects to nothing and starts nothing. Settings that cannot
// work (an endpoint that is no URL, a certificate file that is not there) are errors of class Usage.
func New(s Settings) (*Sources, error) {
	w, err := newWire(s)
	if err != nil {
		return nil, &model.Error{Op: "configure sources", Class: model.Usage, Err: err}
	}
	return &Sources{
		byScheme: map[model.Scheme]Source{
			model.Hub:    newHub(w),
			model.HTTPS:  newWeb(w),
			model.Folder: newFolder(),
		},
		wire: w,
	}, nil
}

// Resolve asks the source of id's scheme; see Source.
func (s *Sources) Resolve(ctx context.Context, id model.ID, rev string) (*model.Manifest, error) {
	src, err := s.route("resolve", id)
	if err != nil {
		return nil, err
	}
	return src.Resolve(ctx, id, rev)
}

// Open asks the source of m's scheme; see Source.
func (s *Sources) Open(ctx context.Context, m *model.Manifest, f model.File, seg model.Segment) (*Body, error) {
	src, err := s.route("fetch", m.ID)
	if err != nil {
		return nil, err
	}
	if seg.Start < 0 || seg.End < seg.Start || seg.End > f.Size || (seg.Len() == 0 && f.Size > 0) {
		return nil, &model.Error{
			Op: "fetch", Class: model.Usage, Model: m.ID, File: f.Path,
			Err: fmt.Errorf("segment %v lies outside the file of %d bytes", seg, f.Size),
		}
	}
	return src.Open(ctx, m, f, seg)
}

// Close closes idle connections and ends lookups of names. Bodies that are still open stay usable.
func (s *Sources) Close() error {
	s.wire.close()
	return nil
}

func (s *Sources) route(op string, id model.ID) (Source, error) {
	if src, ok := s.byScheme[id.Scheme]; ok && !id.IsZero() {
		return src, nil
	}
	return nil, &model.Error{Op: op, Class: model.Usage, Model: id, Err: errors.New("no source serves this kind of model")}
}

// about completes an error of the wire with what it was about.
func about(err error, id model.ID, file string) error {
	if e, ok := errors.AsType[*model.Error](err); ok {
		if e.Model.IsZero() {
			e.Model = id
		}
		if e.File == "" {
			e.File = file
		}
	}
	return err
}

// defaultRevision is what an empty revision means, for all kinds of sources.
const defaultRevision = "main"

// sameOrigin reports whether two URLs speak to the same server: scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a) == hostPort(b)
}
