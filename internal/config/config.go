// Package config reads everyone's settings: it loads them from files, environment and flags, judges them, and describes
// every key.
//
// The structs of the sections are the single truth. Their json tags are the keys, their doc comments the descriptions
// in the schema, in `ema config init` and in docs/configuration.md, and their tags the rules:
//
//	range:"1..64"     the smallest and the largest number allowed
//	enum:"a,b"        the words allowed; a leading comma allows the empty one
//	pattern:"^/"      the shape of a text, with want:"…" saying it in words; an empty text means "not set"
//	required:"yes"    an empty text is not allowed either
//	secret:"url"      hide what a URL may carry in secret; "path" hides all behind the host
//	active:"yes"      acts already; on a section it holds for all keys below. A key without it is checked like any
//	                  other, and reported as not active yet where somebody sets it
//	restart:"yes"     a change acts after a restart only; on a section it holds for all keys below
//
// Units are in the names: _kb, _mb and _gb count in KiB, MiB and GiB, _mbps in MiB per second.
package config

// Config holds all settings. Get one from Default or Load; it is plain data, and safe to read from several goroutines.
type Config struct {
	// A set of defaults for one kind of machine: keys that are set anywhere else win over it.
	OptimizationProfile string `json:"optimization_profile" enum:",high_throughput,low_latency,resource_constrained" active:"yes"`

	// Where models are kept, and how carefully they are written.
	Store Store `json:"store" active:"yes"`
	// Where models come from.
	Sources Sources `json:"sources" active:"yes"`

	// How much of the link downloads may take, and when.
	BandwidthManagement BandwidthManagement `json:"bandwidth_management"`
	// Connections to hubs and to the hosts that serve their files.
	ConnectionSettings ConnectionSettings `json:"connection_settings"`
	// Name resolution and reuse of connections.
	NetworkOptimization NetworkOptimization `json:"network_optimization"`
	// How many downloads run at once, and how many wait.
	Downloads Downloads `json:"downloads"`
	// What happens after a failure that may pass.
	RetryOptimization RetryOptimization `json:"retry_optimization"`
	// The unit in which downloads are checkpointed and shared among connections; not the size of a request.
	ChunkOptimization ChunkOptimization `json:"chunk_optimization"`

	// Folders by speed. Without tiers the store's own folder is the hot tier.
	StorageTiers StorageTiers `json:"storage_tiers"`
	// When models move between tiers.
	TierManagement TierManagement `json:"tier_management" active:"yes"`
	// What is kept for later use: models in memory, partial downloads, answers of the hub.
	CacheOptimization CacheOptimization `json:"cache_optimization"`
	// When and how space is made.
	Cleanup Cleanup `json:"cleanup" active:"yes"`
	// When stored models are checked again.
	Health Health `json:"health" active:"yes"`
	// What is done about models whose source has something newer.
	Updates Updates `json:"updates" active:"yes"`

	// Memory limits.
	MemoryManagement MemoryManagement `json:"memory_management"`
	// Threads, cores and priorities.
	CPUOptimization CPUOptimization `json:"cpu_optimization"`

	// The HTTP server of the daemon.
	Server Server `json:"server" active:"yes" restart:"yes"`
	// Who may use the API.
	Auth Auth `json:"auth" active:"yes"`
	// How often one client may call the API; loopback is exempt.
	RateLimit RateLimit `json:"rate_limit" active:"yes"`
	// Answers of the API.
	API API `json:"api"`
	// Events sent to browsers and clients.
	Websocket Websocket `json:"websocket" active:"yes"`
	// Where history and usage are kept.
	Database Database `json:"database" restart:"yes"`
	// Continuous measuring, and what is done about its findings.
	Monitoring Monitoring `json:"monitoring"`
	// What ema writes about its own work, to stderr unless a file is named.
	Log Log `json:"log" active:"yes"`
}

// Default returns the settings that hold when nobody sets anything. Zero means automatic wherever a key says so.
func Default() Config {
	return Config{
		Store:               defaultStore(),
		Sources:             defaultSources(),
		BandwidthManagement: defaultBandwidthManagement(),
		ConnectionSettings:  defaultConnectionSettings(),
		NetworkOptimization: defaultNetworkOptimization(),
		Downloads:           defaultDownloads(),
		RetryOptimization:   defaultRetryOptimization(),
		ChunkOptimization:   defaultChunkOptimization(),
		StorageTiers:        defaultStorageTiers(),
		TierManagement:      defaultTierManagement(),
		CacheOptimization:   defaultCacheOptimization(),
		Cleanup:             defaultCleanup(),
		Health:              defaultHealth(),
		Updates:             defaultUpdates(),
		MemoryManagement:    defaultMemoryManagement(),
		CPUOptimization:     defaultCPUOptimization(),
		Server:              defaultServer(),
		RateLimit:           defaultRateLimit(),
		API:                 defaultAPI(),
		Websocket:           defaultWebsocket(),
		Database:            defaultDatabase(),
		Monitoring:          defaultMonitoring(),
		Log:                 defaultLog(),
	}
}
