package metrics

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"ema/internal/event"
	"ema/internal/model"
)

// everything are settings of which nothing is left out.
func everything() Settings {
	return Settings{
		Version: "v1.2.3", Commit: "0123abc",
		Active: func() []model.Download {
			return []model.Download{
				{ID: "1", State: model.Downloading},
				{ID: "2", State: model.Resolving},
				{ID: "3", State: model.Verifying},
				{ID: "4", State: model.Queued},
				{ID: "5", State: model.Queued},
				{ID: "6", State: model.Paused, Pause: model.BySpace},
			}
		},
		Storage:   func() (used, free model.Bytes, err error) { return 3 * model.GiB, 5 * model.GiB, nil },
		Limit:     func() model.Bytes { return 10 * model.MiB },
		Health:    func() map[model.Condition]int { return map[model.Condition]int{model.Healthy: 7, model.Corrupted: 1} },
		History:   func() History { return History{Waiting: 5, Written: 600, Dropped: 2, Away: true} },
		WebSocket: func() WebSocket { return WebSocket{Clients: 2, Sent: 30, Superseded: 4, ClosedSlow: 1} },

		Regressions: func() int { return 2 },
	}
}

// used are metrics of which each has a series.
func used() *Metrics {
	m := New(everything())
	m.Observe("get-model", 200, time.Millisecond)
	m.ObserveDatabase("save", time.Millisecond)
	m.change("a", model.Resolving, time.Now())
	m.change("a", model.Completed, time.Now())
	return m
}

// fataler is a test, also one of rapid's.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// gathered are all metrics that m shows, by name.
func gathered(t fataler, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*dto.MetricFamily{}
	for _, f := range families {
		by[f.GetName()] = f
	}
	return by
}

// value is that of a counter or a gauge, or the count of a histogram, of the one series that has these labels: pairs of
// name and value.
func value(t fataler, m *Metrics, name string, labels ...string) float64 {
	t.Helper()
	for _, one := range gathered(t, m)[name].GetMetric() {
		has := map[string]string{}
		for _, l := range one.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		want := map[string]string{}
		for i := 0; i < len(labels); i += 2 {
			want[labels[i]] = labels[i+1]
		}
		if !maps.Equal(has, want) {
			continue
		}
		switch {
		case one.Counter != nil:
			return one.GetCounter().GetValue()
		case one.Gauge != nil:
			return one.GetGauge().GetValue()
		}
		return float64(one.GetHistogram().GetSampleCount())
	}
	t.Fatalf("there is no %s with %v", name, labels)
	return 0
}

func TestTheNamesOfTheContractAreThere(t *testing.T) {
	found := gathered(t, used())
	for name, kind := range map[string]dto.MetricType{
		"model_download_duration_seconds": dto.MetricType_HISTOGRAM,
		"model_download_success_total":    dto.MetricType_COUNTER,
		"model_download_failures_total":   dto.MetricType_COUNTER,
		"model_active_downloads":          dto.MetricType_GAUGE,
		"model_storage_usage_bytes":       dto.MetricType_GAUGE,
		"api_response_time_seconds":       dto.MetricType_HISTOGRAM,
	} {
		if f := found[name]; f == nil || f.GetType() != kind {
			t.Errorf("%s is %v, want a %v", name, f.GetType(), kind)
		}
	}
	ours := regexp.MustCompile(`^(ema|go|process|promhttp)_`)
	for name := range found {
		if !ours.MatchString(name) && !strings.HasPrefix(name, "model_") && name != "api_response_time_seconds" {
			t.Errorf("%s has a name of nobody", name)
		}
	}
}

