package main

import (
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/internal/api/trust"
	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/store"
)

// built is what the settings become.
type built struct {
	store, source, fetch, minFree, queue, schedule, adapt, guard, telling, config any
}

func wire(t *testing.T, key, value string) built {
	t.Helper()
	r := config.Request{Facts: config.Facts{CPUs: 8, Memory: 64 * model.GiB}}
	r.Flags = []config.Setting{{Key: key, Value: value, Where: "test"}}
	if key != "store.path" {
		r.Flags = append(r.Flags, config.Setting{Key: "store.path", Value: "/models", Where: "test"})
	}
	e, err := config.Load(r)
	if err != nil {
		t.Fatalf("%s=%s: %v", key, value, err)
	}
	s, err := storeSettings(e.Config)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) ([]byte, error) {
		if name == "/token" {
			return []byte("tok\n"), nil
		}
		return nil, fs.ErrNotExist
	}
	src, err := sourceSettings(e.Config, func(string) string { return "" }, read)
	if err != nil {
		t.Fatal(err)
	}
	free, err := minFree(e.Cleanup, "/")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := schedule(e.BandwidthManagement)
	if err != nil {
		t.Fatal(err)
	}
	n := &network{server: e.Server}
	guard, err := n.guarding(e.Config, nil)
	if err != nil {
		t.Fatal(err)
	}
	return built{
		s, src, fetchSettings(e.Config, r.Facts), free, queueSettings(e.Config, r.Facts), plan,
		adapt(e.BandwidthManagement.AdaptiveLimiting), guard, n.telling(e.Config, nil), e.Config,
	}
}

// field reads "Retry.Max" from a struct.
func field(v any, path string) any {
	at := reflect.ValueOf(v)
	for name := range strings.SplitSeq(path, ".") {
		at = at.FieldByName(name)
	}
	if !at.IsValid() {
		return "no field " + path
	}
	return at.Interface()
}

