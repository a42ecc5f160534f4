package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"ema/internal/model"
)

// A urlList is a model that somebody put on an ordinary web server: a JSON document
//
//	{"id": "org/name", "files": [{"path": "…", "url": "…", "size": 72, "sha256": "…"}]}
//
// where id, size and sha256 may be left out, and url may be relative to the document.
type urlList struct {
	id    model.ID // zero when the document names none
	files []urlFile
}

// A urlFile is one file of a model and where it is.
type urlFile struct {
	model.File          // Size is model.SizeUnknown until the server was asked
	url        *url.URL // absolute
	// How the server named the content when it was asked; empty when it was not.
	etag, modified string
}

// isURLList reports whether a URL leads to a urlList instead of to a model's only file.
func isURLList(u *url.URL) bool {
	base := path.Base(u.Path)
	return strings.HasSuffix(base, "manifest.json") || strings.HasSuffix(base, ".ema.json")
}

// readURLList decodes a list strictly: people write these, and a misspelt "sha265" must not cost
// the check. Relative URLs are resolved against base. Errors name the field, as files[3].sha256.
func readURLList(dec *json.Decoder, base *url.URL) (*urlList, error) {
	var l urlList
	err := eachField(dec, func(field string) error {
		switch field {
		case "id":
			return at("id", l.readID(dec))
		case "files":
			return at("files", eachElement(dec, func(i int) error {
				f, err := readURLFile(dec, base)
				l.files = append(l.files, f)
				return at(fmt.Sprintf("[%d]", i), err)
			}))
		}
		return at(clip(field), errors.New("this field is unknown; known are id and files"))
	})
	if err == nil && len(l.files) == 0 {
		err = at("files", errors.New("it lists no file"))
	}
	return &l, err
}

func (l *urlList) readID(dec *json.Decoder) error {
	name, err := readText(dec)
	if err != nil {
		return err
	}
	if l.id, err = model.ParseID(name); err == nil && l.id.Scheme != model.Hub {
		return fmt.Errorf("%q is not of the form org/name", clip(name))
	}
	return err
}

func readURLFile(dec *json.Decoder, base *url.URL) (urlFile, error) {
	f := urlFile{File: model.File{Size: model.SizeUnknown}}
	err := eachField(dec, func(field string) error {
		var err error
		switch field {
		case "path":
			if f.Path, err = readText(dec); err == nil {
				err = model.CheckPath(f.Path)
			}
		case "url":
			f.url, err = readURL(dec, base)
		case "size":
			if err = dec.Decode(&f.Size); err != nil || f.Size < 0 {
				err = wrongType(err, "a number of bytes")
			}
		case "sha256":
			f.Digest, err = readSHA256(dec)
		default:
			err = errors.New("this field is unknown; known are path, url, size and sha256")
		}
		return at(clip(field), err)
	})
	switch {
	case err != nil:
	case f.Path == "":
		err = at("path", errors.New("it is missing"))
	case f.url == nil:
		err = at("url", errors.New("it is missing"))
	}
	return f, err
}

func readURL(dec *json.Decoder, base *url.URL) (*url.URL, error) {
	s, err := readText(dec)
	if err != nil {
		return nil, err
	}
	u, err := base.Parse(s)
	switch {
	case s == "" || err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return nil, errors.New("it is neither an http(s) URL nor relative to the list") // unquoted: it may be signed
	case u.User != nil:
		return nil, errors.New("a user and password in a URL end up in logs; remove them")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

func readSHA256(dec *json.Decoder) (model.Digest, error) {
	s, err := readText(dec)
	if err != nil {
		return model.Digest{}, err
	}
	d, err := model.ParseDigest(s)
	if err != nil || d.Algo() != model.SHA256 {
		return model.Digest{}, fmt.Errorf("%q is not 64 hexadecimal digits", clip(s))
	}
	return d, nil
}

func readText(dec *json.Decoder) (string, error) {
	t, err := dec.Token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", errors.New("want a text in quotes")
	}
	return s, nil
}

// wrongType replaces the JSON package's words about Go types; it keeps errors of reading.
func wrongType(err error, want string) error {
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok || err == nil {
		return errors.New("want " + want)
	}
	return err
}

// A fieldError says where in a document something is wrong.
type fieldError struct {
	field string
	err   error
}

func (e *fieldError) Error() string { return e.field + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

// at puts a field in front of what err says already.
func at(field string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*model.Error](err); ok {
		return err // the connection's fault
	}
	if inner, ok := err.(*fieldError); ok {
		sep := "."
		if strings.HasPrefix(inner.field, "[") {
			sep = ""
		}
		return &fieldError{field + sep + inner.field, inner.err}
	}
	return &fieldError{field, err}
}
