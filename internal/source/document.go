package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"ema/internal/model"
)

// maxDocument bounds one metadata answer in bytes; a listing of a million files fits.
const maxDocument = int64(256 * model.MiB)

var errTooLarge = fmt.Errorf("the answer is larger than %v", model.Bytes(maxDocument))

// A document is a JSON answer to a question about a model.
type document struct {
	wire    *wire
	id      model.ID
	url     *url.URL
	hub     bool                      // the question goes to the hub: the endpoint gets the token, and its answer is kept
	pinned  bool                      // it is about a commit: what was answered once is so for ever
	recall  bool                      // only what is kept is looked at
	refused func(a *answer) error     // explains any status but 200
	decode  func(*json.Decoder) error // may be called again, and begins anew then
}

// A reply is what came of a document besides its content.
type reply struct {
	at   *url.URL // that answered in the end
	link string   // to the page that follows; empty = none
	said time.Time
	took time.Duration // until the answer began, connecting included; 0 = nobody was asked
}

var errNotKept = errors.New("no answer to it is kept")

// get decodes the document: what is kept of it, if that will do, else what comes while it arrives. An
// error of decode comes back as it is, with the URL that answered; all others are of type *model.Error.
func (d document) get(ctx context.Context) (reply, error) {
	all := d.wire.answers
	if !d.hub || all == nil {
		_, said, err := d.ask(ctx, nil)
		return said, err
	}
	q := newInquiry(d.url, d.wire.token)
	if d.pinned || d.recall {
		if k := all.find(q, d.url); k != nil {
			if said, err := d.read(k); err == nil {
				return said, nil
			}
			all.forget(q) // an older version of us was content with it
		}
	}
	if d.recall {
		return reply{at: d.url}, errNotKept
	}
	for {
		f, mine := all.join(q)
		if mine {
			k, said, err := d.askAnew(ctx, q)
			all.land(q, f, k, err)
			return said, err
		}
		switch k, again, err := f.wait(ctx); {
		case again:
		case err != nil:
			return reply{at: d.url}, about(err, d.id, "")
		case k == nil:
			_, said, err := d.ask(ctx, nil)
			return said, err
		default:
			return d.read(k)
		}
	}
}

// askAnew asks whether what is kept for q still holds, and keeps what does.
func (d document) askAnew(ctx context.Context, q inquiry) (*kept, reply, error) {
	all := d.wire.answers
	before := all.find(q, d.url)
	k, said, err := d.ask(ctx, before)
	switch {
	case err == nil && k != nil && k == before:
		k = all.renew(q, k)
	case err == nil && k != nil:
		all.keep(q, k)
	case denied(err):
		all.forget(q) // it must not come back once the hub is silent
	}
	return k, said, err
}

// denied reports whether the hub has said that there is nothing, or not for us.
func denied(err error) bool {
	class := model.ClassOf(err)
	return class == model.NotFound || class == model.Auth
}

// read decodes what is kept.
func (d document) read(k *kept) (reply, error) {
	at, err := url.Parse(k.at)
	if err != nil {
		return reply{at: d.url}, err
	}
	return reply{at: at, link: k.link, said: k.said}, decodeWhole(bytes.NewReader(k.body), d.decode)
}

