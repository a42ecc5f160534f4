package verify

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A pickleMachine follows pickles as an unpickler would, but of all values it keeps only short
// strings; everything else is nil. It knows what STACK_GLOBAL imports without importing it.
type pickleMachine struct {
	c     *cursor
	stack []*string
	marks []int // lengths of the stack
	memo  map[uint64]*string

	// MEMOIZE numbers by counting. Picklers write either it or PUT; a pickle with both could make
	// us count differently from Python, so its memo is not believed.
	counted, put uint64

	// frame is where the current frame ends. Python's fast unpickler, reading from a file, drops the
	// rest of a frame when an opcode needs more than the rest; others go on reading, or refuse.
	// Picklers never let a frame end inside an opcode, so one that does is there to show a scanner
	// something else.
	frame    int64
	overlong bool // a frame claimed more than there is

	found func(imported)
}

// run follows the opcodes of one pickle up to STOP.
func (m *pickleMachine) run() error {
	m.stack, m.marks = m.stack[:0], m.marks[:0]
	m.counted, m.put, m.frame = 0, 0, 0
	if len(m.memo) > 0 {
		m.memo = map[uint64]*string{} // clearing a map that was large once takes as long as filling it did
	}
	for {
		at := m.c.at
		op, err := m.c.byte()
		if err != nil {
			return err
		}
		if op == '.' {
			if m.c.at < m.frame && !m.overlong { // where the next pickle begins, unpicklers differ too
				m.found(imported{hidden: "it ends before its last frame does", at: at})
			}
			if len(m.stack) == m.fence() {
				return errors.New("it stops without a value")
			}
			return nil
		}
		frame := m.frame
		if err := m.step(op, at); err != nil {
			return err
		}
		if at < frame && (m.c.at > frame || m.frame > frame) {
			m.found(imported{hidden: "a frame ends inside an opcode, from where on unpicklers read different things", at: at})
			return errors.New("a frame ends inside an opcode")
		}
		if len(m.stack) > maxPickleStack || len(m.marks) > maxPickleStack {
			return errPickleLimit
		}
	}
}

// fence is how far the stack may be popped: to the latest mark.
func (m *pickleMachine) fence() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

// step does what opcode op does to the stack and the memo.
func (m *pickleMachine) step(op byte, at int64) error {
	if width, ok := pickleSized(op); ok {
		return m.sized(op, width)
	}
	switch op {
	case '(':
		m.marks = append(m.marks, len(m.stack))
	case '0':
		return m.drop()
	case '1', 'e', 'u', 0x90: // POP_MARK APPENDS SETITEMS ADDITEMS
		return m.unmark(0)
	case 'd', 'l', 't', 0x91: // DICT LIST TUPLE FROZENSET
		return m.unmark(1)
	case 'o': // OBJ: the class is the first value above the mark
		return m.unmark(1)
	case '2': // DUP
		if len(m.stack) == m.fence() {
			return errUnderflow
		}
		m.push(m.stack[len(m.stack)-1])
	case 'N', 0x88, 0x89, ')', ']', '}', 0x8f, 0x97: // NONE NEWTRUE NEWFALSE EMPTY_… NEXT_BUFFER
		m.push(nil)
	case 'K': // BININT1
		m.push(nil)
		return m.c.skip(1)
	case 'M': // BININT2
		m.push(nil)
		return m.c.skip(2)
	case 'J': // BININT
		m.push(nil)
		return m.c.skip(4)
	case 'G': // BINFLOAT
		m.push(nil)
		return m.c.skip(8)
	case 'I', 'L', 'F', 'P', 'S', 'V':
		return m.textLine(op)
	case 'a', 'b': // APPEND BUILD
		return m.replace(2, 1)
	case 's': // SETITEM
		return m.replace(3, 1)
	case 'R', 0x81, 0x86: // REDUCE NEWOBJ TUPLE2
		return m.replace(2, 1)
	case 0x92, 0x87: // NEWOBJ_EX TUPLE3
		return m.replace(3, 1)
	case 'Q', 0x85: // BINPERSID TUPLE1
		return m.replace(1, 1)
	case 'p', 'q', 'r', 0x94:
		return m.memorise(op)
	case 'g', 'h', 'j':
		index, err := m.index(op)
		if err != nil {
			return err
		}
		m.push(m.recall(index))
	case 'c', 'i':
		return m.lineImport(op, at)
	case 0x93:
		return m.stackImport(at)
	case 0x82, 0x83, 0x84: // EXT1 EXT2 EXT4
		m.found(imported{extension: true, at: at})
		m.push(nil)
		return m.c.skip(1 << (op - 0x82))
	case 0x80:
		version, err := m.c.byte()
		if err == nil && version > 5 {
			err = fmt.Errorf("pickle protocol %d does not exist", version)
		}
		return err
	case 0x95: // FRAME: how much to read at once
		n, err := m.c.u64()
		if err != nil {
			return err
		}
		if left := uint64(m.c.left()); n > left { // some unpicklers refuse that, others go on
			n, m.overlong = left, true
		}
		m.frame = max(m.frame, m.c.at+int64(n))
	case 0x98: // READONLY_BUFFER changes what is on top
	default:
		return fmt.Errorf("opcode 0x%02x does not exist", op)
	}
	return nil
}

// errUnderflow is an unpickler's way of saying that a pickle is nonsense.
var errUnderflow = errors.New("it takes more values than it made")

func (m *pickleMachine) push(v *string) { m.stack = append(m.stack, v) }

