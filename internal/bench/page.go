package bench

import (
	"bytes"
	"cmp"
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

// The size of a plot, in points.
const plotWidth, plotHeight = 260, 56

// A pageSuite is one suite on the page.
type pageSuite struct {
	Name    string
	Details []string // what its metrics do not tell
	Metrics []pageMetric
	Missing map[string]string // what of it was not measured, and why
}

// A pageMetric is a row of the page.
type pageMetric struct {
	Name, Median, Unit, Sure string
	Before                   string // the baseline's median, and how that has changed
	Repeats                  int
	Samples                  []float64
	Better                   Better
	Noisy                    string
	Worse                    string // by how much, where it has regressed
	Plot                     template.HTML
}

// WritePage writes the assessment as one page that needs nothing else: no script, no style and no picture from anywhere.
func WritePage(w io.Writer, a Assessment) error {
	page, err := template.New("page").Funcs(template.FuncMap{"number": number, "unit": unitWords}).Parse(pageText)
	if err != nil {
		return err
	}
	worse, before, threshold, when := map[string]string{}, map[string]float64{}, "", ""
	if c := a.Comparison; c != nil {
		for _, r := range c.Regressions {
			worse[r.Metric] = fmt.Sprintf("%.0f %% worse: was %s", 100*r.Worse, number(r.Baseline))
		}
		before, threshold, when = c.Before, fmt.Sprintf("%.0f %%", 100*c.Threshold), clock(c.Timestamp)
	}
	var suites []pageSuite
	others := maps.Clone(a.Unknown)
	for _, name := range Suites() {
		s := pageSuite{Name: name, Missing: map[string]string{}, Details: details(name, a.Results)}
		for _, metric := range slices.Sorted(maps.Keys(a.Metrics)) {
			short, of := strings.CutPrefix(metric, name+".")
			if !of {
				continue
			}
			m := a.Metrics[metric]
			row := pageMetric{
				Name: short, Median: number(m.Median), Unit: unitWords(m.Unit), Sure: "not known", Repeats: m.Repeats, Samples: m.Samples, Better: m.Better,
				Noisy: a.Noisy[metric], Worse: worse[metric],
			}
			if spread := m.Spread(); !math.IsInf(spread, 1) {
				row.Sure = fmt.Sprintf("± %.1f %%", 100*spread)
			}
			was, known := before[metric]
			if known && was > 0 {
				row.Before = fmt.Sprintf("%s, now %+.0f %%", number(was), 100*(m.Median-was)/was)
			}
			if row.Plot, err = box(m, was); err != nil {
				return err
			}
			s.Metrics = append(s.Metrics, row)
		}
		for what, why := range a.Unknown {
			if short, of := strings.CutPrefix(what, name+"."); of || what == name {
				s.Missing[short] = why
				delete(others, what)
			}
		}
		suites = append(suites, s)
	}
	return page.Execute(w, map[string]any{
		"A": a, "At": clock(a.Timestamp), "Took": time.Duration(a.Seconds * float64(time.Second)).Round(time.Second).String(), "Suites": suites, "Count": len(a.Metrics),
		"Others": others, "Size": a.Size.String(), "Threshold": threshold, "Before": when, "Width": plotWidth, "Height": plotHeight,
	})
}

// clock is when that was.
func clock(timestamp float64) string {
	return time.UnixMicro(int64(timestamp * 1e6)).UTC().Format("2006-01-02 15:04:05 UTC")
}

// number is v with four digits, or all of those before the point.
func number(v float64) string {
	if math.Abs(v) >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.4g", v)
}

func unitWords(unit string) string { return strings.ReplaceAll(unit, "per_second", "per second") }

// details are what a suite has found beside its metrics, in words.
func details(suite string, r Results) (all []string) {
	switch {
	case suite == "downloads" && r.Downloads != nil:
		d := r.Downloads
		all = append(all, fmt.Sprintf("each download is of %s, from an origin on this machine", d.Bytes))
		if d.SingleRate != nil {
			all = append(all, fmt.Sprintf("one alone: %s MB/s", number(*d.SingleRate)))
		}
		if t := d.Retry; t != nil {
			all = append(all, fmt.Sprintf("from an origin that fails %d times: %.0f %% succeeded, in %s s more than without faults", t.Faults, 100*t.Succeeded, number(t.Extra)))
		}
	case suite == "api":
		for _, path := range slices.Sorted(maps.Keys(r.API)) {
			e := r.API[path]
			all = append(all, fmt.Sprintf("%s: average %s ms, from %s to %s ms, in %d rounds of %d requests", path, number(e.Average), number(e.Min), number(e.Max), e.Rounds, e.Requests))
		}
	case suite == "storage":
		for _, d := range r.Storage {
			all = append(all, fmt.Sprintf("%s: %s, %s", d.Tier, d.Path, cmp.Or(d.FileSystem, "a file system that is not known")))
		}
	case suite == "system" && r.System != nil:
		all = append(all, "what one processor does; "+r.System.Platform)
	}
	return all
}

// box is the box plot of a metric's repeats, with each of them as a point and the interval of its median, as what is inside of an SVG.
// It takes the colour of the text around it. The median of the baseline is drawn where it is near; 0 is none.
func box(m Metric, before float64) (template.HTML, error) {
	if len(m.Samples) == 0 {
		return "", nil
	}
	p := plot.New()
	p.HideY()
	p.BackgroundColor = nil
	b, err := plotter.NewBoxPlot(vg.Points(12), 0.3, plotter.Values(m.Samples))
	if err != nil {
		return "", err
	}
	b.Horizontal = true
	points := make(plotter.XYs, len(m.Samples))
	for i, v := range m.Samples {
		points[i] = plotter.XY{X: v, Y: -0.95}
	}
	each, err := plotter.NewScatter(points)
	if err != nil {
		return "", err
	}
	each.GlyphStyle = draw.GlyphStyle{Color: color.Black, Radius: vg.Points(1.5), Shape: draw.CircleGlyph{}}
	p.Add(b, each)
	line := func(style draw.LineStyle, at ...plotter.XY) error {
		l, err := plotter.NewLine(plotter.XYs(at))
		if err == nil {
			l.LineStyle = style
			p.Add(l)
		}
		return err
	}
	if m.Low != nil && m.High != nil {
		err = line(draw.LineStyle{Color: color.Black, Width: vg.Points(3)}, plotter.XY{X: *m.Low, Y: -0.5}, plotter.XY{X: *m.High, Y: -0.5})
	}
	least, most := slices.Min(m.Samples), slices.Max(m.Samples)
	if near := max(most-least, m.Median/5); err == nil && before > 0 && before > least-near && before < most+near {
		style := draw.LineStyle{Color: color.RGBA{R: 0x3b, G: 0x82, B: 0xf6, A: 0xff}, Width: vg.Points(1.5), Dashes: []vg.Length{vg.Points(4), vg.Points(2)}}
		err = line(style, plotter.XY{X: before, Y: -1.2}, plotter.XY{X: before, Y: 1})
	}
	if err != nil {
		return "", err
	}
	p.Y.Min, p.Y.Max = -1.2, 1
	if p.X.Min == p.X.Max { // all repeats are equal
		p.X.Min, p.X.Max = p.X.Min*0.99-1e-9, p.X.Max*1.01+1e-9
	}
	p.X.Tick.Marker = ticks{}
	c := vgsvg.New(plotWidth, plotHeight)
	p.Draw(draw.Crop(draw.New(c), vg.Points(14), vg.Points(-14), 0, 0)) // the labels of the outermost ticks are wider than the axis
	var svg bytes.Buffer
	if _, err := c.WriteTo(&svg); err != nil {
		return "", err
	}
	// Only what is inside: the rest is for a file of its own.
	_, picture, _ := strings.Cut(svg.String(), "<svg")
	_, picture, _ = strings.Cut(picture, ">")
	picture, _, _ = strings.Cut(picture, "</svg>")
	picture = strings.NewReplacer("#000000", "currentColor", "Liberation Serif", "inherit").Replace(picture)
	return template.HTML(picture), nil //nolint:gosec // it is made of numbers alone
}

// ticks are those of the library, of which at most four bear a label: more would run into each other.
type ticks struct{}

// Ticks are those between two values.
func (ticks) Ticks(least, most float64) []plot.Tick {
	all := plot.DefaultTicks{}.Ticks(least, most)
	labelled := 0
	for i := range all {
		if all[i].IsMinor() {
			continue
		}
		if labelled++; labelled > 4 {
			all[i].Label = ""
			continue
		}
		all[i].Label = number(all[i].Value)
	}
	return all
}
