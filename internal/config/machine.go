package config

// MemoryManagement limits memory.
type MemoryManagement struct {
	// Memory limit of ema's own heap; 0 = nine tenths of the memory of the machine, or of the container. GOMEMLIMIT goes before.
	HeapSizeGB GB `json:"heap_size_gb" active:"yes" range:"0..1048576"`
	// Upper bound of cache_optimization.model_cache.max_size_gb; 0 = no bound of its own.
	ModelCacheSizeGB GB `json:"model_cache_size_gb" active:"yes" range:"0..1048576"`
	// All buffers of running downloads together; downloads wait rather than exceed it.
	DownloadBufferSizeMB MB `json:"download_buffer_size_mb" range:"1..1048576" active:"yes"`
	// Memory for answers of the hub; 0 = they are kept on disk alone.
	MetadataCacheSizeMB MB `json:"metadata_cache_size_mb" range:"0..1048576" active:"yes"`
	// When the garbage collector of the daemon runs.
	GCOptimization GCOptimization `json:"gc_optimization" active:"yes"`
	// How files are read into memory for cache_optimization.model_cache.
	MemoryMapping MemoryMapping `json:"memory_mapping" active:"yes"`
}

// GCOptimization says when the garbage collector runs.
type GCOptimization struct {
	// Switches this section on.
	Enabled bool `json:"enabled"`
	// Share of the memory limit from which it runs all the time.
	GCThreshold float64 `json:"gc_threshold" range:"0.05..1"`
	// Give memory back to the system when less than a tenth of it is left, at each of these collections.
	AggressiveGCOnLowMemory bool `json:"aggressive_gc_on_low_memory"`
	// How often it collects at least while something works; an idle daemon never wakes for it.
	GCIntervalSeconds Seconds `json:"gc_interval_seconds" range:"1..86400"`
}

// MemoryMapping is how large files are read into memory.
type MemoryMapping struct {
	// Map files from mmap_threshold_mb on instead of reading them, which copies nothing. What is verified is read, not mapped:
	// so it does not push others out of memory.
	UseMmapForLargeFiles bool `json:"use_mmap_for_large_files"`
	// Files from this size are large.
	MmapThresholdMB MB `json:"mmap_threshold_mb" range:"0..1048576"`
	// Have the kernel fill the mapping; false reads the file.
	MmapPopulate bool `json:"mmap_populate"`
}

func defaultMemoryManagement() MemoryManagement {
	return MemoryManagement{
		DownloadBufferSizeMB: 128, MetadataCacheSizeMB: 256,
		GCOptimization: GCOptimization{Enabled: true, GCThreshold: 0.8, AggressiveGCOnLowMemory: true, GCIntervalSeconds: 300},
		MemoryMapping:  MemoryMapping{UseMmapForLargeFiles: true, MmapThresholdMB: 100, MmapPopulate: true},
	}
}

// CPUOptimization is about threads, cores and priorities. ema is one process: worker_processes x
// worker_threads_per_process is the number of threads that run Go code at once, bounded by the cores there are.
type CPUOptimization struct {
	// One factor of the threads that run at once; 0 = automatic.
	WorkerProcesses int `json:"worker_processes" active:"yes" range:"0..4096" restart:"yes"`
	// The other factor; 0 = automatic.
	WorkerThreadsPerProcess int `json:"worker_threads_per_process" active:"yes" range:"0..4096" restart:"yes"`
	// Files that the daemon verifies or moves at once, as far as there are processors.
	IOThreads int `json:"io_threads" active:"yes" range:"1..1024"`
	// Other tasks of the daemon at once that can wait, as reading models into memory.
	BackgroundTaskThreads int `json:"background_task_threads" active:"yes" range:"1..1024"`
	// Cores for each kind of work.
	CPUAffinity CPUAffinity `json:"cpu_affinity" active:"yes"`
	// Priorities of each kind of work.
	ProcessPriority ProcessPriority `json:"process_priority"`
}

// CPUAffinity binds work to cores. An empty list means any core.
type CPUAffinity struct {
	// Switches this section on.
	Enabled bool `json:"enabled"`
	// Cores of downloads and of the API.
	WorkerCores []int `json:"worker_cores" range:"0..4095"`
	// Cores of verifying and moving.
	IOCores []int `json:"io_cores" range:"0..4095"`
	// Cores of everything else.
	BackgroundCores []int `json:"background_cores" range:"0..4095"`
}

// ProcessPriority sets the priority of the threads that do each kind of work.
type ProcessPriority struct {
	// The API and everything without a class of its own. High needs the permission to raise priorities.
	MainProcess string `json:"main_process" active:"yes" enum:"high,normal,below_normal,idle"`
	// Hashing what the daemon downloads, which is most of the work of it; bytes are received on the threads of main_process.
	DownloadProcesses string `json:"download_processes" active:"yes" enum:"high,normal,below_normal,idle"`
	// Verifying, moving and reading into memory.
	BackgroundProcesses string `json:"background_processes" active:"yes" enum:"high,normal,below_normal,idle"`
}

func defaultCPUOptimization() CPUOptimization {
	return CPUOptimization{
		IOThreads: 8, BackgroundTaskThreads: 4,
		ProcessPriority: ProcessPriority{MainProcess: "normal", DownloadProcesses: "below_normal", BackgroundProcesses: "idle"},
	}
}
