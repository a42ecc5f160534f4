package verify

import (
	"errors"
	"fmt"
	"io"
)

// A Verdict is what a check of a file's structure came to. Verdicts are ordered from harmless to
// dangerous, so that the greater of two is the one to act upon.
type Verdict uint8

// The verdicts.
const (
	NotApplicable Verdict = iota // no format whose structure is checked here
	OK                           // checked, and nothing was found
	Unknown                      // the format is known but this file cannot be checked, which is not the same as clean
	Suspicious                   // nothing proven, but not what honest tools write, or an import nobody has vouched for
	Broken                       // loaders will refuse it or read nonsense
	Dangerous                    // loading it can run commands, load more code or touch files
)

var verdictNames = [...]string{"not_applicable", "ok", "unknown", "suspicious", "broken", "dangerous"}

// String is the name used in JSON and logs.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "unknown"
}

// A Finding is what Structure has to say about one file.
type Finding struct {
	// Format is "safetensors", "gguf", "pickle", "torch legacy", "torch zip", "npz", "zip", "npy",
	// "lfs pointer", the name of a compression, or empty where no format is known.
	Format string
	// Verdict is the worst of what was found.
	Verdict Verdict
	// Problems say what is wrong, where, and what it means, the worst first; at most 21 lines,
	// each at most a few hundred bytes. Foreign text in them is quoted and shortened.
	Problems []string
	// Elements and Bytes are those of the tensors that the header describes, as far as their types are known; 0 where it
	// describes none. Architecture is what a GGUF file says of itself; empty where it says nothing.
	Elements, Bytes uint64
	Architecture    string
}

// Bad reports whether there is something that people should know before they load the file, if only
// that nobody could check it.
func (f Finding) Bad() bool { return f.Verdict >= Unknown }

// maxSaid bounds the problems told per verdict: a broken file tends to be broken in the same way a
// thousand times.
const maxSaid = 20

// A report gathers problems while a file is being checked.
type report struct {
	format  string
	verdict Verdict
	said    [Dangerous + 1][]string
	unsaid  int

	elements, bytes uint64 // of tensors
	architecture    string
}

// weigh counts a tensor. What nobody could have counts for nothing.
func (r *report) weigh(elements, bytes uint64) {
	if r.elements+elements >= r.elements && r.bytes+bytes >= r.bytes {
		r.elements, r.bytes = r.elements+elements, r.bytes+bytes
	}
}

// add raises the verdict to at least v and says why.
func (r *report) add(v Verdict, format string, args ...any) {
	r.verdict = max(r.verdict, v)
	if len(r.said[v]) == maxSaid {
		r.unsaid++
		return
	}
	r.said[v] = append(r.said[v], fmt.Sprintf(format, args...))
}

// checked names the format, and the verdict is at least OK from now on.
func (r *report) checked(format string) {
	r.format = format
	r.verdict = max(r.verdict, OK)
}

// fail records why the check of what could not go on: a file that ended early is Broken, one that
// could not be read or is larger than the budget is Unknown, and anything else is a rule it broke.
func (r *report) fail(what string, err error) {
	_, unreadable := errors.AsType[*readError](err)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.add(Broken, "%s: the file ends in the middle of it; it is cut short", what)
	case unreadable:
		r.add(Unknown, "%s: cannot be read: %v", what, err)
	case errors.Is(err, errBudget):
		r.add(Unknown, "%s: larger than what is checked; the rest was not looked at", what)
	default:
		r.add(Broken, "%s: %v", what, err)
	}
}

// include takes over all that o says, about a part of the file.
func (r *report) include(part string, o *report) {
	for v, lines := range o.said {
		for _, line := range lines {
			r.add(Verdict(v), "%s: %s", part, line)
		}
	}
	r.unsaid += o.unsaid
	r.verdict = max(r.verdict, o.verdict)
}

func (r *report) finding() Finding {
	f := Finding{Format: r.format, Verdict: r.verdict, Elements: r.elements, Bytes: r.bytes, Architecture: r.architecture}
	unsaid := r.unsaid
	for v := Dangerous; v > NotApplicable; v-- {
		for _, line := range r.said[v] {
			if len(f.Problems) == maxSaid {
				unsaid++
				continue
			}
			f.Problems = append(f.Problems, line)
		}
	}
	if unsaid > 0 {
		f.Problems = append(f.Problems, fmt.Sprintf("and %d more problems like these", unsaid))
	}
	return f
}

// quote shows foreign text in a problem: quoted, so that it cannot pose as ours, and short.
func quote[T ~string | ~[]byte](s T) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q…", string(s[:most]))
	}
	return fmt.Sprintf("%q", string(s))
}
