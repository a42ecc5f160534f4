package client

import (
	"reflect"
	"strings"
	"time"
)

// Performance is how downloads, storage, API and machine do. A figure that cannot be known is null, and unknown says why.
type Performance struct {
	At      time.Time `json:"timestamp"`
	Seconds float64   `json:"seconds"` // that rates and means are over
	PerformanceFigures
	Unknown map[string]string `json:"unknown"` // why a figure is null, by its name, such as "system.gpu_memory_mb"
}

// PerformanceFigures are all that is measured. Those of a rate are between 0 and 1.
type PerformanceFigures struct {
	Downloads DownloadFigures `json:"downloads"`
	Storage   StorageFigures  `json:"storage"`
	API       APIFigures      `json:"api"`
	System    SystemFigures   `json:"system"`
}

// DownloadFigures are about downloads.
type DownloadFigures struct {
	Active    *float64 `json:"active_count"`                  // that are being worked on
	Queued    *float64 `json:"queue_length"`                  // that wait
	Speed     *float64 `json:"average_speed_mbps"`            // MiB/s of all together, while there was anything to receive; null when there was not
	Success   *float64 `json:"success_rate"`                  // of those that ended since the daemon was started; null before the first
	Retries   *float64 `json:"retry_frequency"`               // attempts per minute that failed and are repeated
	QueueTime *float64 `json:"queue_processing_time_seconds"` // that those that started had waited; null when none did
}

// StorageFigures are about the disk of the models.
type StorageFigures struct {
	Usage      *float64 `json:"total_usage_gb"`     // GiB that models take
	CacheHits  *float64 `json:"cache_hit_rate"`     // the part of the bytes of used models that was in memory already
	Throughput *float64 `json:"io_throughput_mbps"` // MiB/s that the device reads and writes, whoever asks
	Latency    *float64 `json:"access_latency_ms"`  // of one request to the device; null when there was none
	Busy       *float64 `json:"io_utilization"`     // the part of the time in which the device had something to do
	Cleanup    *float64 `json:"cleanup_efficiency"` // of what cleanups were to free, what they freed; null before the first
}

// APIFigures are about requests.
type APIFigures struct {
	Rate      *float64 `json:"requests_per_second"`
	Response  *float64 `json:"average_response_time_ms"`       // streams left out; null when nobody asked
	Errors    *float64 `json:"error_rate"`                     // of the answers, those with a status of 500 or more; null when nobody asked
	WebSocket *float64 `json:"websocket_connection_stability"` // of the WebSocket clients since the start, those that were not cut off for being slow; null before the first
}

// SystemFigures are about this machine.
type SystemFigures struct {
	CPU         *float64 `json:"cpu_usage_percent"`
	Memory      *float64 `json:"memory_usage_percent"`
	MemoryGB    *float64 `json:"memory_usage_gb"`               // GiB
	Network     *float64 `json:"network_usage_mbps"`            // MiB/s, both ways, loopback left out
	NetworkPart *float64 `json:"network_bandwidth_utilization"` // of the speed of the links; null where no driver tells it
	GPUMemory   *float64 `json:"gpu_memory_mb"`                 // MiB in use, of all cards
	GPUPercent  *float64 `json:"gpu_memory_percent"`
	CPUWait     *float64 `json:"cpu_pressure"` // 0 to 1: the part of the last ten seconds in which somebody waited for a processor
	IOWait      *float64 `json:"io_pressure"`
	MemoryWait  *float64 `json:"memory_pressure"`
}

