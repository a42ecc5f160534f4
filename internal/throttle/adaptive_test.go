package throttle

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ema/internal/model"
)

// drive steps an Adaptive once a second and returns the limit after each.
func drive(a *Adaptive, seconds int, facts func(second int) Facts) (limits []model.Bytes) {
	begin := a.last
	if begin.IsZero() {
		begin = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	}
	for i := range seconds {
		limit, _ := a.Step(begin.Add(time.Duration(i+1)*time.Second), facts(i))
		limits = append(limits, limit)
	}
	return limits
}

func always(f Facts) func(int) Facts { return func(int) Facts { return f } }

// steps counts how often the limit went down and up; 0 is no limit, and so the highest.
func steps(limits []model.Bytes) (down, up int) {
	before := limits[0]
	for _, l := range limits[1:] {
		switch {
		case l == before:
		case before == 0 || l != 0 && l < before:
			down++
		default:
			up++
		}
		before = l
	}
	return down, up
}

func TestTheLimitStepsDownWhileTheLoadStaysHighAndRecoversSlowly(t *testing.T) {
	const base = 100 * model.MiB
	a := &Adaptive{}
	high := drive(a, 120, always(Facts{Load: 0.95, Rate: base, Base: base}))
	for second, want := range map[int]model.Bytes{
		0: 0, 7: 0, 8: 75 * model.MiB, 15: 75 * model.MiB, 16: 56 * model.MiB, 24: 42 * model.MiB, 119: 10 * model.MiB,
	} {
		if high[second] != want {
			t.Errorf("after %d s of high load the limit is %v, want %v", second, high[second], want)
		}
	}
	if _, why := a.limit(Facts{Base: base}); !strings.Contains(why, "0.95, over 0.80") {
		t.Errorf("the reason is %q", why)
	}
	low := drive(a, 120, always(Facts{Load: 0.3, Rate: 10 * model.MiB, Base: base}))
	for second, want := range map[int]model.Bytes{7: 10 * model.MiB, 8: 20 * model.MiB, 16: 30 * model.MiB, 64: 90 * model.MiB, 72: 0, 119: 0} {
		if low[second] != want {
			t.Errorf("after %d s of low load the limit is %v, want %v", second, low[second], want)
		}
	}
}

func TestWithoutALimitStepsBeginAtTheRateLatelyMeasured(t *testing.T) {
	a := &Adaptive{}
	drive(a, 60, always(Facts{Load: 0.2, Rate: 40 * model.MiB}))
	limits := drive(a, 40, func(i int) Facts {
		rate := 40 * model.MiB
		if i > 8 {
			rate = 30 * model.MiB // what comes while reduced is not the base of the next step
		}
		return Facts{Load: 0.9, Rate: rate}
	})
	if limits[10] != 30*model.MiB || limits[18] != 40*model.MiB*56/100 {
		t.Errorf("limits %v and %v, want 75 %% and 56 %% of 40 MiB", limits[10], limits[18])
	}
	if limits := drive(&Adaptive{}, 60, always(Facts{Load: 0.95})); limits[59] != 0 {
		t.Errorf("limit %v although nothing comes", limits[59])
	}
}

func TestStepsBeginAtWhatComesWhenTheLimitIsFarAbove(t *testing.T) {
	limits := drive(&Adaptive{}, 9, always(Facts{Load: 0.9, Rate: 20 * model.MiB, Base: 500 * model.MiB}))
	if limits[8] != 15*model.MiB {
		t.Errorf("the first step is to %v, want 15 MiB", limits[8])
	}
}

func TestTheLimitNeverFallsUnderOneMebibyteNorIsAboveTheOtherLimit(t *testing.T) {
	for base, want := range map[model.Bytes]model.Bytes{
		200 * model.MiB: 20 * model.MiB, 5 * model.MiB: model.MiB, model.MiB: 0, 100 * model.KiB: 0,
	} {
		limits := drive(&Adaptive{}, 300, always(Facts{Load: 1, Rate: base, Base: base}))
		if got := limits[299]; got != want {
			t.Errorf("with a limit of %v, the lowest is %v, want %v", base, got, want)
		}
	}
}

