package config

// Downloads says how many downloads run at once, and how many wait.
type Downloads struct {
	// Models downloaded at once; 0 = min(max(2, cpus/2), max(2, GiB of memory/4), 8).
	MaxConcurrentDownloads int `json:"max_concurrent_downloads" range:"0..256" active:"yes"`
	// Files of one model at once; 0 = the smaller of 4 and the models at once.
	MaxConcurrentPerModel int `json:"max_concurrent_per_model" range:"0..256" active:"yes"`
	// Downloads that may wait; a full queue refuses more and loses nothing. 0 = three times the models at once.
	QueueSize int `json:"queue_size" range:"0..1000000" active:"yes"`
}

func defaultDownloads() Downloads { return Downloads{QueueSize: 1000} }

// RetryOptimization says what happens after a failure that may pass. Retry n waits a random time up to
// base_delay_seconds x backoff_factor^n, bounded by the ceiling of its class and max_delay_seconds. What a server itself
// says (Retry-After, RateLimit) always wins.
type RetryOptimization struct {
	// Attempts without progress before giving up; an attempt that brought new bytes starts the count again.
	MaxRetries int `json:"max_retries" range:"0..1000" active:"yes"`
	// First delay.
	BaseDelaySeconds Seconds `json:"base_delay_seconds" range:"0..3600" active:"yes"`
	// Longest delay.
	MaxDelaySeconds Seconds `json:"max_delay_seconds" range:"0..86400" active:"yes"`
	// By how much the delay grows with each attempt.
	BackoffFactor float64 `json:"backoff_factor" range:"1..10" active:"yes"`
	// Spread delays at random, so that many clients don't come back at the same moment.
	JitterEnabled bool `json:"jitter_enabled" active:"yes"`
	// More attempts when few succeed, fewer when nearly all do.
	AdaptiveRetries AdaptiveRetries `json:"adaptive_retries" active:"yes"`
	// Ceilings of the delay by kind of failure, in seconds.
	ErrorSpecificDelays ErrorSpecificDelays `json:"error_specific_delays" active:"yes"`
}

// AdaptiveRetries follows the rate of success.
type AdaptiveRetries struct {
	// Switches this section on.
	Enabled bool `json:"enabled" active:"yes"`
	// Share of successful attempts that divides low from high.
	SuccessRateThreshold float64 `json:"success_rate_threshold" range:"0..1" active:"yes"`
	// Try longer under it.
	IncreaseRetriesOnLowSuccess bool `json:"increase_retries_on_low_success" active:"yes"`
	// Give up earlier over it.
	DecreaseRetriesOnHighSuccess bool `json:"decrease_retries_on_high_success" active:"yes"`
}

// ErrorSpecificDelays are ceilings of the delay, so that one short failure doesn't cost a minute.
type ErrorSpecificDelays struct {
	// After a timeout or a broken connection.
	NetworkTimeout Seconds `json:"network_timeout" range:"0..86400"`
	// After an answer 5xx.
	ServerError Seconds `json:"server_error" range:"0..86400"`
	// After an answer 429; without word from the server, the first delay is an eighth of it.
	RateLimit Seconds `json:"rate_limit" range:"0..86400"`
}

func defaultRetryOptimization() RetryOptimization {
	return RetryOptimization{
		MaxRetries: 5, BaseDelaySeconds: 1, MaxDelaySeconds: 300, BackoffFactor: 2, JitterEnabled: true,
		AdaptiveRetries: AdaptiveRetries{
			Enabled: true, SuccessRateThreshold: 0.8,
			IncreaseRetriesOnLowSuccess: true, DecreaseRetriesOnHighSuccess: true,
		},
		ErrorSpecificDelays: ErrorSpecificDelays{NetworkTimeout: 30, ServerError: 60, RateLimit: 120},
	}
}

// ChunkOptimization chooses the unit in which a download is checkpointed and shared among connections. One request may
// run over many chunks.
type ChunkOptimization struct {
	// Chunk of files between the two thresholds, and of all files when adaptive_chunking is off.
	DefaultChunkSizeMB MB `json:"default_chunk_size_mb" range:"1..1024" active:"yes"`
	// The chunk by the size of the file.
	AdaptiveChunking AdaptiveChunking `json:"adaptive_chunking" active:"yes"`
	// The chunk by the measured speed, starting from what the file's size gives.
	NetworkBasedChunking NetworkBasedChunking `json:"network_based_chunking" active:"yes"`
}

// AdaptiveChunking chooses the chunk by the size of the file.
type AdaptiveChunking struct {
	// Switches this section on.
	Enabled bool `json:"enabled"`
	// Files up to this size are small.
	SmallFileThresholdMB MB `json:"small_file_threshold_mb" range:"0..1048576"`
	// Files from this size are large.
	LargeFileThresholdMB MB `json:"large_file_threshold_mb" range:"0..1048576"`
	// Chunk of small files.
	SmallFileChunkMB MB `json:"small_file_chunk_mb" range:"1..1024"`
	// Chunk of large files.
	LargeFileChunkMB MB `json:"large_file_chunk_mb" range:"1..1024"`
}

// NetworkBasedChunking chooses the chunk by the measured speed.
type NetworkBasedChunking struct {
	// Switches this section on.
	Enabled bool `json:"enabled" active:"yes"`
	// Up to this rate the network is slow.
	SlowNetworkThresholdMbps MBps `json:"slow_network_threshold_mbps" range:"0..1000000" active:"yes"`
	// From this rate it is fast.
	FastNetworkThresholdMbps MBps `json:"fast_network_threshold_mbps" range:"0..1000000" active:"yes"`
	// Chunk on a slow network.
	SlowNetworkChunkMB MB `json:"slow_network_chunk_mb" range:"1..1024" active:"yes"`
	// Chunk on a fast network.
	FastNetworkChunkMB MB `json:"fast_network_chunk_mb" range:"1..1024" active:"yes"`
}

func defaultChunkOptimization() ChunkOptimization {
	return ChunkOptimization{
		DefaultChunkSizeMB: 8,
		AdaptiveChunking: AdaptiveChunking{
			Enabled: true, SmallFileThresholdMB: 100, LargeFileThresholdMB: 1000, SmallFileChunkMB: 4, LargeFileChunkMB: 16,
		},
		NetworkBasedChunking: NetworkBasedChunking{
			Enabled: true, SlowNetworkThresholdMbps: 10, FastNetworkThresholdMbps: 100, SlowNetworkChunkMB: 2, FastNetworkChunkMB: 32,
		},
	}
}
