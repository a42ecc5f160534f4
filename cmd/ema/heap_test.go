package main

import (
	"slices"
	"testing"
)

func TestTheHeapIsKeptSmallWhileAnythingIsUnderWay(t *testing.T) {
	var set []int
	h := heap{collectAt: func(percent int) { set = append(set, percent) }}
	first, second := h.work(), h.work()
	first()
	first()
	second()
	h.work()()
	if want := []int{heapOfWork, heapOfAnswers, heapOfWork, heapOfAnswers}; !slices.Equal(set, want) {
		t.Errorf("collected at %v, want %v", set, want)
	}
}
