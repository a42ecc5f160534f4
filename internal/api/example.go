package api

import (
	"time"

	"ema/client"
	"ema/internal/model"
)

// exampleModel is the model of the document's examples.
const exampleModel = "acme/tiny-llm"

func exampleTime() time.Time { return time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC) }

func exampleDownload() Download {
	return describe(model.Download{
		ID: "dl_7f3a", Model: model.ID{Scheme: model.Hub, Name: exampleModel}, State: model.Downloading, Created: exampleTime(),
		Started: exampleTime().Add(time.Second), Size: 1536 * model.MiB, Done: 384 * model.MiB, MaxRetries: 5,
	}, &Figures{
		Stage: "fetching", Done: 384 * model.MiB, Total: 1536 * model.MiB, Rate: float64(48 * model.MiB), ETA: 24 * time.Second,
		Connections: 8, Files: 6, FilesDone: 4,
	}, 0)
}

func exampleManaged() Managed {
	d := exampleDownload()
	return Managed{
		Success: true, Message: exampleModel + ": there already, DOWNLOADING", DownloadID: d.ID, NewStatus: d.Status,
		EstimatedCompletion: moment(exampleTime().Add(24 * time.Second)), Existing: true, Downloads: []Download{d},
	}
}

func exampleActive() Active {
	d := exampleDownload()
	return Active{Downloads: []Download{d}, Total: 1, SpeedMBps: d.SpeedMBps}
}

func exampleHistory() History {
	return History{Downloads: []Download{describe(model.Download{
		ID: "dl_7f3a", Model: model.ID{Scheme: model.Hub, Name: exampleModel}, State: model.Completed, Created: exampleTime(),
		Started: exampleTime().Add(time.Second), Ended: exampleTime().Add(33 * time.Second), Size: 1536 * model.MiB, Done: 1536 * model.MiB, MaxRetries: 5,
	}, nil, 0)}, Page: 1, Limit: 20}
}

func exampleStatus() client.ModelStatus {
	commit, no, whole := "8f4e1c0d2b7a96f35e0c4d1a7b8e92f6035c1d4e", false, 1.0
	return client.ModelStatus{
		Model: exampleModel, IsAvailable: true, Availability: client.AvailabilityAvailable, SizeMB: 1536, SizeBytes: 1536 << 20, TotalMB: 1536,
		MissingFiles: []string{}, IntegrityScore: &whole, CurrentVersion: &commit, LatestVersion: &commit, UpdateAvailable: &no, StorageTier: new("hot"),
		Revisions: []client.RevisionStatus{{Commit: commit, Refs: []string{"main"}, IsAvailable: true, State: "complete", SizeBytes: 1536 << 20, Files: 6}},
	}
}

func exampleStatuses() client.Statuses {
	return client.Statuses{
		Models:  map[string]client.ModelStatus{exampleModel: exampleStatus()},
		Summary: client.StatusSummary{Total: 1, Available: 1, TotalStorageGB: 1.5},
	}
}

func exampleStorage() client.Storage {
	last, often, sure := exampleTime(), 2.5, 0.9
	return client.Storage{
		Summary: client.StorageSummary{CapacityGB: 9000, UsedGB: 1250, AvailableGB: 7750, UsagePercent: 13.9, Models: 1, ModelsGB: 1.5},
		Models: []client.ModelStorage{{
			Model: exampleModel, SizeGB: 1.5, SizeBytes: 1536 << 20, LastAccessed: &last, UsageFrequency: &often, Tier: "hot", Pinned: true,
		}},
		Tiers: []client.TierStorage{
			{Tier: "hot", Path: "/models/hub", State: client.TierReady, CapacityGB: 1000, UsedGB: 250, AvailableGB: 750, UsagePercent: 25, ModelsGB: 1.5, Models: 1},
			{Tier: "cold", Path: "/archive/models", State: client.TierReady, CapacityGB: 8000, UsedGB: 1000, AvailableGB: 7000, UsagePercent: 12.5},
		},
		Moves: []client.ModelMove{exampleMove()},
		Cleanup: client.CleanupSuggestions{SavingsGB: 1.5, SafeToRemove: 1, Candidates: []client.CleanupCandidate{{
			Model: "acme/old-llm", Reason: "nobody has used it for 90 days", SizeGB: 1.5, SizeBytes: 1536 << 20, Action: client.CleanupRemoveModel, Confidence: &sure,
		}}},
	}
}

