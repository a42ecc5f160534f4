package config

// Store says where models are kept, and how carefully they are written.
type Store struct {
	// Folder of the models, in the layout of the Hugging Face cache; empty = storage_tiers.hot.path, else HF_HUB_CACHE,
	// else where the hub's own client keeps them.
	Path string `json:"path" pattern:"^/" want:"an absolute path" restart:"yes"`
	// Folder of ema's own notes about the store; empty = ema/NAME beside the store's folder NAME. Never inside the store.
	StateDir string `json:"state_dir" pattern:"^/" want:"an absolute path" restart:"yes"`
	// What a model survives once it is called available: power also a power loss, process only the end of ema. The
	// latter saves waiting for the disk, and after a power loss a file may be damaged.
	Durability string `json:"durability" enum:"power,process"`
	// Size of one write call; large buffered writes are slow on some machines.
	WriteSizeKB KB `json:"write_size_kb" range:"4..16384"`
	// What becomes of written bytes in the page cache. auto: what fast connections bring is written past it, the rest
	// stays. keep: all stays, for a model that is loaded at once. drop: nothing stays, to spare other programs' pages.
	PageCache string `json:"page_cache" enum:"auto,keep,drop"`
	// Hand bytes to the kernel and let it write them in the background; false makes every write wait for the disk. What
	// durability promises holds either way.
	AsyncWrites bool `json:"async_writes" active:"no"`
}

func defaultStore() Store {
	return Store{Durability: "power", WriteSizeKB: 64, PageCache: "auto", AsyncWrites: true}
}

// StorageTiers are folders by speed.
type StorageTiers struct {
	// The fastest: what is used often. Its path is the store's path.
	Hot Tier `json:"hot"`
	// In between.
	Warm Tier `json:"warm"`
	// The slowest and largest.
	Cold Tier `json:"cold"`
}

// A Tier is one folder, and what belongs there.
type Tier struct {
	// Its folder; empty = there is no such tier.
	Path string `json:"path" pattern:"^/" want:"an absolute path" restart:"yes" active:"yes"`
	// Which models belong there.
	Criteria Criteria `json:"criteria"`
	// What it may hold; 0 = as much as the disk. Downloads wait, and moves are refused, where they would exceed it.
	MaxSizeGB GB `json:"max_size_gb" active:"yes" range:"0..1000000000"`
	// Priority of moves to and from it: high is the first best-effort level, normal the usual one, low is idle.
	IOPriority string `json:"io_priority" active:"yes" enum:"high,normal,low"`
}

// Criteria say which models belong to a tier. At most one of the priorities is true: what the tier is meant for.
type Criteria struct {
	// Uses within the last last_used_days days that make a model belong here.
	UsageFrequencyThreshold int `json:"usage_frequency_threshold" active:"yes" range:"0..1000000000"`
	// Days over which uses are counted.
	LastUsedDays Days `json:"last_used_days" active:"yes" range:"0.01..36500"`
	// The tier is meant to be fast: ema says so when its disk is not.
	PerformancePriority bool `json:"performance_priority"`
	// The tier balances speed and size.
	BalancedPriority bool `json:"balanced_priority"`
	// The tier is meant to be large.
	StoragePriority bool `json:"storage_priority"`
}

func defaultStorageTiers() StorageTiers {
	return StorageTiers{
		Hot:  Tier{Criteria: Criteria{UsageFrequencyThreshold: 10, LastUsedDays: 7}, IOPriority: "high"},
		Warm: Tier{Criteria: Criteria{UsageFrequencyThreshold: 3, LastUsedDays: 30}, IOPriority: "normal"},
		Cold: Tier{Criteria: Criteria{UsageFrequencyThreshold: 0, LastUsedDays: 90}, IOPriority: "low"},
	}
}

// TierManagement says when models move between tiers. A model's score for a tier is its uses in that tier's days,
// divided by the tier's threshold, at most 1.
type TierManagement struct {
	// Move models by themselves.
	AutoTieringEnabled bool `json:"auto_tiering_enabled"`
	// A model moves into the highest tier where its score is at least this.
	PromotionThreshold float64 `json:"promotion_threshold" range:"0..1"`
	// A model leaves its tier when its score there is under this. Between the two it stays.
	DemotionThreshold float64 `json:"demotion_threshold" range:"0..1"`
	// How often this is looked at.
	CheckIntervalHours Hours `json:"check_interval_hours" range:"0.01..8760"`
}

func defaultTierManagement() TierManagement {
	return TierManagement{AutoTieringEnabled: true, PromotionThreshold: 0.8, DemotionThreshold: 0.3, CheckIntervalHours: 6}
}

// CacheOptimization says what is kept for later use.
type CacheOptimization struct {
	// Models kept resident in memory.
	ModelCache ModelCache `json:"model_cache" active:"yes"`
	// Partial files of interrupted downloads.
	DownloadCache DownloadCache `json:"download_cache" active:"yes"`
	// Answers of the hub. What it said about a commit is not asked for again. About a branch it is asked each time, and
	// repeats only what has changed; when it cannot be reached, its last answer serves, and ema says so.
	MetadataCache MetadataCache `json:"metadata_cache" active:"yes"`
}

// ModelCache keeps the bytes of models resident in memory, so that loading them needs no disk.
type ModelCache struct {
	// Switches this section on.
	Enabled bool `json:"enabled"`
	// Memory for it; memory_management.model_cache_size_gb may lower it.
	MaxSizeGB GB `json:"max_size_gb" range:"0..1048576"`
	// Who stays: used recently and often.
	CacheStrategy string `json:"cache_strategy" enum:"lru_with_frequency"`
	// Read often used models into memory at start.
	PreloadFrequentlyUsed bool `json:"preload_frequently_used"`
	// Keep only the headers of files.
	CacheMetadataOnly bool `json:"cache_metadata_only"`
	// Lock the pages, so that they are never swapped out. Needs the permission to do so.
	LockInMemory bool `json:"lock_in_memory"`
}

