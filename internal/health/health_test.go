package health_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/health"
	"ema/internal/model"
)

func at(hours int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(hours) * time.Hour)
}

// facts are of a model that was checked an hour ago.
func facts(files ...health.File) health.Facts {
	return health.Facts{Files: files, Checked: at(99), Interval: 24 * time.Hour, Source: true, Now: at(100)}
}

func file(path, state string, size, damaged model.Bytes, notes ...string) health.File {
	return health.File{Path: path, Size: size, State: state, Damaged: damaged, Notes: notes}
}

func TestAModelIsJudgedByItsWorstFile(t *testing.T) {
	slow := facts(file("a", health.OK, 10, 0))
	slow.Used, slow.Read = new(0.2), new(0.9)
	lame := facts(file("a", health.OK, 10, 0))
	lame.Used, lame.Read = new(0.8), new(0.4)
	never := facts(file("a", health.OK, 10, 0))
	never.Checked = time.Time{}
	lost := facts(file("a", health.Damaged, 100, 1))
	lost.Failure = "the source has it no more"
	aside := facts(file("a", health.OK, 10, 0))
	aside.Aside = []string{"b.pkl: it calls os.system"}
	orphan := facts(file("a", health.Missing, 100, 0))
	orphan.Source = false
	for name, c := range map[string]struct {
		facts     health.Facts
		overall   model.Condition
		integrity float64 // -1: unknown
		says      string
		advises   string
	}{
		"well":        {facts(file("a", health.OK, 10, 0), file("b", health.Unknown, 5, 0)), model.Healthy, 1, "", ""},
		"one block":   {facts(file("a", health.OK, 900, 0), file("b", health.Damaged, 100, 1)), model.Corrupted, 0.5, "b is damaged in 1 B of 100 B", "ema repair m"},
		"most gone":   {facts(file("a", health.Missing, 900, 0), file("b", health.OK, 100, 0)), model.Corrupted, 0.1, "a is missing", "ema repair m"},
		"unreadable":  {facts(file("a", health.Unreadable, 9, 0, "input/output error"), file("b", health.OK, 9, 0)), model.Uncertain, -1, "a could not be read: input/output error", "kernel's log"},
		"bad, unread": {facts(file("a", health.Unreadable, 9, 0), file("b", health.Missing, 9, 0)), model.Corrupted, 0, "b is missing", "ema repair m"},
		"changed":     {facts(file("a", health.Changed, 9, 0)), model.Degraded, 1, "a was written to", "ema verify m"},
		"odd":         {facts(file("a.pkl", health.OK, 9, 0, "it calls os.system")), model.Degraded, 1, "a.pkl: it calls os.system", "look at the files"},
		"quarantined": {aside, model.Degraded, 1, "quarantined: b.pkl: it calls os.system", "health.quarantine"},
		"slow":        {slow, model.Degraded, 1, "slower", "colder tier"},
		"slow disk":   {lame, model.Degraded, 1, "read more slowly than before: at 40 %", "--suite storage"},
		"never read":  {never, model.Uncertain, 0.8, "", "ema verify m"},
		"nothing":     {facts(), model.Uncertain, -1, "", "ema verify m"},
		"lost":        {lost, model.Corrupted, 0.5, "its repair failed: the source has it no more", "adopt"},
		"orphan":      {orphan, model.Corrupted, 0, "a is missing", "no source is known"},
	} {
		v := health.Judge("m", c.facts)
		if v.Overall != c.overall {
			t.Errorf("%s: %s, want %s", name, v.Overall, c.overall)
		}
		if (v.Integrity == nil) != (c.integrity < 0) || v.Integrity != nil && *v.Integrity != c.integrity {
			t.Errorf("%s: integrity %v, want %v", name, v.Integrity, c.integrity)
		}
		if says := strings.Join(v.Issues, "\n"); c.says == "" && says != "" || !strings.Contains(says, c.says) {
			t.Errorf("%s: says %q, want %q", name, says, c.says)
		}
		if advice := strings.Join(v.Recommendations, "\n"); c.advises == "" && advice != "" || !strings.Contains(advice, c.advises) {
			t.Errorf("%s: advises %q, want %q", name, advice, c.advises)
		}
	}
}

func TestThePerformanceIsTheWorseOfBoth(t *testing.T) {
	for _, c := range []struct{ used, read, want *float64 }{
		{nil, nil, nil}, {new(0.7), nil, new(0.7)}, {nil, new(0.7), new(0.7)}, {new(0.9), new(0.7), new(0.7)}, {new(0.6), new(0.7), new(0.6)},
	} {
		f := facts(file("a", health.OK, 10, 0))
		f.Used, f.Read = c.used, c.read
		got := health.Judge("m", f)
		if (got.Performance == nil) != (c.want == nil) || c.want != nil && (*got.Performance != *c.want || *got.Health != (3+*c.want)/4) {
			t.Errorf("%v and %v make %v", c.used, c.read, got.Performance)
		}
	}
}

func TestAnOldCheckIsWorthLess(t *testing.T) {
	for days, want := range map[int]float64{0: 1, 2: 1, 6: 0.9, 10: 0.8, 1000: 0.8} {
		if got := health.Proof(at(24*days), at(0), 24*time.Hour); got < want-1e-9 || got > want+1e-9 {
			t.Errorf("after %d intervals: %v, want %v", days, got, want)
		}
	}
}

// Nothing that goes wrong makes a model look better.
func TestMoreDamageIsNeverBetter(t *testing.T) {
	worse := map[string][]string{health.OK: {health.Damaged, health.Missing}, health.Changed: {health.Damaged, health.Missing}, health.Damaged: {health.Missing}}
	rapid.Check(t, func(t *rapid.T) {
		states := []string{health.OK, health.Changed, health.Damaged}
		var files []health.File
		for range rapid.IntRange(1, 6).Draw(t, "files") {
			f := file("f", rapid.SampledFrom(states).Draw(t, "state"), model.Bytes(rapid.Int64Range(0, 1000).Draw(t, "size")), 0)
			if f.State == health.Damaged {
				f.Damaged = model.Bytes(rapid.Int64Range(0, int64(f.Size)).Draw(t, "damaged"))
			}
			files = append(files, f)
		}
		before := health.Judge("m", facts(files...))
		files = slices.Clone(files)
		i := rapid.IntRange(0, len(files)-1).Draw(t, "which")
		files[i].State = rapid.SampledFrom(worse[files[i].State]).Draw(t, "worse")
		files[i].Damaged = 0
		after := health.Judge("m", facts(files...))
		if *after.Integrity > *before.Integrity || *after.Health > *before.Health {
			t.Fatalf("integrity %v, then %v", *before.Integrity, *after.Integrity)
		}
		if *after.Integrity < 0 || *before.Integrity > 1 || after.Overall != model.Corrupted {
			t.Fatalf("%+v", after)
		}
	})
}
