package config

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestKeysThatDoNotActYetAreListedWhenSomebodySetsThem(t *testing.T) {
	e := mustLoad(t, "ema.yaml", "optimization_profile: high_throughput\nstorage_tiers: {warm: {criteria: {storage_priority: true}}}\nstore: {durability: process, async_writes: true}\nlog: {level: info}\n"+
		"retry_optimization: {max_retries: 3, adaptive_retries: {enabled: false}, error_specific_delays: {rate_limit: 9}}\nchunk_optimization: {adaptive_chunking: {enabled: false}}")
	if got, want := e.Inactive(), []string{"store.async_writes", "storage_tiers.warm.criteria.storage_priority"}; !slices.Equal(got, want) {
		t.Errorf("inactive %v, want %v", got, want)
	}
}

func TestShownValuesLoadAgainAndHideSecrets(t *testing.T) {
	content := "bandwidth_management: {time_based_limits: {night: {start: '22:00', end: '06:00', limit_mbps: 7}}}\nlog: {level: debug}\n" +
		"auth: {api_keys: [{name: a, role: user, sha256: " + strings.Repeat("ab", 32) + "}]}\nstorage_tiers: {hot: {criteria: {storage_priority: true}}}\n"
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
	if names["active:storage_tiers.hot.criteria.performance_priority"] {
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
