package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/model"
)

// observer knows how well everything runs.
type observer interface {
	// Now is how it runs now.
	Now(ctx context.Context) (client.Performance, error)
	// Past is one figure from one time until before another; a step of 0 is chosen so that there are not too many points. It fails
	// with class NotFound where there is no such figure, and Busy while the database is away.
	// Analysis is what everything waits for, or the download of one model, running or the last one. It fails with class NotFound where
	// nothing is known of one.
	Analysis(ctx context.Context, about model.ID) (client.PerformanceAnalysis, error)
	// Baseline is the one that was taken last; it fails with class NotFound where none was. SetBaseline takes one.
	Baseline(ctx context.Context) (client.PerformanceBaseline, error)
	SetBaseline(ctx context.Context, hours float64) (client.PerformanceBaseline, error)
	// Regressions are the figures that are worse than they were.
	Regressions(ctx context.Context) (client.PerformanceRegressions, error)
	// Trends is where all figures are going. It fails with class Busy while the database is away.
	Trends(ctx context.Context) (client.PerformanceCourse, error)
	Past(ctx context.Context, metric string, from, to time.Time, step time.Duration) (client.PerformanceHistory, error)
}

// optimizer changes settings by itself, and knows what it has changed.
type optimizer interface {
	// Optimizations are those that it has made, and recommends. It fails with class Busy while the database is away.
	Optimizations(ctx context.Context) (client.Optimizations, error)
	// Undo takes one back. It fails with class NotFound where there is none with that id, and with ErrHoldsNoMore where it is not to be
	// taken back any more.
	Undo(ctx context.Context, id string) (client.Optimization, error)
}

// ErrHoldsNoMore says that a change cannot be taken back.
var ErrHoldsNoMore = errors.New("it cannot be taken back")

// offerPerformance has what can be asked about how well everything runs.
func (s *Server) offerPerformance(rt *router) {
	if s.Observer == nil {
		return
	}
	register(rt, operation{
		id: opPerformance, method: http.MethodGet, path: Base + "/admin/performance/current", tag: tagAdmin, summary: "See how everything runs now",
		text: "Measured when it is asked for: rates and means are over the last minute, or since the daemon was started; those of processors and network " +
			"over the time since they were looked at last, ten seconds at most. What cannot be known is null, and `unknown` says why.",
		says: examplePerformanceNow(),
	}, func(ctx context.Context, _ *struct{}) (*client.Performance, error) {
		p, err := s.Observer.Now(ctx)
		return &p, err
	})
	register(rt, operation{
		id: opDashboard, method: http.MethodGet, path: Base + "/admin/performance/dashboard", tag: tagAdmin, summary: "See the figures of a dashboard",
		text: "Those of `/admin/performance/current`.", says: examplePerformanceNow(),
	}, func(ctx context.Context, _ *struct{}) (*client.Performance, error) {
		p, err := s.Observer.Now(ctx)
		return &p, err
	})
	register(rt, operation{
		id: opPerformanceTrends, method: http.MethodGet, path: Base + "/admin/performance/trends", tag: tagAdmin, summary: "See where the figures are going",
		text: "Over the last `monitoring.window` means of `monitoring.interval_seconds` each. A trend is one where the order of the samples is no " +
			"chance (Mann's test, 5 %). What is recommended is done by itself only with `monitoring.auto_apply`; `held_back` says why not.",
		fails: []int{http.StatusServiceUnavailable}, says: exampleTrends(),
	}, func(ctx context.Context, _ *struct{}) (*client.PerformanceCourse, error) {
		c, err := s.Observer.Trends(ctx)
		return &c, err
	})
	register(rt, operation{
		id: opPerformanceAnalysis, method: http.MethodGet, path: Base + "/admin/performance/analysis", tag: tagAdmin, summary: "See what everything waits for",
		text: "Where the time of the connections goes, over the last seconds - between three and thirteen - or over the whole of a download that is over, " +
			"and what that means: the worst first, each with its evidence and, where there is one, the setting to change. A share is the part of the " +
			"time that a cause explains.",
		fails: []int{http.StatusNotFound}, says: exampleAnalysis(),
	}, func(ctx context.Context, r *analysisRequest) (*client.PerformanceAnalysis, error) {
		a, err := s.Observer.Analysis(ctx, r.id)
		return &a, err
	})
	register(rt, operation{
		id: opBaseline, method: http.MethodGet, path: Base + "/admin/performance/baseline", tag: tagAdmin, summary: "See the baseline of the figures",
		fails: []int{http.StatusNotFound}, says: exampleBaseline(),
	}, func(ctx context.Context, _ *struct{}) (*client.PerformanceBaseline, error) {
		b, err := s.Observer.Baseline(ctx)
		return &b, err
	})
	register(rt, operation{
		id: opSetBaseline, method: http.MethodPost, path: Base + "/admin/performance/baseline", tag: tagAdmin, summary: "Take how the figures were lately for the baseline",
		text:  "Later figures are compared with it; an earlier one is forgotten.",
		fails: []int{http.StatusServiceUnavailable}, says: exampleBaseline(),
	}, func(ctx context.Context, r *baselineRequest) (*client.PerformanceBaseline, error) {
		hours := r.Body.Hours
		if hours == 0 {
			hours = 24
		}
		b, err := s.Observer.SetBaseline(ctx, hours)
		return &b, err
	})
	register(rt, operation{
		id: opRegressions, method: http.MethodGet, path: Base + "/admin/performance/regressions", tag: tagAdmin, summary: "See what is worse than it was",
		text: "Every `monitoring.interval_seconds` the last `monitoring.window` means of each figure are compared with the baseline and with the two weeks " +
			"before. One has regressed when it is worse by more than `monitoring.regression_threshold`, in its direction, and by more than its noise: " +
			"three MAD of either side. Two checks in a row open an incident, which is told once, and two close it.",
		says: exampleRegressions(),
	}, func(ctx context.Context, _ *struct{}) (*client.PerformanceRegressions, error) {
		r, err := s.Observer.Regressions(ctx)
		return &r, err
	})
	register(rt, operation{
		id: opPerformancePast, method: http.MethodGet, path: Base + "/admin/performance/history", tag: tagAdmin, summary: "See one figure over time",
		text:  "Samples of every ten seconds are kept for a day, sums of minutes for two weeks, and sums of hours for as long as history is kept.",
		fails: []int{http.StatusNotFound, http.StatusServiceUnavailable},
		says: client.PerformanceHistory{
			Metric: "system.cpu_usage_percent", From: exampleTime(), To: exampleTime().Add(time.Minute), Step: 60,
			Points: []client.PerformancePoint{{At: exampleTime(), Mean: 41.5, Least: 12, Most: 88, Times: 6}},
		},
	}, func(ctx context.Context, r *performanceRequest) (*client.PerformanceHistory, error) {
		h, err := s.Observer.Past(ctx, r.Metric, r.from, r.to, time.Duration(r.Step)*time.Second)
		return &h, err
	})
}

