package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

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
	hub     bool                  // the question goes to the hub: the endpoint gets the token
	refused func(a *answer) error // explains any status but 200
	decode  func(*json.Decoder) error
}

// get decodes the document while it arrives. It returns the URL that answered in the end and its
// headers. An error of decode comes back as it is; all others are of type *model.Error.
func (d document) get(ctx context.Context) (*url.URL, http.Header, error) {
	a, err := d.wire.do(ctx, request{
		op: "resolve", method: http.MethodGet, by: d.wire.meta, url: d.url, hub: d.hub,
		header: http.Header{"Accept": {"application/json"}},
	})
	if err != nil {
		return nil, nil, about(err, d.id, "")
	}
	at := a.Request.URL
	if a.StatusCode != http.StatusOK {
		defer a.drop()
		return nil, nil, about(d.refused(a), d.id, "")
	}
	if isHTML(a.Header) {
		defer a.drop()
		return nil, nil, &model.Error{
			Op: "resolve", Class: model.Other, Model: d.id, URL: at.String(), Err: ErrCaptivePortal,
			Hint: "a login page of the network or a proxy is in the way: open a browser, or check HTTPS_PROXY and HF_ENDPOINT",
		}
	}
	body := a.stream(func(class model.Class, err error) error {
		return &model.Error{Op: "resolve", Class: class, Model: d.id, URL: at.String(), Err: err}
	})
	err = decodeWhole(body, d.decode)
	if closed := body.Close(); err == nil && closed != nil {
		err = &model.Error{Op: "resolve", Class: model.Reset, Model: d.id, URL: at.String(), Err: closed}
	}
	return at, a.Header, err
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