// Each calls f with all figures by their names, such as "downloads.success_rate", in the order in which they stand.
func (p *PerformanceFigures) Each(f func(name string, value **float64)) {
	groups := reflect.ValueOf(p).Elem()
	for i := range groups.NumField() {
		group := groups.Field(i)
		for k := range group.NumField() {
			if value, ok := group.Field(k).Addr().Interface().(**float64); ok {
				f(jsonName(groups.Type().Field(i))+"."+jsonName(group.Type().Field(k)), value)
			}
		}
	}
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// PerformanceHistory is one figure over time.
type PerformanceHistory struct {
	Metric string             `json:"metric"`
	From   time.Time          `json:"from"`
	To     time.Time          `json:"to"`
	Step   float64            `json:"step_seconds"` // that each point sums up
	Points []PerformancePoint `json:"points"`       // the oldest first, without the spans of which nothing is known; never null
}

// A PerformancePoint is a span of time.
type PerformancePoint struct {
	At    time.Time `json:"timestamp"` // when it begins
	Mean  float64   `json:"mean"`
	Least float64   `json:"min"`
	Most  float64   `json:"max"`
	Times int64     `json:"samples"`
}

// PerformanceCourse is where figures are going.
type PerformanceCourse struct {
	Interval float64 `json:"interval_seconds"` // between two samples
	Window   int     `json:"window"`           // samples that are looked at, at most
	// Trends has the figures of which anything is known, by group and name; never null.
	Trends          map[string]FigureTrend      `json:"trends"`
	Recommendations []PerformanceRecommendation `json:"recommendations"` // never null
}

// A FigureTrend is the course of one figure.
type FigureTrend struct {
	Trend   string    `json:"trend"`          // rising, falling, steady, or unknown with fewer than five samples
	Good    *bool     `json:"good"`           // whether that is the way it is wanted to go; null when it is steady or may go either way
	Change  *float64  `json:"change_percent"` // from the first sample to the last one, by a slope that outliers do not bend
	Median  float64   `json:"median"`
	Last    float64   `json:"last"`
	Samples int       `json:"samples"`
	LastAt  time.Time `json:"last_sample"` // when the last one begins
}

// A PerformanceRecommendation is something that may help.
type PerformanceRecommendation struct {
	Type    string `json:"type"`    // such as reduce_concurrent_downloads
	Reason  string `json:"reason"`  // in words
	Setting string `json:"setting"` // the key to change
	Current string `json:"current"`
	Advised string `json:"advised"`
	Command string `json:"command"`
	Held    string `json:"held_back"` // why it is not done by itself; empty when it will be, by the next time that is looked at
}

// Optimizations are changes of settings that the daemon has made by itself, and such that may help.
type Optimizations struct {
	AutoApply bool       `json:"auto_apply"` // settings are changed by themselves; else they are only recommended
	CheckedAt *time.Time `json:"checked_at"` // null until the first time since the daemon was started
	// Optimizations are those that were made, the newest first; never null.
	Optimizations   []Optimization              `json:"optimizations"`
	Recommendations []PerformanceRecommendation `json:"recommendations"` // never null
}

// An Optimization is a change of a setting that is measured, and kept only if it helps.
type Optimization struct {
	ID      string `json:"optimization_id"`
	Type    string `json:"type"`   // such as reduce_concurrent_downloads
	Reason  string `json:"reason"` // for which it was tried
	Setting string `json:"setting"`
	From    string `json:"from"`
	To      string `json:"to"`
	// Status is measuring, checking (it is put back for a while, to see whether it is missed), confirming, kept, undone,
	// undone_by_user, or superseded when somebody has set the key.
	Status string `json:"status"`
	Why    string `json:"status_reason"`
	// Metric is the figure by which it is judged, Before and After its medians without and with the change, and Better by how many
	// percent that is better; null while nothing is measured.
	Metric string    `json:"metric"`
	Before *float64  `json:"before"`
	After  *float64  `json:"after"`
	Better *float64  `json:"improvement_percent"`
	Begun  time.Time `json:"applied_at"`
	Since  time.Time `json:"status_since"`
	Undo   *string   `json:"undo"` // the command that takes it back; null when nothing of it holds
}

// OptimizationUndone is the answer to taking one back.
type OptimizationUndone struct {
	Success      bool         `json:"success"`
	Message      string       `json:"message"`
	Optimization Optimization `json:"optimization"`
}
