package client

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// The states of a benchmark.
const (
	BenchmarkRunning   = "running"
	BenchmarkCompleted = "completed"
	BenchmarkFailed    = "failed"
	BenchmarkCancelled = "cancelled"
)

// A BenchmarkRequest asks for a benchmark. The zero one is of all suites, as ema benchmark does it.
type BenchmarkRequest struct {
	Suites   []string `json:"suites,omitempty"`            // downloads, api, storage, system; nil is all
	Full     bool     `json:"full_assessment,omitempty"`   // all suites, with larger files
	Generate bool     `json:"generate_baseline,omitempty"` // keep the report as the baseline
	Compare  bool     `json:"compare,omitempty"`           // compare with the kept baseline
	SizeMB   int64    `json:"size_mb,omitempty"`           // MiB of the file by which disks are measured; 0 is 256, or 512 of a full assessment
	Repeats  int      `json:"repeats,omitempty"`           // of everything; 0 is until the medians are sure
}

// A Benchmark is how a benchmark stands, and what it has found.
type Benchmark struct {
	ID        string           `json:"benchmark_id"`
	State     string           `json:"state"` // one of the Benchmark constants
	Suites    []string         `json:"suites"`
	Suite     string           `json:"suite"` // that runs; empty when none does
	Step      string           `json:"step"`  // what is measured, in words; empty when nothing is
	Percent   float64          `json:"progress_percent"`
	Elapsed   float64          `json:"elapsed_seconds"`
	Begun     time.Time        `json:"started_at"`
	Ended     *time.Time       `json:"ended_at"`                // null while it runs
	Estimated *time.Time       `json:"estimated_completion"`    // at the latest; null when it is over
	Error     string           `json:"error_message,omitempty"` // why it failed; the report has what was measured all the same
	Report    *BenchmarkReport `json:"report,omitempty"`        // absent while it runs, and of one that was cancelled
}

// BenchmarkStarted answers the wish for a benchmark.
type BenchmarkStarted struct {
	Success   bool      `json:"success"`
	Message   string    `json:"message"`
	ID        string    `json:"benchmark_id"`
	State     string    `json:"state"`
	Least     float64   `json:"least_seconds"`        // that it takes, on a fast disk where nothing is noisy
	Most      float64   `json:"most_seconds"`         // that it takes
	Estimated time.Time `json:"estimated_completion"` // at the latest
}

// Benchmarks are those of which is known, the newest first, without their reports.
type Benchmarks struct {
	Benchmarks []Benchmark `json:"benchmarks"` // never null
}

// A BenchmarkReport is what ema benchmark prints with --json, but that it lacks what there it is null because a suite did not run.
type BenchmarkReport struct {
	Timestamp       float64                    `json:"timestamp"` // seconds since 1970
	Results         BenchmarkResults           `json:"results"`
	Recommendations []string                   `json:"recommendations"`
	Version         string                     `json:"version"`
	Suites          []string                   `json:"suites"`
	Full            bool                       `json:"full_assessment"`
	Size            int64                      `json:"size_bytes"` // of the file by which disks were measured
	Seconds         float64                    `json:"seconds"`    // that it took
	Machine         BenchmarkMachine           `json:"machine"`
	Metrics         map[string]BenchmarkMetric `json:"metrics"` // all that can be compared, by name
	Noisy           map[string]string          `json:"noisy"`   // metrics whose repeats differ too much to say much, and how much
	Unknown         map[string]string          `json:"unknown"` // what was not measured, and why
	Comparison      *BenchmarkComparison       `json:"comparison,omitempty"`
}

// BenchmarkResults are those of the suites. What was not measured is absent, and a figure null; unknown says why.
type BenchmarkResults struct {
	Downloads *BenchmarkDownloads          `json:"downloads,omitempty"`
	API       map[string]BenchmarkEndpoint `json:"api,omitempty"` // by path
	Storage   []BenchmarkStorage           `json:"storage,omitempty"`
	System    *BenchmarkSystem             `json:"system,omitempty"`
}

// BenchmarkDownloads are downloads from an origin on the daemon's machine. Times are in seconds, rates in a million bytes per second.
type BenchmarkDownloads struct {
	Single          *float64        `json:"single_download_time"`
	Concurrent      []float64       `json:"concurrent_download_times"` // of each download of the last repeat, all of which ran at once
	Retry           *BenchmarkRetry `json:"retry_performance,omitempty"`
	Bytes           int64           `json:"bytes"` // of each download
	SingleRate      *float64        `json:"single_mb_per_second"`
	ConcurrentTotal *float64        `json:"concurrent_total_time"` // until the last one is there
}

// A BenchmarkRetry is a download whose origin fails.
type BenchmarkRetry struct {
	Seconds   float64 `json:"download_time"`
	Extra     float64 `json:"extra_time"`      // more than without faults, in seconds
	Faults    int     `json:"faults"`          // that the origin made
	Succeeded float64 `json:"success_rate"`    // 0 to 1
	SentAgain float64 `json:"sent_again_part"` // what the origin sent beyond the file, by its size
}

// A BenchmarkEndpoint is how long requests took, one after the other.
type BenchmarkEndpoint struct {
	Average  float64 `json:"average_ms"`
	Median   float64 `json:"median_ms"`
	P95      float64 `json:"p95_ms"`
	Min      float64 `json:"min_ms"`
	Max      float64 `json:"max_ms"`
	Requests int     `json:"requests"` // of a round
	Rounds   int     `json:"rounds"`
}

