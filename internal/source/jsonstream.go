package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxAnswer bounds one metadata answer in bytes; a listing of a million files fits.
const maxAnswer = 256 << 20

var errTooLarge = fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20)

// A capped reader fails, instead of ending, when there is more than left bytes: a listing that was
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
	dec := json.NewDecoder(&capped{r, maxAnswer})
	if err := decode(dec); err != nil {
		return err
	}
	switch t, err := dec.Token(); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%v follows the end of the document", t)
	}
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
			return fmt.Errorf("field %q is there twice", clip(field))
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
		return fmt.Errorf("found %v where an array was expected", t)
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
