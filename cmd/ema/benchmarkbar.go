package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"ema/internal/bench"
)

// A benchmarkBar shows on a terminal how far each suite is, and how long all of it still takes. Elsewhere it prints a line for each thing
// that is measured, and with --quiet nothing.
type benchmarkBar struct {
	app    *app
	course *bench.Course
	bars   *mpb.Progress // nil where there is no terminal
	each   []*mpb.Bar    // of the suites, and of all in the end
	end    chan struct{}
	over   sync.WaitGroup
}

// barParts are what a bar counts to: the course is told in parts of one.
const barParts = 1000

// besideBar is the room for what stands beside a bar, and narrowBar the width below which only times do.
const besideBar, narrowBar = 36, 72

// startBar begins to show a benchmark of these suites. It needs a stop.
func (a *app) startBar(suites []string, course *bench.Course) *benchmarkBar {
	b := &benchmarkBar{app: a, course: course, end: make(chan struct{})}
	if a.quiet || a.columns == 0 && (!interactive(a.stderr) || a.getenv("TERM") == "dumb") {
		return b
	}
	options := []mpb.ContainerOption{mpb.WithOutput(a.stderr), mpb.WithRefreshRate(200 * time.Millisecond)}
	if a.columns > 0 {
		options = append(options, mpb.WithWidth(a.columns), mpb.WithAutoRefresh(), mpb.ForceTTY())
	}
	b.bars = mpb.New(options...)
	for i, suite := range append(suites[:len(suites):len(suites)], "all") {
		// Without a total in the beginning none is ever complete, so that stop can take all of them away. The terminal's own echo of
		// Ctrl-C moves the cursor; from the first column no line gets too long.
		bar := b.bars.AddBar(0,
			mpb.PrependDecorators(decor.Name("\r"+suite, decor.WC{W: 10, C: decor.DindentRight})),
			mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
				at, room := b.course.Stand(time.Now()), besideBar
				if s.AvailableWidth < narrowBar {
					room = besideBar / 2
				}
				text := ""
				switch {
				case i < len(at.Legs):
					text = besideSuite(at, i, room == besideBar)
				case len(at.Legs) > 0:
					text = fmt.Sprintf("%3.0f %%, at most %s left", at.Part*100, clock(at.Left))
					if room < besideBar {
						text = "at most " + clock(at.Left)
					}
				}
				return fmt.Sprintf(" %-*s", room, clip(text, room))
			})),
		)
		bar.SetTotal(barParts, false)
		b.each = append(b.each, bar)
	}
	b.over.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-b.end:
				return
			case <-tick.C:
				b.advance(b.course.Stand(time.Now()))
			}
		}
	})
	return b
}

// besideSuite is what stands beside the bar of a suite.
func besideSuite(at bench.Stand, i int, words bool) string {
	leg := at.Legs[i]
	took := clock(leg.Took)
	switch {
	case leg.Part == 1:
		return took
	case i != at.At:
		return ""
	case words:
		return took + "  " + strings.TrimPrefix(strings.TrimPrefix(at.What, leg.Suite), ": ")
	}
	return took
}

// advance sets the bars to where the course is.
func (b *benchmarkBar) advance(at bench.Stand) {
	for i, leg := range at.Legs {
		b.each[i].SetCurrent(int64(leg.Part * barParts))
	}
	b.each[len(b.each)-1].SetCurrent(int64(at.Part * barParts))
}

// show says what is measured now.
func (b *benchmarkBar) show(what string) {
	if b.bars == nil && !b.app.quiet {
		fmt.Fprintln(b.app.stderr, what)
	}
}

// stop takes the bars away.
func (b *benchmarkBar) stop() {
	if b.bars == nil {
		return
	}
	close(b.end)
	b.over.Wait()
	for _, bar := range b.each {
		bar.Abort(true)
	}
	b.bars.Wait()
	io.WriteString(b.app.stderr, "\r\x1b[J") // what is left of bars that were taken away one after the other, and of an echoed Ctrl-C
}