// A BenchmarkStorage is the disk of one tier. Rates are in a million bytes per second.
type BenchmarkStorage struct {
	Tier          string   `json:"tier"`
	Path          string   `json:"path"`
	FileSystem    string   `json:"file_system"`
	Bytes         int64    `json:"bytes"`
	WriteBuffered *float64 `json:"write_buffered_mb_per_second"` // through the page cache, with the fsync after it
	WriteDirect   *float64 `json:"write_direct_mb_per_second"`   // past the page cache
	ReadBuffered  *float64 `json:"read_buffered_mb_per_second"`  // through the page cache, which was emptied of the file before
	ReadCached    *float64 `json:"read_cached_mb_per_second"`    // from the page cache: this is memory, not the disk
	ReadDirect    *float64 `json:"read_direct_mb_per_second"`    // past the page cache
	RandomP50     *float64 `json:"random_read_4k_p50_ms"`        // past the page cache
	RandomP99     *float64 `json:"random_read_4k_p99_ms"`
	FsyncP50      *float64 `json:"fsync_p50_ms"` // of an append of 4 KiB
	FsyncP95      *float64 `json:"fsync_p95_ms"`
	Files         *float64 `json:"metadata_files_per_second"` // created, renamed and removed
}

// A BenchmarkSystem is the machine, and how fast one core of it is. Rates are in a million bytes per second.
type BenchmarkSystem struct {
	CPUs            int      `json:"cpus"`
	CPUModel        *string  `json:"cpu_model"`
	Memory          int64    `json:"memory_bytes"` // 0 when nobody can tell
	Kernel          *string  `json:"kernel"`
	Platform        string   `json:"platform"`
	StoreFileSystem *string  `json:"store_file_system"`
	SHA256          *float64 `json:"sha256_mb_per_second"`
	CRC32C          *float64 `json:"crc32c_mb_per_second"`
	MemoryCopy      *float64 `json:"memory_copy_mb_per_second"`
}

// A BenchmarkMachine is where it was measured. What cannot be told is empty.
type BenchmarkMachine struct {
	CPUs       int    `json:"cpus"`
	CPUModel   string `json:"cpu_model"`
	Memory     int64  `json:"memory_bytes"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"store_file_system"`
}

// A BenchmarkMetric is what the repeats of one measurement say.
type BenchmarkMetric struct {
	Median  float64   `json:"median"`
	MAD     float64   `json:"mad"`  // median of the distances to the median
	Low     *float64  `json:"low"`  // below which the median is not, with a confidence of 95 %; null with fewer than six repeats
	High    *float64  `json:"high"` // and above
	Repeats int       `json:"repeats"`
	Samples []float64 `json:"samples"` // of the repeats, in their order
	Unit    string    `json:"unit"`    // s, ms, MB/s (a million bytes per second) or per_second
	Better  string    `json:"better"`  // higher or lower
}

// A BenchmarkComparison is what a baseline says.
type BenchmarkComparison struct {
	Baseline    string                `json:"baseline"`  // its file
	Timestamp   float64               `json:"timestamp"` // of the baseline
	Threshold   float64               `json:"threshold"` // 0.2 is 20 %
	Compared    int                   `json:"compared"`  // metrics that both have
	Before      map[string]float64    `json:"before"`    // their medians in the baseline
	Regressions []BenchmarkRegression `json:"regressions"`
	NotJudged   map[string]string     `json:"not_judged"` // metrics that are too noisy for it, and why
	Warnings    []string              `json:"warnings"`   // such as that the baseline is of another machine
}

// A BenchmarkRegression is a metric that got worse.
type BenchmarkRegression struct {
	Metric   string  `json:"metric"`
	Unit     string  `json:"unit"`
	Better   string  `json:"better"`
	Baseline float64 `json:"baseline"`
	Now      float64 `json:"now"`
	Worse    float64 `json:"worse"` // by which part of the baseline
	Noise    float64 `json:"noise"` // what the difference had to exceed, in the metric's unit
}

// StartBenchmark begins a benchmark in the daemon. While one runs there it is an *Error of BenchmarkTaken, which names that one.
func (c *Client) StartBenchmark(ctx context.Context, ask BenchmarkRequest) (b BenchmarkStarted, err error) {
	return b, c.call(ctx, http.MethodPost, "/admin/benchmark", ask, &b)
}

// Benchmark asks how a benchmark stands, and for its report.
func (c *Client) Benchmark(ctx context.Context, id string) (b Benchmark, err error) {
	return b, c.call(ctx, http.MethodGet, "/admin/benchmark/"+url.PathEscape(id), nil, &b)
}

// Benchmarks are the last ten.
func (c *Client) Benchmarks(ctx context.Context) (b Benchmarks, err error) {
	return b, c.call(ctx, http.MethodGet, "/admin/benchmark", nil, &b)
}

// CancelBenchmark ends one that runs, and waits until it has cleaned up.
func (c *Client) CancelBenchmark(ctx context.Context, id string) (b Benchmark, err error) {
	return b, c.call(ctx, http.MethodDelete, "/admin/benchmark/"+url.PathEscape(id), nil, &b)
}
