package fetch

import (
	"context"
	"slices"
	"testing"
	"time"
)

// run lets claims receive their rates (bytes per second) for some seconds and returns who crawls then.
func crawlersAfter(seconds int, usual float64, rates ...int64) (found []int) {
	var claims []*claim
	for range rates {
		_, cancel := context.WithCancelCause(context.Background())
		claims = append(claims, &claim{cancel: cancel, answered: true, end: 1 << 40})
	}
	for second := range seconds {
		found = nil
		for c := range crawling(claims, time.Duration(second)*time.Second, usual) {
			found = append(found, slices.Index(claims, c))
		}
		for i, c := range claims {
			c.received.Add(rates[i])
		}
	}
	return found
}

func TestAConnectionUnderAFifthOfItsSiblingsMedianIsReplacedAfterTenSeconds(t *testing.T) {
	if got := crawlersAfter(12, 0, 100, 90, 110, 15); !slices.Equal(got, []int{3}) {
		t.Errorf("crawling: %v, want the last", got)
	}
	if got := crawlersAfter(9, 0, 100, 90, 110, 15); got != nil {
		t.Errorf("condemned %v before ten seconds were over", got)
	}
	if got := crawlersAfter(12, 0, 100, 90, 110, 25); got != nil {
		t.Errorf("condemned %v for being a quarter as fast", got)
	}
	if got := crawlersAfter(12, 0, 10, 9, 11, 12); got != nil {
		t.Errorf("condemned %v although all are equally slow", got)
	}
}

func TestTheLastConnectionIsComparedWithWhatWasUsual(t *testing.T) {
	if got := crawlersAfter(12, 1000, 15); !slices.Equal(got, []int{0}) {
		t.Errorf("crawling: %v, want the only one", got)
	}
	if got := crawlersAfter(12, 0, 15); got != nil {
		t.Errorf("condemned %v although nothing is known", got)
	}
}
