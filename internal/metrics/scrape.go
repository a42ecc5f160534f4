package metrics

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"ema/internal/model"
)

// A reader is a collector that reads all of its metrics at once, so that they belong to one moment.
type reader struct {
	describe []*prometheus.Desc
	collect  func(ch chan<- prometheus.Metric)
}

// Describe implements prometheus.Collector.
func (r reader) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range r.describe {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (r reader) Collect(ch chan<- prometheus.Metric) { r.collect(ch) }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func gauge[N ~int | ~int64](d *prometheus.Desc, value N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
}

func count[N ~int64 | ~uint64](d *prometheus.Desc, value N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

// readAtScrape registers what the functions of the settings tell.
func (m *Metrics) readAtScrape() {
	s := m.settings
	if s.Active != nil {
		m.registry.MustRegister(downloads(s.Active))
	}
	if s.Storage != nil {
		m.registry.MustRegister(storage(s.Storage))
	}
	if s.Limit != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ema_bandwidth_limit_bytes_per_second", Help: "Limit for all downloads together that holds now; 0 is none.",
		}, func() float64 { return float64(s.Limit()) }))
	}
	if s.Health != nil {
		m.registry.MustRegister(health(s.Health))
	}
	if s.Regressions != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ema_performance_regressions", Help: "Figures of how everything runs that are worse than they were.",
		}, func() float64 { return float64(s.Regressions()) }))
	}
	if s.History != nil {
		m.registry.MustRegister(history(s.History))
	}
	if s.WebSocket != nil {
		m.registry.MustRegister(webSocket(s.WebSocket))
	}
}

func downloads(list func() []model.Download) reader {
	active := describe("model_active_downloads", "Downloads that are being worked on.")
	queue := describe("ema_queue_downloads", "Downloads that are not over, by state.", "state")
	return reader{[]*prometheus.Desc{active, queue}, func(ch chan<- prometheus.Metric) {
		in := map[model.State]int{}
		for _, d := range list() {
			in[d.State]++
		}
		ch <- gauge(active, in[model.Resolving]+in[model.Downloading]+in[model.Verifying])
		for _, s := range []model.State{model.Queued, model.Resolving, model.Downloading, model.Verifying, model.Retrying, model.Paused} {
			ch <- gauge(queue, in[s], string(s))
		}
	}}
}

// How long what the disk told is shown, and how long a scrape waits for it.
const (
	storageAge      = 30 * time.Second
	storagePatience = 3 * time.Second
)

// A usage is what was measured of the storage.
type usage struct {
	used, free model.Bytes
	err        error
	at         time.Time
}

// storage asks the disk neither at each scrape, since that reads the folder of every model, nor twice at once, since it may
// hang; what hangs must not hide everything else either.
func storage(measure func() (used, free model.Bytes, err error)) reader {
	taken := describe("model_storage_usage_bytes", "What the models take on the disk, each content once.")
	left := describe("ema_storage_free_bytes", "What may still be filled of the volume of the models.")
	var asking singleflight.Group
	var last atomic.Pointer[usage]
	now := func() *usage {
		if u := last.Load(); u != nil && time.Since(u.at) < storageAge {
			return u
		}
		answer := asking.DoChan("", func() (any, error) {
			u := &usage{}
			u.used, u.free, u.err = measure()
			u.at = time.Now()
			last.Store(u)
			return u, nil
		})
		patience := time.NewTimer(storagePatience)
		defer patience.Stop()
		select {
		case told := <-answer:
			if u, ok := told.Val.(*usage); ok {
				return u
			}
			return &usage{err: told.Err}
		case <-patience.C:
			return &usage{err: fmt.Errorf("there is no answer within %v", storagePatience)}
		}
	}
	return reader{[]*prometheus.Desc{taken, left}, func(ch chan<- prometheus.Metric) {
		u := now()
		if u.err != nil { // a gap tells the truth, and the other metrics are shown all the same
			ch <- prometheus.NewInvalidMetric(taken, fmt.Errorf("measure the storage for metrics: %w; check the disk", u.err))
			return
		}
		ch <- gauge(taken, u.used)
		ch <- gauge(left, u.free)
	}}
}

func webSocket(stand func() WebSocket) reader {
	clients := describe("ema_websocket_clients", "Clients that are connected.")
	sent := describe("ema_websocket_messages_sent_total", "Messages, each counted for every client that it went to.")
	superseded := describe("ema_websocket_messages_superseded_total", "Progress that a newer one had replaced before the client took it.")
	slow := describe("ema_websocket_slow_clients_closed_total", "Clients that were cut off because they left too much unread.")
	return reader{[]*prometheus.Desc{clients, sent, superseded, slow}, func(ch chan<- prometheus.Metric) {
		now := stand()
		ch <- gauge(clients, now.Clients)
		ch <- count(sent, now.Sent)
		ch <- count(superseded, now.Superseded)
		ch <- count(slow, now.ClosedSlow)
	}}
}

func health(stand func() map[model.Condition]int) reader {
	models := describe("ema_models_health", "Models by how well they are.", "condition")
	return reader{[]*prometheus.Desc{models}, func(ch chan<- prometheus.Metric) {
		in := stand()
		for _, c := range []model.Condition{model.Healthy, model.Degraded, model.Uncertain, model.Corrupted} {
			ch <- gauge(models, in[c], string(c))
		}
	}}
}

func history(stand func() History) reader {
	up := describe("ema_history_database_up", "1 while the database of the history can be used, else 0.")
	waiting := describe("ema_history_records_waiting", "Records of what happens that are not written yet.")
	written := describe("ema_history_records_written_total", "Records that were written.")
	dropped := describe("ema_history_records_dropped_total", "Records for which there was no room while the database was away.")
	return reader{[]*prometheus.Desc{up, waiting, written, dropped}, func(ch chan<- prometheus.Metric) {
		now := stand()
		is := 1
		if now.Away {
			is = 0
		}
		ch <- gauge(up, is)
		ch <- gauge(waiting, now.Waiting)
		ch <- count(written, now.Written)
		ch <- count(dropped, now.Dropped)
	}}
}
