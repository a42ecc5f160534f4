package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A benchmarkBar shows on a terminal what is measured, and how much of the time is over. Elsewhere it prints a line for each thing that
// is measured, and with --quiet nothing.
type benchmarkBar struct {
	app  *app
	what atomic.Value // string
	bars *mpb.Progress
	bar  *mpb.Bar
	end  chan struct{}
	over sync.WaitGroup
}

// startBar begins to show a benchmark that takes most at most. It needs a stop.
func (a *app) startBar(most time.Duration) *benchmarkBar {
	b := &benchmarkBar{app: a, end: make(chan struct{})}
	b.what.Store("")
	if a.quiet || a.columns == 0 && (!interactive(a.stderr) || a.getenv("TERM") == "dumb") {
		return b
	}
	options := []mpb.ContainerOption{mpb.WithOutput(a.stderr), mpb.WithRefreshRate(200 * time.Millisecond)}
	if a.columns > 0 {
		options = append(options, mpb.WithWidth(a.columns), mpb.WithAutoRefresh(), mpb.ForceTTY())
	}
	b.bars = mpb.New(options...)
	begun := time.Now()
	b.bar = b.bars.AddBar(most.Milliseconds(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return fmt.Sprintf("%-34.34s", b.what.Load()) })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string {
			return fmt.Sprintf(" %s, at most %s", duration(time.Since(begun).Truncate(time.Second)), duration(most))
		})),
	)
	b.over.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-b.end:
				return
			case <-tick.C:
				b.bar.SetCurrent(min(time.Since(begun).Milliseconds(), most.Milliseconds()*99/100)) // it is not over before it is
			}
		}
	})
	return b
}

// show says what is measured now.
func (b *benchmarkBar) show(what string) {
	b.what.Store(what)
	if b.bars == nil && !b.app.quiet {
		fmt.Fprintln(b.app.stderr, what)
	}
}

// stop takes the bar away.
func (b *benchmarkBar) stop() {
	if b.bars == nil {
		return
	}
	close(b.end)
	b.over.Wait()
	b.bar.Abort(true)
	b.bars.Wait()
	fmt.Fprint(b.app.stderr, "\r\x1b[K") // what an echoed Ctrl-C left
}