// baselineRequest takes a baseline.
type baselineRequest struct {
	Body struct {
		Hours float64 `json:"hours,omitempty" minimum:"0" maximum:"8760" doc:"That it is over; 24 when it is not said."`
	}
}

// analysisRequest asks what is waited for.
type analysisRequest struct {
	Model string `query:"model_id" maxLength:"4096" doc:"Only the download of this model: the one that runs, or else the last one." example:"org/name"`

	id model.ID
}

func (r *analysisRequest) Resolve(huma.Context) []error {
	if r.Model == "" {
		return nil
	}
	id, _, err := model.ParseRef(r.Model)
	if err != nil {
		return []error{&huma.ErrorDetail{Location: "query.model_id", Message: err.Error(), Value: clip(r.Model)}}
	}
	r.id = id
	return nil
}

// offerOptimizations has what can be asked about settings that change by themselves.
func (s *Server) offerOptimizations(rt *router) {
	if s.Optimizer == nil {
		return
	}
	register(rt, operation{
		id: opOptimizations, method: http.MethodGet, path: Base + "/admin/performance/optimizations", tag: tagAdmin, summary: "See which settings were changed to go faster",
		text: "With `monitoring.auto_apply` the daemon changes a setting that may help, one at a time, and measures: what helps is put back for a while, to " +
			"see whether it is missed, and kept if it helps again. What does not help is undone.",
		fails: []int{http.StatusServiceUnavailable}, says: exampleOptimizations(),
	}, func(ctx context.Context, _ *struct{}) (*client.Optimizations, error) {
		o, err := s.Optimizer.Optimizations(ctx)
		return &o, err
	})
	register(rt, operation{
		id: opOptimizationUndo, method: http.MethodPost, path: Base + "/admin/performance/optimizations/{optimization_id}/undo", tag: tagAdmin, summary: "Take back a change",
		text:  "The setting becomes what it was before, and the change is not tried again for 90 days. It is refused when somebody has changed the setting since.",
		fails: []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}, says: client.OptimizationUndone{
			Success: true, Message: "downloads.max_concurrent_downloads is 4 again", Optimization: exampleOptimization(),
		},
	}, func(ctx context.Context, r *undoRequest) (*client.OptimizationUndone, error) {
		aim(ctx, r.ID)
		o, err := s.Optimizer.Undo(ctx, r.ID)
		if errors.Is(err, ErrHoldsNoMore) {
			err = &Error{Code: WrongState, Message: err.Error(), Class: model.Usage, Status: http.StatusConflict}
		}
		if err != nil {
			return nil, err
		}
		aim(ctx, o.ID+" "+o.Setting)
		return &client.OptimizationUndone{Success: true, Message: o.Setting + " is " + o.From + " again", Optimization: o}, nil
	})
}

type undoRequest struct {
	ID string `path:"optimization_id" maxLength:"20" doc:"As the list has it." example:"7"`
}

// performanceRequest asks for one figure over time.
type performanceRequest struct {
	Metric string `query:"metric" required:"true" doc:"A figure by its group and name." example:"system.cpu_usage_percent"`
	From   string `query:"from" format:"date-time" doc:"The first moment; a day before the last one when it is not said." example:"2026-03-29T00:00:00Z"`
	To     string `query:"to" format:"date-time" doc:"The last moment; now when it is not said."`
	Step   int    `query:"step" minimum:"0" maximum:"31536000" doc:"Seconds that a point sums up; 0 is so many that there are at most 1000 points."`

	from, to time.Time
}

func (r *performanceRequest) Resolve(huma.Context) (wrong []error) {
	r.to = time.Now()
	for name, at := range map[string]struct {
		text string
		to   *time.Time
	}{"query.to": {r.To, &r.to}, "query.from": {r.From, &r.from}} {
		if at.text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339, at.text)
		if err != nil {
			wrong = append(wrong, &huma.ErrorDetail{Location: name, Message: "expected a time as in 2026-03-29T00:00:00Z", Value: clip(at.text)})
			continue
		}
		*at.to = t
	}
	if r.from.IsZero() {
		r.from = r.to.Add(-24 * time.Hour)
	}
	if len(wrong) == 0 && !r.from.Before(r.to) {
		wrong = append(wrong, &huma.ErrorDetail{Location: "query.from", Message: "expected a time before `to`", Value: clip(r.From)})
	}
	return wrong
}
