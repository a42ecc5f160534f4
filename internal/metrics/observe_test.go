package metrics

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

func TestAnswersAreCountedByOperationAndClassOfStatus(t *testing.T) {
	m := New(Settings{})
	for _, status := range []int{200, 204, 299, 304, 404, 503, 0, 999} {
		m.Observe("get-model", status, time.Millisecond)
	}
	m.Observe("get-health-downloads", 405, -time.Second)
	m.Observe("", 404, time.Millisecond)
	m.Observe("/models/org/name", 200, time.Millisecond)
	m.Observe("\xff", 200, time.Millisecond)
	for _, want := range []struct {
		n                 float64
		operation, status string
	}{
		{3, "get-model", "2xx"},
		{1, "get-model", "3xx"},
		{1, "get-model", "4xx"},
		{1, "get-model", "5xx"},
		{2, "get-model", "other"},
		{1, "get-health-downloads", "4xx"},
		{1, "none", "4xx"},
		{2, "other", "2xx"},
	} {
		got := value(t, m, "api_response_time_seconds", "operation", want.operation, "status", want.status)
		if got != want.n {
			t.Errorf("%+v: %v", want, got)
		}
	}
	for _, one := range gathered(t, m)["api_response_time_seconds"].GetMetric() {
		if one.GetHistogram().GetSampleSum() < 0 {
			t.Error("a time is negative")
		}
	}
}

func TestTheDatabaseIsCountedByOperation(t *testing.T) {
	m := New(Settings{})
	m.ObserveDatabase("save", time.Second)
	m.ObserveDatabase("save", time.Second)
	m.ObserveDatabase("SELECT * FROM downloads", time.Second)
	if n := value(t, m, "ema_database_duration_seconds", "operation", "save"); n != 2 {
		t.Errorf("%v saves, want 2", n)
	}
	if n := value(t, m, "ema_database_duration_seconds", "operation", "other"); n != 1 {
		t.Errorf("%v others, want 1", n)
	}
}

// many is far beyond what any bound of a label may let through.
const many = 3000

func TestWhateverIsObservedTheSeriesStayFew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New(everything())
		var answers, retries int
		word := rapid.SampledFrom([]string{"op-%d", "/models/org/m%d", "https://h%d.example/x?token=s", "Mixed%d", "\xff%d", "", "äö%d"}).Draw(t, "word")
		status := rapid.IntRange(-1000, 100000).Draw(t, "status")
		for i := range many {
			name := word
			if word != "" {
				name = fmt.Sprintf(word, i)
			}
			m.Observe(name, status+i, time.Second)
			m.Observe("get-model", 200, time.Second)
			m.ObserveDatabase(name, time.Second)
			answers += 2
			m.change(name, model.Queued, time.Now())
			m.change(name, model.Resolving, time.Now())
			m.change(name, model.State(name), time.Now())
			m.change(name, model.Failed, time.Now())
			m.retried(model.Class(i))
			m.Received(model.Scheme(name), 1)
			m.Verified(Verdict(name))
			m.Repaired(Repair(name))
			m.HealthAlert(model.Severity(name))
			m.Optimized(name)
			m.Optimized("kept")
			retries++
		}
		sum := map[string]int{}
		series := map[string]int{}
		for name, f := range gathered(t, m) {
			series[name] = len(f.GetMetric())
			for _, one := range f.GetMetric() {
				sum[name] += int(one.GetHistogram().GetSampleCount()) + int(one.GetCounter().GetValue())
			}
		}
		bounds := map[string]int{ // as docs/metrics.md has them; "none" and "other" stand beside the operations
			"api_response_time_seconds":     (mostOperations + 2) * 6,
			"ema_database_duration_seconds": mostStatements + 2,
			"ema_download_retries_total":    classes,
			"ema_queue_downloads":           6,
			"ema_received_bytes_total":      4,
			"ema_verifications_total":       3,
			"ema_repairs_total":             3,
			"ema_health_alerts_total":       3,
			"ema_optimizations_total":       7,
			"ema_models_health":             4,
		}
		for name, n := range series {
			most, several := bounds[name]
			if !several {
				most = 1
			}
			if n > most && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "promhttp_") {
				t.Errorf("%s has %d series, want %d at most", name, n, most)
			}
		}
		for name, want := range map[string]int{
			"api_response_time_seconds": answers, "ema_download_retries_total": retries, "ema_database_duration_seconds": many,
			"ema_received_bytes_total": many, "ema_verifications_total": many, "ema_repairs_total": many,
			"ema_health_alerts_total": many, "ema_optimizations_total": many,
		} {
			if sum[name] != want {
				t.Errorf("%s has counted %d, want %d", name, sum[name], want)
			}
		}
		if len(m.lives) != len(everything().Active()) {
			t.Errorf("%d downloads are remembered", len(m.lives))
		}
	})
}

func TestObservingAllocatesNothing(t *testing.T) {
	m := New(Settings{})
	for promise, f := range map[string]func(){
		"an answer":   func() { m.Observe("get-model", 200, time.Millisecond) },
		"a statement": func() { m.ObserveDatabase("save", time.Millisecond) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s costs %v allocations", promise, n)
		}
	}
}

func TestManyObserveAndScrapeAtOnceAndNothingIsLost(t *testing.T) {
	const workers, each = 8, 500
	m := New(everything())
	var observing sync.WaitGroup
	for w := range workers {
		observing.Go(func() {
			for i := range each {
				m.Observe(fmt.Sprintf("op-%d", (w+i)%20), 200, time.Millisecond)
				m.ObserveDatabase("save", time.Millisecond)
				if i%100 == 0 {
					if _, err := m.registry.Gather(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	observing.Wait()
	n := 0
	for _, one := range gathered(t, m)["api_response_time_seconds"].GetMetric() {
		n += int(one.GetHistogram().GetSampleCount())
	}
	if n != workers*each || value(t, m, "ema_database_duration_seconds", "operation", "save") != workers*each {
		t.Errorf("%d of %d are counted", n, workers*each)
	}
}

func BenchmarkObserve(b *testing.B) {
	m := New(Settings{})
	b.ReportAllocs()
	for b.Loop() {
		m.Observe("get-model", 200, time.Millisecond)
	}
}

func BenchmarkObserveOnManyProcessors(b *testing.B) {
	m := New(Settings{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Observe("get-model", 200, time.Millisecond)
		}
	})
}
