// Package metrics counts what happens in the house and shows it to Prometheus.
//
// It listens: to the event bus, to those who call Observe and its like, and at each scrape to a few functions. No room
// imports it in order to be measured. Labels have few values that are known beforehand: never a path, a URL or a model.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"ema/internal/model"
)

// Settings are what metrics are made from. Functions are called at scrapes, from several goroutines at once; they must
// answer quickly and wait for no download. What a function that is nil would have told is not shown.
type Settings struct {
	Version, Commit string // of this program

	// Active are the downloads that are not over. New calls it too: what it tells there is known of downloads that
	// were there before the bus.
	Active func() []model.Download
	// Since is the number of the last event that is not to be counted, event.Bus.Seq when New is called; with 0,
	// counting begins when Run does.
	Since uint64
	// Storage is what the models take, each content once, and what this user may still fill of their volume. It may
	// take its time: what it told half a minute ago is good enough, one call at a time is made, and a scrape goes without
	// what it does not answer within three seconds.
	Storage func() (used, free model.Bytes, err error)
	// Limit is the bandwidth limit for all downloads together, per second; 0 is none.
	Limit func() model.Bytes
	// Health is how many models are how well.
	Health func() map[model.Condition]int
	// Regressions are how many figures are worse than they were.
	Regressions func() int
	// History is how the records of what happens stand.
	History func() History
	// WebSocket is how those stand that follow live.
	WebSocket func() WebSocket

	Log *slog.Logger // nil: nothing is logged
}

// WebSocket are counts since the start, but for Clients.
type WebSocket struct {
	Clients    int    // that are connected now
	Sent       uint64 // messages, each counted for every client that it went to
	Superseded uint64 // progress that a newer one had replaced before the client took it
	ClosedSlow uint64 // clients that were cut off because they left too much unread
}

// History are counts since the start, but for Waiting and Away.
type History struct {
	Waiting          int // records that are not written yet
	Written, Dropped uint64
	Away             bool // the database cannot be used
}

// Metrics are the figures of one daemon, in a registry of their own. It is safe for concurrent use.
type Metrics struct {
	settings Settings
	registry *prometheus.Registry
	handler  http.Handler

	duration, waited     prometheus.Histogram
	successes, failures  prometheus.Counter
	losses               prometheus.Counter
	retries              [classes]prometheus.Counter
	received             map[model.Scheme]prometheus.Counter // that of "other" by the name otherScheme
	verified             map[Verdict]prometheus.Counter
	repaired             map[Repair]prometheus.Counter
	alerts               map[model.Severity]prometheus.Counter // about the health of models
	optimizations        map[string]prometheus.Counter         // by status
	operations, database *observers

	backlog int             // most events that may wait to be counted; 0 is as the bus has it
	lives   map[string]life // of downloads that are not over, by id; Run's own
}

// classes is how many classes of failure there are.
const classes = int(model.Offline) + 1

// mostOperations and mostStatements are far more than there are. They hold should somebody pass what they should not.
const (
	mostOperations = 128
	mostStatements = 64
)

// New makes metrics that stand at zero. Call it once the downloads of earlier days are loaded, and before any of them
// runs. It starts nothing; Run counts, and Serve shows.
func New(s Settings) *Metrics {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	m := &Metrics{settings: s, registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.countDownloads()
	m.countModels()
	m.countAlerts()
	m.countOptimizations()
	m.countRequests()
	m.readAtScrape()
	build := m.gauges("ema_build_info", "Always 1; the labels say which build this is.", "version", "commit", "go_version")
	build.WithLabelValues(s.Version, s.Commit, runtime.Version()).Set(1)
	m.handler = m.pages()
	m.look()
	return m
}

// countDownloads registers what Run counts.
func (m *Metrics) countDownloads() {
	m.duration = m.histogram("model_download_duration_seconds",
		"Time from a download's first start until its model was available, waits and pauses in between included.", durations())
	m.waited = m.histogram("ema_download_wait_seconds",
		"Time that a download waited in the queue before its first start, or since it was resumed before that.", waits())
	m.successes = m.counter("model_download_success_total", "Downloads that brought their model.")
	m.failures = m.counter("model_download_failures_total", "Downloads that failed for good; one that will be repeated or was cancelled has not.")
	m.losses = m.counter("ema_event_losses_total", "Times that more happened than could be counted, so that counters of downloads are too low.")
	retries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ema_download_retries_total", Help: "Attempts that failed and are repeated, by class of the failure: of requests, of hosts and of whole downloads.",
	}, []string{"class"})
	m.registry.MustRegister(retries)
	for c := range m.retries {
		m.retries[c] = retries.WithLabelValues(model.Class(c).String()) // all of them at 0: a rate needs a beginning
	}
}

