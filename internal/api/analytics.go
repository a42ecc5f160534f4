package api

import (
	"bytes"
	"context"
	"encoding/csv"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/ledger"
	"ema/internal/model"
)

// analyst draws conclusions from how models were used. While the database is away it fails with class Busy.
type analyst interface {
	// Usage tells of the most used models of a question, after leaving out offset of them at most limit, and sums up all.
	Usage(ctx context.Context, q ledger.UsageQuestion, limit, offset int) (client.Analytics, error)
	// Cleanup is what could go so that models take at most so many bytes; 0 is as the settings say. minUnused is as in Cleaning.
	Cleanup(ctx context.Context, most model.Bytes, minUnused *time.Duration) (client.CleanupAdvice, error)
	Performance(ctx context.Context) (client.PerformanceTrends, error)
	Preload(ctx context.Context, zone *time.Location) (client.PreloadAdvice, error)
}

// dailyTold is how many days are told one by one.
const dailyTold = 30

// offerAnalytics has what can be asked about how models were used.
func (s *Server) offerAnalytics(rt *router) {
	if s.Analyst == nil {
		return
	}
	away := []int{http.StatusServiceUnavailable}
	register(rt, operation{
		id: opAnalytics, method: http.MethodGet, path: Base + "/models/analytics", tag: tagModels, summary: "See how models were used",
		text: "The most used ones first, 100 of them unless `limit` says otherwise; the summary is about all. Uses are those that programs " +
			"told and that were noticed; nothing leaves the machine.",
		fails: away, says: exampleAnalytics(),
	}, func(ctx context.Context, r *analyticsRequest) (*client.Analytics, error) {
		a, err := s.Analyst.Usage(ctx, r.question, r.Limit, r.Offset)
		return &a, err
	})
	register(rt, operation{
		id: opAnalyticsOf, method: http.MethodGet, path: Base + "/models/analytics/{model_id}", tag: tagModels, summary: "See how one model was used",
		text: "A model that nobody has used within the period has zeros.", fails: away, says: exampleAnalytics(),
	}, func(ctx context.Context, r *modelAnalyticsRequest) (*client.Analytics, error) {
		r.question.Models = []model.ID{r.id}
		a, err := s.Analyst.Usage(ctx, r.question, 1, 0)
		return &a, err
	})
	register(rt, operation{
		id: opAnalyticsCleanup, method: http.MethodGet, path: Base + "/models/analytics/cleanup", tag: tagModels, summary: "See which models could go",
		text: "By the rules of `POST /models/cleanup`, which removes them after asking their source whether it still has them.",
		says: exampleCleanupAdvice(),
	}, s.cleanupAdvice)
	register(rt, operation{
		id: opAnalyticsPerformance, method: http.MethodGet, path: Base + "/models/analytics/performance", tag: tagModels, summary: "See whether models became slower",
		text: "A model's score compares how long its uses took in the last 7 days with the 30 days before: before / lately, at most 1; null with " +
			"fewer than five uses of known duration in either.",
		fails: away, says: examplePerformance(),
	}, func(ctx context.Context, _ *struct{}) (*client.PerformanceTrends, error) {
		p, err := s.Analyst.Performance(ctx)
		return &p, err
	})
	register(rt, operation{
		id: opAnalyticsPreload, method: http.MethodGet, path: Base + "/models/analytics/preload", tag: tagModels, summary: "See which models will be wanted soon",
		text: "Models that are used at this hour of the day, and are neither in memory nor on the fastest tier. The confidence is that of at " +
			"least one use within three hours, if it goes on as in the last 30 days.",
		fails: away, says: examplePreload(),
	}, func(ctx context.Context, r *ZoneQuery) (*client.PreloadAdvice, error) {
		p, err := s.Analyst.Preload(ctx, r.zone)
		return &p, err
	})
	rt.raw(operation{
		id: opAnalyticsExport, method: http.MethodGet, path: Base + "/models/analytics/export", tag: tagModels, summary: "Take home how models were used, as CSV",
		text: "A line for each model and day of the period.", kind: "text/csv", fails: away,
		parameters: []*huma.Param{
			{Name: "period", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"day", "week", "month", "year"}}, Description: "Which days, up to today."},
			{Name: "start_date", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Format: "date"}, Description: "The first day, instead of a period."},
			{Name: "end_date", In: "query", Schema: &huma.Schema{Type: huma.TypeString, Format: "date"}, Description: "The last day."},
			{Name: "timezone", In: "query", Schema: &huma.Schema{Type: huma.TypeString}, Description: "Whose days are meant, such as Europe/Berlin."},
		},
	}, rt.handled(s.exportAnalytics))
}

// ZoneQuery names a time zone.
type ZoneQuery struct {
	Zone string `query:"timezone" doc:"Whose days and hours are meant, such as Europe/Berlin or UTC; the daemon's own when it is not said." example:"Europe/Berlin"`
	zone *time.Location
}

func (z *ZoneQuery) Resolve(huma.Context) (wrong []error) {
	var err error
	if z.zone, err = zoneOf(z.Zone); err != nil {
		wrong = append(wrong, &huma.ErrorDetail{Location: "query.timezone", Message: "there is no such time zone; name one as Europe/Berlin or UTC", Value: z.Zone})
	}
	return wrong
}

// zoneOf is the time zone of that name; the machine's own when there is none.
func zoneOf(name string) (*time.Location, error) {
	if name == "" {
		return time.Local, nil //nolint:gosmopolitan // people mean their own clocks
	}
	return time.LoadLocation(name)
}

