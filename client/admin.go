package client

import "time"

// How a part of the daemon is, and all of it together: as its worst part.
const (
	HealthHealthy   = "healthy"
	HealthDegraded  = "degraded"  // it works, less well than it should
	HealthUnhealthy = "unhealthy" // it does not work
	HealthUnknown   = "unknown"
)

// The parts whose health can be asked for by themselves.
const (
	PartDownloads = "downloads"
	PartStorage   = "storage"
	PartModels    = "models"
	PartDatabase  = "db"
)

// AdminHealth is how the daemon is.
type AdminHealth struct {
	Status        string                `json:"status"` // one of the Health constants
	CheckedAt     time.Time             `json:"timestamp"`
	UptimeSeconds float64               `json:"uptime_seconds"`
	Parts         map[string]PartHealth `json:"components"` // by the Part constants
}

// A PartHealth is how one part is.
type PartHealth struct {
	Status  string   `json:"status"`
	Message string   `json:"message"` // a sentence: what is wrong and what to do, or that nothing is
	Issues  []string `json:"issues"`  // never null
	// Figures are what was looked at, by names that bear their units.
	Figures map[string]float64 `json:"figures,omitempty"`
}

// Resources are what the daemon's process takes, and what this machine has. What cannot be read is null.
type Resources struct {
	At      time.Time        `json:"timestamp"`
	Process ProcessResources `json:"process"`
	Machine MachineResources `json:"machine"`
	Disks   []DiskResources  `json:"disks"` // of the folders of models, each file system once; never null
	// Limits are those that the daemon keeps itself.
	Limits Limits `json:"limits"`
	// ModelCache is about models that are kept in memory; absent when none are to be.
	ModelCache *ModelCacheResources `json:"model_cache,omitempty"`
}

// Limits are what the daemon takes at most.
type Limits struct {
	Workers           int      `json:"workers"` // threads that run Go code at once
	IOThreads         int      `json:"io_threads"`
	BackgroundThreads int      `json:"background_threads"`
	HeapMB            *float64 `json:"heap_mb"` // from which the heap is collected all the time; null is no limit
}

// ModelCacheResources are what is kept of models in memory, as it is found there.
type ModelCacheResources struct {
	LimitMB    float64  `json:"limit_mb"`    // for kept_mb; it falls when the machine has less memory to give
	Models     int      `json:"models"`      // of which something is kept
	KeptMB     float64  `json:"kept_mb"`     // that are to stay
	ResidentMB float64  `json:"resident_mb"` // of these, in memory now
	LockedMB   float64  `json:"locked_mb"`   // of these, that nothing can push out
	HitRate    *float64 `json:"hit_rate"`    // 0 to 1: the part of the bytes of used models that was in memory already; null before the first use
	Uses       int64    `json:"uses"`        // that hit_rate is about
}

// ProcessResources are what the daemon's process takes.
type ProcessResources struct {
	PID          int      `json:"pid"`
	CPUPercent   *float64 `json:"cpu_usage_percent"` // of one processor, since the last look
	ResidentMB   *float64 `json:"resident_memory_mb"`
	HeapMB       float64  `json:"heap_mb"`
	Goroutines   int      `json:"goroutines"`
	Threads      *int     `json:"threads"`
	OpenFiles    *int     `json:"open_files"`
	MaxOpenFiles *int     `json:"max_open_files"`
}

// MachineResources are what this machine has, or the container that the daemon is in.
type MachineResources struct {
	CPUs              int      `json:"cpus"` // that the daemon may use
	CPUPercent        *float64 `json:"cpu_usage_percent"`
	Load1             *float64 `json:"load_average_1m"`
	MemoryTotalMB     *float64 `json:"memory_total_mb"`
	MemoryAvailableMB *float64 `json:"memory_available_mb"`
	MemoryPercent     *float64 `json:"memory_usage_percent"`
	NetworkMBps       *float64 `json:"network_usage_mbps"` // both ways together
}

// DiskResources are how a file system stands.
type DiskResources struct {
	Path         string  `json:"path"`
	TotalGB      float64 `json:"total_capacity_gb"`
	AvailableGB  float64 `json:"available_space_gb"`
	UsagePercent float64 `json:"usage_percent"`
}

// Audit is a page of who has changed what, newest first.
type Audit struct {
	Entries []AuditEntry `json:"entries"` // never null
	Page    int          `json:"page"`
	Limit   int          `json:"limit"`
}

// An AuditEntry is one request that changed something, or was refused. It holds no key and no secret.
type AuditEntry struct {
	At        time.Time `json:"timestamp"`
	Who       string    `json:"who"`                   // the name of the key; empty where none was shown
	Role      string    `json:"role"`                  // admin, power_user or user; empty of a stranger
	Remote    string    `json:"remote_addr,omitempty"` // without its port; empty for the socket
	Action    string    `json:"action"`                // what was done, such as download.start
	Target    string    `json:"target,omitempty"`      // a model, or a key of the settings
	Result    string    `json:"result"`                // ok, or the Code of the refusal
	RequestID string    `json:"request_id"`            // as X-Request-Id said
}

// The headers of a profile: what the daemon's process has of memory now, and had at most since it began, in bytes.
const (
	MemoryNow  = "Ema-Memory-Current"
	MemoryPeak = "Ema-Memory-Peak"
)

// The kinds of profiles.
const (
	ProfileCPU  = "cpu"  // what the processors do
	ProfileHeap = "heap" // what the memory holds
)

// A ProfileTold is what a daemon tells beside a profile of itself. A figure that it cannot tell is 0.
type ProfileTold struct {
	MemoryBytes     int64 // of its process, when the profile was done
	MemoryPeakBytes int64 // at most, since it began
}