// countModels registers what Received, Verified and Repaired count.
func (m *Metrics) countModels() {
	received := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ema_received_bytes_total", Help: "Bytes of models that came, by kind of source, also those that had to come twice.",
	}, []string{"source"})
	verified := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ema_verifications_total", Help: "Revisions of which every byte was read and compared with its hash, by result.",
	}, []string{"result"})
	repaired := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ema_repairs_total", Help: "Revisions that were to be made whole again, by result.",
	}, []string{"result"})
	m.registry.MustRegister(received, verified, repaired)
	m.received = map[model.Scheme]prometheus.Counter{}
	for scheme, source := range map[model.Scheme]string{model.Hub: "huggingface", model.HTTPS: "https", model.Folder: "file", otherScheme: other} {
		m.received[scheme] = received.WithLabelValues(source)
	}
	m.verified = map[Verdict]prometheus.Counter{}
	for _, v := range []Verdict{Whole, Damaged, Unverified} {
		m.verified[v] = verified.WithLabelValues(string(v))
	}
	m.repaired = map[Repair]prometheus.Counter{}
	for _, r := range []Repair{NothingToMend, Mended, NotMended} {
		m.repaired[r] = repaired.WithLabelValues(string(r))
	}
}

// countAlerts registers what HealthAlert counts.
func (m *Metrics) countAlerts() {
	alerts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ema_health_alerts_total", Help: "Times that a model was found to be no longer as well, or as bad, as before, by severity.",
	}, []string{"severity"})
	m.registry.MustRegister(alerts)
	m.alerts = map[model.Severity]prometheus.Counter{}
	for _, s := range []model.Severity{model.Info, model.Warning, model.Critical} {
		m.alerts[s] = alerts.WithLabelValues(string(s))
	}
}

// countOptimizations registers what Optimized counts.
func (m *Metrics) countOptimizations() {
	all := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ema_optimizations_total", Help: "Times that a setting which was changed by itself came to a status.",
	}, []string{"status"})
	m.registry.MustRegister(all)
	m.optimizations = map[string]prometheus.Counter{}
	for _, s := range []string{"measuring", "checking", "confirming", "kept", "undone", "undone_by_user", "superseded"} {
		m.optimizations[s] = all.WithLabelValues(s)
	}
}

// countRequests registers what Observe and ObserveDatabase count.
func (m *Metrics) countRequests() {
	requests := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "api_response_time_seconds", Help: "Time to answer a request, by operation and class of status; streams count when they end.", Buckets: answers(),
	}, []string{"operation", "status"})
	statements := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "ema_database_duration_seconds", Help: "Time that the database took, by operation.", Buckets: answers(),
	}, []string{"operation"})
	m.registry.MustRegister(requests, statements)
	m.operations = newObservers(mostOperations, func(s series) prometheus.Observer {
		return requests.WithLabelValues(s.operation, s.status)
	})
	m.database = newObservers(mostStatements, func(s series) prometheus.Observer { return statements.WithLabelValues(s.operation) })
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

// The bounds below are of times that people tell apart: a model takes from seconds to a day.

func durations() []float64 {
	return seconds(time.Second, 5*time.Second, 15*time.Second, 30*time.Second, time.Minute, 2*time.Minute, 5*time.Minute, 10*time.Minute,
		20*time.Minute, 40*time.Minute, time.Hour, 2*time.Hour, 4*time.Hour, 8*time.Hour, 24*time.Hour)
}

func waits() []float64 {
	return seconds(100*time.Millisecond, time.Second, 5*time.Second, 15*time.Second, time.Minute, 5*time.Minute, 15*time.Minute,
		time.Hour, 4*time.Hour, 24*time.Hour)
}

func answers() []float64 {
	return seconds(500*time.Microsecond, time.Millisecond, 2500*time.Microsecond, 5*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond,
		50*time.Millisecond, 100*time.Millisecond, 250*time.Millisecond, 500*time.Millisecond, time.Second, 2500*time.Millisecond, 10*time.Second)
}

func seconds(bounds ...time.Duration) []float64 {
	in := make([]float64, len(bounds))
	for i, b := range bounds {
		in[i] = b.Seconds()
	}
	return in
}
