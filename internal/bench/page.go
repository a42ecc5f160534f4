package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

//go:embed page.html
var pageText string

// A pageSuite is one suite on the page.
type pageSuite struct {
	Name    string
	Metrics []pageMetric
	Missing map[string]string // what of it was not measured, and why
}

// A pageMetric is a row of the page.
type pageMetric struct {
	Name, Median, Unit, Sure string
	Repeats                  int
	Better                   Better
	Noisy                    string
	Worse                    string // by how much, where it has regressed
	Plot                     template.HTML
}

// WritePage writes the assessment as one page that needs nothing else: no script, no style and no picture from anywhere.
func WritePage(w io.Writer, a Assessment) error {
	page, err := template.New("page").Parse(pageText)
	if err != nil {
		return err
	}
	worse := map[string]string{}
	if a.Comparison != nil {
		for _, r := range a.Comparison.Regressions {
			worse[r.Metric] = fmt.Sprintf("%.0f %% worse: was %.4g", 100*r.Worse, r.Baseline)
		}
	}
	var suites []pageSuite
	for _, name := range Suites() {
		s := pageSuite{Name: name, Missing: map[string]string{}}
		for _, metric := range slices.Sorted(maps.Keys(a.Metrics)) {
			short, of := strings.CutPrefix(metric, name+".")
			if !of {
				continue
			}
			m := a.Metrics[metric]
			row := pageMetric{
				Name: short, Median: fmt.Sprintf("%.4g", m.Median), Unit: unitWords(m.Unit), Sure: "not known", Repeats: m.Repeats, Better: m.Better, Noisy: a.Noisy[metric], Worse: worse[metric],
			}
			if spread := m.Spread(); !math.IsInf(spread, 1) {
				row.Sure = fmt.Sprintf("± %.1f %%", 100*spread)
			}
			if row.Plot, err = box(m); err != nil {
				return err
			}
			s.Metrics = append(s.Metrics, row)
		}
		for what, why := range a.Unknown {
			if short, of := strings.CutPrefix(what, name+"."); of || what == name {
				s.Missing[short] = why
			}
		}
		suites = append(suites, s)
	}
	at := time.UnixMicro(int64(a.Timestamp * 1e6)).UTC()
	return page.Execute(w, map[string]any{
		"A": a, "At": at.Format("2006-01-02 15:04:05 UTC"), "Took": time.Duration(a.Seconds * float64(time.Second)).Round(time.Second).String(), "Suites": suites,
		"Memory": a.Machine.Memory.String(), "Size": a.Size.String(),
	})
}

func unitWords(unit string) string { return strings.ReplaceAll(unit, "per_second", "per second") }

// box is the box plot of a metric's repeats, with each of them as a point, as SVG. It takes the colour of the text around it.
func box(m Metric) (template.HTML, error) {
	if len(m.Samples) == 0 {
		return "", nil
	}
	p := plot.New()
	p.HideY()
	p.BackgroundColor = color.Transparent
	b, err := plotter.NewBoxPlot(vg.Points(12), 0, plotter.Values(m.Samples))
	if err != nil {
		return "", err
	}
	b.Horizontal = true
	points := make(plotter.XYs, len(m.Samples))
	for i, v := range m.Samples {
		points[i] = plotter.XY{X: v, Y: -0.8}
	}
	each, err := plotter.NewScatter(points)
	if err != nil {
		return "", err
	}
	each.GlyphStyle = draw.GlyphStyle{Color: color.Black, Radius: vg.Points(1.5), Shape: draw.CircleGlyph{}}
	p.Add(b, each)
	p.Y.Min, p.Y.Max = -1.2, 1
	if p.X.Min == p.X.Max { // all repeats are equal
		p.X.Min, p.X.Max = p.X.Min*0.99-1e-9, p.X.Max*1.01+1e-9
	}
	c := vgsvg.New(vg.Points(260), vg.Points(52))
	p.Draw(draw.New(c))
	var svg bytes.Buffer
	if _, err := c.WriteTo(&svg); err != nil {
		return "", err
	}
	// Only the picture: the rest is for a file of its own.
	_, picture, _ := strings.Cut(svg.String(), "<svg")
	picture = strings.NewReplacer("#000000", "currentColor", "Liberation Serif", "inherit").Replace(picture)
	return template.HTML(`<svg role="img" aria-label="the repeats"` + picture), nil //nolint:gosec // it is made of numbers alone
}