// PeriodQuery says which days are asked about.
type PeriodQuery struct {
	ZoneQuery
	Period string `query:"period" enum:"day,week,month,year" doc:"The last 1, 7, 30 or 365 days, today included; month when nothing is said."`
	First  string `query:"start_date" doc:"The first day, as in 2026-03-29, instead of a period." example:"2026-03-01"`
	Last   string `query:"end_date" doc:"The last day; today when it is not said." example:"2026-03-29"`

	question ledger.UsageQuestion
}

func (p *PeriodQuery) Resolve(c huma.Context) []error {
	wrong := p.ZoneQuery.Resolve(c)
	if len(wrong) > 0 {
		return wrong
	}
	p.question = ledger.UsageQuestion{Zone: p.zone, Last: ledger.DateOf(time.Now().In(p.zone)), Daily: dailyTold}
	for name, day := range map[string]struct {
		text string
		to   *ledger.Date
	}{"query.end_date": {p.Last, &p.question.Last}, "query.start_date": {p.First, &p.question.First}} {
		if day.text == "" {
			continue
		}
		t, err := time.Parse(time.DateOnly, day.text)
		if err != nil {
			wrong = append(wrong, &huma.ErrorDetail{Location: name, Message: "expected a day as in 2026-03-29", Value: clip(day.text)})
		}
		*day.to = ledger.DateOf(t)
	}
	if p.First == "" {
		days := map[string]int{"day": 1, "week": 7, "": dailyTold, "month": dailyTold, "year": 365}[p.Period]
		p.question.First = p.question.Last.Add(1 - days)
	}
	if n := p.question.First.Until(p.question.Last); len(wrong) == 0 && (n < 0 || n > mostDays) {
		wrong = append(wrong, &huma.ErrorDetail{Location: "query.start_date", Message: "it must be before the end, by ten years at most", Value: p.First})
	}
	return wrong
}

// mostDays is how many days may be asked about: as many as the longest history may have.
const mostDays = 3660

type analyticsRequest struct {
	PeriodQuery
	Limit  int `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"Models that are told of."`
	Offset int `query:"offset" minimum:"0" doc:"Models that are left out before."`
}

type modelAnalyticsRequest struct {
	ModelPath
	PeriodQuery
}

// Resolve has both parts judged.
func (r *modelAnalyticsRequest) Resolve(c huma.Context) []error {
	return append(r.ModelPath.Resolve(c), r.PeriodQuery.Resolve(c)...)
}

type cleanupAdviceRequest struct {
	Threshold float64 `query:"storage_threshold_gb" minimum:"0" maximum:"1e9" doc:"What models may take, in GiB; as configured when it is not said."`
	MinUnused float64 `query:"min_unused_days" minimum:"-1" default:"-1" maximum:"36500" doc:"Only models that were not used for so long; as configured when it is not said."`
}

func (s *Server) cleanupAdvice(ctx context.Context, r *cleanupAdviceRequest) (*client.CleanupAdvice, error) {
	var unused *time.Duration
	if r.MinUnused >= 0 {
		unused = new(time.Duration(r.MinUnused * 24 * float64(time.Hour)))
	}
	a, err := s.Analyst.Cleanup(ctx, model.Bytes(r.Threshold*float64(model.GiB)), unused)
	return &a, err
}

// exportPage is how many models are asked about at once.
const exportPage = 100

// exportAnalytics writes a line for each model and day.
func (s *Server) exportAnalytics(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	p := PeriodQuery{
		ZoneQuery: ZoneQuery{Zone: query.Get("timezone")}, Period: query.Get("period"), First: query.Get("start_date"), Last: query.Get("end_date"),
	}
	switch p.Period {
	case "", "day", "week", "month", "year":
	default:
		return invalid("query.period", "expected day, week, month or year, not %q", clip(p.Period))
	}
	for _, wrong := range p.Resolve(nil) {
		if d, ok := wrong.(*huma.ErrorDetail); ok { //nolint:errorlint // it was made a few lines above
			return invalid(d.Location, "%s", d.Message)
		}
	}
	q := p.question
	q.Daily = q.First.Until(q.Last) + 1
	var first bytes.Buffer // so that a failure at the first page is told as one
	out := csv.NewWriter(&first)
	if err := out.Write([]string{"model_id", "date", "uses", "avg_time_seconds"}); err != nil {
		return err
	}
	for offset := 0; ; offset += exportPage {
		a, err := s.Analyst.Usage(r.Context(), q, exportPage, offset)
		if err == nil {
			err = writeDays(out, a)
		}
		if err != nil && offset == 0 {
			return err
		}
		if err != nil {
			panic(http.ErrAbortHandler) // what is missing must not look like an end
		}
		if offset == 0 {
			w.Header().Set("Content-Type", "text/csv; charset=utf-8")
			w.Header().Set("Content-Disposition", `attachment; filename="ema-usage.csv"`)
			if _, err := w.Write(first.Bytes()); err != nil {
				return nil //nolint:nilerr // who asked is gone
			}
			out = csv.NewWriter(w)
		}
		if len(a.Models) < exportPage {
			return nil
		}
	}
}

// writeDays writes the days of some models, in the order of their names.
func writeDays(out *csv.Writer, a client.Analytics) error {
	for _, name := range slices.Sorted(maps.Keys(a.Models)) {
		for _, d := range a.Models[name].Days {
			taken := ""
			if d.AverageTime != nil {
				taken = strconv.FormatFloat(*d.AverageTime, 'g', 6, 64)
			}
			if err := out.Write([]string{harmless(name), d.Date, strconv.FormatInt(d.Uses, 10), taken}); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// harmless is a text that no spreadsheet takes for a formula.
func harmless(text string) string {
	if strings.ContainsAny(text[:min(1, len(text))], "=+-@\t\r") {
		return "'" + text
	}
	return text
}
