package bench

import (
	"maps"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A LoadReport is what a load test has measured.
type LoadReport struct {
	URL     string    `json:"url"`
	Started time.Time `json:"started"` // of the measuring, after the warm-up
	Mode    string    `json:"mode"`    // "users" or "rate"

	Users       int     `json:"users,omitempty"`
	WaitMin     float64 `json:"wait_min_seconds,omitempty"`
	WaitMax     float64 `json:"wait_max_seconds,omitempty"`
	Rate        float64 `json:"rate,omitempty"` // requests per second that were meant to leave
	Connections int     `json:"connections"`    // the most at once
	Timeout     float64 `json:"timeout_seconds"`
	Warmup      float64 `json:"warmup_seconds,omitempty"`
	Seed        uint64  `json:"seed"`
	Mix         Mix     `json:"mix"` // of what was called

	Seconds     float64 `json:"seconds"`            // measured, the wait for the last answers included
	Missed      int64   `json:"missed"`             // due before the end and never sent, because every connection was busy
	Interrupted bool    `json:"interrupted"`        // the figures are of the time until then
	LeftOut     []Left  `json:"left_out"`           // of the mix, since this server has it not
	Download    *Trace  `json:"download,omitempty"` // when downloads were started

	Endpoints []EndpointLoad `json:"endpoints"`
	Total     Figures        `json:"total"`

	Examples   map[Kind]string `json:"examples,omitempty"`   // the first error of a kind, where its name says too little
	Violations []string        `json:"violations,omitempty"` // of the limits that were given
}

// Left is an endpoint that was not called.
type Left struct {
	Endpoint string `json:"endpoint"`
	Reason   string `json:"reason"`
}

// A Trace is what the test has left of the download that it started.
type Trace struct {
	Model   string `json:"model_id"`
	Outcome string `json:"outcome"`       // existed, cancelled, over, kept, unknown: nobody could say whether it existed; failed: it could not be cancelled
	Why     string `json:"why,omitempty"` // of unknown and failed
}

// EndpointLoad is what was measured of one endpoint.
type EndpointLoad struct {
	Name   string `json:"name"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Weight int    `json:"weight"`
	Figures
}

// Figures are what was measured of a number of requests. Latencies are of answers, whatever their status, and of
// requests that timed out; with a constant rate they count from when a request was due, not from when it left.
type Figures struct {
	Requests   int64            `json:"requests"`
	Errors     int64            `json:"errors"`
	ErrorRate  float64          `json:"error_rate"` // 0 to 1
	Statuses   map[string]int64 `json:"statuses"`   // answers by class: 2xx, 3xx, 4xx, 429 (not among 4xx), 5xx
	Kinds      map[Kind]int64   `json:"error_kinds"`
	PerSecond  float64          `json:"requests_per_second"`
	Bytes      int64            `json:"bytes"` // of bodies
	Latency    Latency          `json:"latency_ms"`
	Corrected  *Latency         `json:"corrected_latency_ms,omitempty"` // with what the stalls of the server kept from being asked
	ExpectedMS float64          `json:"expected_interval_ms,omitempty"` // that Corrected is by
}

// Latency is in milliseconds, each to a thousandth of its value. All are 0 when none was measured.
type Latency struct {
	Avg    float64 `json:"avg"`
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
	P999   float64 `json:"p99_9"`
	Max    float64 `json:"max"`
}

// figures are those of a tally over that time. Nobody may add to it meanwhile.
func (t *tally) figures(seconds float64) Figures {
	f := Figures{
		Requests: t.requests, Errors: t.errors, Bytes: t.bytes,
		Statuses: maps.Clone(t.statuses), Kinds: maps.Clone(t.kinds), Latency: summary(t.latency),
	}
	if t.requests > 0 {
		f.ErrorRate = float64(t.errors) / float64(t.requests)
	}
	if seconds > 0 {
		f.PerSecond = float64(t.requests) / seconds
	}
	if t.corrected != nil {
		corrected := summary(t.corrected)
		f.Corrected, f.ExpectedMS = &corrected, milliseconds(t.expected)
	}
	return f
}

func summary(h *hdrhistogram.Histogram) Latency {
	at := func(q float64) float64 { return milliseconds(time.Duration(h.ValueAtQuantile(q))) }
	if h.TotalCount() == 0 {
		return Latency{}
	}
	return Latency{
		Avg: h.Mean() / float64(time.Millisecond), Min: at(0), Median: at(50), P90: at(90), P95: at(95), P99: at(99), P999: at(99.9), Max: at(100),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
