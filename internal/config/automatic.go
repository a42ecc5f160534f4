package config

import (
	"strconv"

	"ema/internal/model"
)

// Facts are what automatic settings depend on.
type Facts struct {
	CPUs   int         // logical processors that this process may use
	Memory model.Bytes // memory of the machine
}

// AtOnce is the number of models downloaded at once: the setting, or min(max(2, cpus/2), max(2, GiB/4), 8).
func (d Downloads) AtOnce(f Facts) int {
	if d.MaxConcurrentDownloads > 0 {
		return d.MaxConcurrentDownloads
	}
	return min(max(2, f.CPUs/2), max(2, int(f.Memory/(4*model.GiB))), 8)
}

// PerModel is the number of files of one model fetched at once: the setting, or min(4, AtOnce).
func (d Downloads) PerModel(f Facts) int {
	if d.MaxConcurrentPerModel > 0 {
		return d.MaxConcurrentPerModel
	}
	return min(4, d.AtOnce(f))
}

// Waiting is the number of downloads that may wait: the setting, or three times AtOnce.
func (d Downloads) Waiting(f Facts) int {
	if d.QueueSize > 0 {
		return d.QueueSize
	}
	return 3 * d.AtOnce(f)
}

// Workers is the number of threads that run Go code at once: worker_processes x worker_threads_per_process, where 0
// counts as 1, bounded by the processors there are. With both 0 it is all processors.
func (c CPUOptimization) Workers(f Facts) int {
	if c.WorkerProcesses == 0 && c.WorkerThreadsPerProcess == 0 {
		return f.CPUs
	}
	return min(max(1, c.WorkerProcesses)*max(1, c.WorkerThreadsPerProcess), f.CPUs)
}

// automatic says what the keys that are 0 for "automatic" come to on this machine.
func (c Config) automatic(f Facts) map[string]string {
	all := make(map[string]string)
	add := func(key string, set, comes int) {
		if set == 0 {
			all[key] = strconv.Itoa(comes)
		}
	}
	add("downloads.max_concurrent_downloads", c.Downloads.MaxConcurrentDownloads, c.Downloads.AtOnce(f))
	add("downloads.max_concurrent_per_model", c.Downloads.MaxConcurrentPerModel, c.Downloads.PerModel(f))
	add("downloads.queue_size", c.Downloads.QueueSize, c.Downloads.Waiting(f))
	return all
}
