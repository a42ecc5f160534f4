package verify

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The containers that parsePython returns, besides string, uint64, bool and pythonNone.
type (
	pythonTuple []any
	pythonList  []any
	pythonDict  map[string]any
	pythonNone  struct{}
)

// maxPythonDepth bounds the nesting of literals.
const maxPythonDepth = 16

// parsePython reads the Python literal that a numpy header is: strings without escapes, integers,
// True, False, None, tuples, lists, and dictionaries with strings as keys.
func parsePython(s string) (any, error) {
	p := pythonText{s: s}
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if p.peek() != 0 || p.at < len(p.s) {
		return nil, fmt.Errorf("text after the value, at %d", p.at)
	}
	return v, nil
}

type pythonText struct {
	s  string
	at int
}

// peek returns the first byte of the next token, 0 at the end.
func (p *pythonText) peek() byte {
	for p.at < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.at]) >= 0 {
		p.at++
	}
	if p.at == len(p.s) {
		return 0
	}
	return p.s[p.at]
}

func (p *pythonText) value(depth int) (any, error) {
	if depth > maxPythonDepth {
		return nil, errors.New("nested too deeply")
	}
	switch b := p.peek(); {
	case b == '\'' || b == '"':
		return p.text(b)
	case b >= '0' && b <= '9':
		return p.number()
	case b == '(':
		return p.tuple(depth)
	case b == '[':
		items, _, err := p.items(']', depth)
		return pythonList(items), err
	case b == '{':
		return p.dict(depth)
	}
	for word, v := range map[string]any{"True": true, "False": false, "None": pythonNone{}} {
		if strings.HasPrefix(p.s[p.at:], word) {
			p.at += len(word)
			return v, nil
		}
	}
	return nil, fmt.Errorf("no value at %d", p.at)
}

// text reads a string up to the quote that began it.
func (p *pythonText) text(quote byte) (any, error) {
	rest := p.s[p.at+1:]
	n := strings.IndexByte(rest, quote)
	if n < 0 || strings.IndexByte(rest[:n], '\\') >= 0 {
		return nil, fmt.Errorf("a string at %d that does not end or has escapes", p.at)
	}
	p.at += n + 2
	return rest[:n], nil
}

// number reads an integer; Python 2 wrote an L behind long ones.
func (p *pythonText) number() (any, error) {
	begin := p.at
	for p.at < len(p.s) && p.s[p.at] >= '0' && p.s[p.at] <= '9' {
		p.at++
	}
	n, err := strconv.ParseUint(p.s[begin:p.at], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("a number at %d that is too large", begin)
	}
	if p.at < len(p.s) && p.s[p.at] == 'L' {
		p.at++
	}
	return n, nil
}

// tuple reads a tuple, or the value that parentheses without a comma hold.
func (p *pythonText) tuple(depth int) (any, error) {
	items, comma, err := p.items(')', depth)
	if err == nil && len(items) == 1 && !comma {
		return items[0], nil
	}
	return pythonTuple(items), err
}

// items reads values up to the closing bracket, and reports whether there was a comma.
func (p *pythonText) items(closing byte, depth int) (items []any, comma bool, err error) {
	for p.at++; p.peek() != closing; {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, comma, err
		}
		items = append(items, v)
		if p.peek() != ',' {
			break
		}
		comma = true
		p.at++
	}
	if p.peek() != closing {
		return nil, comma, fmt.Errorf("a bracket that is not closed at %d", p.at)
	}
	p.at++
	return items, comma, nil
}

func (p *pythonText) dict(depth int) (any, error) {
	d := pythonDict{}
	for p.at++; p.peek() != '}'; {
		key, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if _, twice := d[name]; !ok || twice || p.peek() != ':' {
			return nil, fmt.Errorf("a key at %d that is no string or there twice", p.at)
		}
		p.at++
		if d[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
		if p.peek() != ',' {
			break
		}
		p.at++
	}
	if p.peek() != '}' {
		return nil, fmt.Errorf("a dictionary that is not closed at %d", p.at)
	}
	p.at++
	return d, nil
}
