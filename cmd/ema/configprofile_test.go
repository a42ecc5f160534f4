package main

import (
	"reflect"
	"strings"
	"testing"

	"ema/client"
	"ema/internal/bench"
	"ema/internal/config"
)

// assessed is an assessment of one metric.
func assessed(better bench.Better, samples ...float64) bench.Assessment {
	return bench.Assessment{Metrics: map[string]bench.Metric{"m": bench.MetricOf(samples, "u", better)}}
}

func TestTheEffectOfAProfileIsWhatTheRepeatsShow(t *testing.T) {
	steady := func(around float64) []float64 {
		var all []float64
		for i := range 6 {
			all = append(all, around+float64(i)/100)
		}
		return all
	}
	for promise, c := range map[string]struct {
		better    bench.Better
		now, then []float64
		want      string
	}{
		"more of what should be high is better": {bench.Higher, steady(10), steady(15), "50 % better"},
		"less of it is worse":                   {bench.Higher, steady(10), steady(5), "50 % worse"},
		"less of what should be low is better":  {bench.Lower, steady(10), steady(5), "50 % better"},
		"more of it is worse":                   {bench.Lower, steady(10), steady(15), "50 % worse"},
		"what overlaps is noise":                {bench.Higher, []float64{9, 10, 11, 12, 13, 14}, []float64{10, 11, 12, 13, 14, 15}, "none that is more than noise"},
		"too few repeats show nothing":          {bench.Higher, []float64{1}, []float64{100}, "none that is more than noise"},
		"nothing has no part":                   {bench.Higher, []float64{0, 0, 0, 0, 0, 0}, steady(5), "differs"},
	} {
		t.Run(promise, func(t *testing.T) {
			half := func(s []float64) []bench.Assessment { // as two turns bring them
				return []bench.Assessment{assessed(c.better, s[:len(s)/2+1]...), assessed(c.better, s[len(s)/2+1:]...)}
			}
			if len(c.now) == 1 {
				half = func(s []float64) []bench.Assessment { return []bench.Assessment{assessed(c.better, s...)} }
			}
			all := effects(half(c.now), half(c.then))
			if len(all) != 1 || all[0].effect() != c.want {
				t.Errorf("it is %+v: %s, want %s", all, all[0].effect(), c.want)
			}
		})
	}
}

func TestAMetricThatOneSideLacksHasNoEffect(t *testing.T) {
	if all := effects([]bench.Assessment{{}}, []bench.Assessment{assessed(bench.Higher, 1, 2)}); len(all) != 0 {
		t.Errorf("effects are %+v", all)
	}
}

func TestTheAPITakesTheProfilesThatThereAre(t *testing.T) {
	field, _ := reflect.TypeFor[client.ProfileRequest]().FieldByName("Profile")
	if want := "," + strings.Join(config.Profiles(), ","); field.Tag.Get("enum") != want {
		t.Errorf("it takes %q, and there are %q", field.Tag.Get("enum"), want)
	}
}
