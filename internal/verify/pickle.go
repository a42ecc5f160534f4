package verify

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// What a scan keeps of a pickle is bounded by these, whatever the pickle does.
const (
	maxPickleStack   = 1 << 20 // values, and marks
	maxPickleMemo    = 1 << 20 // strings kept
	maxPickleText    = 512     // bytes of a string that may become a module's or a class's name
	maxPickleImports = 4096    // distinct ones
)

// errPickleLimit ends the scan of a pickle that is larger than any honest one.
var errPickleLimit = errors.New("too large a stack")

// legacyTorch is the first of the five pickles that torch wrote before it used zip archives.
const legacyTorch = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"

// An imported is something that a pickle asks Python to import, the first time it does.
type imported struct {
	module, name string
	hidden       string // why module and name are not known; empty when they are
	extension    bool   // by a number that copyreg knows; it has neither module nor name
	at           int64  // offset of the opcode
	run          int    // which pickle of the file, from 0
}

// judge says what the import means.
func (i imported) judge() Verdict {
	switch {
	case i.hidden != "":
		return Dangerous
	case i.extension:
		return Suspicious
	}
	return judgeImport(i.module, i.name)
}

// String says what is imported, and why that matters.
func (i imported) String() string {
	switch {
	case i.hidden != "":
		return "imports something whose name is hidden (" + i.hidden + "), as honest tools never do"
	case i.extension:
		return "imports by an extension code, whose meaning only the program that loads it knows"
	}
	what := fmt.Sprintf("imports %s %s", quote(i.module), quote(i.name))
	switch i.judge() {
	case Dangerous:
		return what + ", which can run commands, load more code or touch files when the file is loaded"
	case Suspicious:
		return what + ", which is not known to be harmless"
	}
	return what
}

// A pickleScan is what a walk through the pickles of a file came to.
type pickleScan struct {
	imports  []imported
	more     bool  // there were more imports than are kept
	proto    bool  // begins with the PROTO opcode
	legacy   bool  // begins like a legacy torch file
	overlong bool  // a frame claims more bytes than there are
	finished int   // pickles that reached their STOP
	from     int64 // where the pickle begins that did not
	err      error // why the walk ended before the end of the bytes
}

// scanPickles walks all pickles of c, which follow each other, without running anything. Of a legacy
// torch file it walks the five pickles and leaves the raw storages behind them alone.
func scanPickles(c *cursor) pickleScan {
	var s pickleScan
	head, _ := c.buf.Peek(int(min(int64(len(legacyTorch)), c.left())))
	s.proto = isPickleMagic(head)
	s.legacy = string(head) == legacyTorch
	known := map[[2]string]struct{}{}
	m := pickleMachine{c: c, memo: map[uint64]*string{}}
	m.found = func(i imported) {
		i.run = s.finished
		key := [2]string{i.module + i.hidden, i.name} // nothing of all in an extension: one stands for all
		if _, again := known[key]; again {
			return
		}
		// A danger is kept however many harmless names went before it to hide it.
		verdict := i.judge()
		if len(known) >= maxPickleImports && (verdict != Dangerous || len(s.imports) >= 2*maxPickleImports) {
			s.more = true
			return
		}
		known[key] = struct{}{}
		s.imports = append(s.imports, i)
	}
	for c.left() > 0 && (!s.legacy || s.finished < 5) {
		s.from = c.at
		s.err = m.run()
		s.overlong = m.overlong
		if s.err != nil {
			return s
		}
		s.finished++
	}
	return s
}

// checkPickle scans c and judges what it found. A hint of maybePickle lets data that is no pickle
// pass as NotApplicable.
func checkPickle(c *cursor, hint pickleHint, rep *report) {
	s := scanPickles(c)
	if hint != surelyPickle && !s.convincing() {
		return
	}
	rep.checked("pickle")
	if s.legacy {
		rep.format = "torch legacy"
	}
	rawArrays := false
	for _, i := range s.imports {
		rawArrays = rawArrays || i.name == "NumpyArrayWrapper" && strings.HasPrefix(i.module, "joblib.")
		verdict := i.judge()
		if verdict == Suspicious && s.err != nil && s.finished > 0 && i.run == s.finished {
			continue // read from bytes that turned out to be no pickle; dangers count even there
		}
		if verdict != OK {
			rep.add(verdict, "byte %d: %v", i.at, i)
		}
	}
	if s.more {
		rep.add(Suspicious, "more than %d different imports; the rest was not judged", maxPickleImports)
	}
	_, unreadable := errors.AsType[*readError](s.err)
	switch {
	case s.err == nil && s.legacy && s.finished < 5:
		rep.add(Broken, "the file ends after %d of the 5 pickles of a torch file; it is cut short", s.finished)
	case s.err == nil && s.overlong:
		rep.add(Broken, "a frame of the pickle claims more bytes than there are; the file is cut short")
	case s.err == nil:
	case unreadable:
		rep.fail("the pickle", s.err)
	case errors.Is(s.err, errBudget), errors.Is(s.err, errPickleLimit):
		rep.add(Suspicious, "byte %d: the pickle is larger than what is checked; the rest was not looked at", c.at)
	case rawArrays:
		rep.add(Suspicious, "byte %d: arrays lie between the pickle's own bytes, as joblib writes them; the rest cannot be checked", c.at)
	case s.finished > 0 && !s.legacy:
		rep.add(Suspicious, "byte %d: the bytes after %d pickles are no pickle: %v", s.from, s.finished, said(s.err))
	default:
		rep.add(Broken, "byte %d: %v; the pickle is damaged, and loaders run it up to there", c.at, said(s.err))
	}
}

// convincing reports whether the bytes were a pickle after all, rather than data that looks like one
// for a while.
func (s *pickleScan) convincing() bool {
	unchecked := errors.Is(s.err, errBudget) || errors.Is(s.err, errPickleLimit)
	if s.legacy || s.proto && unchecked || s.finished > 0 && (s.proto || len(s.imports) > 0) {
		return true
	}
	for _, i := range s.imports {
		if s.proto || i.hidden == "" && i.judge() == Dangerous {
			return true
		}
	}
	return false
}

// said puts the end of the bytes into words.
func said(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the bytes end in the middle of a pickle")
	}
	return err
}
