package bench

import (
	"testing"
	"time"
)

func TestACourseNeverRunsBackwardsAndIsOverOnlyInTheEnd(t *testing.T) {
	begun := time.Now()
	s, err := AssessSettings{Suites: []string{"storage", "system", "api"}, Places: []Place{{Tier: "hot"}}}.complete()
	if err != nil {
		t.Fatal(err)
	}
	c, last, left := &Course{}, 0.0, time.Hour
	if at := c.Stand(begun); at.Part != 0 || len(at.Legs) != 0 {
		t.Errorf("before it begins: %+v", at)
	}
	c.begin(s, begun)
	now := begun
	for i, suite := range []string{"api", "storage", "system"} {
		c.enter(suite, now)
		most := s.lasting(suite)
		if suite == "storage" {
			most *= 2 // what has begun when the time is up is ended
		}
		for range 20 {
			now = now.Add(most / 20)
			at := c.Stand(now)
			if at.At != i || at.Legs[i].Suite != suite || at.Part < last || at.Part >= 1 || at.Left > left || at.Left < 0 || at.Took != now.Sub(begun) {
				t.Fatalf("%s after %v: %+v, before it was %v and %v", suite, now.Sub(begun), at, last, left)
			}
			if i > 0 && at.Legs[i-1].Part != 1 || i < 2 && at.Legs[i+1].Part != 0 {
				t.Fatalf("%s: %+v", suite, at.Legs)
			}
			last, left = at.Part, at.Left
		}
	}
	c.end(now)
	if at := c.Stand(now.Add(time.Hour)); at.Part != 1 || at.Left != 0 || at.Took != now.Sub(begun) || at.Legs[2].Part != 1 {
		t.Errorf("in the end: %+v", at)
	}
}

func TestACourseThatIsQuickerThanItMightBeSaysSo(t *testing.T) {
	begun := time.Now()
	s, err := AssessSettings{Suites: []string{"api", "system"}, Places: []Place{{Tier: "hot"}}}.complete()
	if err != nil {
		t.Fatal(err)
	}
	c := &Course{}
	c.begin(s, begun)
	c.enter("api", begun)
	c.say("api: /x")
	before := c.Stand(begun.Add(time.Second))
	c.enter("system", begun.Add(time.Second))
	after := c.Stand(begun.Add(time.Second))
	if before.What != "api: /x" || before.Left != s.lasting("api")+s.lasting("system")-time.Second || after.Left != s.lasting("system") || after.Part < 0.7 {
		t.Errorf("%+v, then %+v", before, after)
	}
}
