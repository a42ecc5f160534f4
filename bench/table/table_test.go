package table

import (
	"bytes"
	"strings"
	"testing"
)

func TestATableSaysWhatWasMissed(t *testing.T) {
	var kept Table
	kept.Note("noted", "1")
	kept.AtLeast("enough", "%.1f", 2, 2)
	kept.AtMost("not too much", "%.1f", 2, 2)
	if kept.Missed() {
		t.Error("what is kept counts as missed")
	}
	for _, add := range []func(*Table){
		func(m *Table) { m.AtLeast("too little", "%.0f", 1, 2) }, func(m *Table) { m.AtMost("too much", "%.0f", 3, 2) },
	} {
		missed, out := Table{}, &bytes.Buffer{}
		add(&missed)
		if err := missed.Print(out, "part"); err != nil || !missed.Missed() || !strings.Contains(out.String(), "| **no** |") {
			t.Errorf("%v: %s", err, out)
		}
	}
	if Middle(nil) != 0 || Middle([]float64{3, 1, 2}) != 2 || Middle([]float64{4, 1, 2, 3}) != 2.5 {
		t.Error("the median is not in the middle")
	}
}