func TestEveryActiveKeyArrivesSomewhere(t *testing.T) {
	type arrival struct {
		value string
		where string // "store", "source", "fetch" or "free"
		field string
		want  any
	}
	gib := float64(model.GiB)
	keys := map[string][]arrival{
		"store.path":          {{"/elsewhere", "store", "Path", "/elsewhere"}},
		"store.state_dir":     {{"/state", "store", "StateDir", "/state"}},
		"store.durability":    {{"process", "store", "Process", true}},
		"store.write_size_kb": {{"128", "store", "WriteSize", 128 * model.KiB}},
		"store.page_cache":    {{"drop", "store", "Cache", store.CacheDrop}, {"keep", "store", "Cache", store.CacheKeep}},

		"sources.huggingface.endpoint":   {{"https://mirror.example/hf", "source", "Endpoint", "https://mirror.example/hf"}},
		"sources.huggingface.token_file": {{"/token", "source", "Token", "tok"}},
		"sources.allowed":                {{"*.example.org", "source", "AllowedHosts", []string{"*.example.org"}}},

		"connection_settings.max_connections_per_host": {
			{"4", "source", "MaxConnsPerHost", 4},
			{"4", "fetch", "Connections", 4},
			{"100", "fetch", "Connections", 20}, // as far as the pool reaches
		},
		"connection_settings.connection_pool_size": {
			{"3", "source", "MaxIdleConns", 3},
			{"3", "source", "MaxConns", 3},
			{"3", "fetch", "Connections", 3},
			{"3", "fetch", "Total", 3},
		},
		"connection_settings.http2_bulk":             {{"true", "source", "HTTP2Bulk", true}},
		"network_optimization.dns_cache_enabled":     {{"false", "source", "DNS.Cache", false}},
		"network_optimization.dns_cache_ttl_seconds": {{"60", "source", "DNS.TTL", time.Minute}, {"0", "source", "DNS.Cache", false}},
		"network_optimization.prefer_ipv4":           {{"true", "source", "DNS.PreferIPv4", true}},
		// Servers count when the system's resolver is not to be used: TestDNSServersAreAskedWhenTheSystemsIsNot.
		"network_optimization.use_system_resolver":    {{"true", "source", "DNS.Servers", []string(nil)}},
		"network_optimization.custom_dns_servers":     {{"127.0.0.1", "source", "DNS.Servers", []string(nil)}},
		"network_optimization.connection_reuse":       {{"false", "source", "NoKeepAlive", true}},
		"network_optimization.persistent_connections": {{"false", "source", "NoPersistence", true}},

		"bandwidth_management.global_limit_mbps":                                {{"5", "schedule", "Global", 5 * model.MiB}},
		"bandwidth_management.per_download_limit_mbps":                          {{"5", "config", "BandwidthManagement.PerDownloadLimitMbps", config.MBps(5)}},
		"bandwidth_management.adaptive_limiting.enabled":                        {{"true", "adapt", "Enabled", true}},
		"bandwidth_management.adaptive_limiting.monitor_system_load":            {{"false", "adapt", "MonitorLoad", false}},
		"bandwidth_management.adaptive_limiting.reduce_on_high_load":            {{"false", "adapt", "Reduce", false}},
		"bandwidth_management.adaptive_limiting.load_threshold":                 {{"0.5", "adapt", "Threshold", 0.5}},
		"downloads.max_concurrent_downloads":                                    {{"3", "queue", "Concurrent", 3}, {"0", "queue", "Concurrent", 4}},
		"downloads.queue_size":                                                  {{"7", "queue", "Size", 7}},
		"database.retention_days":                                               {{"7", "config", "Database.RetentionDays", config.Days(7)}},
		"database.url":                                                          {{"postgres://ema@db.example/ema", "config", "Database.URL", "postgres://ema@db.example/ema"}},
		"retry_optimization.adaptive_retries.enabled":                           {{"false", "fetch", "Retry.Adaptive.Enabled", false}},
		"retry_optimization.adaptive_retries.success_rate_threshold":            {{"0.5", "fetch", "Retry.Adaptive.Threshold", 0.5}},
		"retry_optimization.adaptive_retries.increase_retries_on_low_success":   {{"false", "fetch", "Retry.Adaptive.Increase", false}},
		"retry_optimization.adaptive_retries.decrease_retries_on_high_success":  {{"false", "fetch", "Retry.Adaptive.Decrease", false}},
		"chunk_optimization.network_based_chunking.enabled":                     {{"false", "fetch", "Chunk.Network.Enabled", false}},
		"chunk_optimization.network_based_chunking.slow_network_threshold_mbps": {{"3", "fetch", "Chunk.Network.Slow", 3 * model.MiB}},
		"chunk_optimization.network_based_chunking.fast_network_threshold_mbps": {{"300", "fetch", "Chunk.Network.Fast", 300 * model.MiB}},
		"chunk_optimization.network_based_chunking.slow_network_chunk_mb":       {{"1", "fetch", "Chunk.Network.SlowChunk", 1 * model.MiB}},
		"chunk_optimization.network_based_chunking.fast_network_chunk_mb":       {{"64", "fetch", "Chunk.Network.FastChunk", 64 * model.MiB}},
		"connection_settings.connection_timeout_seconds":                        {{"2.5", "source", "ConnectTimeout", 2500 * time.Millisecond}},
		"connection_settings.read_timeout_seconds": {
			{"7", "source", "ReadTimeout", 7 * time.Second},
			{"7", "fetch", "ReadTimeout", 7 * time.Second},
		},
		"connection_settings.keep_alive_enabled":  {{"false", "source", "NoKeepAlive", true}},
		"connection_settings.keep_alive_timeout":  {{"90", "source", "IdleTimeout", 90 * time.Second}},
		"connection_settings.compression_enabled": {{"false", "source", "NoCompression", true}},
		"connection_settings.http2_enabled":       {{"false", "source", "NoHTTP2", true}},
		"connection_settings.tcp_nodelay":         {{"false", "source", "Nagle", true}},
		"connection_settings.socket_buffer_size":  {{"65536", "source", "SocketBuffer", 65536}},

		"downloads.max_concurrent_per_model":        {{"3", "fetch", "LargeFiles", 3}},
		"memory_management.download_buffer_size_mb": {{"32", "fetch", "Buffers", 32 * model.MiB}},
		"cleanup.min_free_gb":                       {{"2", "free", "", 2 * model.GiB}},
		"cleanup.auto":                              {{"true", "config", "Cleanup.Auto", true}},
		"cleanup.trigger_percent":                   {{"77", "config", "Cleanup.TriggerPercent", 77.0}},
		"cleanup.target_percent":                    {{"7", "config", "Cleanup.TargetPercent", 7.0}},
		"cleanup.min_unused_days":                   {{"7", "wish", "MinUnused", 7 * 24 * time.Hour}},
		"health.check_interval_hours":               {{"7", "config", "Health.CheckIntervalHours", config.Hours(7)}},
		"health.scrub_interval_hours":               {{"7", "config", "Health.ScrubIntervalHours", config.Hours(7)}},
		"health.scrub_limit_mbps":                   {{"7", "config", "Health.ScrubLimitMBps", config.MBps(7)}},
		"health.quarantine":                         {{"true", "config", "Health.Quarantine", true}},
		"health.auto_repair":                        {{"false", "config", "Health.AutoRepair", false}},
		"updates.policy":                            {{"auto", "config", "Updates.Policy", "auto"}},
		"updates.check_interval_hours":              {{"7", "config", "Updates.CheckIntervalHours", config.Hours(7)}},
		"updates.keep_previous_hours":               {{"7", "config", "Updates.KeepPreviousHours", config.Hours(7)}},
		"monitoring.interval_seconds":               {{"7", "config", "Monitoring.IntervalSeconds", config.Seconds(7)}},
		"monitoring.window":                         {{"7", "config", "Monitoring.Window", 7}},
		"monitoring.regression_threshold":           {{"0.5", "config", "Monitoring.RegressionThreshold", 0.5}},
		"monitoring.auto_apply":                     {{"true", "config", "Monitoring.AutoApply", true}},
		"monitoring.alert_webhook":                  {{"http://hooks.example/a", "config", "Monitoring.AlertWebhook", "http://hooks.example/a"}},
		"monitoring.flight_recorder":                {{"true", "config", "Monitoring.FlightRecorder", true}},
		"cleanup.keep_recent_days":                  {{"3", "wish", "KeepRecent", 3 * 24 * time.Hour}},

		"storage_tiers.hot.path":                                {{"/models", "store", "Path", "/models"}},
		"storage_tiers.warm.path":                               {{"/w", "store", "Colder", map[model.Tier]string{model.Warm: "/w"}}},
		"storage_tiers.cold.path":                               {{"/c", "store", "Colder", map[model.Tier]string{model.Cold: "/c"}}},
		"storage_tiers.hot.criteria.usage_frequency_threshold":  {{"7", "rule", "hot.Uses", 7}},
		"storage_tiers.hot.criteria.last_used_days":             {{"7", "rule", "hot.Window", 7 * 24 * time.Hour}},
		"storage_tiers.hot.max_size_gb":                         {{"7", "rule", "hot.Max", 7 * model.GiB}},
		"storage_tiers.hot.io_priority":                         {{"low", "config", "StorageTiers.Hot.IOPriority", "low"}},
		"storage_tiers.warm.criteria.usage_frequency_threshold": {{"7", "rule", "warm.Uses", 7}},
		"storage_tiers.warm.criteria.last_used_days":            {{"7", "rule", "warm.Window", 7 * 24 * time.Hour}},
		"storage_tiers.warm.max_size_gb":                        {{"7", "rule", "warm.Max", 7 * model.GiB}},
		"storage_tiers.warm.io_priority":                        {{"low", "config", "StorageTiers.Warm.IOPriority", "low"}},
		"storage_tiers.cold.criteria.usage_frequency_threshold": {{"7", "rule", "cold.Uses", 7}},
		"storage_tiers.cold.criteria.last_used_days":            {{"7", "rule", "cold.Window", 7 * 24 * time.Hour}},
		"storage_tiers.cold.max_size_gb":                        {{"7", "rule", "cold.Max", 7 * model.GiB}},
		"storage_tiers.cold.io_priority":                        {{"high", "config", "StorageTiers.Cold.IOPriority", "high"}},
		"tier_management.auto_tiering_enabled":                  {{"false", "config", "TierManagement.AutoTieringEnabled", false}},
		"tier_management.promotion_threshold":                   {{"0.7", "rules", "Promotion", 0.7}},
		"tier_management.demotion_threshold":                    {{"0.2", "rules", "Demotion", 0.2}},
		"tier_management.check_interval_hours":                  {{"2", "rules", "Residency", 8 * time.Hour}},

		"retry_optimization.max_retries":                           {{"9", "fetch", "Retry.Max", 9}, {"0", "fetch", "Retry.Max", -1}},
		"retry_optimization.base_delay_seconds":                    {{"2", "fetch", "Retry.Base", 2 * time.Second}, {"0", "fetch", "Retry.Base", time.Nanosecond}},
		"retry_optimization.max_delay_seconds":                     {{"60", "fetch", "Retry.MaxDelay", time.Minute}},
		"retry_optimization.backoff_factor":                        {{"3", "fetch", "Retry.Factor", 3.0}},
		"retry_optimization.jitter_enabled":                        {{"false", "fetch", "Retry.NoJitter", true}},
		"retry_optimization.error_specific_delays.network_timeout": {{"11", "fetch", "Retry.Timeout", 11 * time.Second}},
		"retry_optimization.error_specific_delays.server_error":    {{"12", "fetch", "Retry.ServerError", 12 * time.Second}},
		"retry_optimization.error_specific_delays.rate_limit":      {{"13", "fetch", "Retry.RateLimit", 13 * time.Second}},

		"chunk_optimization.default_chunk_size_mb":                 {{"12", "fetch", "Chunk.Default", 12 * model.MiB}},
		"chunk_optimization.adaptive_chunking.enabled":             {{"false", "fetch", "Chunk.Fixed", true}},
		"chunk_optimization.adaptive_chunking.small_file_chunk_mb": {{"2", "fetch", "Chunk.Small", 2 * model.MiB}},
		"chunk_optimization.adaptive_chunking.large_file_chunk_mb": {{"64", "fetch", "Chunk.Large", 64 * model.MiB}},
		"chunk_optimization.adaptive_chunking.small_file_threshold_mb": {
			{"50", "fetch", "Chunk.SmallThreshold", 50 * model.MiB}, {"0", "fetch", "Chunk.SmallThreshold", model.Bytes(1)},
		},
		"chunk_optimization.adaptive_chunking.large_file_threshold_mb": {{"500", "fetch", "Chunk.LargeThreshold", 500 * model.MiB}},

		"cache_optimization.metadata_cache.enabled":                 {{"false", "answers", "Entries", 0}},
		"cache_optimization.metadata_cache.max_entries":             {{"7", "answers", "Entries", 7}},
		"cache_optimization.metadata_cache.ttl_seconds":             {{"7", "answers", "TTL", 7 * time.Second}},
		"cache_optimization.metadata_cache.persistent_cache":        {{"true", "answers", "Folder", "/state/answers"}, {"false", "answers", "Folder", ""}},
		"cache_optimization.metadata_cache.compress":                {{"true", "answers", "Compress", true}},
		"memory_management.metadata_cache_size_mb":                  {{"7", "answers", "Memory", 7 * model.MiB}},
		"cache_optimization.download_cache.enabled":                 {{"false", "partials", "most", model.Bytes(0)}, {"false", "partials", "restart", true}},
		"cache_optimization.download_cache.max_size_gb":             {{"7", "partials", "most", 7 * model.GiB}},
		"cache_optimization.download_cache.temp_file_cleanup_hours": {{"7", "partials", "age", 7 * time.Hour}},
		"cache_optimization.download_cache.partial_download_cache":  {{"false", "partials", "most", model.Bytes(0)}, {"false", "partials", "restart", false}},

		"cache_optimization.model_cache.enabled":                    {{"false", "models", "Enabled", false}},
		"cache_optimization.model_cache.max_size_gb":                {{"7", "models", "Max", 7 * model.GiB}},
		"cache_optimization.model_cache.cache_strategy":             {{"lru_with_frequency", "", "", nil}}, // the only one
		"cache_optimization.model_cache.preload_frequently_used":    {{"false", "models", "Preload", false}},
		"cache_optimization.model_cache.cache_metadata_only":        {{"true", "models", "Headers", true}},
		"cache_optimization.model_cache.lock_in_memory":             {{"true", "models", "Lock", true}},
		"memory_management.model_cache_size_gb":                     {{"7", "models", "Cap", 7 * model.GiB}},
		"memory_management.memory_mapping.use_mmap_for_large_files": {{"false", "models", "Map", false}},
		"memory_management.memory_mapping.mmap_threshold_mb":        {{"7", "models", "MapFrom", 7 * model.MiB}},
		"memory_management.memory_mapping.mmap_populate":            {{"false", "models", "Map", false}},

		"memory_management.heap_size_gb":                                {{"7", "heap", "limit", int64(0.8 * 7 * gib)}},
		"memory_management.gc_optimization.enabled":                     {{"false", "heap", "every", time.Duration(0)}},
		"memory_management.gc_optimization.gc_threshold":                {{"0.5", "heap", "limit", int64(0.9 * 0.5 * 64 * gib)}},
		"memory_management.gc_optimization.aggressive_gc_on_low_memory": {{"false", "heap", "aggressive", false}},
		"memory_management.gc_optimization.gc_interval_seconds":         {{"7", "heap", "every", 7 * time.Second}},
		"cpu_optimization.worker_processes":                             {{"2", "config", "CPUOptimization.WorkerProcesses", 2}},
		"cpu_optimization.worker_threads_per_process":                   {{"2", "config", "CPUOptimization.WorkerThreadsPerProcess", 2}},
		"cpu_optimization.io_threads":                                   {{"3", "config", "CPUOptimization.IOThreads", 3}},
		"cpu_optimization.background_task_threads":                      {{"3", "config", "CPUOptimization.BackgroundTaskThreads", 3}},
		"cpu_optimization.cpu_affinity.enabled":                         {{"true", "config", "CPUOptimization.CPUAffinity.Enabled", true}},
		"cpu_optimization.cpu_affinity.worker_cores":                    {{"1", "bound", "work", []int{1}}},
		"cpu_optimization.cpu_affinity.io_cores":                        {{"1", "bound", "io", []int{1}}},
		"cpu_optimization.cpu_affinity.background_cores":                {{"1", "bound", "background", []int{1}}},
		"cpu_optimization.process_priority.main_process":                {{"idle", "class", "work", host.Idle}},
		"cpu_optimization.process_priority.download_processes":          {{"high", "class", "download", host.High}},
		"cpu_optimization.process_priority.background_processes":        {{"high", "class", "io", host.High}, {"high", "class", "background", host.High}},

		"server.listen":                  {{"127.0.0.1:7", "config", "Server.Listen", "127.0.0.1:7"}},
		"server.metrics_listen":          {{"127.0.0.1:7", "config", "Server.MetricsListen", "127.0.0.1:7"}},
		"server.access_log":              {{"true", "config", "Server.AccessLog", true}},
		"server.server_header":           {{"true", "config", "Server.ServerHeader", true}},
		"server.allowed_hosts":           {{"box.example", "guard", "AllowedHosts", []string{"box.example"}}},
		"server.allowed_origins":         {{"http://a.example", "guard", "AllowedOrigins", []string{"http://a.example"}}, {"http://a.example", "telling", "AllowedOrigins", []string{"http://a.example"}}},
		"auth.api_keys":                  {{`[{"name":"jo","role":"user","sha256":"` + strings.Repeat("ab", 32) + `"}]`, "guard", "Keys", []trust.Key{{Name: "jo", Role: trust.User, SHA256: strings.Repeat("ab", 32)}}}},
		"auth.default_role":              {{"power_user", "guard", "DefaultRole", trust.PowerUser}},
		"rate_limit.requests_per_minute": {{"7", "guard", "PerMinute", 7}},
		"rate_limit.burst":               {{"7", "guard", "Burst", 7}},
		"api.response_caching":           {{"false", "config", "API.ResponseCaching", false}},
		"api.cache_ttl_seconds":          {{"7", "config", "API.CacheTTLSeconds", config.Seconds(7)}},
		"websocket.batch_size":           {{"7", "telling", "BatchSize", 7}},
		"websocket.batch_timeout_ms":     {{"7", "telling", "BatchTimeout", 7 * time.Millisecond}},
		"websocket.queue_size":           {{"7", "telling", "Queue", 7}},

		// A certificate needs its key: TestTheNetworkSpeaksTLS has both. A profile is a set of defaults for the keys above; TestTheLogGoesWhereTheKeysSay has the log's keys; of
		// sources.default only one value exists.
		"optimization_profile": {{"high_throughput", "", "", nil}},
		"sources.default":      {{"huggingface", "", "", nil}},
		"server.tls.cert":      {{"", "", "", nil}},
		"server.tls.key":       {{"", "", "", nil}},
		"log.level":            {{"debug", "", "", nil}},
		"log.format":           {{"json", "", "", nil}},
		"log.file":             {{"/log", "", "", nil}},
	}
	active := activeKeys(t)
	for _, key := range active {
		arrivals := keys[key]
		if arrivals == nil {
			t.Errorf("%s is active and arrives nowhere", key)
		}
		for _, a := range arrivals {
			b := wire(t, key, a.value)
			var got any
			switch a.where {
			case "store":
				got = field(b.store, a.field)
			case "source":
				got = field(b.source, a.field)
			case "fetch":
				got = field(b.fetch, a.field)
			case "free":
				got = b.minFree
			case "queue":
				got = field(b.queue, a.field)
			case "schedule":
				got = field(b.schedule, a.field)
			case "adapt":
				got = field(b.adapt, a.field)
			case "guard":
				got = field(b.guard, a.field)
			case "telling":
				got = field(b.telling, a.field)
			case "answers":
				got = field(answerSettings(b.config.(config.Config), "/state"), a.field)
			case "rule", "rules":
				c := b.config.(config.Config)
				r := rules([]store.TierState{{Tier: model.Hot}, {Tier: model.Warm}, {Tier: model.Cold}}, c.StorageTiers, c.TierManagement)
				if name, value, found := strings.Cut(a.field, "."); found {
					got = field(r.Tiers[model.Tier(name)], value)
				} else {
					got = field(r, name)
				}
			case "heap":
				r := heapRuleOf(b.config.(config.Config).MemoryManagement, 64*model.GiB)
				got = map[string]any{"limit": r.limit, "every": r.every, "aggressive": r.aggressive}[a.field]
			case "bound", "class":
				c := b.config.(config.Config).CPUOptimization
				c.CPUAffinity.Enabled = true
				work, io, background, download := classes(c)
				one := map[string]host.Class{"work": work, "io": io, "background": background, "download": download}[a.field]
				if got = one.Priority; a.where == "bound" {
					got = one.Cores
				}
			case "models":
				got = field(cacheSettings(b.config.(config.Config)), a.field)
			case "wish":
				got = field(wish(b.config.(config.Config), time.Time{}), a.field)
			case "partials":
				rule := partialRuleOf(b.config.(config.Config))
				got = map[string]any{"age": rule.age, "most": rule.most, "restart": rule.restart}[a.field]
			case "config": // read where it is used: serve.go, running.go, network.go, condition.go
				got = field(b.config, a.field)
			default:
				continue
			}
			if !reflect.DeepEqual(got, a.want) {
				t.Errorf("%s=%s makes %s.%s %v, want %v", key, a.value, a.where, a.field, got, a.want)
			}
		}
	}
	for key := range keys {
		if !slices.Contains(active, key) {
			t.Errorf("%s is tested and not active", key)
		}
	}
}

// activeKeys lists the keys that act, found by setting all to their defaults: those that don't are reported.
func activeKeys(t *testing.T) []string {
	t.Helper()
	e, err := config.Load(config.Request{})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	var walk func(prefix string, section map[string]any)
	walk = func(prefix string, section map[string]any) {
		for name, v := range section {
			if inner, ok := v.(map[string]any); ok {
				walk(prefix+name+".", inner)
				continue
			}
			values[prefix+name] = v
		}
	}
	walk("", e.Values())
	var all []config.Setting
	for key, v := range values {
		all = append(all, config.Setting{Key: key, Value: strings.Trim(fmt.Sprint(v), "[]"), Where: "test"})
	}
	if e, err = config.Load(config.Request{Flags: all}); err != nil {
		t.Fatal(err)
	}
	var active []string
	for key := range values {
		if !slices.Contains(e.Inactive(), key) {
			active = append(active, key)
		}
	}
	slices.Sort(active)
	return active
}

func TestTheEnvironmentOfOtherToolsIsHonoured(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/token", []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &app{environ: []string{"HOME=" + dir, "HF_HOME=" + dir, "HF_ENDPOINT=http://127.0.0.1:9/", "HF_HUB_OFFLINE=1"}}
	l, err := a.line("ema test", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Store.Path() != dir+"/hub" || !l.Offline || l.Hub != "http://127.0.0.1:9" || l.Command != "ema test" {
		t.Errorf("store %s, offline %v, hub %s", l.Store.Path(), l.Offline, l.Hub)
	}
	a.environ = append(a.environ, "SSL_CERT_FILE="+dir)
	s, err := sourceSettings(l.settings.Config, a.getenv, os.ReadFile)
	if err != nil || s.Token != "from-file" || !slices.Equal(s.CertFiles, []string{dir}) {
		t.Errorf("token %q, authorities %v, %v", s.Token, s.CertFiles, err)
	}
}

func TestSpaceToLeaveFreeIsAShareOfTheVolume(t *testing.T) {
	size, err := volumeSize(t.TempDir() + "/not/there/yet")
	if err != nil || size <= 0 {
		t.Fatalf("%v, %v", size, err)
	}
	got, err := minFree(config.Cleanup{}, t.TempDir())
	if err != nil || got != min(5*model.GiB, size/20) {
		t.Errorf("%v of %v, %v", got, size, err)
	}
}

func TestConnectionsAreLoweredToWhatOpenFilesAllow(t *testing.T) {
	for open, want := range map[int][2]int{1 << 20: {256, 4096}, 1024: {256, 384}, 300: {22, 22}, 10: {4, 4}} {
		e := &config.Effective{Config: config.Default()}
		e.ConnectionSettings.MaxConnectionsPerHost, e.ConnectionSettings.ConnectionPoolSize = 256, 4096
		boundConnections(e, open)
		if got := [2]int{e.ConnectionSettings.MaxConnectionsPerHost, e.ConnectionSettings.ConnectionPoolSize}; got != want {
			t.Errorf("%d open files: %v connections, want %v", open, got, want)
		}
		if warned := len(e.Warnings) > 0; warned != (want != [2]int{256, 4096}) {
			t.Errorf("%d open files: warnings %v", open, e.Warnings)
		}
	}
}

func TestDNSServersAreAskedWhenTheSystemsIsNot(t *testing.T) {
	e, err := config.Load(config.Request{Flags: []config.Setting{
		{Key: "network_optimization.use_system_resolver", Value: "false"}, {Key: "network_optimization.custom_dns_servers", Value: "192.0.2.1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := sourceSettings(e.Config, func(string) string { return "" }, os.ReadFile)
	if err != nil || !slices.Equal(s.DNS.Servers, []string{"192.0.2.1"}) {
		t.Errorf("servers %v, %v", s.DNS.Servers, err)
	}
}

func TestWindowsOfTheDayArriveAtTheThrottle(t *testing.T) {
	var c config.BandwidthManagement
	c.TimeBasedLimits = map[string]config.Window{
		"office":    {Start: "08:00", End: "18:30", Days: []string{"mon", "fri"}, Timezone: "Europe/Berlin", LimitMbps: 3},
		"off_hours": {LimitMbps: 9},
	}
	plan, err := schedule(c)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Time]model.Bytes{
		time.Date(2026, 11, 23, 7, 59, 59, 0, berlin): 9 * model.MiB, // a Monday
		time.Date(2026, 11, 23, 8, 0, 0, 0, berlin):   3 * model.MiB,
		time.Date(2026, 11, 23, 18, 30, 0, 0, berlin): 9 * model.MiB,
		time.Date(2026, 11, 24, 12, 0, 0, 0, berlin):  9 * model.MiB,
	} {
		if got, _, _ := plan.At(at); got != want {
			t.Errorf("at %v the limit is %v, want %v", at, got, want)
		}
	}
}

func TestPrioritiesShareTheBandwidthAsDocumented(t *testing.T) {
	for p, want := range map[model.Priority]int{model.LowPriority: 1, model.NormalPriority: 2, model.HighPriority: 4, model.CriticalPriority: 8} {
		if got := weight(p); got != want {
			t.Errorf("%v weighs %d, want %d", p, got, want)
		}
	}
}
