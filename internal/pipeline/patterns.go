package pipeline

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"ema/internal/model"
)

// A Selection says which files of a model are wanted. Patterns are those of the hub's own client
// (Python's fnmatch on the whole path, reference/hub-protocol section 18): * and ? also match slashes,
// matching is case-sensitive, and a pattern that ends in a slash means everything below. Exclude wins.
type Selection struct {
	Include []string `json:"include,omitempty"` // nil means everything
	Exclude []string `json:"exclude,omitempty"`
}

// some reports whether s selects by any pattern.
func (s Selection) some() bool { return len(s.Include)+len(s.Exclude) > 0 }

func (s Selection) equal(t Selection) bool {
	return slices.Equal(s.Include, t.Include) && slices.Equal(s.Exclude, t.Exclude)
}

// Of returns the files that s selects, in their order.
func (s Selection) Of(files []model.File) ([]model.File, error) {
	include, err := compile(s.Include)
	if err != nil {
		return nil, err
	}
	exclude, err := compile(s.Exclude)
	if err != nil {
		return nil, err
	}
	var chosen []model.File
	for _, f := range files {
		if (len(include) == 0 || matches(include, f.Path)) && !matches(exclude, f.Path) {
			chosen = append(chosen, f)
		}
	}
	return chosen, nil
}

func matches(patterns []*regexp.Regexp, path string) bool {
	for _, p := range patterns {
		if p.MatchString(path) {
			return true
		}
	}
	return false
}

func compile(patterns []string) ([]*regexp.Regexp, error) {
	var all []*regexp.Regexp
	for _, p := range patterns {
		re, err := regexp.Compile(translate(p))
		if err != nil {
			return nil, &model.Error{Op: "select", Class: model.Usage, Err: fmt.Errorf("pattern %q is not a glob", p)}
		}
		all = append(all, re)
	}
	return all, nil
}

// translate turns an fnmatch pattern into a regular expression for the whole path.
func translate(pattern string) string {
	pattern = strings.ReplaceAll(pattern, `\`, "/")
	if strings.HasSuffix(pattern, "/") {
		pattern += "*"
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	rs := []rune(pattern)
	for i := 0; i < len(rs); i++ {
		switch rs[i] {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		case '[':
			class, next := class(rs, i)
			b.WriteString(class)
			i = next
		default:
			b.WriteString(regexp.QuoteMeta(string(rs[i])))
		}
	}
	b.WriteString(`\z`)
	return b.String()
}

// class translates the class that begins at rs[i] and returns the index of its last rune. A bracket
// that nothing closes stands for itself.
func class(rs []rune, i int) (string, int) {
	end := i + 1
	if end < len(rs) && rs[end] == '!' {
		end++
	}
	if end < len(rs) && rs[end] == ']' {
		end++
	}
	for end < len(rs) && rs[end] != ']' {
		end++
	}
	if end >= len(rs) {
		return `\[`, i
	}
	inside := rs[i+1 : end]
	var b strings.Builder
	b.WriteByte('[')
	if inside[0] == '!' {
		b.WriteByte('^')
		inside = inside[1:]
	}
	for j := 0; j < len(inside); j++ {
		if j+2 < len(inside) && inside[j+1] == '-' {
			if inside[j] <= inside[j+2] { // an empty range matches nothing, as in Python
				b.WriteString(quoteInClass(inside[j]) + "-" + quoteInClass(inside[j+2]))
			}
			j += 2
			continue
		}
		b.WriteString(quoteInClass(inside[j]))
	}
	b.WriteByte(']')
	if s := b.String(); s != "[]" && s != "[^]" {
		return s, end
	} else if s == "[]" {
		return `[^\x{0}-\x{10FFFF}]`, end // nothing
	}
	return ".", end
}

func quoteInClass(r rune) string {
	if strings.ContainsRune(`\]^-[`, r) {
		return `\` + string(r)
	}
	return string(r)
}
