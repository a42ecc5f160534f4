package throttle

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ema/internal/model"
)

// A Clock is a time of the day in minutes after midnight; 1440 is midnight at its end.
type Clock int

const day Clock = 24 * 60

// ParseClock reads "HH:MM", from "00:00" to "24:00".
func ParseClock(s string) (Clock, error) {
	if s == "24:00" {
		return day, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q is not a time of the day; write HH:MM, for example 08:30", s)
	}
	return Clock(t.Hour()*60 + t.Minute()), nil
}

// String is the form that ParseClock reads.
func (c Clock) String() string { return fmt.Sprintf("%02d:%02d", int(c)/60, int(c)%60) }

// A Window is a time of the day with a limit. It holds while the clock on the wall, in its zone, shows
// Start or later and is before End. When the clock is put forward it may so begin late or not at all,
// and in the hour that comes twice it may hold twice.
type Window struct {
	Name       string
	Start, End Clock          // an End before Start is on the day after
	Days       []time.Weekday // on which it starts; none is every day
	Zone       *time.Location // nil is that of this machine
	Limit      model.Bytes    // per second; 0 is none of its own
}

// A Schedule says which limit holds when. It is a value and reads no clock.
type Schedule struct {
	Global   model.Bytes // per second, at all times; 0 is none
	Windows  []Window
	OffHours model.Bytes // per second, while no window holds; 0 is none
}

// The reasons that At gives besides the names of windows.
const (
	whyGlobal = "the global limit"
	whyOff    = "off hours"
)

// horizon is how far At looks ahead: a window of one weekday may fall into the hour that a clock skips.
const horizon = 15 * 24 * time.Hour

// At is the limit at a time, in bytes per second: the smallest that is not 0 among the global one and
// those of the windows that hold, or of off hours when none does; 0 is unlimited. why names what set
// it, and is "" when nothing did. until is when limit or why changes next; zero when never.
func (s Schedule) At(now time.Time) (limit model.Bytes, why string, until time.Time) {
	limit, why = s.at(now)
	for t := s.border(now); !t.IsZero() && t.Sub(now) < horizon; t = s.border(t) {
		if l, w := s.at(t); l != limit || w != why {
			return limit, why, t
		}
	}
	return limit, why, time.Time{}
}

func (s Schedule) at(t time.Time) (limit model.Bytes, why string) {
	least := func(l model.Bytes, reason string) {
		if l > 0 && (limit == 0 || l < limit) {
			limit, why = l, reason
		}
	}
	off := true
	for _, w := range s.Windows {
		if w.holds(t) {
			least(w.Limit, fmt.Sprintf("the window %q", w.Name))
			off = false
		}
	}
	if off {
		least(s.OffHours, whyOff)
	}
	least(s.Global, whyGlobal)
	return limit, why
}

// border is the next time after t at which a window may begin or end; zero without windows.
func (s Schedule) border(t time.Time) (next time.Time) {
	for _, w := range s.Windows {
		if b := w.border(t); next.IsZero() || b.Before(next) {
			next = b
		}
	}
	return next
}

func (w Window) zone() *time.Location {
	if w.Zone == nil {
		return time.Local
	}
	return w.Zone
}

func (w Window) holds(t time.Time) bool {
	t = t.In(w.zone())
	clock, today := Clock(t.Hour()*60+t.Minute()), t.Weekday()
	yesterday := (today + 6) % 7
	switch {
	case w.Start < w.End:
		return w.Start <= clock && clock < w.End && w.begins(today)
	case w.Start > w.End: // over midnight
		return w.Start <= clock && w.begins(today) || clock < w.End && w.begins(yesterday)
	}
	return false
}

func (w Window) begins(d time.Weekday) bool { return len(w.Days) == 0 || slices.Contains(w.Days, d) }

// border is the next time after t at which w's clock shows its start or end, or is put forward or back.
func (w Window) border(t time.Time) time.Time {
	t = t.In(w.zone())
	_, jump := t.ZoneBounds()
	hour, minute, second := t.Clock()
	passed := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute +
		time.Duration(second)*time.Second + time.Duration(t.Nanosecond())
	next := jump
	for _, c := range []Clock{w.Start, w.End} {
		wait := time.Duration(c%day)*time.Minute - passed
		if wait <= 0 {
			wait += 24 * time.Hour
		}
		if b := t.Add(wait); next.IsZero() || b.Before(next) {
			next = b
		}
	}
	return next
}

// Check reports all that is wrong with the schedule, a sentence each.
func (s Schedule) Check() error {
	var wrong []error
	negative := func(name string, limit model.Bytes) {
		if limit < 0 {
			wrong = append(wrong, fmt.Errorf("the limit of %s is negative; use 0 for no limit", name))
		}
	}
	negative("all downloads together", s.Global)
	negative("off hours", s.OffHours)
	for _, w := range s.Windows {
		name := fmt.Sprintf("the window %q", w.Name)
		negative(name, w.Limit)
		if w.Start < 0 || w.Start >= day || w.End < 0 || w.End > day {
			wrong = append(wrong, fmt.Errorf("%s does not start between 00:00 and 23:59 and end between 00:00 and 24:00; correct its times", name))
		} else if w.Start == w.End {
			wrong = append(wrong, fmt.Errorf("%s ends when it starts; for the whole day, end at 24:00", name))
		}
		for _, d := range w.Days {
			if d < time.Sunday || d > time.Saturday {
				wrong = append(wrong, fmt.Errorf("%s starts on day %d of the week; there are 0, Sunday, to 6, Saturday", name, int(d)))
			}
		}
	}
	return errors.Join(wrong...)
}
