package config

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
)

// An Error is one mistake in the settings.
type Error struct {
	// Key is the full path as the user typed it; empty when a file can't be read at all.
	Key string `json:"key,omitempty"`
	// Value is what was given, shortened, without secrets; empty for sections.
	Value string `json:"value,omitempty"`
	// Problem says what is wrong with it.
	Problem string `json:"problem"`
	// Want says what is allowed.
	Want string `json:"want,omitempty"`
	// Nearest is the known key that is spelled most like Key, for unknown keys; empty when none is near.
	Nearest string `json:"nearest,omitempty"`
	// Where it was given: FILE:LINE, the name of a variable, or a flag.
	Where string `json:"where,omitempty"`
}

// Error prints "where: key = value: problem; want …; did you mean …?".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Where != "" {
		b.WriteString(e.Where + ": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key)
		if e.Value != "" {
			b.WriteString(" = " + e.Value)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Problem)
	if e.Want != "" {
		b.WriteString("; want " + e.Want)
	}
	if e.Nearest != "" {
		b.WriteString("; did you mean " + e.Nearest + "?")
	}
	return b.String()
}

// Errors are all mistakes of one configuration, in the order in which they were found.
type Errors []*Error

// Error prints the one mistake, or their number and each on a line of its own.
func (e Errors) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d mistakes", len(e))
	for _, one := range e {
		b.WriteString("\n  " + one.Error())
	}
	return b.String()
}

// Unwrap gives each mistake to errors.As.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, one := range e {
		all[i] = one
	}
	return all
}

// A Warning is a setting that is allowed and will disappoint.
type Warning struct {
	// Key is the setting's full path.
	Key string `json:"key"`
	// Text says what will happen, and what to set instead.
	Text string `json:"text"`
}

// String prints "key: text".
func (w Warning) String() string { return w.Key + ": " + w.Text }

// Nearest is the word that is spelled most like the given one, or "" when none is near. Of paths with dots also the
// last part alone may match, since it is the section that people leave out or mistake.
func Nearest(given string, words []string) string {
	const longest = 200 // no key is near half of it, and the distance costs the product of both lengths
	if len(given) > longest {
		return ""
	}
	given = strings.ToLower(given)
	best, nearest := max(2, len(given)/4)+1, ""
	for _, word := range words {
		distance := levenshtein.ComputeDistance(given, word)
		if strings.Contains(word, ".") {
			if d := levenshtein.ComputeDistance(last(given), last(word)); d <= len(last(given))/3 { // else any short word is near
				distance = min(distance, 1+d)
			}
		}
		if distance < best {
			best, nearest = distance, word
		}
	}
	return nearest
}

// last is the part of a path behind its last dot.
func last(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }
