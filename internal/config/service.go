package config

// Server is the HTTP server of the daemon.
type Server struct {
	// Address of API and dashboard. Any address but loopback needs auth.api_keys.
	Listen string `json:"listen" pattern:"^[^\\s/]*:[0-9]{1,5}$" want:"HOST:PORT" required:"yes"`
	// Address of the metrics for Prometheus; empty = no metrics.
	MetricsListen string `json:"metrics_listen" pattern:"^[^\\s/]*:[0-9]{1,5}$" want:"HOST:PORT"`
	// Log every request.
	AccessLog bool `json:"access_log"`
	// Send a Server header.
	ServerHeader bool `json:"server_header"`
	// Certificate and key, for HTTPS; both or none.
	TLS TLS `json:"tls"`
	// Host names by which browsers may call, besides the address itself.
	AllowedHosts []string `json:"allowed_hosts" pattern:"^[A-Za-z0-9*._-]+(:[0-9]+)?$" want:"a host name, * for any part, with a port if it matters" required:"yes"`
	// Origins of web pages that may use the API; none = only ema's own.
	AllowedOrigins []string `json:"allowed_origins" pattern:"^https?://[^/?#\\s]+$" want:"an origin such as https://host:port" required:"yes"`
}

// TLS names the files of a certificate.
type TLS struct {
	// The certificate and its chain, in PEM.
	Cert string `json:"cert" pattern:"^/" want:"an absolute path"`
	// Its private key, in PEM.
	Key string `json:"key" pattern:"^/" want:"an absolute path"`
}

func defaultServer() Server { return Server{Listen: "127.0.0.1:8000", MetricsListen: "127.0.0.1:9090"} }

// Auth says who may use the API. Without keys everybody on this machine is admin; with keys nobody is anything without
// one, unless default_role is set.
type Auth struct {
	// Keys of the API, by their hashes.
	APIKeys []APIKey `json:"api_keys"`
	// Role of those who show no key.
	DefaultRole string `json:"default_role" enum:",admin,power_user,user"`
}

// An APIKey lets somebody in.
type APIKey struct {
	// Whose it is; shown in the audit trail.
	Name string `json:"name" required:"yes"`
	// The sha256 of the key; the key itself is kept nowhere.
	SHA256 string `json:"sha256" pattern:"^[0-9a-f]{64}$" want:"64 lower-case hexadecimal digits" required:"yes"`
	// What it permits: a user reads and starts, a power_user manages downloads and storage, an admin everything.
	Role string `json:"role" enum:"admin,power_user,user" required:"yes"`
}

// RateLimit says how often one client may call the API.
type RateLimit struct {
	// Calls per minute; 0 = unlimited.
	RequestsPerMinute int `json:"requests_per_minute" range:"0..1000000"`
	// Calls at once above that.
	Burst int `json:"burst" range:"1..1000000"`
}

func defaultRateLimit() RateLimit { return RateLimit{RequestsPerMinute: 600, Burst: 100} }

// API is about the API's answers.
type API struct {
	// Keep answers until an event makes them wrong.
	ResponseCaching bool `json:"response_caching" active:"yes"`
	// Longest life of a kept answer.
	CacheTTLSeconds Seconds `json:"cache_ttl_seconds" range:"0..86400" active:"yes"`
}

func defaultAPI() API { return API{ResponseCaching: true, CacheTTLSeconds: 300} }

// Websocket is about events sent to clients.
type Websocket struct {
	// Messages sent together at most.
	BatchSize int `json:"batch_size" range:"1..10000"`
	// Longest wait for a batch to fill.
	BatchTimeoutMs Millis `json:"batch_timeout_ms" range:"1..60000"`
	// Messages that may wait for one client.
	QueueSize int `json:"queue_size" range:"1..1000000"`
}

func defaultWebsocket() Websocket {
	return Websocket{BatchSize: 100, BatchTimeoutMs: 100, QueueSize: 10000}
}

// Database says where history and usage are kept.
type Database struct {
	// Address of a PostgreSQL database for history and usage, which belongs to this store alone; empty = the embedded one. What
	// the daemon has to do - its queue, its pins, its moves - stays in the embedded one, so that it goes on while the other is away.
	URL string `json:"url" pattern:"^postgres(ql)?://[^\\s]+$" want:"postgres://user@host/name, or nothing for the embedded database" secret:"url" active:"yes"`
	// How long history is kept: each record. Sums of days are kept ten times as long.
	RetentionDays Days `json:"retention_days" range:"1..36500" active:"yes"`
}

func defaultDatabase() Database { return Database{RetentionDays: 90} }

// Monitoring is continuous measuring.
type Monitoring struct {
	// Time between two samples.
	IntervalSeconds Seconds `json:"interval_seconds" range:"1..86400" active:"yes"`
	// Samples over which a trend is judged.
	Window int `json:"window" range:"3..10000" active:"yes"`
	// Change settings by itself when that is expected to help, and back when it did not. A key that somebody has set is never
	// changed. Without it, changes are only recommended: "ema optimizations" lists both.
	AutoApply bool `json:"auto_apply" active:"yes"`
	// By how much a figure must be worse than the baseline to be called a regression; 0.2 is 20 %.
	RegressionThreshold float64 `json:"regression_threshold" range:"0.01..10" active:"yes"`
	// Where alerts are posted.
	AlertWebhook string `json:"alert_webhook" pattern:"^https?://[^/?#\\s]+\\S*$" want:"an http:// or https:// URL" secret:"path" active:"yes"`
	// Remember what the daemon did in the last ten seconds, in up to 16 MiB of memory. When a request took longer than a second or a
	// download stands still, that is kept in the folder traces of the store's state, for go tool trace; POST /admin/profile/trace
	// asks for it at any time.
	FlightRecorder bool `json:"flight_recorder" active:"yes"`
}

func defaultMonitoring() Monitoring {
	return Monitoring{IntervalSeconds: 300, Window: 10, RegressionThreshold: 0.2}
}

// Log is what ema writes about its own work.
type Log struct {
	// What is worth a line; empty = info for the daemon, warn for other commands.
	Level string `json:"level" enum:",debug,info,warn,error"`
	// For people or for machines.
	Format string `json:"format" enum:"text,json"`
	// Where to write; empty = stderr.
	File string `json:"file" pattern:"^/" want:"an absolute path"`
}

func defaultLog() Log { return Log{Format: "text"} }