func exampleMove() client.ModelMove {
	return client.ModelMove{
		Model: exampleModel, From: "hot", To: "cold", State: client.MoveMoving, ProgressPercent: 25, MovedBytes: 384 << 20, TotalBytes: 1536 << 20,
	}
}

func exampleMoved() client.Moved {
	m := exampleMove()
	m.State, m.ProgressPercent, m.MovedBytes = client.MoveWaiting, 0, 0
	return client.Moved{Success: true, Message: exampleModel + ": is moved to the cold tier", ModelMove: m}
}

func exampleCleanedUp() client.CleanedUp {
	a := cleaned([]Cleaned{
		{Model: model.ID{Name: "acme/old-llm"}, Action: client.CleanupRemoveModel, Reason: "nobody has used it for 90 days", Freed: 1536 * model.MiB},
		{Model: model.ID{Name: exampleModel}, Action: client.CleanupKeep, Reason: "it is pinned"},
	}, true)
	a.ID = "cl_dayslzl57xtr2wmk"
	return *a
}

func exampleModelHealth() client.ModelHealth {
	return client.ModelHealth{
		Model: exampleModel, Overall: client.ConditionCorrupted, HealthScore: new(0.5), Integrity: new(0.5), LastCheck: new(exampleTime()),
		Issues:          []string{"model.safetensors is damaged in 1.0 MiB of 1.2 GiB"},
		Recommendations: []string{"fetch again what is missing or damaged: ema repair " + exampleModel},
		History: []client.HealthEntry{{
			At: exampleTime(), Kind: "scrub", Overall: client.ConditionCorrupted, Integrity: new(0.5), Files: 7, ReadMB: 1230, Seconds: 24.6,
			Issues: []string{"model.safetensors is damaged in 1.0 MiB of 1.2 GiB"},
		}},
	}
}

func exampleModelsHealth() client.ModelsHealth {
	one := exampleModelHealth()
	one.History = nil
	return client.ModelsHealth{
		Models: map[string]client.ModelHealth{exampleModel: one},
		System: client.SystemHealth{OverallScore: new(0.98), Healthy: 11, Corrupted: 1, LastCheck: new(exampleTime())},
	}
}

func exampleAnalytics() client.Analytics {
	rate, taken, name := 0.98, 1.25, exampleModel
	hours := make([]int64, 24)
	hours[9], hours[10], hours[14] = 30, 25, 5
	return client.Analytics{
		Models: map[string]client.ModelAnalytics{exampleModel: {
			Model: exampleModel, Uses: 60, Failures: 1, PerDay: 2, AverageTime: &taken, SuccessRate: &rate,
			Days: []client.UsageDay{{Date: "2026-03-01", Uses: 4, AverageTime: &taken}}, Peaks: []int{9}, Hours: hours,
		}},
		Summary: client.AnalyticsSummary{Uses: 60, Models: 1, SuccessRate: &rate, Most: &name, Least: &name, From: "2026-01-31", To: "2026-03-01", Zone: "Europe/Berlin"},
	}
}

func exampleCleanupAdvice() client.CleanupAdvice {
	last := exampleTime()
	return client.CleanupAdvice{
		Recommendations: []client.CleanupRecommendation{{
			Model: exampleModel, Reason: "it was last used 40 days ago", LastUsed: &last, SizeMB: 1536, Uses: 3, Confidence: 0.9, Action: client.CleanupRemoveModel,
		}},
		SavingsGB: 1.5, CurrentGB: 1250, TargetGB: 1200,
	}
}