// ask asks for the document, or whether before still holds: then it is what it returns. Else it
// returns what may be kept, nil for nothing.
func (d document) ask(ctx context.Context, before *kept) (*kept, reply, error) {
	header := http.Header{"Accept": {"application/json"}}
	if before != nil && before.etag != "" {
		header.Set("If-None-Match", before.etag)
	}
	begin := time.Now()
	a, err := d.wire.do(ctx, request{op: "resolve", method: http.MethodGet, by: d.wire.meta, url: d.url, hub: d.hub, header: header})
	if err != nil {
		return nil, reply{at: d.url}, about(err, d.id, "")
	}
	said := reply{at: a.Request.URL, link: nextLink(a.Header.Values("Link")), said: begin, took: time.Since(begin)}
	if a.StatusCode == http.StatusNotModified && header.Get("If-None-Match") != "" {
		a.drop()
		if a.home { // others say nothing about the hub's answers
			if held, err := d.read(before); err == nil {
				held.said, held.took = said.said, said.took
				return before, held, nil
			}
		}
		return d.ask(ctx, nil)
	}
	if a.StatusCode != http.StatusOK {
		defer a.drop()
		return nil, said, about(d.refused(a), d.id, "")
	}
	if isHTML(a.Header) {
		defer a.drop()
		return nil, said, &model.Error{
			Op: "resolve", Class: model.Other, Model: d.id, URL: said.at.String(), Err: ErrCaptivePortal,
			Hint: "a login page of the network or a proxy is in the way: open a browser, or check HTTPS_PROXY and HF_ENDPOINT",
		}
	}
	body := a.stream(func(class model.Class, err error) error {
		return &model.Error{Op: "resolve", Class: class, Model: d.id, URL: said.at.String(), Err: err}
	})
	whole := &copied{r: body, most: d.mayKeep(a, said)}
	err = decodeWhole(whole, d.decode)
	if closed := body.Close(); err == nil && closed != nil {
		err = &model.Error{Op: "resolve", Class: model.Reset, Model: d.id, URL: said.at.String(), Err: closed}
	}
	if err != nil || whole.bytes == nil {
		return nil, said, err
	}
	return &kept{asked: d.url.String(), at: said.at.String(), etag: a.Header.Get("ETag"), link: said.link, body: whole.bytes, said: begin}, said, nil
}

// mayKeep is how long an answer may be to be kept; 0 = this one may not.
func (d document) mayKeep(a *answer, said reply) int {
	if !d.hub || d.wire.answers == nil || !a.home {
		return 0
	}
	next, err := said.at.Parse(said.link)
	if err != nil || !plainQuery(said.at) || !plainQuery(next) {
		return 0
	}
	return int(largestKept)
}

// A copied reader keeps a copy of what is read, unless that is more than most bytes.
type copied struct {
	r     io.Reader
	most  int
	bytes []byte // nil when it was more, or nothing
}

func (c *copied) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if len(c.bytes)+n > c.most {
		c.most, c.bytes = 0, nil
		return n, err
	}
	c.bytes = append(c.bytes, p[:n]...)
	return n, err
}

// A capped reader fails, instead of ending, when there are more than left bytes: a listing that was
// cut must not look like a shorter one.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	return n, err
}

// decodeWhole decodes one document as it arrives. What follows it must be blank, and is read too,
// so that the connection can serve the next request.
func decodeWhole(r io.Reader, decode func(*json.Decoder) error) error {
	dec := json.NewDecoder(&capped{r, maxDocument})
	err := decode(dec)
	if err == nil {
		var more json.Token
		if more, err = dec.Token(); err == io.EOF {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%v follows its end", more)
		}
	}
	if _, ok := errors.AsType[*model.Error](err); !ok && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) {
		return errors.New("it ends too early") // never a bare EOF
	}
	return err
}

// eachField walks the object that comes next in dec. visit must consume the value of its field. The
// same field twice is an error: two readers of such a document may see two different ones.
func eachField(dec *json.Decoder, visit func(field string) error) error {
	if err := expect(dec, '{'); err != nil {
		return err
	}
	seen := make(map[string]struct{})
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		field, ok := t.(string)
		if !ok {
			return errors.New("an object's key is not a string")
		}
		if _, twice := seen[field]; twice {
			return fmt.Errorf("the field %q is there twice", clip(field))
		}
		seen[field] = struct{}{}
		if err := visit(field); err != nil {
			return err
		}
	}
	return expect(dec, '}')
}

// eachElement walks the array that comes next in dec; null is an empty one. visit must consume one
// element.
func eachElement(dec *json.Decoder, visit func(i int) error) error {
	switch t, err := dec.Token(); {
	case err != nil:
		return err
	case t == nil:
		return nil
	case t != json.Delim('['):
		return fmt.Errorf("found %v where a list was expected", t)
	}
	for i := 0; dec.More(); i++ {
		if err := visit(i); err != nil {
			return err
		}
	}
	return expect(dec, ']')
}

func expect(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("found %v where %v was expected", t, want)
	}
	return nil
}

// skip consumes a value that nobody needs.
func skip(dec *json.Decoder) error {
	var ignored json.RawMessage
	return dec.Decode(&ignored)
}
