package bench

import (
	"slices"
	"sync"
	"time"
)

// A Course tells how far an assessment is, by the time that its suites may take: nobody knows before how often they have to
// repeat. The zero Course has not begun. Its methods are safe for concurrent use.
type Course struct {
	mu    sync.Mutex
	begun time.Time
	most  time.Duration // for all of it
	legs  []Leg
	at    int       // the suite that runs
	since time.Time // when it has begun
	what  string
	over  bool
}

// A Leg is one suite of a Course.
type Leg struct {
	Suite string
	Most  time.Duration // that it repeats
	Took  time.Duration // until now
	Part  float64       // that is done, 0 to 1; 1 only when it is over
}

// A Stand is where a Course is at one moment.
type Stand struct {
	Legs []Leg // in the order in which they run
	At   int   // the one that runs
	What string
	Part float64       // of all that is done, 0 to 1; 1 only when it is over
	Took time.Duration // until now
	Left time.Duration // that it still takes, at most
}

// almost is what is done of a suite whose time is up while it still measures: what has begun is ended.
const almost = 0.99

// begin is for an assessment whose settings are complete.
func (c *Course) begin(s AssessSettings, now time.Time) {
	_, most := s.estimate()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun, c.most, c.legs, c.at, c.since, c.what, c.over = now, most, nil, 0, now, "", false
	for _, name := range Suites() {
		if slices.Contains(s.Suites, name) {
			c.legs = append(c.legs, Leg{Suite: name, Most: s.lasting(name)})
		}
	}
}

// enter says that a suite begins, and that the one before is over.
func (c *Course) enter(suite string, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.legs {
		if c.legs[i].Suite == suite && i > c.at {
			c.leave(now)
			c.at, c.since = i, now
		}
	}
}

// leave ends the suite that runs. The caller holds mu.
func (c *Course) leave(now time.Time) {
	c.legs[c.at].Part, c.legs[c.at].Took = 1, now.Sub(c.since)
}

// say notes what is measured now.
func (c *Course) say(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.what = what
}

// end says that all suites are over.
func (c *Course) end(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.legs) > 0 && !c.over {
		c.leave(now)
		c.over, c.what, c.since = true, "", now
	}
}

// Stand is where it is now.
func (c *Course) Stand(now time.Time) Stand {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stand{Legs: slices.Clone(c.legs), At: c.at, What: c.what}
	if len(s.Legs) == 0 {
		return s
	}
	if c.over {
		s.Part, s.Took = 1, c.since.Sub(c.begun)
		return s
	}
	leg := &s.Legs[c.at]
	leg.Took = now.Sub(c.since)
	leg.Part = min(float64(leg.Took)/float64(leg.Most), almost)
	var done, all float64
	for i, l := range s.Legs {
		all += float64(l.Most)
		done += l.Part * float64(l.Most)
		if i >= c.at {
			s.Left += max(l.Most-l.Took, 0)
		}
	}
	s.Part, s.Took = done/all, now.Sub(c.begun)
	s.Left = max(min(s.Left, c.most-s.Took), 0)
	return s
}
