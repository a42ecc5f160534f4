package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// parseJSON reads JSON token by token: encoding/json by itself keeps the last of repeated keys in silence, and knows no
// lines.
func parseJSON(name string, content []byte) (*node, Errors) {
	r := &jsonReader{name: name, content: content, dec: json.NewDecoder(bytes.NewReader(content))}
	r.dec.UseNumber()
	if len(bytes.TrimSpace(content)) == 0 {
		return &node{where: at(name, 1)}, nil
	}
	root, err := r.value(0)
	if err == nil {
		if _, trailing := r.dec.Token(); !errors.Is(trailing, io.EOF) {
			err = errors.New("something follows after the end of the document")
		}
	}
	if err != nil {
		return nil, Errors{{Where: at(name, r.line()), Problem: "not valid JSON: " + jsonProblem(err)}}
	}
	return root, nil
}

type jsonReader struct {
	name    string
	content []byte
	dec     *json.Decoder
}

// line counts up to what was read last.
func (r *jsonReader) line() int {
	return 1 + bytes.Count(r.content[:min(r.dec.InputOffset(), int64(len(r.content)))], []byte("\n"))
}

func (r *jsonReader) value(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxDepth)
	}
	token, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	n := &node{where: at(r.name, r.line())}
	switch t := token.(type) {
	case bool:
		n.shape, n.text = boolean, fmt.Sprint(t)
	case json.Number:
		n.shape, n.text = number, t.String()
	case string:
		n.shape, n.text = text, t
	case json.Delim:
		n.shape = list
		if t == '{' {
			n.shape = table
		}
		for r.dec.More() {
			if err := r.member(n, depth); err != nil {
				return nil, err
			}
		}
		if _, err := r.dec.Token(); err != nil { // the closing bracket
			return nil, err
		}
	}
	return n, nil
}

// member adds the next member to a table or list.
func (r *jsonReader) member(n *node, depth int) error {
	var name string
	line := 0
	if n.shape == table {
		token, err := r.dec.Token()
		if err != nil {
			return err
		}
		name, _ = token.(string) // inside an object the decoder gives only texts here
		line = r.line()
	}
	v, err := r.value(depth + 1)
	if err != nil {
		return err
	}
	if n.shape == list {
		n.items = append(n.items, v)
		return nil
	}
	v.name, v.where = name, at(r.name, line)
	n.fields = append(n.fields, v)
	return nil
}

func jsonProblem(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends too early"
	}
	return err.Error()
}
