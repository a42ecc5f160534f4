package queue

import (
	"context"
	"errors"
	"slices"
	"testing"

	"ema/internal/event"
	"ema/internal/model"
)

func TestTheTableIsAboutUnfinishedStates(t *testing.T) {
	for _, s := range Unfinished() {
		if s.Final() || len(next[s]) == 0 {
			t.Errorf("nothing may follow %s", s)
		}
		if !mayFollow(s, model.Stopped) || !mayFollow(s, model.Paused) {
			t.Errorf("%s cannot be cancelled or paused", s)
		}
	}
	for s := range next {
		if !slices.Contains(Unfinished(), s) {
			t.Errorf("something may follow %s", s)
		}
	}
}

// shelf is a ledger that takes anything.
type shelf struct{ keeper }

func (shelf) Save(context.Context, model.Download) error { return nil }

// deaf hears nothing.
type deaf struct{}

func (deaf) Tell(event.Event) {}

func TestAStepThatTheTableDoesNotHaveIsNotTaken(t *testing.T) {
	all := append(Unfinished(), model.Completed, model.Failed, model.Stopped)
	for _, from := range Unfinished() {
		for _, to := range all {
			q := New(Settings{}, shelf{}, nil, deaf{})
			e := newEntry(model.Download{ID: "dl_1", State: from})
			q.line.insert(e)
			_, err := q.change(t.Context(), e, func(d *model.Download) error {
				d.State = to
				return nil
			})
			_, refused := errors.AsType[*StateError](err)
			if want := from != to && !slices.Contains(next[from], to); refused != want || (e.d.State == to) == (want && from != to) {
				t.Errorf("from %s to %s: %v, it is %s", from, to, err, e.d.State)
			}
		}
	}
}
