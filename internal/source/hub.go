package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"ema/internal/model"
)

// A hub speaks the protocol of the Hugging Face hub, as it and its mirrors answer it.
type hub struct {
	wire   *wire
	base   string // the endpoint without a trailing slash
	places places
}

func newHub(w *wire) *hub {
	return &hub{wire: w, base: w.home.String(), places: newPlaces()}
}

// maxSiblings is where the file list in a model's information stops being reliable; from there on,
// the tree is listed page by page.
const maxSiblings = 1000

// Resolve takes one call when the information about the revision lists all files with sizes and
// hashes, and one more per thousand files otherwise. The listing is always that of the commit.
func (h *hub) Resolve(ctx context.Context, id model.ID, rev string) (*model.Manifest, error) {
	if rev == "" {
		rev = defaultRevision
	}
	if err := model.CheckRevision(rev); err != nil {
		return nil, &model.Error{Op: "resolve", Class: model.Usage, Model: id, Err: err}
	}
	info, err := h.info(ctx, id, rev)
	if err != nil {
		return nil, err
	}
	m := &model.Manifest{ID: id, Revision: rev, Commit: info.commit, Resolved: time.Now(), Answer: info.took}
	if info.id != "" && info.id != id.Name {
		if m.Canonical, err = model.ParseID(info.id); err != nil || m.Canonical.Scheme != model.Hub {
			return nil, untrue(fmt.Errorf("the hub answers for %q, which is no model", clip(info.id)), id)
		}
	}
	files := info.files
	if !info.complete || len(files.files) == 0 || len(files.files) >= maxSiblings {
		if files, err = h.tree(ctx, m); err != nil {
			return nil, err
		}
	}
	if m.Files, err = files.sorted(); err != nil {
		return nil, untrue(err, id)
	}
	return m, nil
}

// name is the id to ask the hub by: the canonical one saves a redirect per request.
func name(m *model.Manifest) string {
	if !m.Canonical.IsZero() {
		return m.Canonical.Name
	}
	return m.ID.Name
}

// An information is what the hub says about a revision.
type information struct {
	id       string
	commit   string
	files    *listing
	complete bool          // every file came with a size and a hash or its place
	took     time.Duration // until the answer began, connecting included
}

func (h *hub) info(ctx context.Context, id model.ID, rev string) (*information, error) {
	u, err := url.Parse(h.base + "/api/models/" + id.Name + "/revision/" + url.PathEscape(rev) + "?blobs=true")
	if err != nil {
		return nil, &model.Error{Op: "resolve", Class: model.Usage, Model: id, Err: errors.New("id and revision make no URL")}
	}
	info := &information{files: newListing()}
	begin := time.Now()
	_, err = h.get(ctx, id, u, func(dec *json.Decoder) error {
		info.took = time.Since(begin)
		return info.read(dec)
	})
	if err != nil {
		return nil, err
	}
	switch {
	case !model.IsCommit(info.commit):
		err = fmt.Errorf("the hub answers with the commit %q, which is none", clip(info.commit))
	case model.IsCommit(rev) && info.commit != rev:
		err = fmt.Errorf("the hub answers with commit %s instead", info.commit)
	}
	if err != nil {
		return nil, untrue(err, id)
	}
	return info, nil
}

// read decodes the information as it streams in; the siblings of a large model are many.
func (i *information) read(dec *json.Decoder) error {
	return eachField(dec, func(field string) error {
		switch field {
		case "id":
			return dec.Decode(&i.id)
		case "sha":
			return dec.Decode(&i.commit)
		case "siblings":
			i.complete = true
			return eachElement(dec, func(int) error {
				var s sibling
				if err := dec.Decode(&s); err != nil {
					return err
				}
				return i.take(s)
			})
		}
		return skip(dec)
	})
}

func (i *information) take(s sibling) error {
	if !i.complete || len(i.files.files) >= maxSiblings { // the tree will tell
		return nil
	}
	e := entry{Type: "file", Path: s.Name, OID: s.BlobID, Size: s.Size}
	if s.LFS != nil {
		e.LFS = &lfs{OID: s.LFS.SHA256, Size: s.LFS.Size}
	}
	if s.Size == nil || (s.BlobID == "" && s.LFS == nil) {
		i.complete = false
		return nil
	}
	f, err := e.file()
	if err != nil {
		return err
	}
	return i.files.add(f)
}

// get gets a document of the hub. It returns the page that follows it, nil when there is none; a
// page on another host is an error.
func (h *hub) get(ctx context.Context, id model.ID, u *url.URL, decode func(*json.Decoder) error) (*url.URL, error) {
	at, header, err := document{
		wire: h.wire, id: id, url: u, hub: true, decode: decode,
		refused: func(a *answer) error { return h.refusal(a, "resolve", id, wantRevision) },
	}.get(ctx)
	if err != nil {
		return nil, h.unacceptable(err, id, at)
	}
	link := nextLink(header.Values("Link"))
	if link == "" {
		return nil, nil
	}
	next, err := at.Parse(link)
	if err != nil || !sameOrigin(next, at) {
		return nil, untrue(errors.New("the listing goes on at another host"), id)
	}
	return next, nil
}

// unacceptable tells apart why an answer cannot be used: the connection broke, the model is gated,
// the hub claims what cannot be, or this is no hub.
func (h *hub) unacceptable(err error, id model.ID, at *url.URL) error {
	if _, ok := errors.AsType[*model.Error](err); ok {
		return err
	}
	file := ""
	if f, ok := errors.AsType[*fileError](err); ok {
		file = f.path
	}
	switch {
	case errors.Is(err, ErrGated):
		return &model.Error{
			Op: "resolve", Class: model.Auth, Model: id, File: file, Err: err,
			Hint: "accept the licence at " + h.base + "/" + id.Name + " and use the token of the account that did",
		}
	case file != "", errors.Is(err, model.ErrUnsafePath), errors.Is(err, errTooMany), errors.Is(err, errTooLarge):
		return untrue(err, id)
	}
	return &model.Error{
		Op: "resolve", Class: model.ServerError, Model: id, URL: at.String(),
		Err: fmt.Errorf("the answer is not the JSON of a hub: %w", err), Hint: "check HF_ENDPOINT",
	}
}

// escapePath escapes each segment of a path for a URL.
func escapePath(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return strings.Join(parts, "/")
}