func examplePerformance() client.PerformanceTrends {
	return client.PerformanceTrends{
		Models: map[string]client.PerformanceTrend{exampleModel: {
			Score: new(0.5), Trend: client.TrendDegrading, Lately: new(2.5), Month: new(1.6),
			Issues: []string{"uses take 2.0 times as long as before"}, Recommendations: []string{"bring it to the hot tier: ema tier move " + exampleModel + " hot"},
		}},
		System: client.SystemPerformance{Overall: new(0.5), Downloads: new(0.99), DownloadMBps: new(230.0), HealthSuccess: new(1.0), Since: "2026-01-31"},
	}
}

func examplePerformanceNow() client.Performance {
	return client.Performance{
		At: exampleTime(), Seconds: 60, PerformanceFigures: client.PerformanceFigures{
			Downloads: client.DownloadFigures{Active: new(1.0), Queued: new(2.0), Speed: new(812.5), Success: new(0.98), Retries: new(0.0), QueueTime: new(0.2)},
			Storage:   client.StorageFigures{Usage: new(412.7), Throughput: new(830.1), Latency: new(0.9), Busy: new(0.7)},
			API:       client.APIFigures{Rate: new(12.4), Response: new(0.3), Errors: new(0.0)},
			System:    client.SystemFigures{CPU: new(63.0), Memory: new(41.5), MemoryGB: new(26.6), Network: new(815.0), CPUWait: new(0.02), IOWait: new(0.1), MemoryWait: new(0.0)},
		},
		Unknown: map[string]string{"storage.cache_hit_rate": "the cache of models in memory is switched off"},
	}
}

func exampleTrends() client.PerformanceCourse {
	return client.PerformanceCourse{
		Interval: 300, Window: 10, Trends: map[string]client.FigureTrend{
			"downloads.average_speed_mbps": {Trend: "falling", Good: new(false), Change: new(-23.5), Median: 610, Last: 540, Samples: 10, LastAt: exampleTime()},
		},
		Recommendations: []client.PerformanceRecommendation{{
			Type: "reduce_concurrent_downloads", Reason: "downloads have become 24 % slower", Setting: "downloads.max_concurrent_downloads", Current: "3", Advised: "2",
			Command: "ema config set downloads.max_concurrent_downloads 2", Held: "monitoring.auto_apply is off",
		}},
	}
}

func exampleAnalysis() client.PerformanceAnalysis {
	return client.PerformanceAnalysis{
		At: exampleTime(), Seconds: 8.2, Verdict: "limiter: a limit of 5.0 MiB/s holds for all downloads together (business hours)",
		Bottlenecks: []client.Bottleneck{{
			Component: "limiter", Share: 0.92, Verdict: "a limit of 5.0 MiB/s holds for all downloads together (business hours)",
			Evidence: []string{"connections spent 92 % of their time waiting for the limit"},
			Setting:  "bandwidth_management.global_limit_mbps", Current: "5", Advised: "0", Command: "ema config set bandwidth_management.global_limit_mbps 0",
		}},
		Components: map[string]string{"cpu": "busy 12 % of the time"}, Times: map[string]float64{"body": 2.1, "limiter": 30.2},
		Ceilings: []client.Ceiling{{Component: "cpu", Name: "hash", Value: new(1380.0), Unit: "MB/s", Reached: new(0.004), Source: "SHA-256 by one processor, measured for this"}},
		Unknown:  map[string]string{"ceilings.link": "no network driver tells the speed of its link"},
	}
}

func exampleBaseline() client.PerformanceBaseline {
	return client.PerformanceBaseline{At: exampleTime(), Hours: 24, Figures: map[string]client.BaselineFigure{"api.average_response_time_ms": {Median: 1.2, MAD: 0.1, Samples: 1440}}}
}

