package config

// BandwidthManagement says how much of the link downloads may take, and when.
type BandwidthManagement struct {
	// Limit for all downloads together; 0 = unlimited.
	GlobalLimitMbps MBps `json:"global_limit_mbps" range:"0..1000000" active:"yes"`
	// Limit for each download; 0 = unlimited.
	PerDownloadLimitMbps MBps `json:"per_download_limit_mbps" range:"0..1000000" active:"yes"`
	// Stepping back while this machine is busy with other work.
	AdaptiveLimiting AdaptiveLimiting `json:"adaptive_limiting" active:"yes"`
	// Windows of the day by name, each with its limit; they may cross midnight. The window off_hours has no start and
	// no end: it holds outside all others. The smallest limit that is not 0 among the windows and global_limit_mbps wins.
	TimeBasedLimits map[string]Window `json:"time_based_limits" active:"yes"`
}

// AdaptiveLimiting lowers the limit in steps while the load stays over the threshold.
type AdaptiveLimiting struct {
	// Switches this section on.
	Enabled bool `json:"enabled" active:"yes"`
	// Watch the worst of CPU, I/O and memory pressure.
	MonitorSystemLoad bool `json:"monitor_system_load" active:"yes"`
	// Act on it. Without any limit set, the steps start from the recently measured rate.
	ReduceOnHighLoad bool `json:"reduce_on_high_load" active:"yes"`
	// Load from which the limit steps down; 1 is a machine with nothing left to give.
	LoadThreshold float64 `json:"load_threshold" range:"0.05..1" active:"yes"`
}

// A Window is a time of the day with a limit of its own.
type Window struct {
	// When it begins.
	Start string `json:"start" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" want:"a time of the day HH:MM" active:"yes"`
	// When it ends; earlier than start means the next day.
	End string `json:"end" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" want:"a time of the day HH:MM" active:"yes"`
	// Days on which it begins; none = every day.
	Days []string `json:"days" enum:"mon,tue,wed,thu,fri,sat,sun" active:"yes"`
	// Time zone of start and end, e.g. Europe/Vienna; empty = that of this machine.
	Timezone string `json:"timezone" active:"yes"`
	// Limit for all downloads together during it; 0 = no limit of its own.
	LimitMbps MBps `json:"limit_mbps" range:"0..1000000" active:"yes"`
}

func defaultBandwidthManagement() BandwidthManagement {
	return BandwidthManagement{
		AdaptiveLimiting: AdaptiveLimiting{MonitorSystemLoad: true, ReduceOnHighLoad: true, LoadThreshold: 0.8},
	}
}

// ConnectionSettings says how ema talks to hubs and to the hosts that serve their files.
type ConnectionSettings struct {
	// Connections to one host at once, of all downloads together.
	MaxConnectionsPerHost int `json:"max_connections_per_host" range:"1..256" active:"yes"`
	// Connections to all hosts together.
	ConnectionPoolSize int `json:"connection_pool_size" range:"1..4096" active:"yes"`
	// Time for connecting, including TLS.
	ConnectionTimeoutSeconds Seconds `json:"connection_timeout_seconds" range:"0.1..3600" active:"yes"`
	// No byte for this long means that the connection failed; it never limits how long a whole file may take. Guides
	// written for clients without resume advise 300: here a dead connection costs a new one, and waiting costs time.
	ReadTimeoutSeconds Seconds `json:"read_timeout_seconds" range:"0.1..3600" active:"yes"`
	// Use a connection for more than one request.
	KeepAliveEnabled bool `json:"keep_alive_enabled" active:"yes"`
	// Seconds after which an idle connection is closed.
	KeepAliveTimeout Seconds `json:"keep_alive_timeout" range:"1..3600" active:"yes"`
	// Accept compressed metadata. The bytes of models are always asked for as they are.
	CompressionEnabled bool `json:"compression_enabled" active:"yes"`
	// Use HTTP/2 for metadata.
	HTTP2Enabled bool `json:"http2_enabled" active:"yes"`
	// Use HTTP/2 for the bytes of models too. All streams of one HTTP/2 connection share one congestion window, so
	// separate HTTP/1.1 connections are the default.
	HTTP2Bulk bool `json:"http2_bulk" active:"yes"`
	// Send small packets at once instead of collecting them.
	TCPNoDelay bool `json:"tcp_nodelay" active:"yes"`
	// Bytes of the socket's buffers; 0 = the kernel adjusts them. A fixed size caps a connection at one buffer per round
	// trip: 65536 allows 0.6 MiB/s at 100 ms.
	SocketBufferSize int64 `json:"socket_buffer_size" range:"0..1073741824" active:"yes"`
}