func TestPrometheusFindsNothingWrongWithTheNames(t *testing.T) {
	problems, err := testutil.GatherAndLint(used().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestTwoDaemonsInOneProcessShareNothing(t *testing.T) {
	a, b := New(everything()), New(everything())
	a.change("x", model.Failed, time.Now())
	if got := value(t, b, "model_download_failures_total"); got != 0 {
		t.Errorf("the other one has %v failures", got)
	}
}

func TestWhatNobodyTellsIsNotShown(t *testing.T) {
	found := gathered(t, New(Settings{}))
	for _, name := range []string{
		"model_active_downloads", "ema_queue_downloads", "model_storage_usage_bytes", "ema_storage_free_bytes",
		"ema_bandwidth_limit_bytes_per_second", "ema_websocket_clients",
	} {
		if found[name] != nil {
			t.Errorf("%s is shown", name)
		}
	}
	if found["ema_build_info"] == nil || found["go_goroutines"] == nil || found["process_resident_memory_bytes"] == nil {
		t.Error("what needs no function is missing")
	}
}

func TestFunctionsAreReadAtEachScrape(t *testing.T) {
	m := New(everything())
	for _, want := range []struct {
		value  float64
		name   string
		labels []string
	}{
		{3, "model_active_downloads", nil},
		{2, "ema_queue_downloads", []string{"state", "queued"}},
		{1, "ema_queue_downloads", []string{"state", "downloading"}},
		{1, "ema_queue_downloads", []string{"state", "paused"}},
		{0, "ema_queue_downloads", []string{"state", "retrying"}},
		{3 << 30, "model_storage_usage_bytes", nil},
		{5 << 30, "ema_storage_free_bytes", nil},
		{10 << 20, "ema_bandwidth_limit_bytes_per_second", nil},
		{2, "ema_websocket_clients", nil},
		{7, "ema_models_health", []string{"condition", "healthy"}},
		{0, "ema_models_health", []string{"condition", "degraded"}},
		{0, "ema_history_database_up", nil},
		{5, "ema_history_records_waiting", nil},
		{600, "ema_history_records_written_total", nil},
		{2, "ema_history_records_dropped_total", nil},
		{30, "ema_websocket_messages_sent_total", nil},
		{4, "ema_websocket_messages_superseded_total", nil},
		{1, "ema_websocket_slow_clients_closed_total", nil},
	} {
		if got := value(t, m, want.name, want.labels...); got != want.value {
			t.Errorf("%s of %v is %v, want %v", want.name, want.labels, got, want.value)
		}
	}
	clients := 0
	s := everything()
	s.WebSocket = func() WebSocket { return WebSocket{Clients: clients} }
	m = New(s)
	for clients = range 3 {
		if got := value(t, m, "ema_websocket_clients"); got != float64(clients) {
			t.Errorf("%v clients, want %d", got, clients)
		}
	}
}

func TestAStorageThatCannotBeMeasuredHidesNothingElse(t *testing.T) {
	s := everything()
	s.Storage = func() (used, free model.Bytes, err error) { return 0, 0, errors.New("input/output error") }
	families, err := New(s).registry.Gather()
	if err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("gathered with %v", err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	if names["model_storage_usage_bytes"] || names["ema_storage_free_bytes"] || !names["model_active_downloads"] {
		t.Errorf("shown are %v", slices.Sorted(maps.Keys(names)))
	}
}

func TestThePageStatesTheBoundsThatHold(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(raw)), " ")
	for _, want := range []string{
		fmt.Sprintf("at most %d operations with 6 classes of status", mostOperations+2), fmt.Sprintf("at most %d operations;", mostStatements+2),
		fmt.Sprintf("errors' classes are %d.", classes), fmt.Sprintf("every %d seconds at most", storageAge/time.Second),
		fmt.Sprintf("within %d seconds", storagePatience/time.Second),
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

// A row of the table in docs/metrics.md.
type documented struct{ kind, labels string }

func TestThePageNamesEveryMetric(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := map[string]documented{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| (.*?) \\| (.+) \\|$").FindAllStringSubmatch(string(raw), -1) {
		page[row[1]] = documented{row[2], strings.ReplaceAll(row[3], "`", "")}
	}
	shown := map[string]documented{}
	for name, f := range gathered(t, used()) {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue // those of client_golang, named by the page together
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		shown[name] = documented{strings.ToLower(f.GetType().String()), strings.Join(labels, ", ")}
	}
	for name, what := range shown {
		if page[name] != what {
			t.Errorf("%s: the page says %+v, it is %+v", name, page[name], what)
		}
	}
	for name := range page {
		if _, ok := shown[name]; !ok {
			t.Errorf("%s is on the page only", name)
		}
	}
}

func TestEventsOfOtherKindsAreNotCounted(t *testing.T) {
	for _, kind := range []event.Kind{event.KindProgress, event.KindLimit, event.KindSpace} {
		if counts(event.Event{Kind: kind}) {
			t.Errorf("%s takes room", kind)
		}
	}
}