func exampleRegressions() client.PerformanceRegressions {
	return client.PerformanceRegressions{
		Threshold: 0.2, Checked: new(exampleTime()), BaselineAt: new(exampleTime()),
		Regressions: []client.PerformanceRegression{{Metric: "api.average_response_time_ms", Against: "baseline", Before: 1.2, Now: 2.4, Worse: 100, Noise: 0.3}},
		Incidents: []client.PerformanceIncident{{
			Metric: "api.average_response_time_ms", Since: exampleTime(), Before: 1.2, Worst: 2.4, Worse: 100, Message: "api.average_response_time_ms is 100 % worse than before: 2.4, was 1.2",
		}},
		NotJudged: map[string]string{"storage.cache_hit_rate": "history: there are too few samples lately"},
	}
}

func exampleOptimization() client.Optimization {
	return client.Optimization{
		ID: "7", Type: "reduce_concurrent_downloads", Reason: "downloads have become 24 % slower", Setting: "downloads.max_concurrent_downloads", From: "4", To: "3",
		Status: "undone_by_user", Why: "somebody has taken it back", Metric: "downloads.average_speed_mbps", Before: new(540.0), After: new(610.0), Better: new(13.0),
		Begun: exampleTime(), Since: exampleTime().Add(2 * time.Hour),
	}
}

func exampleOptimizations() client.Optimizations {
	kept := exampleOptimization()
	kept.Status, kept.Why, kept.Undo = "kept", "downloads.average_speed_mbps is better by 13 %, both times", new("ema optimizations undo 7")
	return client.Optimizations{
		AutoApply: true, CheckedAt: new(exampleTime()), Optimizations: []client.Optimization{kept}, Recommendations: []client.PerformanceRecommendation{},
	}
}

func examplePreload() client.PreloadAdvice {
	return client.PreloadAdvice{
		Suggestions: []client.PreloadSuggestion{{
			Model: exampleModel, Hour: 10, Expected: 2.1, Confidence: 0.88, SizeMB: 1536, Tier: "cold", Action: "ema tier move " + exampleModel + " hot",
			Reason: "it is used 2.1 times between 9 and 12 o'clock on average",
		}},
		Zone: "Europe/Berlin",
	}
}

func exampleUpdates() client.Updates {
	latest, at := "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432", exampleTime()
	return client.Updates{
		Updates: []client.ModelUpdate{{
			Model: exampleModel, Revision: "main", Current: "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567", Latest: &latest, Available: new(true), DownloadMB: new(12.5),
			CheckedAt: &at, Previous: []client.PreviousVersion{{Commit: "1111111111111111111111111111111111111111", CompletedAt: &at, SizeMB: 1536}},
		}},
		Policy: "notify",
	}
}

func exampleFallbacks() client.Fallbacks {
	return client.Fallbacks{
		Model: exampleModel, Status: client.AvailabilityMissing,
		Suggestions: []client.Fallback{{
			Model: "acme/tiny-llm-gguf", Score: 0.72, Available: true, Status: client.AvailabilityAvailable, Wait: new(0.0), SizeMB: 640, Parameters: new(1.1e9), Bits: new(4.8),
			Task: "text-generation", Architectures: []string{"llama"}, Reasons: []string{"it was made from the other", "1.1B parameters instead of 1.1B"},
		}},
	}
}

// exampleBenchmarkID is the benchmark of the document's examples.
const exampleBenchmarkID = "bm_dayslzl57xtr2wmk"

func exampleBenchmarkStarted() client.BenchmarkStarted {
	return client.BenchmarkStarted{
		Success: true, Message: "it takes 36s to 1m3s, depending on how noisy this machine is", ID: exampleBenchmarkID, State: client.BenchmarkRunning,
		Least: 36, Most: 63, Estimated: exampleTime().Add(63 * time.Second),
	}
}

