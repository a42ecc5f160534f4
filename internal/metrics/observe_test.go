package metrics

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

func TestAnswersAreCountedByOperationMethodAndClassOfStatus(t *testing.T) {
	m := New(Settings{})
	for _, status := range []int{200, 204, 299, 304, 404, 503, 0, 999} {
		m.Observe("get-model", http.MethodGet, status, time.Millisecond)
	}
	m.Observe("get-model", "BREW", 405, -time.Second)
	m.Observe("", http.MethodGet, 404, time.Millisecond)
	m.Observe("/models/org/name", http.MethodGet, 200, time.Millisecond)
	m.Observe("\xff", http.MethodGet, 200, time.Millisecond)
	for _, want := range []struct {
		n                         float64
		operation, method, status string
	}{
		{3, "get-model", "GET", "2xx"},
		{1, "get-model", "GET", "3xx"},
		{1, "get-model", "GET", "4xx"},
		{1, "get-model", "GET", "5xx"},
		{2, "get-model", "GET", "other"},
		{1, "get-model", "other", "4xx"},
		{1, "none", "GET", "4xx"},
		{2, "other", "GET", "2xx"},
	} {
		got := value(t, m, "api_response_time_seconds", "operation", want.operation, "method", want.method, "status", want.status)
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
			m.Observe(name, name, status+i, time.Second)
			m.Observe("get-model", http.MethodGet, 200, time.Second)
			m.ObserveDatabase(name, time.Second)
			answers += 2
			m.change(name, model.Queued, time.Now())
			m.change(name, model.Resolving, time.Now())
			m.change(name, model.State(name), time.Now())
			m.change(name, model.Failed, time.Now())
			m.retried(model.Class(i))
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
		// "none" and "other" stand beside the operations, and six classes of status beside that of get-model.
		for name, most := range map[string]int{
			"api_response_time_seconds":     (mostOperations + 2) * 7,
			"ema_database_duration_seconds": mostStatements + 2,
			"ema_download_retries_total":    classes,
			"ema_queue_downloads":           6,
			"ema_received_bytes_total":      4,
		} {
			if series[name] > most {
				t.Errorf("%s has %d series, want %d at most", name, series[name], most)
			}
		}
		if sum["api_response_time_seconds"] != answers || sum["ema_database_duration_seconds"] != many || sum["ema_download_retries_total"] != retries {
			t.Errorf("counted %v, of %d answers and %d retries", sum, answers, retries)
		}
		if len(m.lives) != len(everything().Active()) {
			t.Errorf("%d downloads are remembered", len(m.lives))
		}
	})
}

func TestObservingAllocatesNothing(t *testing.T) {
	m := New(Settings{})
	for promise, f := range map[string]func(){
		"an answer":   func() { m.Observe("get-model", http.MethodGet, 200, time.Millisecond) },
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
				m.Observe(fmt.Sprintf("op-%d", (w+i)%20), http.MethodGet, 200, time.Millisecond)
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
		m.Observe("get-model", http.MethodGet, 200, time.Millisecond)
	}
}

func BenchmarkObserveOnManyProcessors(b *testing.B) {
	m := New(Settings{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Observe("get-model", http.MethodGet, 200, time.Millisecond)
		}
	})
}
