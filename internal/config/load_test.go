package config

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// load loads one file of that name and content, with nothing else around.
func load(t *testing.T, name, content string, more ...func(*Request)) (*Effective, error) {
	t.Helper()
	r := Request{File: filepath.Join(t.TempDir(), name), Facts: Facts{CPUs: 64, Memory: 64 * model.GiB}}
	if err := os.WriteFile(r.File, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, change := range more {
		change(&r)
	}
	return Load(r)
}

func mustLoad(t *testing.T, name, content string, more ...func(*Request)) *Effective {
	t.Helper()
	e, err := load(t, name, content, more...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// nothing is a request that finds no file.
func nothing(t *testing.T) Request {
	t.Helper()
	t.Chdir(t.TempDir())
	return Request{Environ: []string{"XDG_CONFIG_HOME=" + t.TempDir()}}
}

func TestNoFileAtAllIsAWorkingConfiguration(t *testing.T) {
	e, err := Load(nothing(t))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(e.Config, Default()) || e.File != "" || len(e.Warnings) != 0 || len(e.Inactive()) != 0 {
		t.Fatalf("file %q, warnings %v, inactive %v, config %+v", e.File, e.Warnings, e.Inactive(), e.Config)
	}
}

// founding returns the JSON blocks of the founding guide, as they stand there.
func founding(t *testing.T) []string {
	t.Helper()
	guide, err := os.ReadFile("testdata/founding.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(guide), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) != 12 {
		t.Fatalf("found %d blocks in the guide, want 12", len(blocks))
	}
	return blocks
}

// leaves flattens a JSON document to path -> value.
func leaves(v any, path string, into map[string]any) {
	if m, ok := v.(map[string]any); ok {
		for name, inner := range m {
			leaves(inner, join(path, name), into)
		}
		return
	}
	into[path] = v
}

func TestEveryBlockOfTheFoundingGuideIsAcceptedVerbatim(t *testing.T) {
	for _, block := range founding(t) {
		e := mustLoad(t, "ema.json", block)
		var doc any
		if err := json.Unmarshal([]byte(block), &doc); err != nil {
			t.Fatal(err)
		}
		said, values := map[string]any{}, map[string]any{}
		leaves(doc, "", said)
		leaves(jsonOf(t, e.Values()), "", values)
		for path, want := range said {
			if alias := aliasNamed(path); alias != nil {
				for _, key := range alias.keys {
					if e.Origin(key).Level != ByFile {
						t.Errorf("%s is accepted, but %s still comes from %v", path, key, e.Origin(key))
					}
				}
				if alias.isSwitch() {
					continue
				}
				path = alias.keys[0]
			}
			if !reflect.DeepEqual(values[path], want) {
				t.Errorf("%s = %v in the guide, loaded as %v", path, want, values[path])
			}
		}
	}
}

func jsonOf(t *testing.T, v any) any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func merge(into, from map[string]any) {
	for name, v := range from {
		below, both := into[name].(map[string]any)
		if inner, ok := v.(map[string]any); ok && both {
			merge(below, inner)
			continue
		}
		into[name] = v
	}
}

func TestAllBlocksOfTheFoundingGuideInOneFileAreAccepted(t *testing.T) {
	all := map[string]any{}
	for _, block := range founding(t) {
		var doc map[string]any
		if err := json.Unmarshal([]byte(block), &doc); err != nil {
			t.Fatal(err)
		}
		merge(all, doc)
	}
	merged, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	e := mustLoad(t, "ema.json", string(merged))
	if e.ChunkOptimization.DefaultChunkSizeMB != 8 {
		t.Errorf("default_chunk_size_mb = %v: the profile's chunk_size_mb won over the key itself", e.ChunkOptimization.DefaultChunkSizeMB)
	}
	if e.CPUOptimization.CPUAffinity.WorkerCores[3] != 3 || e.StorageTiers.Cold.MaxSizeGB != 5000 || e.Store.Path != "/fast-nvme/models" {
		t.Errorf("values of the guide are lost: %+v", e.Config)
	}
}

func TestEveryMistakeIsReportedAtOnceByTheKeyThatWasTyped(t *testing.T) {
	_, err := load(t, "ema.yaml", `
conection_settings: {}
connection_settings:
  max_connection_per_host: 4
  connection_pool_size: "20"
  read_timeout_seconds: 0
  keep_alive_enabled: yes
  max_connections_per_host: 2.5
  connection_pool_size: 7
store: /models
auth:
  api_keys:
    - {name: ci, sha256: abc}
settings:
  downloads: {chunk_size: 3}
downloads: {chunk_size_mb: 9999}
retry_optimization: {backoff_factor: .nan, max_retries:}
database: {url: "mysql://user:hunter2@host/db"}
hub_token: hf_abc
`)
	all, ok := errors.AsType[Errors](err)
	if !ok || model.ClassOf(err) != model.Usage {
		t.Fatalf("error %v (%T) of class %v, want Errors of class usage", err, err, model.ClassOf(err))
	}
	if one, ok := errors.AsType[*Error](err); !ok || one == nil {
		t.Error("a single mistake can't be reached with errors.AsType")
	}
	want := []struct{ key, value, problem, nearest string }{
		{"connection_settings.connection_pool_size", "", "given twice", ""},
		{"downloads.chunk_size_mb", "", "", ""},
		{"conection_settings", "", "unknown key", "connection_settings"},
		{"connection_settings.max_connection_per_host", "4", "unknown key", "connection_settings.max_connections_per_host"},
		{"connection_settings.connection_pool_size", `"20"`, "wrong type: a text", ""},
		{"connection_settings.read_timeout_seconds", "0", "out of range", ""},
		{"connection_settings.keep_alive_enabled", `"yes"`, "wrong type: a text", ""},
		{"connection_settings.max_connections_per_host", "2.5", "not a whole number", ""},
		{"store", `"/models"`, "wrong type: a text", ""},
		{"auth.api_keys[0].sha256", `"abc"`, "not of the right shape", ""},
		{"auth.api_keys[0].role", "", "missing", ""},
		{"settings.downloads.chunk_size", "3", "unknown key", "settings.downloads.chunk_size_mb"},
		{"downloads.chunk_size_mb", "9999", "out of range", ""},
		{"retry_optimization.backoff_factor", ".nan", "not a number", ""},
		{"retry_optimization.max_retries", "null", "wrong type: nothing", ""},
		{"database.url", `"mysql://user:hidden@host/db"`, "not of the right shape", ""},
		{"hub_token", "(hidden)", "unknown key", ""},
	}
	got := map[string]*Error{}
	for _, e := range all {
		got[e.Key+"|"+e.Problem] = e
		if e.Problem == "unknown key" || strings.HasPrefix(e.Problem, "wrong type") || e.Problem == "out of range" {
			if e.Want == "" {
				t.Errorf("%v does not say what is allowed", e)
			}
		}
		if !regexp.MustCompile(`ema\.yaml:\d+`).MatchString(e.Where) {
			t.Errorf("%v does not say where", e)
		}
	}
	for _, w := range want {
		if w.problem == "" || w.problem == "given twice" {
			continue
		}
		e := got[w.key+"|"+w.problem]
		if e == nil {
			t.Errorf("no error %q for %s", w.problem, w.key)
			continue
		}
		if e.Value != w.value || w.nearest != "" && e.Nearest != w.nearest {
			t.Errorf("%s: value %q nearest %q, want %q and %q", w.key, e.Value, e.Nearest, w.value, w.nearest)
		}
	}
	if n := len(all); n != len(want)-1 {
		t.Errorf("%d errors, want %d: %v", n, len(want)-1, err)
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "hf_abc") {
		t.Errorf("a secret is printed: %v", err)
	}
}

func TestKeysGivenTwiceAreMistakesInBothFormats(t *testing.T) {
	for name, content := range map[string]string{
		"ema.json": "{\"log\": {\"level\": \"info\",\n\"level\": \"warn\"}}",
		"ema.yaml": "log:\n  level: info\n  level: warn\n",
	} {
		_, err := load(t, name, content)
		if err == nil || !strings.Contains(err.Error(), "log.level: given twice") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFileThatCannotBeReadIsNamedWithItsLine(t *testing.T) {
	for promise, c := range map[string]struct{ name, content, want string }{
		"broken JSON":             {"ema.json", "{\n\"log\": {,}\n}", "ema.json:2: not valid JSON"},
		"JSON that ends early":    {"ema.json", "{\"log\": {", "it ends too early"},
		"two JSON documents":      {"ema.json", "{} {}", "after the end"},
		"a JSON list":             {"ema.json", "[1]", "a list instead of sections"},
		"broken YAML":             {"ema.yaml", "log:\n  level: [info\n", "not valid YAML"},
		"two YAML documents":      {"ema.yaml", "log: {}\n---\nlog: {}\n", "a second document has no meaning"},
		"anchors":                 {"ema.yaml", "log: &a {}\n", "has no meaning in a configuration"},
		"aliases":                 {"ema.yaml", "log: *a\n", "has no meaning in a configuration"},
		"tags":                    {"ema.yaml", "log: !!str x\n", "has no meaning in a configuration"},
		"numbers as keys":         {"ema.yaml", "1: x\n", "a key that is no plain word"},
		"brackets without end":    {"ema.yaml", strings.Repeat("[", 100_000), "nested more than 32 deep"},
		"JSON brackets":           {"ema.json", strings.Repeat("[", 100_000), "nested more than 32 deep"},
		"something huge":          {"ema.yaml", strings.Repeat("#\n", maxFileBytes/2+1), "larger than 1 MiB"},
		"another encoding":        {"ema.yaml", "log: \xff\xfe\n", "not UTF-8"},
		"an unknown kind of file": {"ema.toml", "", "unknown kind of file"},
	} {
		t.Run(promise, func(t *testing.T) {
			_, err := load(t, c.name, c.content)
			if err == nil || !strings.Contains(err.Error(), c.want) || model.ClassOf(err) != model.Usage {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestAnEmptyFileSetsNothing(t *testing.T) {
	for _, name := range []string{"ema.json", "ema.yaml", "ema.yml"} {
		for _, content := range []string{"", "\n", "\ufeff"} {
			if e := mustLoad(t, name, content); !reflect.DeepEqual(e.Config, Default()) {
				t.Errorf("%s %q changes something", name, content)
			}
		}
	}
	if e := mustLoad(t, "ema.yaml", "log:\n  # level: debug\n"); !reflect.DeepEqual(e.Config, Default()) {
		t.Error("a section whose keys are commented out changes something")
	}
}

func TestTheNearestFileIsRead(t *testing.T) {
	dir, xdg := t.TempDir(), t.TempDir()
	t.Chdir(dir)
	r := Request{Environ: []string{"XDG_CONFIG_HOME=" + xdg, "HOME=" + t.TempDir()}}
	expect := func(want string, level string) {
		t.Helper()
		e, err := Load(r)
		if err != nil {
			t.Fatal(err)
		}
		if e.File != want || e.Log.Level != level {
			t.Fatalf("read %q (level %q), want %q (%q)", e.File, e.Log.Level, want, level)
		}
	}
	write := func(name, content string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	expect(write(filepath.Join(xdg, "ema", "ema.yaml"), "log: {level: info}"), "info")
	write(filepath.Join(dir, "ema.yaml"), "log: {level: warn}")
	expect("ema.yaml", "warn")
	write(filepath.Join(dir, "ema.json"), `{"log": {"level": "error"}}`)
	expect("ema.json", "error")
	if e, err := Load(r); err != nil || len(e.Warnings) != 1 || e.Warnings[0].Key != "ema.yaml" {
		t.Fatalf("a second file in the folder is ignored in silence: %v, %v", e.Warnings, err)
	}
	named := write(filepath.Join(t.TempDir(), "other.yaml"), "log: {level: debug}")
	r.Environ = append(r.Environ, "EMA_CONFIG="+named)
	expect(named, "debug")
	r.File = write(filepath.Join(t.TempDir(), "flag.yaml"), "log: {format: json}")
	expect(r.File, "")
	r.File = filepath.Join(dir, "missing.yaml")
	if _, err := Load(r); model.ClassOf(err) != model.Usage || !strings.Contains(err.Error(), "missing.yaml") {
		t.Fatalf("a named file that is missing gives %v", err)
	}
}

func TestFlagBeatsEnvironmentBeatsFileBeatsProfileBeatsAmbientBeatsDefault(t *testing.T) {
	const key = "connection_settings.connection_pool_size"
	rapid.Check(t, func(rt *rapid.T) {
		levels := rapid.SliceOfDistinct(rapid.SampledFrom([]Level{ByAmbient, ByProfile, ByFile, ByEnvironment, ByFlag}), rapid.ID).Draw(rt, "levels")
		viaAlias := rapid.Bool().Draw(rt, "alias")
		r := Request{File: filepath.Join(t.TempDir(), "ema.yaml")}
		content := "{}"
		highest := ByDefault
		for _, level := range levels {
			highest = max(highest, level)
			switch level {
			case ByAmbient:
				r.Ambient = []Setting{{key, "101", "OTHER_TOOL"}}
			case ByProfile:
				r.Environ = append(r.Environ, "EMA_OPTIMIZATION_PROFILE=high_throughput")
			case ByFile:
				content = "connection_settings: {connection_pool_size: 103}"
				if viaAlias {
					content = "settings: {downloads: {connection_pool_size: 103}}"
				}
			case ByEnvironment:
				r.Environ = append(r.Environ, "EMA_CONNECTION_SETTINGS__CONNECTION_POOL_SIZE=104")
			case ByFlag:
				r.Flags = []Setting{{key, "105", "--pool"}}
			}
		}
		if err := os.WriteFile(r.File, []byte(content), 0o600); err != nil {
			rt.Fatal(err)
		}
		e, err := Load(r)
		if err != nil {
			rt.Fatal(err)
		}
		want := map[Level]int{ByDefault: 20, ByAmbient: 101, ByProfile: 50, ByFile: 103, ByEnvironment: 104, ByFlag: 105}[highest]
		if e.ConnectionSettings.ConnectionPoolSize != want || e.Origin(key).Level != highest {
			rt.Fatalf("%d from level %d (%v), want %d from %d", e.ConnectionSettings.ConnectionPoolSize, e.Origin(key).Level, e.Origin(key), want, highest)
		}
	})
}

func TestAWeakerMistakeIsReportedEvenWhenAStrongerValueHides(t *testing.T) {
	_, err := load(t, "ema.yaml", "log: {level: loud}", func(r *Request) { r.Flags = []Setting{{"log.level", "info", "--log-level"}} })
	if err == nil || !strings.Contains(err.Error(), "log.level") {
		t.Fatalf("%v, want the mistake in the file", err)
	}
}

func TestVariablesSetKeys(t *testing.T) {
	r := nothing(t)
	r.Environ = append(r.Environ,
		"EMA_BANDWIDTH_MANAGEMENT__GLOBAL_LIMIT_MBPS=50",
		"EMA_BANDWIDTH_MANAGEMENT__TIME_BASED_LIMITS__NIGHT__START=22:00",
		"EMA_BANDWIDTH_MANAGEMENT__TIME_BASED_LIMITS__NIGHT__END=06:00",
		"EMA_BANDWIDTH_MANAGEMENT__TIME_BASED_LIMITS__NIGHT__LIMIT_MBPS=7",
		"EMA_NETWORK_OPTIMIZATION__CUSTOM_DNS_SERVERS=9.9.9.9, 1.1.1.1",
		"EMA_CPU_OPTIMIZATION__CPU_AFFINITY__IO_CORES=[1,2]",
		"EMA_CONNECTION_SETTINGS__HTTP2_ENABLED=0",
		"EMA_CONNECTION_SETTINGS__KEEP_ALIVE_TIMEOUT=",
		"EMA_DOWNLOADS__CHUNK_SIZE_MB=32",
		`EMA_AUTH__API_KEYS=[{"name":"ci","role":"user","sha256":"`+strings.Repeat("0f", 32)+`"}]`,
		"EMA_SERVER=http://127.0.0.1:1", "EMA_CONFIG=", "EMA_MODEL_PATH=/x",
	)
	e, err := Load(r)
	if err != nil {
		t.Fatal(err)
	}
	night := e.BandwidthManagement.TimeBasedLimits["night"]
	if e.BandwidthManagement.GlobalLimitMbps != 50 || !reflect.DeepEqual(night, Window{Start: "22:00", End: "06:00", LimitMbps: 7}) ||
		!slices.Equal(e.NetworkOptimization.CustomDNSServers, []string{"9.9.9.9", "1.1.1.1"}) ||
		!slices.Equal(e.CPUOptimization.CPUAffinity.IOCores, []int{1, 2}) || e.ConnectionSettings.HTTP2Enabled ||
		e.ConnectionSettings.KeepAliveTimeout != 30 || e.ChunkOptimization.DefaultChunkSizeMB != 32 || e.Auth.APIKeys[0].Name != "ci" {
		t.Fatalf("%+v", e.Config)
	}
	if o := e.Origin("bandwidth_management.global_limit_mbps"); o.Level != ByEnvironment || o.String() != "EMA_BANDWIDTH_MANAGEMENT__GLOBAL_LIMIT_MBPS" {
		t.Errorf("origin %+v", o)
	}
}

func TestAnUnknownVariableIsAMistakeWithTheNearestKey(t *testing.T) {
	r := nothing(t)
	r.Environ = append(r.Environ, "EMA_CONECTION_SETTINGS__MAX_CONNECTIONS_PER_HOST=9", "EMA_LOG__LEVEL=loud")
	_, err := Load(r)
	all, _ := errors.AsType[Errors](err)
	if len(all) != 2 || all[0].Nearest != "connection_settings.max_connections_per_host" || all[0].Where != "EMA_CONECTION_SETTINGS__MAX_CONNECTIONS_PER_HOST" || all[0].Value != `"9"` {
		t.Fatalf("%v", err)
	}
	if all[1].Where != "EMA_LOG__LEVEL" || all[1].Want != "debug, info, warn, error" {
		t.Fatalf("%+v", all[1])
	}
}

func TestAVariableWithOneUnderscoreTooFewGetsAWarning(t *testing.T) {
	r := nothing(t)
	r.Environ = append(r.Environ, "EMA_STORE_PATH=/models")
	e, err := Load(r)
	if err != nil || len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0].Text, "EMA_STORE__PATH") {
		t.Fatalf("%+v, %v", e, err)
	}
}

func TestKeysThatDoNotActYetAreListedWhenSomebodySetsThem(t *testing.T) {
	e := mustLoad(t, "ema.yaml", "optimization_profile: high_throughput\nrate_limit: {burst: 5}\nstore: {durability: process, async_writes: true}\nlog: {level: info}\n"+
		"retry_optimization: {max_retries: 3, adaptive_retries: {enabled: false}, error_specific_delays: {rate_limit: 9}}\nchunk_optimization: {adaptive_chunking: {enabled: false}}")
	if got, want := e.Inactive(), []string{"store.async_writes", "retry_optimization.adaptive_retries.enabled", "rate_limit.burst"}; !slices.Equal(got, want) {
		t.Errorf("inactive %v, want %v", got, want)
	}
}

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

func TestProfilesSetWhatTheGuideSaysAndExplicitKeysWin(t *testing.T) {
	e := mustLoad(t, "ema.yaml", "optimization_profile: resource_constrained\ncpu_optimization: {worker_processes: 3}")
	if e.Downloads.AtOnce(Facts{}) != 2 || e.Downloads.Waiting(Facts{}) != 6 || e.BandwidthManagement.GlobalLimitMbps != 20 ||
		e.ChunkOptimization.DefaultChunkSizeMB != 4 || e.CacheOptimization.MetadataCache.MaxEntries != 1000 ||
		e.MemoryManagement.HeapSizeGB != 4 || e.CPUOptimization.WorkerProcesses != 3 {
		t.Fatalf("%+v", e.Config)
	}
	if o := e.Origin("memory_management.heap_size_gb"); o.Level != ByProfile || !strings.HasPrefix(o.String(), "profile resource_constrained") {
		t.Errorf("origin %+v", o)
	}
	e = mustLoad(t, "ema.yaml", "optimization_profile: low_latency")
	if !e.CacheOptimization.ModelCache.LockInMemory || e.CPUOptimization.ProcessPriority.MainProcess != "high" || e.CPUOptimization.ProcessPriority.DownloadProcesses != "high" {
		t.Fatalf("%+v", e.Config)
	}
}

func TestTheProfilesAreThoseOfTheGuide(t *testing.T) {
	for _, block := range founding(t) {
		var want struct {
			Profile  string         `json:"optimization_profile"`
			Settings map[string]any `json:"settings"`
		}
		if err := json.Unmarshal([]byte(block), &want); err != nil {
			t.Fatal(err)
		}
		if want.Profile == "" {
			continue
		}
		var ours map[string]struct{ Settings map[string]any }
		if err := json.Unmarshal(profiles, &ours); err != nil {
			t.Fatal(err)
		}
		got := ours[want.Profile].Settings
		if downloads, ok := got["downloads"].(map[string]any); ok {
			delete(downloads, "queue_size") // the guide computes it elsewhere
		}
		if !reflect.DeepEqual(got, want.Settings) {
			t.Errorf("%s: %v, the guide says %v", want.Profile, got, want.Settings)
		}
	}
}

func TestUnitsAreConvertedOnce(t *testing.T) {
	e := mustLoad(t, "ema.yaml", "bandwidth_management: {global_limit_mbps: 0.5}\nconnection_settings: {read_timeout_seconds: 1.5}\nstore: {write_size_kb: 4}\ncleanup: {min_free_gb: 1.5}")
	if e.BandwidthManagement.GlobalLimitMbps.PerSecond() != 512*model.KiB || e.ConnectionSettings.ReadTimeoutSeconds.Duration().Milliseconds() != 1500 ||
		e.Store.WriteSizeKB.Bytes() != 4*model.KiB || e.Cleanup.MinFreeGB.Bytes() != 1536*model.MiB || e.Websocket.BatchTimeoutMs.Duration().Milliseconds() != 100 {
		t.Fatalf("%+v", e.Config)
	}
}

func TestShownValuesLoadAgainAndHideSecrets(t *testing.T) {
	content := "bandwidth_management: {time_based_limits: {night: {start: '22:00', end: '06:00', limit_mbps: 7}}}\nlog: {level: debug}\n" +
		"auth: {api_keys: [{name: a, role: user, sha256: " + strings.Repeat("ab", 32) + "}]}\nrate_limit: {burst: 3}\n"
	e := mustLoad(t, "ema.yaml", content)
	for _, origins := range []bool{false, true} {
		var b strings.Builder
		if err := e.WriteYAML(&b, origins); err != nil {
			t.Fatal(err)
		}
		again := mustLoad(t, "ema.yaml", b.String())
		if !reflect.DeepEqual(jsonOf(t, again.Values()), jsonOf(t, e.Values())) {
			t.Errorf("shown and loaded again it differs:\n%s", b.String())
		}
		if strings.Contains(b.String(), "level: \"debug\"  # ") != origins || !strings.Contains(b.String(), "not active yet") {
			t.Errorf("origins %v:\n%s", origins, b.String())
		}
	}
	e = mustLoad(t, "ema.yaml", "database: {url: 'postgres://ema:hunter2@db/ema?sslmode=verify-full&password=hunter2'}\nmonitoring: {alert_webhook: 'https://hooks.example/hunter2'}")
	var b strings.Builder
	if err := e.WriteYAML(&b, true); err != nil {
		t.Fatal(err)
	}
	values, err := json.Marshal(e.Values())
	if err != nil {
		t.Fatal(err)
	}
	if shown := b.String() + string(values); strings.Contains(shown, "hunter2") || strings.Count(shown, "verify-full") != 2 || strings.Count(shown, "https://hooks.example/(hidden)") != 2 {
		t.Errorf("%s", shown)
	}
}

func TestEveryKeyIsComplete(t *testing.T) {
	root, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	if err := root.describe(); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	root.each(func(k *key) {
		names[k.path] = true
		if k.name == "" || k.doc == "" && k.name != anyName {
			t.Errorf("%s (%s) has no name or no description", k.path, k.owner)
		}
		leaf := k
		if k.typ.Kind() == reflect.Slice {
			leaf = k.children[0]
		}
		switch leaf.typ.Kind() {
		case reflect.Int, reflect.Int64, reflect.Float64:
			if leaf.min == nil || *leaf.min >= *leaf.max {
				t.Errorf("%s has no range", k.path)
			}
		case reflect.String:
			if leaf.pattern != nil && leaf.want == "" {
				t.Errorf("%s does not say in words what it wants", k.path)
			}
		}
	})
	for _, a := range aliases() {
		for _, path := range a.keys {
			if !names[path] {
				t.Errorf("alias %s means %s, which does not exist", a.name, path)
			}
		}
		if names[a.name] {
			t.Errorf("alias %s is a key itself", a.name)
		}
	}
	for _, path := range activeKeys(root) {
		names["active:"+path] = true
	}
	for _, path := range []string{"store.path", "sources.allowed", "cleanup.min_free_gb", "log.level", "chunk_optimization.adaptive_chunking.small_file_chunk_mb"} {
		if !names["active:"+path] {
			t.Errorf("%s is not active", path)
		}
	}
	if names["active:rate_limit.burst"] || names["active:retry_optimization.adaptive_retries.enabled"] {
		t.Error("a key counts as active and is not")
	}
}

func activeKeys(root *key) []string {
	var all []string
	root.each(func(k *key) {
		if !k.isSection() && k.active {
			all = append(all, k.path)
		}
	})
	return all
}

func TestTheDefaultsKeepTheirOwnRules(t *testing.T) {
	e := &Effective{Config: Default(), origins: map[string]Origin{}, facts: Facts{CPUs: 64}}
	root, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	e.root = root
	var b strings.Builder
	if err := e.WriteYAML(&b, false); err != nil {
		t.Fatal(err)
	}
	loaded := mustLoad(t, "ema.yaml", b.String()) // every default as if somebody had typed it
	if !reflect.DeepEqual(jsonOf(t, loaded.Values()), jsonOf(t, e.Values())) {
		t.Errorf("the defaults change when they are typed:\n%s", b.String())
	}
	if len(slices.Collect(maps.Keys(loaded.origins))) < 100 {
		t.Errorf("only %d keys", len(loaded.origins))
	}
}