func exampleBenchmarkRunning() client.Benchmark {
	return client.Benchmark{
		ID: exampleBenchmarkID, State: client.BenchmarkRunning, Suites: []string{"downloads", "api", "storage", "system"}, Suite: "api", Step: "api: /api/v1/models/health",
		Percent: 36.5, Elapsed: 18.2, Begun: exampleTime(), Estimated: moment(exampleTime().Add(63 * time.Second)),
	}
}

func exampleBenchmarkCancelled() client.Benchmark {
	b := exampleBenchmarkRunning()
	b.State, b.Suite, b.Step, b.Estimated, b.Ended = client.BenchmarkCancelled, "", "", nil, moment(exampleTime().Add(18*time.Second))
	return b
}

func exampleBenchmark() client.Benchmark {
	b := exampleBenchmarkRunning()
	b.State, b.Suite, b.Step, b.Percent, b.Elapsed, b.Estimated, b.Ended = client.BenchmarkCompleted, "", "", 100, 41.7, nil, moment(exampleTime().Add(42*time.Second))
	rate := client.BenchmarkMetric{
		Median: 1480.5, MAD: 12.1, Low: new(1462.3), High: new(1495.8), Repeats: 6, Samples: []float64{1462.3, 1471.9, 1478.6, 1482.4, 1493.7, 1495.8}, Unit: "MB/s", Better: "higher",
	}
	b.Report = &client.BenchmarkReport{
		Timestamp: float64(exampleTime().Unix()), Recommendations: []string{}, Version: "v1", Suites: b.Suites, Size: 256 << 20, Seconds: b.Elapsed,
		Machine: client.BenchmarkMachine{CPUs: 8, CPUModel: "a processor", Memory: 32 << 30, Kernel: "Linux 6.12", FileSystem: "ext4"},
		Results: client.BenchmarkResults{
			Downloads: &client.BenchmarkDownloads{
				Single: new(0.21), Concurrent: []float64{0.38, 0.4, 0.41, 0.42}, Bytes: 64 << 20, SingleRate: new(319.6), ConcurrentTotal: new(0.43),
				Retry: &client.BenchmarkRetry{Seconds: 1.9, Extra: 1.69, Faults: 3, Succeeded: 1, SentAgain: 0.01},
			},
			API:     map[string]client.BenchmarkEndpoint{"/api/v1/models/health": {Average: 0.2, Median: 0.18, P95: 0.31, Min: 0.15, Max: 1.4, Requests: 100, Rounds: 6}},
			Storage: []client.BenchmarkStorage{{Tier: "hot", Path: "/models", FileSystem: "ext4", Bytes: 256 << 20, WriteDirect: new(1480.5), FsyncP50: new(0.4)}},
			System:  &client.BenchmarkSystem{CPUs: 8, CPUModel: new("a processor"), Memory: 32 << 30, Kernel: new("Linux 6.12"), Platform: "linux/amd64", StoreFileSystem: new("ext4"), SHA256: new(1900.0)},
		},
		Metrics: map[string]client.BenchmarkMetric{"storage.hot.write_direct": rate}, Noisy: map[string]string{},
		Unknown: map[string]string{"storage.hot.read_direct": "this file system cannot read and write past the page cache"},
		Comparison: &client.BenchmarkComparison{
			Baseline: "/var/lib/ema/baseline.json", Timestamp: float64(exampleTime().Add(-24 * time.Hour).Unix()), Threshold: 0.2, Compared: 1,
			Before:      map[string]float64{"storage.hot.write_direct": 1990},
			Regressions: []client.BenchmarkRegression{{Metric: "storage.hot.write_direct", Unit: "MB/s", Better: "higher", Baseline: 1990, Now: 1480.5, Worse: 0.256, Noise: 36.3}},
			NotJudged:   map[string]string{}, Warnings: []string{},
		},
	}
	return b
}
