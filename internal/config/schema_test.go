package config

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// compiled is our schema in the hands of a validator that is not ours.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("ema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("ema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// generic reads YAML as a schema validator wants it.
func generic(t *testing.T, content string) any {
	t.Helper()
	b, err := yaml.YAMLToJSON([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestTheSchemaAcceptsWhatTheLoaderAccepts(t *testing.T) {
	s := compiled(t)
	initial, err := Initial()
	if err != nil {
		t.Fatal(err)
	}
	samples := append(founding(t), string(initial), uncommented(t),
		"store: {path: /m, durability: process}",
		"bandwidth_management: {time_based_limits: {night: {start: '22:00', end: '06:00', days: [mon], limit_mbps: 0.5}}}",
		"auth: {api_keys: [{name: a, role: user, sha256: "+strings.Repeat("0a", 32)+"}], default_role: ''}",
		"network_optimization: {custom_dns_servers: ['9.9.9.9:53', '::1', '[::1]:53']}",
		"optimization_profile: low_latency\nlog:\n",
		"database: {url: 'postgres://u@h/d'}\nsources: {allowed: ['*.example.org', 'localhost:80']}",
	)
	for _, sample := range samples {
		if _, err := load(t, "ema.yaml", sample); err != nil {
			t.Errorf("the loader refuses %s: %v", clip(sample, 200), err)
		}
		if err := s.Validate(generic(t, sample)); err != nil {
			t.Errorf("the schema refuses %s: %v", clip(sample, 200), err)
		}
	}
}

func TestTheSchemaRefusesWhatTheLoaderRefuses(t *testing.T) {
	s := compiled(t)
	for _, sample := range []string{
		"stores: {}",
		"store: {pathh: /m}",
		"store: {path: m}",
		"store: {write_size_kb: 1}",
		"store: {write_size_kb: 4.5}",
		"store: /m",
		"log: {level: loud}",
		"connection_settings: {tcp_nodelay: 1}",
		"cpu_optimization: {cpu_affinity: {io_cores: [-1]}}",
		"bandwidth_management: {time_based_limits: {night: {start: '25:00', end: '06:00'}}}",
		"bandwidth_management: {time_based_limits: {night: {begin: '22:00'}}}",
		"bandwidth_management: {time_based_limits: {a b: {limit_mbps: 1}}}",
		"auth: {api_keys: [{name: a, role: user}]}",
		"auth: {api_keys: [{name: '', role: user, sha256: " + strings.Repeat("0a", 32) + "}]}",
		"settings: {storage: {nvme_storage: high}}",
		"settings: {storage: {nvme: true}}",
		"downloads: {chunk_size_mb: 0}",
		"sources: {allowed: ['']}",
		"log: {level: null}",
	} {
		if _, err := load(t, "ema.yaml", sample); err == nil {
			t.Errorf("the loader accepts %s", sample)
		}
		if err := s.Validate(generic(t, sample)); err == nil {
			t.Errorf("the schema accepts %s", sample)
		}
	}
}

// uncommented is a fresh file with the comment signs of all keys taken away.
func uncommented(t *testing.T) string {
	t.Helper()
	initial, err := Initial()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	keys := 0
	for line := range strings.Lines(string(initial)) {
		bare := strings.TrimLeft(line, " ")
		name, _, isKey := strings.Cut(strings.TrimPrefix(bare, "# "), ": ")
		if isKey && strings.HasPrefix(bare, "# ") && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" {
			line = line[:len(line)-len(bare)] + strings.TrimPrefix(bare, "# ")
			keys++
		}
		b.WriteString(line)
	}
	if keys < 130 {
		t.Fatalf("only %d keys in a fresh file", keys)
	}
	return b.String()
}

func TestAFreshFileLoadsAndChangesNothing(t *testing.T) {
	initial, err := Initial()
	if err != nil {
		t.Fatal(err)
	}
	e := mustLoad(t, "ema.yaml", string(initial))
	if !reflect.DeepEqual(e.Config, Default()) || len(e.Inactive()) > 0 {
		t.Errorf("a fresh file changes something: %v", e.Inactive())
	}
}

func TestAFreshFileShowsTheDefaults(t *testing.T) {
	e := mustLoad(t, "ema.yaml", uncommented(t))
	want := Default()
	if got := e.BandwidthManagement.TimeBasedLimits["business_hours"]; got.LimitMbps != 50 || len(got.Days) != 5 {
		t.Errorf("the example of a window reads %+v", got)
	}
	e.BandwidthManagement.TimeBasedLimits = nil
	if got := (&Effective{Config: want, root: e.root}); !reflect.DeepEqual(jsonOf(t, e.Values()), jsonOf(t, got.Values())) {
		t.Errorf("a key of a fresh file shows another value than the default:\n%v\n%v", e.Values(), got.Values())
	}
}
