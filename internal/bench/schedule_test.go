package bench

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAScheduleHandsOutEveryTurnOnceAndMissesTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Unix(1e9, 0)
		s := LoadSettings{
			Rate:     rapid.Float64Range(0.1, 5000).Draw(t, "rate"),
			Warmup:   time.Duration(rapid.Int64Range(0, 2e9).Draw(t, "warmup")),
			Duration: time.Duration(rapid.Int64Range(1e6, 3e9).Draw(t, "duration")),
			Requests: rapid.Int64Range(0, 3000).Draw(t, "requests"),
		}
		sch := newSchedule(s, UsualMix(), begin)
		stop := begin.Add(time.Duration(rapid.Int64Range(0, 5e9).Draw(t, "stop")))
		var due, measured int64 // counted one by one
		for sch.dueAt(due).Before(sch.end) {
			if !sch.dueAt(due).Before(sch.warm) {
				measured++
			}
			due++
		}
		if s.Requests > 0 {
			measured = min(measured, s.Requests)
		}
		for now := begin; now.Before(stop); {
			turn, ok := sch.next(now)
			if !ok {
				break
			}
			if turn.due.After(now) {
				now = turn.due
			}
		}
		// Whoever takes every turn in time misses nothing.
		if missed := sch.missed(stop); stop.After(sch.end) && sch.counted+missed != measured || missed > 0 {
			t.Fatalf("handed out %d of %d, missed %d", sch.counted, measured, missed)
		}
		lazy := newSchedule(s, UsualMix(), begin)
		if missed := lazy.missed(lazy.end.Add(time.Second)); missed != measured {
			t.Fatalf("missed %d of %d", missed, measured)
		}
	})
}
