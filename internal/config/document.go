package config

import (
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of a configuration file. Both are far above any real one, and keep what reads it in bounds too.
const (
	maxFileBytes = 1 << 20
	maxDepth     = 32
)

// A shape is what a node looks like in the file.
type shape uint8

const (
	null shape = iota
	boolean
	number
	text
	list
	table
)

// String is how messages call it.
func (s shape) String() string {
	return [...]string{"nothing", "true or false", "a number", "a text", "a list", "a section"}[s]
}

// A node is one value of a file, a variable or a flag, with the place where it was written.
type node struct {
	shape  shape
	text   string // of a scalar
	items  []*node
	fields []*node // of a table, in the order of the file
	name   string  // in its table
	key    string  // the full path as typed
	where  string  // FILE:LINE, VARIABLE or --flag
}

// literal is n as a message shows it: short, texts in quotes, nothing for sections.
func (n *node) literal() string {
	const most = 60
	switch n.shape {
	case null:
		return "null"
	case boolean, number:
		return clip(n.text, most)
	case text:
		return strconv.Quote(clip(n.text, most))
	case list:
		parts := make([]string, len(n.items))
		for i, item := range n.items {
			parts[i] = item.literal()
		}
		return clip("["+strings.Join(parts, ", ")+"]", most)
	}
	return ""
}

// child is the field of that name, or nil.
func (n *node) child(name string) *node {
	for _, f := range n.fields {
		if f.name == name {
			return f
		}
	}
	return nil
}

// place names n and everything below it after their paths.
func (n *node) place(key string) {
	n.key = key
	for _, f := range n.fields {
		f.place(join(key, f.name))
	}
	for i, item := range n.items {
		item.place(key + "[" + strconv.Itoa(i) + "]")
	}
}

// nest puts n below tables so that it comes to stand at path; its own key stays as typed.
func nest(path string, n *node) *node {
	parent, name, below := path, "", n
	for parent != "" {
		dot := strings.LastIndexByte(parent, '.')
		name = parent[dot+1:]
		inner := *below
		inner.name = name
		parent = parent[:max(dot, 0)]
		below = &node{shape: table, key: parent, where: n.where, fields: []*node{&inner}}
	}
	return below
}

// parse reads a file by its ending. The second result is what is wrong with it as a whole: then nothing of it is used.
// Keys given twice are reported too, and their first value is kept.
func parse(name string, content []byte) (*node, Errors) {
	content = []byte(strings.TrimPrefix(string(content), "\ufeff"))
	switch {
	case len(content) > maxFileBytes:
		return nil, Errors{{Where: name, Problem: "larger than 1 MiB, which is no configuration"}}
	case !utf8.Valid(content):
		return nil, Errors{{Where: name, Problem: "not UTF-8; save it in this encoding"}}
	}
	var root *node
	var errs Errors
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json":
		root, errs = parseJSON(name, content)
	case ".yaml", ".yml":
		root, errs = parseYAML(name, content)
	default:
		return nil, Errors{{Where: name, Problem: "unknown kind of file", Want: "a name that ends in .json, .yaml or .yml"}}
	}
	if root == nil {
		return nil, errs
	}
	if root.shape == null {
		root.shape = table // an empty file sets nothing
	}
	if root.shape != table {
		return nil, append(errs, &Error{Where: root.where, Problem: root.shape.String() + " instead of sections", Want: "keys at the top, such as store:"})
	}
	root.place("")
	return root, append(errs, root.unrepeat()...)
}

// unrepeat reports keys given twice, and keeps the first of them.
func (n *node) unrepeat() Errors {
	var errs Errors
	var once []*node
	seen := make(map[string]*node, len(n.fields))
	for _, f := range n.fields {
		if first := seen[f.name]; first != nil {
			errs = append(errs, &Error{Key: f.key, Where: f.where, Problem: "given twice, first at " + first.where, Want: "one of them"})
			continue
		}
		seen[f.name] = f
		once = append(once, f)
		errs = append(errs, f.unrepeat()...)
	}
	n.fields = once
	for _, item := range n.items {
		errs = append(errs, item.unrepeat()...)
	}
	return errs
}

// clip shortens s to at most that many bytes, without cutting a character.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// at is a place in a file.
func at(name string, line int) string { return name + ":" + strconv.Itoa(line) }
