package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/model"
)

// assessor measures this machine, one benchmark at a time.
type assessor interface {
	// Start begins one, and does not wait for its end: event.Benchmark tells that. It fails with a *MeasuringError while another one
	// runs, with class NotFound where there is no baseline to compare with, and DiskFull where measuring would take too much.
	Start(ctx context.Context, ask client.BenchmarkRequest) (client.BenchmarkStarted, error)
	// List is the newest first, without reports.
	List() []client.Benchmark
	// Get fails with class NotFound where nobody knows of one by that id.
	Get(id string) (client.Benchmark, error)
	// Cancel ends one that runs, and waits for that as long as ctx lets it. One that is over stays as it is, and is returned.
	Cancel(ctx context.Context, id string) (was, is client.Benchmark, err error)
}

// A MeasuringError refuses to begin a benchmark while another one runs.
type MeasuringError struct{ ID string }

// Error is the sentence.
func (e *MeasuringError) Error() string {
	return "benchmark: " + e.ID + " is running, and two would measure each other; wait for its end, or cancel it"
}

// cancelPatience is how long whoever cancels a benchmark waits until it has cleaned up.
const cancelPatience = 20 * time.Second

// offerBenchmarks has what can be asked about measuring.
func (s *Server) offerBenchmarks(rt *router) {
	if s.Assessor == nil {
		return
	}
	register(rt, operation{
		id: opBenchmark, method: http.MethodPost, path: Base + "/admin/benchmark", tag: tagAdmin, summary: "Measure downloads, the API, the disks and the machine",
		text: "As `ema benchmark` does, with processes and a store of its own, one at a time. The answer comes at once; `GET` and, over WebSocket, " +
			"`benchmark_progress` tell how far it is. It takes no more than a tenth of what is free in each tier, and three minutes at most. What the " +
			"daemon does meanwhile is in the figures.",
		fails: []int{http.StatusNotFound, http.StatusConflict, http.StatusInsufficientStorage},
		asks: map[string]any{
			"baseline": map[string]any{"full_assessment": true, "generate_baseline": true},
			"compare":  map[string]any{"full_assessment": true, "compare": true},
			"disks":    map[string]any{"suites": []string{"storage"}},
		},
		says: exampleBenchmarkStarted(),
	}, func(ctx context.Context, r *benchmarkRequest) (*client.BenchmarkStarted, error) {
		b, err := s.Assessor.Start(ctx, client.BenchmarkRequest(r.Body))
		aim(ctx, b.ID)
		return &b, noBenchmark(err)
	})
	register(rt, operation{
		id: opBenchmarks, method: http.MethodGet, path: Base + "/admin/benchmark", tag: tagAdmin, summary: "List the last benchmarks",
		text: "The newest first, ten at most, without their reports.", says: client.Benchmarks{Benchmarks: []client.Benchmark{exampleBenchmarkRunning()}},
	}, func(context.Context, *struct{}) (*client.Benchmarks, error) {
		return &client.Benchmarks{Benchmarks: s.Assessor.List()}, nil
	})
	register(rt, operation{
		id: opBenchmarkOf, method: http.MethodGet, path: Base + "/admin/benchmark/{benchmark_id}", tag: tagAdmin, summary: "See how a benchmark stands, and its report",
		text:  "The last ten are kept, over a restart too. How much is done is told by the time that the suites may take.",
		fails: []int{http.StatusNotFound}, says: exampleBenchmark(),
	}, func(_ context.Context, r *benchmarkOf) (*client.Benchmark, error) {
		b, err := s.Assessor.Get(r.ID)
		return &b, noBenchmark(err)
	})
	register(rt, operation{
		id: opBenchmarkCancel, method: http.MethodDelete, path: Base + "/admin/benchmark/{benchmark_id}", tag: tagAdmin, summary: "Cancel a benchmark",
		text:  "The answer comes when it has cleaned up; after 20 seconds it comes all the same, with the state `running`.",
		fails: []int{http.StatusNotFound, http.StatusConflict}, says: exampleBenchmarkCancelled(),
	}, func(ctx context.Context, r *benchmarkOf) (*client.Benchmark, error) {
		aim(ctx, r.ID)
		ctx, stop := context.WithTimeout(ctx, cancelPatience)
		defer stop()
		was, is, err := s.Assessor.Cancel(ctx, r.ID)
		if err == nil && was.State != client.BenchmarkRunning {
			err = &Error{
				Code: WrongState, Message: "cancel " + r.ID + ": it is " + was.State + " already", Class: model.Usage, State: was.State, Status: http.StatusConflict,
			}
		}
		return &is, noBenchmark(err)
	})
}

// noBenchmark calls by its name what there is not: it is no model.
func noBenchmark(err error) error {
	if model.ClassOf(err) != model.NotFound {
		return err
	}
	return &Error{Code: NoBenchmark, Message: err.Error(), Class: model.NotFound, Status: http.StatusNotFound}
}

// benchmarkBody is a client.BenchmarkRequest.
type benchmarkBody struct {
	Suites   []string `json:"suites,omitempty" enum:"downloads,api,storage,system" uniqueItems:"true" doc:"Which; all when it is not said."`
	Full     bool     `json:"full_assessment,omitempty" doc:"All suites, with larger files."`
	Generate bool     `json:"generate_baseline,omitempty" doc:"Keep the report as the baseline."`
	Compare  bool     `json:"compare,omitempty" doc:"Compare with the kept baseline, which must be of the same sizes."`
	SizeMB   int64    `json:"size_mb,omitempty" minimum:"4" maximum:"16384" doc:"MiB of the file by which disks are measured, of which a download is a quarter; when it is not said 256, or 512 of a full assessment."`
	Repeats  int      `json:"repeats,omitempty" minimum:"1" maximum:"1000" doc:"Of everything; until the medians are sure when it is not said."`
}

// Resolve refuses what contradicts itself.
func (b *benchmarkBody) Resolve(_ huma.Context, at *huma.PathBuffer) []error {
	if b.Full && len(b.Suites) > 0 {
		return []error{&huma.ErrorDetail{Location: at.With("suites"), Message: "a full assessment is of all suites; leave one of both out"}}
	}
	return nil
}

type benchmarkRequest struct{ Body benchmarkBody }

type benchmarkOf struct {
	ID string `path:"benchmark_id" maxLength:"100" doc:"Of the benchmark." example:"bm_dayslzl57xtr2wmk"`
}
