package config

import (
	"strings"
	"testing"

	"ema/internal/model"
)

func TestTheStoreAndTheHotTierAreOneFolder(t *testing.T) {
	ambient := func(r *Request) { r.Ambient = []Setting{{"store.path", "/hub", "HF_HUB_CACHE"}} }
	if e := mustLoad(t, "ema.yaml", "{}", ambient); e.Store.Path != "/hub" || e.Origin("store.path").String() != "HF_HUB_CACHE" {
		t.Errorf("store %q from %v", e.Store.Path, e.Origin("store.path"))
	}
	if e := mustLoad(t, "ema.yaml", "storage_tiers: {hot: {path: /hot}}", ambient); e.Store.Path != "/hot" || e.Origin("store.path").Level != ByFile {
		t.Errorf("store %q from %v", e.Store.Path, e.Origin("store.path"))
	}
	if e := mustLoad(t, "ema.yaml", "storage_tiers: {hot: {path: /hot/}}\nstore: {path: /hot}", ambient); e.Store.Path != "/hot" {
		t.Errorf("store %q", e.Store.Path)
	}
	if _, err := load(t, "ema.yaml", "storage_tiers: {hot: {path: /hot}}", func(r *Request) { r.Flags = []Setting{{"store.path", "/other", "--store"}} }); err == nil ||
		!strings.Contains(err.Error(), `storage_tiers.hot.path = "/hot": differs from store.path "/other" (--store)`) {
		t.Errorf("%v", err)
	}
}

func TestContradictionsBetweenKeysAreMistakes(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	for content, want := range map[string]string{
		"store: {path: /m, state_dir: /m/ema}":                                                                         "store.state_dir",
		"storage_tiers: {warm: {path: /w}, cold: {path: /w/}}":                                                         "storage_tiers.cold.path",
		"storage_tiers: {hot: {criteria: {performance_priority: true, storage_priority: true}}}":                       "storage_tiers.hot.criteria",
		"tier_management: {promotion_threshold: 0.3, demotion_threshold: 0.3}":                                         "tier_management.demotion_threshold",
		"chunk_optimization: {adaptive_chunking: {small_file_threshold_mb: 2000}}":                                     "small_file_threshold_mb",
		"chunk_optimization: {network_based_chunking: {fast_network_threshold_mbps: 5}}":                               "slow_network_threshold_mbps",
		"cleanup: {target_percent: 90}":                                                                                "cleanup.target_percent",
		"retry_optimization: {base_delay_seconds: 500}":                                                                "retry_optimization.base_delay_seconds",
		"network_optimization: {use_system_resolver: false}":                                                           "network_optimization.use_system_resolver",
		"cpu_optimization: {cpu_affinity: {io_cores: [1, 2, 1]}}":                                                      "io_cores",
		"server: {tls: {cert: /c}}":                                                                                    "server.tls",
		"server: {listen: '127.0.0.1:9090'}":                                                                           "server.metrics_listen",
		"server: {listen: '127.0.0.1:99999'}":                                                                          "server.listen",
		"server: {listen: '::1:80'}":                                                                                   "server.listen",
		"auth: {api_keys: [{name: a, role: user, sha256: " + hash + "}, {name: b, role: user, sha256: " + hash + "}]}": "auth.api_keys[1]",
		"bandwidth_management: {time_based_limits: {night: {limit_mbps: 5}}}":                                          "time_based_limits.night",
		"bandwidth_management: {time_based_limits: {night: {start: '24:00', end: '06:00'}}}":                           "time_based_limits.night.start",
		"bandwidth_management: {time_based_limits: {night: {start: '22:00', end: '22:00'}}}":                           "time_based_limits.night.end",
		"bandwidth_management: {time_based_limits: {n: {start: '2:00', end: '22:00'}}}":                                "time_based_limits.n.start",
		"bandwidth_management: {time_based_limits: {n: {start: '02:00', end: '22:00', timezone: Nox/X}}}":              "time_based_limits.n.timezone",
		"bandwidth_management: {time_based_limits: {off_hours: {start: '02:00', end: '03:00'}}}":                       "time_based_limits.off_hours",
		"bandwidth_management: {time_based_limits: {a b: {limit_mbps: 1}}}":                                            "time_based_limits.a b",
		"bandwidth_management: {time_based_limits: {n: {start: '02:00', end: '03:00', days: [monday]}}}":               "days[0]",
		"sources: {huggingface: {endpoint: 'hub.example'}}":                                                            "sources.huggingface.endpoint",
		"store: {path: models}": "store.path",
	} {
		if _, err := load(t, "ema.yaml", content); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "want ") {
			t.Errorf("%s gives %v, want an error about %s that says what is allowed", content, err, want)
		}
	}
}

