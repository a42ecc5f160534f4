package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// parseYAML reads the plain part of YAML: sections, lists and scalars. Anchors, aliases, merges and tags are refused: one
// file of settings needs no program.
func parseYAML(name string, content []byte) (root *node, errs Errors) {
	if tooDeep(content) {
		return nil, Errors{{Where: name, Problem: fmt.Sprintf("not valid YAML: brackets nested more than %d deep", maxDepth)}}
	}
	defer func() {
		// The parser is large and not ours; a configuration that it stumbles over is a mistake, not the end of a daemon.
		if r := recover(); r != nil {
			root, errs = nil, Errors{{Where: name, Problem: "not valid YAML: it cannot be parsed"}}
		}
	}()
	file, err := parser.ParseBytes(content, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		where, problem := name, err.Error()
		if syntax, ok := errors.AsType[*yaml.SyntaxError](err); ok {
			problem = syntax.Message
			if syntax.Token != nil {
				where = at(name, syntax.Token.Position.Line)
			}
		}
		return nil, Errors{{Where: where, Problem: "not valid YAML: " + problem}}
	}
	r := &yamlReader{name: name}
	root = &node{where: at(name, 1)}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if root.shape != null {
			r.refuse(doc.Body, "a second document")
			continue
		}
		root = r.value(doc.Body, 0)
	}
	if len(r.errs) > 0 {
		return nil, r.errs
	}
	return root, nil
}

type yamlReader struct {
	name string
	errs Errors
}

func (r *yamlReader) where(n ast.Node) string {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return at(r.name, t.Position.Line)
	}
	return r.name
}

// refuse reports a part of YAML that has no meaning here; null stands in for it.
func (r *yamlReader) refuse(n ast.Node, what string) *node {
	r.errs = append(r.errs, &Error{Where: r.where(n), Problem: what + " has no meaning in a configuration", Want: "sections, lists and plain values"})
	return &node{where: r.where(n)}
}

func (r *yamlReader) value(n ast.Node, depth int) *node {
	if depth > maxDepth {
		return r.refuse(n, fmt.Sprintf("nesting more than %d deep", maxDepth))
	}
	v := &node{where: r.where(n)}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.BoolNode:
		v.shape, v.text = boolean, fmt.Sprint(n.Value)
	case *ast.IntegerNode:
		v.shape, v.text = number, fmt.Sprint(n.Value)
	case *ast.FloatNode:
		v.shape, v.text = number, formatNumber(n.Value)
	case *ast.InfinityNode, *ast.NanNode:
		v.shape, v.text = number, n.GetToken().Value
	case *ast.StringNode:
		v.shape, v.text = text, n.Value
	case *ast.LiteralNode:
		v.shape, v.text = text, n.Value.Value
	case *ast.SequenceNode:
		v.shape = list
		for _, item := range n.Values {
			v.items = append(v.items, r.value(item, depth+1))
		}
	case *ast.MappingNode:
		v.shape = table
		for _, member := range n.Values {
			r.member(v, member, depth)
		}
	case *ast.MappingValueNode:
		v.shape = table
		r.member(v, n, depth)
	default:
		return r.refuse(n, "a YAML "+strings.ToLower(n.Type().String()))
	}
	return v
}

// member adds one key of a section.
func (r *yamlReader) member(v *node, m *ast.MappingValueNode, depth int) {
	name, ok := m.Key.(*ast.StringNode)
	if !ok {
		r.refuse(m.Key, "a key that is no plain word")
		return
	}
	child := r.value(m.Value, depth+1)
	child.name, child.where = name.Value, r.where(m.Key)
	v.fields = append(v.fields, child)
}

// tooDeep finds nested brackets before the parser does: its time grows with the square of their depth.
func tooDeep(content []byte) bool {
	depth := 0
	for _, c := range content {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
		if depth > maxDepth {
			return true
		}
	}
	return false
}
