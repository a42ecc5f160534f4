package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// A checker judges what depends on more than one key.
type checker struct {
	*Effective
	errs     Errors
	warnings []Warning
}

// check finds contradictions between keys, and settings that will disappoint.
func check(e *Effective) (Errors, []Warning) {
	c := &checker{Effective: e}
	c.store()
	c.tiers()
	c.windows()
	c.connections()
	c.thresholds()
	c.processors()
	c.service()
	return c.errs, c.warnings
}

func (c *checker) wrong(key, value, problem, want string) {
	c.errs = append(c.errs, &Error{Key: key, Value: value, Where: c.origins[key].Where, Problem: problem, Want: want})
}

func (c *checker) warn(key, format string, args ...any) {
	c.warnings = append(c.warnings, Warning{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) store() {
	hot, store := c.StorageTiers.Hot.Path, c.Store.Path
	if hot != "" && filepath.Clean(hot) != filepath.Clean(store) {
		c.wrong("storage_tiers.hot.path", strconv.Quote(hot), "differs from store.path "+strconv.Quote(store)+" ("+c.origins["store.path"].String()+")",
			"one of them only: the hot tier is the store's folder")
	}
	if state := c.Store.StateDir; state != "" && store != "" && inside(state, store) {
		c.wrong("store.state_dir", strconv.Quote(state), "lies inside the store, where other tools' scans would report it", "a folder outside "+store)
	}
	if c.Store.Durability == "process" {
		c.warn("store.durability", "after a power loss, models called available may be damaged; only ema verify would find it")
	}
}

func (c *checker) windows() {
	for _, name := range sortedNames(c.BandwidthManagement.TimeBasedLimits) {
		w := c.BandwidthManagement.TimeBasedLimits[name]
		key := "bandwidth_management.time_based_limits." + name
		switch {
		case name == "off_hours":
			if w.Start != "" || w.End != "" || len(w.Days) > 0 {
				c.wrong(key, "", "off_hours is what holds outside all windows", "limit_mbps only, or another name")
			}
		case w.Start == "" || w.End == "":
			c.wrong(key, "", "start or end is missing", "both, as HH:MM")
		case w.Start == w.End:
			c.wrong(key+".end", strconv.Quote(w.End), "is the same as start, so the window is empty", "another time; off_hours holds all day when there is no other window")
		}
		if _, err := time.LoadLocation(w.Timezone); err != nil {
			c.wrong(key+".timezone", strconv.Quote(w.Timezone), "not a time zone known here", "a name such as Europe/Vienna or UTC")
		}
	}
}

func (c *checker) connections() {
	s := c.ConnectionSettings
	if s.MaxConnectionsPerHost > s.ConnectionPoolSize {
		c.warn("connection_settings.max_connections_per_host", "%d per host can't be reached with a connection_pool_size of %d for all hosts together", s.MaxConnectionsPerHost, s.ConnectionPoolSize)
	}
	if s.SocketBufferSize > 0 {
		c.socketBuffer()
	}
	needed := model.Bytes(s.ConnectionPoolSize) * c.Store.WriteSizeKB.Bytes()
	if budget := c.MemoryManagement.DownloadBufferSizeMB.Bytes(); budget < needed {
		c.warn("memory_management.download_buffer_size_mb", "%v is less than %d connections x %v for one write each = %v: connections will wait for buffers",
			budget, s.ConnectionPoolSize, c.Store.WriteSizeKB.Bytes(), needed)
	}
	if n := c.NetworkOptimization; n.UseSystemResolver && len(n.CustomDNSServers) > 0 {
		c.warn("network_optimization.custom_dns_servers", "are not asked while use_system_resolver is true")
	} else if !n.UseSystemResolver && len(n.CustomDNSServers) > 0 {
		c.warn("network_optimization.custom_dns_servers", "public servers don't know names of private networks; leave use_system_resolver true where hubs or proxies have such names")
	} else if !n.UseSystemResolver {
		c.wrong("network_optimization.use_system_resolver", "false", "leaves nobody to ask for names", "custom_dns_servers as well")
	}
	if r := c.RetryOptimization; r.BaseDelaySeconds > r.MaxDelaySeconds {
		c.wrong("retry_optimization.base_delay_seconds", formatNumber(float64(r.BaseDelaySeconds)), "is above max_delay_seconds", "at most "+formatNumber(float64(r.MaxDelaySeconds)))
	}
}

// socketBuffer does the arithmetic of bandwidth x delay: a connection can't have more bytes under way than its buffer
// holds, so it can't be faster than one buffer per round trip.
func (c *checker) socketBuffer() {
	const roundTrip = 100 * time.Millisecond
	const gigabit = 125_000_000 // bytes per second, for links without a limit
	s := c.ConnectionSettings
	rate, link := model.Bytes(gigabit), "1 Gbit/s"
	if limit := c.BandwidthManagement.GlobalLimitMbps.PerSecond(); limit > 0 {
		rate, link = limit, limit.String()+"/s"
	}
	buffer := model.Bytes(s.SocketBufferSize)
	each := model.Bytes(float64(buffer) / roundTrip.Seconds())
	needed := model.Bytes(float64(rate) * roundTrip.Seconds() / float64(s.MaxConnectionsPerHost))
	if buffer < needed {
		c.warn("connection_settings.socket_buffer_size",
			"%v per %v round trip = at most %v/s for a connection, %v/s for %d; filling %s needs %v each (bandwidth x delay / connections); 0 lets the kernel adjust it",
			buffer, roundTrip, each, each*model.Bytes(s.MaxConnectionsPerHost), s.MaxConnectionsPerHost, link, needed)
	}
}

// thresholds must be in order, or a rule could never hold.
func (c *checker) thresholds() {
	for _, pair := range []struct {
		lower, upper string
		low, high    float64
	}{
		{
			"tier_management.demotion_threshold", "promotion_threshold",
			c.TierManagement.DemotionThreshold, c.TierManagement.PromotionThreshold,
		},
		{
			"chunk_optimization.adaptive_chunking.small_file_threshold_mb", "large_file_threshold_mb",
			float64(c.ChunkOptimization.AdaptiveChunking.SmallFileThresholdMB), float64(c.ChunkOptimization.AdaptiveChunking.LargeFileThresholdMB),
		},
		{
			"chunk_optimization.network_based_chunking.slow_network_threshold_mbps", "fast_network_threshold_mbps",
			float64(c.ChunkOptimization.NetworkBasedChunking.SlowNetworkThresholdMbps), float64(c.ChunkOptimization.NetworkBasedChunking.FastNetworkThresholdMbps),
		},
		{"cleanup.target_percent", "trigger_percent", c.Cleanup.TargetPercent, c.Cleanup.TriggerPercent},
	} {
		if pair.low >= pair.high {
			c.wrong(pair.lower, formatNumber(pair.low), "is not below "+pair.upper, "less than "+formatNumber(pair.high))
		}
	}
}

func (c *checker) processors() {
	affinity := c.CPUOptimization.CPUAffinity
	for _, cores := range []struct {
		key  string
		list []int
	}{{"worker_cores", affinity.WorkerCores}, {"io_cores", affinity.IOCores}, {"background_cores", affinity.BackgroundCores}} {
		key := "cpu_optimization.cpu_affinity." + cores.key
		sorted := slices.Sorted(slices.Values(cores.list))
		if len(slices.Compact(slices.Clone(sorted))) < len(sorted) {
			c.wrong(key, fmt.Sprint(cores.list), "a core is named twice", "each core once")
		}
		if n := len(sorted); affinity.Enabled && n > 0 && c.facts.CPUs > 0 && sorted[n-1] >= c.facts.CPUs {
			c.warn(key, "core %d does not exist here (0 to %d do) and is left out", sorted[n-1], c.facts.CPUs-1)
		}
	}
	asked := max(1, c.CPUOptimization.WorkerProcesses) * max(1, c.CPUOptimization.WorkerThreadsPerProcess)
	if c.facts.CPUs > 0 && asked > c.facts.CPUs {
		c.warn("cpu_optimization.worker_processes", "%d workers x threads are bounded by the %d processors here; ema is one process", asked, c.facts.CPUs)
	}
}

func (c *checker) service() {
	if (c.Server.TLS.Cert == "") != (c.Server.TLS.Key == "") {
		c.wrong("server.tls", "", "cert and key belong together", "both or none")
	}
	if c.Server.Listen == c.Server.MetricsListen && !strings.HasSuffix(c.Server.Listen, ":0") { // 0 is any free port
		c.wrong("server.metrics_listen", strconv.Quote(c.Server.MetricsListen), "is the address of server.listen too", "another port, or nothing for no metrics")
	}
	for _, s := range []struct{ key, address string }{
		{"server.listen", c.Server.Listen}, {"server.metrics_listen", c.Server.MetricsListen},
	} {
		if s.address == "" {
			continue
		}
		_, port, err := net.SplitHostPort(s.address)
		if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n > 65535 {
			c.wrong(s.key, strconv.Quote(s.address), "not an address to listen on", "HOST:PORT with a port up to 65535, an IPv6 host in [brackets]")
		}
	}
	names, sums := map[string]bool{}, map[string]bool{}
	for i, k := range c.Auth.APIKeys {
		key := fmt.Sprintf("auth.api_keys[%d]", i)
		if names[k.Name] || sums[k.SHA256] {
			c.wrong(key, strconv.Quote(k.Name), "has the name or the hash of an earlier key", "keys that differ in both")
		}
		names[k.Name], sums[k.SHA256] = true, true
	}
	if c.Auth.DefaultRole == "admin" && len(c.Auth.APIKeys) > 0 {
		c.warn("auth.default_role", "admin for everybody makes the keys meaningless")
	}
}