func TestSettingsThatDisappointGetWarnings(t *testing.T) {
	for content, want := range map[string]string{
		"connection_settings: {socket_buffer_size: 65536}":                                  "64.0 KiB per 100ms round trip = at most 640.0 KiB/s for a connection, 5.0 MiB/s for 8; filling 1 Gbit/s needs 1.5 MiB each",
		"connection_settings: {max_connections_per_host: 30}":                               "connection_pool_size of 20",
		"memory_management: {download_buffer_size_mb: 1}":                                   "1.0 MiB is less than 20 connections x 64.0 KiB",
		"store: {durability: process}":                                                      "power loss",
		"cpu_optimization: {cpu_affinity: {enabled: true, io_cores: [64]}}":                 "core 64 does not exist",
		"cpu_optimization: {worker_processes: 65}":                                          "bounded by the 64 processors",
		"network_optimization: {custom_dns_servers: [9.9.9.9]}":                             "not asked",
		"network_optimization: {custom_dns_servers: [9.9.9.9], use_system_resolver: false}": "private networks",
	} {
		e := mustLoad(t, "ema.yaml", content)
		if len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0].String(), want) {
			t.Errorf("%s: warnings %q, want %q", content, e.Warnings, want)
		}
	}
	quiet := "connection_settings: {socket_buffer_size: 65536}\nbandwidth_management: {global_limit_mbps: 5}"
	if e := mustLoad(t, "ema.yaml", quiet); len(e.Warnings) != 0 {
		t.Errorf("64 KiB x 8 are enough for 5 MiB/s, but: %v", e.Warnings)
	}
}

func TestAutomaticSettingsFollowTheMachine(t *testing.T) {
	for _, c := range []struct {
		cpus                      int
		memory                    model.Bytes
		atOnce, perModel, waiting int
	}{
		{1, model.GiB, 2, 2, 6},
		{8, 64 * model.GiB, 4, 4, 12},
		{64, 12 * model.GiB, 3, 3, 9},
		{128, 512 * model.GiB, 8, 4, 24},
	} {
		f := Facts{c.cpus, c.memory}
		d := Downloads{}
		if d.AtOnce(f) != c.atOnce || d.PerModel(f) != c.perModel || d.Waiting(f) != c.waiting {
			t.Errorf("%+v: %d, %d, %d", f, d.AtOnce(f), d.PerModel(f), d.Waiting(f))
		}
	}
	set := Downloads{MaxConcurrentDownloads: 3, MaxConcurrentPerModel: 9, QueueSize: 1000}
	if f := (Facts{}); set.AtOnce(f) != 3 || set.PerModel(f) != 9 || set.Waiting(f) != 1000 {
		t.Error("settings are not kept")
	}
	if n := (CPUOptimization{WorkerProcesses: 4, WorkerThreadsPerProcess: 2}).Workers(Facts{CPUs: 6}); n != 6 {
		t.Errorf("%d workers on 6 processors", n)
	}
}

func TestUnitsAreConvertedOnce(t *testing.T) {
	e := mustLoad(t, "ema.yaml", "bandwidth_management: {global_limit_mbps: 0.5}\nconnection_settings: {read_timeout_seconds: 1.5}\nstore: {write_size_kb: 4}\ncleanup: {min_free_gb: 1.5}")
	if e.BandwidthManagement.GlobalLimitMbps.PerSecond() != 512*model.KiB || e.ConnectionSettings.ReadTimeoutSeconds.Duration().Milliseconds() != 1500 ||
		e.Store.WriteSizeKB.Bytes() != 4*model.KiB || e.Cleanup.MinFreeGB.Bytes() != 1536*model.MiB || e.Websocket.BatchTimeoutMs.Duration().Milliseconds() != 100 {
		t.Fatalf("%+v", e.Config)
	}
}
