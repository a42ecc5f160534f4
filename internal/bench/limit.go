package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Limit is what a figure of a load test must not be, such as "p95>5ms". The zero Limit is not valid.
type Limit struct {
	endpoint string // empty = of all together
	metric   string
	op       string // ">", ">=", "<" or "<="
	value    float64
	percent  bool // of errors: a part of the requests
}

// latencyMetrics are the figures that are times.
func latencyMetrics() []string {
	return []string{"avg", "min", "median", "p50", "p90", "p95", "p99", "p99.9", "max"}
}

// ParseLimits reads limits that are separated by commas, each METRIC>VALUE (or >=, <, <=): avg, min, median, p50, p90,
// p95, p99, p99.9 and max with a time, errors with a number or a percentage of the requests, requests, missed, and rps,
// requests per second. ENDPOINT.METRIC is of that endpoint alone.
func ParseLimits(s string) ([]Limit, error) {
	var all []Limit
	for part := range strings.SplitSeq(s, ",") {
		l, err := parseLimit(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("limit %q: %w", part, err)
		}
		all = append(all, l)
	}
	return all, nil
}

func parseLimit(s string) (Limit, error) {
	at := strings.IndexAny(s, "<>")
	if at < 0 {
		return Limit{}, fmt.Errorf("want a comparison, as in p95>5ms or errors>1%%")
	}
	l := Limit{metric: strings.TrimSpace(s[:at]), op: s[at : at+1]}
	rest := s[at+1:]
	if strings.HasPrefix(rest, "=") {
		l.op, rest = l.op+"=", rest[1:]
	}
	if endpoint, metric, found := strings.Cut(l.metric, "."); found && l.metric != "p99.9" {
		if !slices.Contains(endpointNames(), endpoint) {
			return Limit{}, unknownEndpoint(endpoint)
		}
		l.endpoint, l.metric = endpoint, metric
	}
	return l, l.parseValue(strings.TrimSpace(rest))
}

func (l *Limit) parseValue(s string) error {
	times := latencyMetrics()
	switch {
	case slices.Contains(times, l.metric):
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is no time; write it as 5ms, 250us or 1.5s", s)
		}
		l.value = milliseconds(d)
		return nil
	case slices.Contains([]string{"errors", "requests", "missed", "rps"}, l.metric):
	default:
		return fmt.Errorf("%q is none of %s, errors, requests, missed, rps", l.metric, strings.Join(times, ", "))
	}
	number, percent := strings.CutSuffix(s, "%")
	value, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || !(value >= 0): // NaN is not
		return fmt.Errorf("%q is no number", s)
	case percent && l.metric != "errors":
		return fmt.Errorf("%s is a number, no percentage", l.metric)
	case l.metric == "missed" && l.endpoint != "":
		return fmt.Errorf("a request that was never sent belongs to no endpoint; write missed alone")
	}
	l.value, l.percent = value, percent
	return nil
}

// String is the form that ParseLimits reads.
func (l Limit) String() string {
	s := l.metric + l.op
	if l.endpoint != "" {
		s = l.endpoint + "." + s
	}
	return s + l.print(l.value)
}

func (l Limit) print(value float64) string {
	switch {
	case slices.Contains(latencyMetrics(), l.metric):
		return time.Duration(value * float64(time.Millisecond)).Round(time.Microsecond).String()
	case l.percent:
		return strconv.FormatFloat(value, 'g', 4, 64) + "%"
	}
	return strconv.FormatFloat(value, 'f', -1, 64)
}

// violations are the limits that a report does not keep, each with what it is instead. A limit on what was not measured
// is not kept either: silence must not pass for success.
func (r LoadReport) violations(limits []Limit) []string {
	var all []string
	for _, l := range limits {
		value, measured := l.of(r)
		switch {
		case !measured:
			all = append(all, l.String()+": not measured")
		case l.op == ">" && value > l.value, l.op == ">=" && value >= l.value,
			l.op == "<" && value < l.value, l.op == "<=" && value <= l.value:
			all = append(all, l.String()+": "+l.print(value))
		}
	}
	return all
}

// of is what the limit is about; false when it was not measured.
func (l Limit) of(r LoadReport) (float64, bool) {
	f := r.Total
	if l.endpoint != "" {
		at := slices.IndexFunc(r.Endpoints, func(e EndpointLoad) bool { return e.Name == l.endpoint })
		if at < 0 {
			return 0, false
		}
		f = r.Endpoints[at].Figures
	}
	switch l.metric {
	case "requests":
		return float64(f.Requests), true
	case "missed":
		return float64(r.Missed), true
	case "rps":
		return f.PerSecond, true
	case "errors":
		if l.percent {
			return f.ErrorRate * 100, f.Requests > 0
		}
		return float64(f.Errors), f.Requests > 0
	}
	lat := f.Latency
	if f.Corrected != nil {
		lat = *f.Corrected
	}
	return map[string]float64{
		"avg": lat.Avg, "min": lat.Min, "median": lat.Median, "p50": lat.Median, "p90": lat.P90, "p95": lat.P95,
		"p99": lat.P99, "p99.9": lat.P999, "max": lat.Max,
	}[l.metric], lat != Latency{}
}
