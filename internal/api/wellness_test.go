package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ema/client"
	"ema/internal/ledger"
	"ema/internal/model"
)

// nurse knows one model, acme/here.
type nurse struct{}

func (nurse) Health(_ context.Context, ids []model.ID) client.ModelsHealth {
	all := client.ModelsHealth{Models: map[string]client.ModelHealth{}}
	if ids == nil || ids[0] == hub("acme/here") {
		one := exampleModelHealth()
		all.Models["acme/here"] = one
	}
	return all
}

func (nurse) History(context.Context, model.ID, int) ([]model.HealthCheck, error) { return nil, nil }

func (nurse) Check(_ context.Context, id model.ID, kind string, _ bool) (client.HealthTask, error) {
	return task(id, kind)
}

func (nurse) Repair(_ context.Context, id model.ID, kind string) (client.HealthTask, error) {
	return task(id, kind)
}

func task(id model.ID, kind string) (client.HealthTask, error) {
	if id != hub("acme/here") {
		return client.HealthTask{}, &model.Error{Op: "check", Class: model.NotFound, Model: id, Err: errors.New("it is not here")}
	}
	return client.HealthTask{ID: "T1", Kind: kind, Actions: []string{}}, nil
}

// sage answers as the examples say.
type sage struct{}

func (sage) Usage(context.Context, ledger.UsageQuestion, int, int) (client.Analytics, error) {
	return exampleAnalytics(), nil
}

func (sage) Cleanup(context.Context, model.Bytes, *time.Duration) (client.CleanupAdvice, error) {
	return exampleCleanupAdvice(), nil
}

func (sage) Performance(context.Context) (client.PerformanceTrends, error) {
	return examplePerformance(), nil
}

func (sage) Preload(context.Context, *time.Location) (client.PreloadAdvice, error) {
	return examplePreload(), nil
}

// herald knows what is newer of acme/here.
type herald struct{}

func (herald) Updates(context.Context) (client.Updates, error) { return exampleUpdates(), nil }

func (herald) Look(context.Context, model.ID) (client.Updates, error) { return exampleUpdates(), nil }

func (herald) Apply(_ context.Context, id model.ID) (model.Download, error) {
	if id != hub("acme/here") {
		return model.Download{}, &model.Error{Op: "update", Class: model.NotFound, Model: id, Err: errors.New("it is not here")}
	}
	return model.Download{ID: "dl_u", Model: id, State: model.Queued, Created: exampleTime()}, nil
}

func (herald) Rollback(_ context.Context, id model.ID, commit string) (client.RolledBack, error) {
	if id != hub("acme/here") {
		return client.RolledBack{}, &model.Error{Op: "roll back", Class: model.NotFound, Model: id, Err: errors.New("it is not here")}
	}
	return client.RolledBack{Model: id.Public(), To: commit}, nil
}

// substitutes are those of the example.
type substitutes struct{}

func (substitutes) Suggest(context.Context, Wanted) (client.Fallbacks, error) {
	return exampleFallbacks(), nil
}

func (substitutes) Await(context.Context, Await) (client.Awaited, error) {
	return client.Awaited{}, nil
}

func (substitutes) Waiters(context.Context) (client.Waiters, error) {
	return client.Waiters{Waiting: []client.Waiter{}}, nil
}

func (substitutes) GiveUp(_ context.Context, id string) error {
	if id == "none" {
		return &model.Error{Op: "give up", Class: model.NotFound, Err: errors.New("nobody waits by that id")}
	}
	return nil
}

// dial shows the figures of the example.
type dial struct{}

func (dial) Now(context.Context) (client.Performance, error) { return examplePerformanceNow(), nil }

func (dial) Analysis(_ context.Context, about model.ID) (client.PerformanceAnalysis, error) {
	if about.Name == "acme/none" {
		return client.PerformanceAnalysis{}, &model.Error{Op: "analyze", Class: model.NotFound, Model: about, Err: errors.New("no download of it is known")}
	}
	return exampleAnalysis(), nil
}

func (dial) Baseline(context.Context) (client.PerformanceBaseline, error) {
	return exampleBaseline(), nil
}

func (dial) SetBaseline(_ context.Context, hours float64) (client.PerformanceBaseline, error) {
	b := exampleBaseline()
	b.Hours = hours
	return b, nil
}

func (dial) Regressions(context.Context) (client.PerformanceRegressions, error) {
	return exampleRegressions(), nil
}

func (dial) Trends(context.Context) (client.PerformanceCourse, error) { return exampleTrends(), nil }

// tuner has the optimization of the example, which holds.
type tuner struct{}

func (tuner) Optimizations(context.Context) (client.Optimizations, error) {
	return exampleOptimizations(), nil
}

func (tuner) Undo(_ context.Context, id string) (client.Optimization, error) {
	switch id {
	case "7":
		return exampleOptimization(), nil
	case "6":
		return client.Optimization{}, fmt.Errorf("undo the optimization 6: nothing of it holds: %w", ErrHoldsNoMore)
	}
	return client.Optimization{}, &model.Error{Op: "undo the optimization", Class: model.NotFound, Err: errors.New("there is none with this id")}
}

func (dial) Past(_ context.Context, metric string, from, to time.Time, step time.Duration) (client.PerformanceHistory, error) {
	if metric != "system.cpu_usage_percent" {
		return client.PerformanceHistory{}, &model.Error{Op: "read the history", Class: model.NotFound, Err: errors.New("there is no such figure")}
	}
	return client.PerformanceHistory{Metric: metric, From: from, To: to, Step: step.Seconds(), Points: []client.PerformancePoint{}}, nil
}

// gauger has one benchmark that runs, bm_1, and one that is over, bm_0.
type gauger struct{}

func (gauger) Start(_ context.Context, ask client.BenchmarkRequest) (client.BenchmarkStarted, error) {
	switch {
	case ask.Compare:
		return client.BenchmarkStarted{}, &model.Error{Op: "compare", Class: model.NotFound, Err: errors.New("there is no baseline")}
	case ask.SizeMB == 16384:
		return client.BenchmarkStarted{}, &model.Error{Op: "benchmark", Class: model.DiskFull, Short: 7, Err: errors.New("it would fill the disk")}
	case ask.Generate:
		return client.BenchmarkStarted{}, &MeasuringError{"bm_1"}
	}
	return exampleBenchmarkStarted(), nil
}

func (gauger) List() []client.Benchmark { return []client.Benchmark{exampleBenchmarkRunning()} }

func (gauger) Get(id string) (client.Benchmark, error) {
	switch id {
	case "bm_0":
		return exampleBenchmark(), nil
	case "bm_1", "{benchmark_id}": // as the roles are tried
		return exampleBenchmarkRunning(), nil
	}
	return client.Benchmark{}, &model.Error{Op: "benchmark", Class: model.NotFound, Err: errors.New("there is none by that id")}
}

func (g gauger) Cancel(_ context.Context, id string) (was, is client.Benchmark, err error) {
	was, err = g.Get(id)
	if is = was; was.State == client.BenchmarkRunning {
		is = exampleBenchmarkCancelled()
	}
	return was, is, err
}
