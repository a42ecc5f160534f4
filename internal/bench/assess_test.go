package bench_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"ema/internal/bench"
	"ema/internal/model"
)

func free(n model.Bytes) func(context.Context, string) (uint64, error) {
	return func(context.Context, string) (uint64, error) { return uint64(n), nil }
}

func TestADiskIsNotFilled(t *testing.T) {
	dir := t.TempDir()
	s := bench.AssessSettings{Suites: []string{"storage"}, Places: []bench.Place{{Tier: "hot", Dir: dir}}, Size: 8 * model.MiB, Free: free(80*model.MiB - 1)}
	_, err := bench.Assess(t.Context(), s)
	e, typed := errors.AsType[*model.Error](err)
	if !typed || e.Class != model.DiskFull || e.Short != 1 || e.File != dir || e.Hint == "" {
		t.Fatalf("%+v", err)
	}
	s.Free = free(80 * model.MiB)
	if _, err := bench.Assess(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	isEmpty(t, dir)
}

func TestAStoppedBenchmarkLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	s := bench.AssessSettings{
		Suites: []string{"storage"}, Places: []bench.Place{{Tier: "hot", Dir: dir}}, Size: 8 * model.MiB, Free: free(model.GiB),
		Progress: func(string) { stop() },
	}
	if _, err := bench.Assess(ctx, s); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	isEmpty(t, dir)
}

func TestEveryTierIsMeasuredAndNothingIsLeft(t *testing.T) {
	hot, cold := t.TempDir(), t.TempDir()
	s := bench.AssessSettings{
		Suites: []string{"storage"}, Places: []bench.Place{{Tier: "hot", Dir: hot}, {Tier: "cold", Dir: cold}}, Size: 4 * model.MiB, Repeats: 1, Free: free(model.GiB),
	}
	a, err := bench.Assess(t.Context(), s)
	if err != nil || len(a.Results.Storage) != 2 || a.Results.Storage[1].Tier != "cold" {
		t.Fatalf("%+v: %v", a.Results.Storage, err)
	}
	for _, r := range a.Results.Storage {
		if r.WriteBuffered == nil || *r.WriteBuffered <= 0 || r.FsyncP50 == nil || *r.FsyncP95 < *r.FsyncP50 || r.Files == nil {
			t.Errorf("%+v", r)
		}
		for name, v := range map[string]*float64{"write_direct": r.WriteDirect, "read_direct": r.ReadDirect, "random_read_4k_p99": r.RandomP99} {
			if (v == nil) != (a.Unknown["storage."+r.Tier+"."+name] != "") {
				t.Errorf("%s of %s is %v, and unknown since %q", name, r.Tier, v, a.Unknown["storage."+r.Tier+"."+name])
			}
		}
	}
	for name, m := range a.Metrics {
		if slices.Contains([]string{"MB/s", "per_second"}, m.Unit) != (m.Better == bench.Higher) {
			t.Errorf("%s in %s is better when %s", name, m.Unit, m.Better)
		}
	}
	if a.Unknown["api"] != "not asked for" || a.Results.API != nil {
		t.Errorf("%v", a.Unknown)
	}
	isEmpty(t, hot)
	isEmpty(t, cold)
}

func TestSettingsThatMeanNothingAreRefused(t *testing.T) {
	place := []bench.Place{{Tier: "hot", Dir: t.TempDir()}}
	for promise, s := range map[string]bench.AssessSettings{
		"a suite that there is not": {Suites: []string{"graphics"}, Places: place},
		"a size too small":          {Size: model.MiB, Places: place},
		"no folder":                 {},
	} {
		if _, err := bench.Assess(t.Context(), s); model.ClassOf(err) != model.Usage {
			t.Errorf("%s: %v", promise, err)
		}
	}
}

func isEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("%s holds %v, %v", dir, left, err)
	}
}