// DownloadCache keeps the partial files of interrupted downloads. Those of downloads that run, wait or are paused always
// stay. The daemon looks at the others at its start, every hour and when a download ends; without one "ema gc" does.
type DownloadCache struct {
	// Keep partial files of downloads that failed or were cancelled, so that the next one goes on from there; false
	// removes them at once.
	Enabled bool `json:"enabled"`
	// What partial files that nobody waits for may take together, the oldest go first; 0 = none are kept.
	MaxSizeGB GB `json:"max_size_gb" range:"0..1048576"`
	// Remove partial files that were not written to for so long when nothing waits for them; those of other tools, too.
	TempFileCleanupHours Hours `json:"temp_file_cleanup_hours" range:"0.01..87600"`
	// Keep partial files over a restart, and go on with them; false removes them at the start of the daemon, so that what
	// was under way begins anew, and at once those of downloads that failed or were cancelled.
	PartialDownloadCache bool `json:"partial_download_cache"`
}

// MetadataCache keeps answers of the hub.
type MetadataCache struct {
	// Switches this section on.
	Enabled bool `json:"enabled"`
	// Answers kept at most, in memory and on disk each; about so many, since several processes share those on disk.
	MaxEntries int `json:"max_entries" range:"0..100000000"`
	// How long an answer counts as fresh. A fresh one serves as soon as the hub fails once; an older one, called stale,
	// when all attempts have failed.
	TTLSeconds Seconds `json:"ttl_seconds" range:"0..31536000"`
	// Keep answers over a restart, and share them with other processes: in answers/ of the store's state folder, which may
	// be removed at any time.
	PersistentCache bool `json:"persistent_cache"`
	// Compress what is kept on disk.
	Compress bool `json:"compress"`
}

func defaultCacheOptimization() CacheOptimization {
	return CacheOptimization{
		ModelCache:    ModelCache{Enabled: true, MaxSizeGB: 16, CacheStrategy: "lru_with_frequency", PreloadFrequentlyUsed: true},
		DownloadCache: DownloadCache{Enabled: true, MaxSizeGB: 8, TempFileCleanupHours: 24, PartialDownloadCache: true},
		MetadataCache: MetadataCache{Enabled: true, MaxEntries: 10000, TTLSeconds: 3600, PersistentCache: true},
	}
}

// Cleanup says when and how space is made.
type Cleanup struct {
	// Make space by itself: an hour after the last look at the latest, and when a download has ended or waits for space.
	// What no revision needs goes first, then old revisions, then unused models that their source still has. Pinned,
	// open, recent and often used models stay.
	Auto bool `json:"auto"`
	// Fullness of a tier's volume, or of its max_size_gb, in percent, from which space is made.
	TriggerPercent float64 `json:"trigger_percent" range:"1..100"`
	// Fullness, in percent, at which it stops.
	TargetPercent float64 `json:"target_percent" range:"0..99"`
	// Only models unused for this long may go. Before the daemon first ran nobody noticed uses, so that time does not count.
	MinUnusedDays Days `json:"min_unused_days" range:"0..36500"`
	// Models and revisions younger than this stay.
	KeepRecentDays Days `json:"keep_recent_days" range:"0..36500"`
	// Space that downloads always leave free; 0 = the smaller of 5 GiB and 5 % of the volume.
	MinFreeGB GB `json:"min_free_gb" range:"0..1000000000" active:"yes"`
}

func defaultCleanup() Cleanup {
	return Cleanup{TriggerPercent: 85, TargetPercent: 70, MinUnusedDays: 30, KeepRecentDays: 7}
}

// Health says when stored models are checked again.
type Health struct {
	// How often it is looked whether every model's files are there and untouched. That is done too when the daemon
	// starts, and soon after another program has opened a model's files.
	CheckIntervalHours Hours `json:"check_interval_hours" range:"0.01..87600"`
	// How often all bytes of every model are read and compared with their hashes (scrub); 0 is never by itself.
	ScrubIntervalHours Hours `json:"scrub_interval_hours" range:"0..87600"`
	// How fast a scrub reads at most; 0 is no limit. It reads at idle priority, steps aside for others, and goes on
	// after a restart where it was.
	ScrubLimitMBps MBps `json:"scrub_limit_mbps" range:"0..100000"`
	// Fetch damaged parts again by itself.
	AutoRepair bool `json:"auto_repair"`
	// Keep files from the model that could do harm when a program loads them: pickles that would run commands, load code or
	// touch files. They are fetched and no link leads to them. Off, they are installed, and said. With it off again a pull
	// installs what was kept.
	Quarantine bool `json:"quarantine"`
}

func defaultHealth() Health {
	return Health{CheckIntervalHours: 24, ScrubIntervalHours: 720, ScrubLimitMBps: 50, AutoRepair: true}
}

// Updates say what is done about models whose source has something newer.
type Updates struct {
	// What is done when a branch has moved on at the source: "pin" asks nobody, "notify" asks and tells, "auto" fetches
	// it too, at low priority, and then the branch leads to it.
	Policy string `json:"policy" enum:"pin,notify,auto"`
	// How often the source of each model is asked.
	CheckIntervalHours Hours `json:"check_interval_hours" range:"0.01..87600"`
	// How long the revision before an update stays for a rollback; 0 is until a cleanup.
	KeepPreviousHours Hours `json:"keep_previous_hours" range:"0..87600"`
}

func defaultUpdates() Updates {
	return Updates{Policy: "notify", CheckIntervalHours: 24, KeepPreviousHours: 168}
}
