package config

import (
	"errors"
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
// leaves flattens a JSON document to path -> value.
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
	if all[1].Where != "EMA_LOG__LEVEL" || all[1].Want != "one of debug, info, warn, error" {
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
