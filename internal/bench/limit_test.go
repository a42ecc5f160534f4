package bench

import (
	"strings"
	"testing"
)

func mustLimits(t *testing.T, s string) []Limit {
	t.Helper()
	all, err := ParseLimits(s)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestLimitsAreReadAsTheyAreWritten(t *testing.T) {
	const text = "p95>5ms,errors>1%,errors>=10,start.p99.9>=1.5s,rps<100,missed>0,avg<=250µs,status.median>1ms,p99.9>2s"
	var again []string
	for _, l := range mustLimits(t, text) {
		again = append(again, l.String())
	}
	if got := strings.Join(again, ","); got != text {
		t.Errorf("read as %s", got)
	}
	for text, why := range map[string]string{
		"":               "want a comparison",
		"p95":            "want a comparison",
		"p95>5":          "is no time",
		"p95>-5ms":       "is no time",
		"p97>5ms":        `"p97" is none of`,
		"errors>x":       "is no number",
		"errors>NaN":     "is no number",
		"rps<5%":         "no percentage",
		"stop.p95>5ms":   `endpoint "stop" is none of`,
		"start.missed>0": "belongs to no endpoint",
		"p95>5ms,":       "want a comparison",
	} {
		if _, err := ParseLimits(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestALimitThatIsNotKeptSaysWhatItWas(t *testing.T) {
	r := LoadReport{
		Missed: 3,
		Endpoints: []EndpointLoad{
			{Name: "status", Figures: Figures{Requests: 90, Latency: Latency{P95: 1}}},
			{Name: "start", Figures: Figures{Requests: 10, Errors: 5, ErrorRate: 0.5, Latency: Latency{P95: 20}}},
		},
		Total: Figures{Requests: 100, Errors: 5, ErrorRate: 0.05, PerSecond: 50, Latency: Latency{Avg: 2, Median: 2, P95: 7.25, P999: 9}},
	}
	for limit, want := range map[string]string{
		"p95>5ms":          "p95>5ms: 7.25ms",
		"p95>7.25ms":       "",
		"p95>=7.25ms":      "p95>=7.25ms: 7.25ms",
		"p50>1ms":          "p50>1ms: 2ms",
		"p99.9<=9ms":       "p99.9<=9ms: 9ms",
		"status.p95>5ms":   "",
		"start.p95>5ms":    "start.p95>5ms: 20ms",
		"errors>1%":        "errors>1%: 5%",
		"errors>5%":        "",
		"errors>4":         "errors>4: 5",
		"status.errors>0":  "",
		"rps<100":          "rps<100: 50",
		"requests<100":     "",
		"missed>2":         "missed>2: 3",
		"analytics.p95>1s": "analytics.p95>1s: not measured",
	} {
		if got := strings.Join(r.violations(mustLimits(t, limit)), "; "); got != want {
			t.Errorf("%s: %q, want %q", limit, got, want)
		}
	}
	if got := (LoadReport{}).violations(mustLimits(t, "p95>1h,errors>1%")); len(got) != 2 {
		t.Errorf("a test without requests keeps its limits: %v", got)
	}
	r.Total.Corrected = &Latency{P95: 100}
	if got := r.violations(mustLimits(t, "p95>50ms")); len(got) != 1 {
		t.Errorf("a corrected latency is not what counts: %v", got)
	}
}
