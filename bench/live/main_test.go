package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain is the hub where a test starts this binary as one.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args[1:], "-hub") {
		if err := hub(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func TestASmallLoadIsDeliveredWhole(t *testing.T) {
	if err := run(t.Context(), load{clients: 10, rate: 200, progress: 50, time: 200 * time.Millisecond}, false); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsMissingTwiceOrInDisorderIsSeen(t *testing.T) {
	c := clients{each: []*client{{}}, stop: func() {}}
	for i := range c.delays {
		c.delays[i].Histogram = newHistogram()
	}
	now := time.Now()
	at := func(n int) []byte {
		return fmt.Appendf(nil, `{"reason":"%s%d %d"}`, mark, n, now.Add(-time.Second).UnixNano())
	}
	for _, n := range []int{0, 1, 1, 4, 3, 5} {
		c.each[0].note(at(n), now, &c.delays[0])
	}
	r := c.result(t.Context(), 6)
	if r.delivered != 4 || r.missing != 2 || r.disorder != 2 || r.p50.Round(time.Millisecond*10) != time.Second {
		t.Errorf("the result is %+v, want 4 delivered after 1s, 2 missing, 2 in disorder", r)
	}
}