func TestNoiseAroundTheThresholdDoesNotSwingTheLimit(t *testing.T) {
	for name, noise := range map[string]func(i int) float64{
		"one over, one under": func(i int) float64 { return 0.8 + 0.04*float64(i%2*2-1) },
		"at random": func(i int) float64 {
			return 0.8 + (rand.New(rand.NewPCG(uint64(i), 7)).Float64()-0.5)*0.15
		},
	} {
		limits := drive(&Adaptive{}, 600, func(i int) Facts { return Facts{Load: noise(i), Rate: 100 * model.MiB} })
		if down, up := steps(limits); down > 3 || up > 0 {
			t.Errorf("%s: the limit went down %d times and up %d times in ten minutes", name, down, up)
		}
	}
}

func TestALoadThatFollowsTheLimitSettles(t *testing.T) {
	a := &Adaptive{}
	limit := model.Bytes(0)
	var limits []model.Bytes
	for range 900 { // this machine's load is what we cause: 1 at 100 MiB per second
		rate := 100 * model.MiB
		if limit > 0 {
			rate = min(rate, limit)
		}
		limit = drive(a, 1, always(Facts{Load: float64(rate) / float64(100*model.MiB), Rate: rate}))[0]
		limits = append(limits, limit)
	}
	if down, up := steps(limits[300:]); down+up > 0 || limit < 60*model.MiB || limit > 80*model.MiB {
		t.Errorf("after five minutes the limit went down %d times and up %d times; it is %v, want 60 to 80 MiB", down, up, limit)
	}
}

func TestLongRoundTripsLowerTheLimit(t *testing.T) {
	const ms = time.Millisecond
	for promise, c := range map[string]struct {
		rtt, least time.Duration
		lowered    bool
	}{
		"somebody's buffer is full":          {120 * ms, 20 * ms, true},
		"a little longer is nothing":         {45 * ms, 20 * ms, false},
		"twice next to nothing is nothing":   {25 * ms, 2 * ms, false},
		"far away is not slow":               {290 * ms, 250 * ms, false},
		"nothing is known about round trips": {120 * ms, 0, false},
	} {
		t.Run(promise, func(t *testing.T) {
			a := &Adaptive{}
			facts := Facts{Load: 0.1, RTT: c.rtt, MinRTT: c.least, Rate: 40 * model.MiB}
			limits := drive(a, 10, always(facts))
			if lowered := limits[9] > 0; lowered != c.lowered || limits[2] != 0 {
				t.Errorf("limits %v", limits)
			}
			if !c.lowered {
				return
			}
			if _, why := a.limit(facts); why != "reduced: round trips take 120ms instead of 20ms" {
				t.Errorf("the reason is %q", why)
			}
			facts.RTT = c.least
			if limits := drive(a, 120, always(facts)); limits[119] != 0 {
				t.Errorf("the limit is still %v two minutes after", limits[119])
			}
		})
	}
}

func TestAfterAPauseNothingIsAssumed(t *testing.T) {
	a := &Adaptive{}
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	high := Facts{Load: 1, Rate: 40 * model.MiB}
	for _, seconds := range []int{0, 5, 10, 15, 20} { // too far apart to say that it stayed high
		if limit, _ := a.Step(at.Add(time.Duration(seconds)*time.Second), high); limit != 0 {
			t.Errorf("the limit is %v after %d s", limit, seconds)
		}
	}
	drive(a, 30, always(high))
	if limit, _ := a.Step(a.last.Add(time.Second), high); limit == 0 {
		t.Error("no limit although the load stays high")
	}
	if limit, _ := a.Step(a.last.Add(2*time.Minute), high); limit != 0 {
		t.Errorf("the limit is %v after two minutes of which nothing is known", limit)
	}
	if limit, _ := a.Step(a.last.Add(-time.Hour), high); limit != 0 {
		t.Errorf("the limit is %v after the clock was put back", limit)
	}
}

func TestAnotherThresholdActsThere(t *testing.T) {
	for threshold, acts := range map[float64]bool{0.5: true, 0.7: false, 0: false, -1: false, 7: false, 0.05: true} {
		limits := drive(&Adaptive{Threshold: threshold}, 20, always(Facts{Load: 0.6, Rate: 40 * model.MiB}))
		if (limits[19] > 0) != acts {
			t.Errorf("threshold %v at a load of 0.6: limit %v", threshold, limits[19])
		}
	}
}