// drop is POP, which also takes away a mark that is on top.
func (m *pickleMachine) drop() error {
	switch {
	case len(m.stack) > m.fence():
		m.stack = m.stack[:len(m.stack)-1]
	case len(m.marks) > 0:
		m.marks = m.marks[:len(m.marks)-1]
	default:
		return errUnderflow
	}
	return nil
}

// replace takes the topmost values and pushes others of which nothing is known.
func (m *pickleMachine) replace(taken, pushed int) error {
	if len(m.stack)-m.fence() < taken {
		return errUnderflow
	}
	m.stack = m.stack[:len(m.stack)-taken]
	for range pushed {
		m.push(nil)
	}
	return nil
}

// unmark takes everything above the latest mark, and the mark, and pushes values of which nothing
// is known.
func (m *pickleMachine) unmark(pushed int) error {
	if len(m.marks) == 0 {
		return errors.New("it looks for a mark that it did not make")
	}
	m.stack = m.stack[:m.fence()]
	m.marks = m.marks[:len(m.marks)-1]
	for range pushed {
		m.push(nil)
	}
	return nil
}

// pickleSized gives the width of the length that follows the opcodes with content of any size.
func pickleSized(op byte) (width int, ok bool) {
	switch op {
	case 'U', 0x8c, 'C', 0x8a: // SHORT_BINSTRING SHORT_BINUNICODE SHORT_BINBYTES LONG1
		return 1, true
	case 'T', 'X', 'B', 0x8b: // BINSTRING BINUNICODE BINBYTES LONG4
		return 4, true
	case 0x8d, 0x8e, 0x96: // BINUNICODE8 BINBYTES8 BYTEARRAY8
		return 8, true
	}
	return 0, false
}

// sized pushes a value whose length precedes it, and remembers it if it is a short string.
func (m *pickleMachine) sized(op byte, width int) error {
	p, err := m.c.take(width)
	if err != nil {
		return err
	}
	var n uint64
	for i, b := range p {
		n |= uint64(b) << (8 * i)
	}
	text := op == 'U' || op == 'T' || op == 'X' || op == 0x8c || op == 0x8d
	if !text || n > maxPickleText {
		m.push(nil)
		return m.c.skip(n)
	}
	if p, err = m.c.take(int(n)); err != nil {
		return err
	}
	s := string(p)
	m.push(&s)
	return nil
}

// textLine pushes a value that is written as a line of text.
func (m *pickleMachine) textLine(op byte) error {
	line, whole, err := m.c.line(maxPickleText)
	if err != nil {
		return err
	}
	if op == 'S' {
		if n := len(line); whole && (n < 2 || line[0] != line[n-1] || line[0] != '\'' && line[0] != '"') {
			return errors.New("a string without quotes")
		} else if whole {
			line = line[1 : n-1]
		}
	}
	// Escapes are legal in S and V, but not needed in any name: one that has them stays unknown.
	if op != 'S' && op != 'V' || !whole || bytes.IndexByte(line, '\\') >= 0 {
		m.push(nil)
		return nil
	}
	s := string(line)
	m.push(&s)
	return nil
}

// index reads the number that the opcodes of the memo carry.
func (m *pickleMachine) index(op byte) (uint64, error) {
	switch op {
	case 'q', 'h': // BINPUT BINGET
		b, err := m.c.byte()
		return uint64(b), err
	case 'r', 'j': // LONG_BINPUT LONG_BINGET
		n, err := m.c.u32()
		return uint64(n), err
	}
	line, whole, err := m.c.line(64)
	if err != nil {
		return 0, err
	}
	// Python reads this as int() does, which takes more than picklers write.
	digits := strings.ReplaceAll(strings.TrimPrefix(strings.TrimSpace(string(line)), "+"), "_", "")
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || !whole {
		return 0, fmt.Errorf("memo index %s is not a number", quote(line))
	}
	return n, nil
}

// memorise stores the topmost value.
func (m *pickleMachine) memorise(op byte) error {
	index := m.counted
	if op == 0x94 { // MEMOIZE
		m.counted++
	} else {
		var err error
		if index, err = m.index(op); err != nil {
			return err
		}
		m.put++
	}
	if len(m.stack) == m.fence() {
		return errUnderflow
	}
	v := m.stack[len(m.stack)-1]
	if v == nil || len(m.memo) >= maxPickleMemo {
		delete(m.memo, index)
		return nil
	}
	m.memo[index] = v
	return nil
}

// recall returns the string stored at index; nil if it is something else or cannot be told.
func (m *pickleMachine) recall(index uint64) *string {
	if m.counted > 0 && m.put > 0 {
		return nil
	}
	return m.memo[index]
}

// lineImport is GLOBAL and INST: module and name are two lines.
func (m *pickleMachine) lineImport(op byte, at int64) error {
	module, ok1, err := m.c.line(maxPickleText)
	if err != nil {
		return err
	}
	name, ok2, err := m.c.line(maxPickleText)
	if err != nil {
		return err
	}
	i := imported{module: string(module), name: string(name), at: at}
	if !ok1 || !ok2 {
		i = imported{hidden: "it is too long", at: at}
	}
	m.found(i)
	if op == 'i' {
		return m.unmark(1)
	}
	m.push(nil)
	return nil
}

// stackImport is STACK_GLOBAL: module and name are on the stack.
func (m *pickleMachine) stackImport(at int64) error {
	if len(m.stack)-m.fence() < 2 {
		return errUnderflow
	}
	module, name := m.stack[len(m.stack)-2], m.stack[len(m.stack)-1]
	i := imported{at: at, hidden: "it is not written as text right before"}
	if module != nil && name != nil {
		i = imported{module: *module, name: *name, at: at}
	}
	m.found(i)
	return m.replace(2, 1)
}
