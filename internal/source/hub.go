package source

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

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
	m, err := h.resolve(ctx, id, rev, false)
	if model.ClassOf(err) == model.Integrity {
		h.forget(ctx, &model.Manifest{ID: id, Revision: cmp.Or(rev, defaultRevision)})
	}
	return m, err
}

// resolve is Resolve; with recall, only what is kept of the hub's answers counts.
func (h *hub) resolve(ctx context.Context, id model.ID, rev string, recall bool) (*model.Manifest, error) {
	if rev == "" {
		rev = defaultRevision
	}
	if err := model.CheckRevision(rev); err != nil {
		return nil, &model.Error{Op: "resolve", Class: model.Usage, Model: id, Err: err}
	}
	info, err := h.info(ctx, id, rev, recall)
	if err != nil {
		return nil, err
	}
	m := &model.Manifest{ID: id, Revision: rev, Commit: info.commit, Resolved: info.said, Answer: info.took, Card: info.card}
	if info.id != "" && info.id != id.Name {
		if m.Canonical, err = model.ParseID(info.id); err != nil || m.Canonical.Scheme != model.Hub {
			return nil, untrue(fmt.Errorf("the hub answers for %q, which is no model", clip(info.id)), id)
		}
	}
	files := info.files
	if !info.complete || len(files.files) == 0 || len(files.files) >= maxSiblings {
		if files, err = h.tree(ctx, m, recall); err != nil {
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
	complete bool // every file came with a size and a hash or its place
	card     model.Card
	reply
}

// infoURL is where the hub tells about a revision.
func (h *hub) infoURL(id model.ID, rev string) (*url.URL, error) {
	return url.Parse(h.base + "/api/models/" + id.Name + "/revision/" + url.PathEscape(rev) + "?blobs=true")
}

func (h *hub) info(ctx context.Context, id model.ID, rev string, recall bool) (*information, error) {
	u, err := h.infoURL(id, rev)
	if err != nil {
		return nil, &model.Error{Op: "resolve", Class: model.Usage, Model: id, Err: errors.New("id and revision make no URL")}
	}
	var info information
	said, _, err := h.get(ctx, document{id: id, url: u, pinned: model.IsCommit(rev), recall: recall, decode: func(dec *json.Decoder) error {
		info = information{files: newListing()}
		if err := info.read(dec); err != nil {
			return err
		}
		return info.check(id, rev)
	}})
	if err != nil {
		return nil, err
	}
	info.reply = said
	return &info, nil
}

// check refuses information that cannot be about rev.
func (i *information) check(id model.ID, rev string) error {
	switch {
	case !model.IsCommit(i.commit):
		return untrue(fmt.Errorf("the hub answers with the commit %q, which is none", clip(i.commit)), id)
	case model.IsCommit(rev) && i.commit != rev:
		return untrue(fmt.Errorf("the hub answers with commit %s instead", i.commit), id)
	}
	return nil
}

// read decodes the information as it streams in; the siblings of a large model are many.
func (i *information) read(dec *json.Decoder) error {
	return eachField(dec, func(field string) error {
		switch field {
		case "id":
			return dec.Decode(&i.id)
		case "sha":
			return dec.Decode(&i.commit)
		case "pipeline_tag":
			return soft(dec, &i.card.Task)
		case "library_name":
			return soft(dec, &i.card.Library)
		case "tags":
			var tags []string
			err := soft(dec, &tags)
			i.label(tags)
			return err
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

// soft decodes a value that nothing depends on: one of another kind is left out.
func soft(dec *json.Decoder, into any) error {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	_ = json.Unmarshal(raw, into) //nolint:errcheck // that is what soft means
	return nil
}

// mostTags is how many tags are looked at.
const mostTags = 1000

// label takes from the hub's tags what they say of licence and descent: "license:mit", "base_model:org/name" and
// "base_model:quantized:org/name".
func (i *information) label(tags []string) {
	for _, tag := range tags[:min(len(tags), mostTags)] {
		if license, ok := strings.CutPrefix(tag, "license:"); ok && i.card.License == "" {
			i.card.License = license
		}
		if base, ok := strings.CutPrefix(tag, "base_model:"); ok {
			if _, name, related := strings.Cut(base, ":"); related {
				base = name
			}
			if id, err := model.ParseID(base); err == nil && id.Scheme == model.Hub && !slices.Contains(i.card.Bases, id) {
				i.card.Bases = append(i.card.Bases, id)
			}
		}
	}
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
func (h *hub) get(ctx context.Context, d document) (said reply, next *url.URL, err error) {
	d.wire, d.hub = h.wire, true
	d.refused = func(a *answer) error { return h.refusal(a, "resolve", d.id, wantRevision) }
	if said, err = d.get(ctx); err != nil {
		return said, nil, h.unacceptable(err, d.id, said.at)
	}
	if said.link == "" {
		return said, nil, nil
	}
	next, err = said.at.Parse(said.link)
	if err != nil || !sameOrigin(next, said.at) {
		return said, nil, untrue(errors.New("the listing goes on at another host"), d.id)
	}
	return said, next, nil
}

// unacceptable tells apart why an answer cannot be used: the connection broke, the model is gated,
// the hub claims what cannot be, or this is no hub.
func (h *hub) unacceptable(err error, id model.ID, at *url.URL) error {
	if _, ok := errors.AsType[*model.Error](err); ok || errors.Is(err, errNotKept) {
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
