// Package table has the figures that a benchmark prints, with their targets.
package table

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// A row is one figure, and what it is to be.
type row struct {
	what, figure, target string
	kept                 bool
}

// A Table is the figures of a part of a benchmark.
type Table struct{ rows []row }

// Note adds a figure without a target.
func (t *Table) Note(what, figure string) { t.rows = append(t.rows, row{what: what, figure: figure}) }

// AtLeast adds a figure with its target.
func (t *Table) AtLeast(what, format string, v, target float64) {
	t.rows = append(t.rows, row{what, fmt.Sprintf(format, v), "≥ " + fmt.Sprintf(format, target), v >= target})
}

// AtMost adds a figure with its target.
func (t *Table) AtMost(what, format string, v, target float64) {
	t.rows = append(t.rows, row{what, fmt.Sprintf(format, v), "≤ " + fmt.Sprintf(format, target), v <= target})
}

// Missed reports whether a target is missed.
func (t *Table) Missed() bool {
	return slices.ContainsFunc(t.rows, func(r row) bool { return r.target != "" && !r.kept })
}

// Print prints the table in Markdown.
func (t *Table) Print(w io.Writer, title string) error {
	out := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintf(out, "\n### %s\n\n", title)
	fmt.Fprint(out, "| what\t| measured\t| target\t| kept\t|\n|---\t|---\t|---\t|---\t|\n")
	for _, r := range t.rows {
		kept := ""
		if r.target != "" {
			kept = "yes"
			if !r.kept {
				kept = "**no**"
			}
		}
		fmt.Fprintf(out, "| %s\t| %s\t| %s\t| %s\t|\n", r.what, r.figure, r.target, kept)
	}
	return out.Flush()
}

// Middle is the median; the mean of the two in the middle when there is an even number. Without any it is 0.
func Middle(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}