func defaultConnectionSettings() ConnectionSettings {
	return ConnectionSettings{
		MaxConnectionsPerHost:    8,
		ConnectionPoolSize:       20,
		ConnectionTimeoutSeconds: 30,
		ReadTimeoutSeconds:       10,
		KeepAliveEnabled:         true,
		KeepAliveTimeout:         30,
		CompressionEnabled:       true,
		HTTP2Enabled:             true,
		TCPNoDelay:               true,
	}
}

// NetworkOptimization is about name resolution and reuse of connections.
type NetworkOptimization struct {
	// Remember addresses. A stale one is used while it is being refreshed, or when that fails.
	DNSCacheEnabled bool `json:"dns_cache_enabled" active:"yes"`
	// How long an address counts as fresh.
	DNSCacheTTLSeconds Seconds `json:"dns_cache_ttl_seconds" range:"0..604800" active:"yes"`
	// Try IPv4 addresses first. Usually not needed: the faster family is found by trying both.
	PreferIPv4 bool `json:"prefer_ipv4" active:"yes"`
	// Ask the resolver of the system. Public DNS servers don't know the names of a private network.
	UseSystemResolver bool `json:"use_system_resolver" active:"yes"`
	// DNS servers to ask instead when use_system_resolver is false.
	CustomDNSServers []string `json:"custom_dns_servers" pattern:"^([0-9.]+|[0-9a-fA-F:]+|[0-9.]+:[0-9]+|\\[[0-9a-fA-F:]+\\]:[0-9]+)$" want:"an IP address, with a port if it is not 53" required:"yes" active:"yes"`
	// Use a connection for the next segment too.
	ConnectionReuse bool `json:"connection_reuse" active:"yes"`
	// Keep connections open between downloads.
	PersistentConnections bool `json:"persistent_connections" active:"yes"`
}

func defaultNetworkOptimization() NetworkOptimization {
	return NetworkOptimization{
		DNSCacheEnabled: true, DNSCacheTTLSeconds: 300, UseSystemResolver: true,
		ConnectionReuse: true, PersistentConnections: true,
	}
}

// Sources says where models come from.
type Sources struct {
	// The source of a model id without a scheme.
	Default string `json:"default" enum:"huggingface"`
	// The Hugging Face hub, or a mirror of it.
	HuggingFace HuggingFace `json:"huggingface"`
	// Hosts that models may come from, redirects included; * stands for any part of a name. None = any host.
	Allowed []string `json:"allowed" pattern:"^[A-Za-z0-9*._-]+(:[0-9]+)?$" want:"a host name, * for any part, with a port if it matters" required:"yes"`
}

// HuggingFace is a hub that speaks the Hugging Face protocol.
type HuggingFace struct {
	// Address of the hub; empty = HF_ENDPOINT, else the public hub.
	Endpoint string `json:"endpoint" pattern:"^https?://[^/?#\\s]+[^?#\\s]*$" want:"an http:// or https:// URL without query" secret:"url"`
	// File that holds the access token; empty = HF_TOKEN, else where the hub's own client keeps it. The token itself is
	// no setting: configurations are shown, copied and committed.
	TokenFile string `json:"token_file" pattern:"^/" want:"an absolute path"`
}

func defaultSources() Sources { return Sources{Default: "huggingface"} }
