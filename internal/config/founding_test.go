package config

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

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

func TestEveryBlockOfTheFoundingGuideIsAcceptedVerbatimAsAChange(t *testing.T) {
	placed := mustLoad(t, "ema.yaml", "store: {path: /fast-nvme/models}")
	for _, block := range founding(t) {
		o, err := Overlay{file: "/state/settings.json"}.MergeOver(placed, []byte(block))
		if err != nil {
			t.Errorf("%v\n%s", err, block)
			continue
		}
		filed := mustLoad(t, "ema.json", block, func(r *Request) {
			r.Flags = []Setting{{Key: "store.path", Value: "/fast-nvme/models", Where: "--store"}}
		})
		changed := mustLoad(t, "ema.yaml", "store: {path: /fast-nvme/models}", func(r *Request) { r.Overlay = o })
		filed.StorageTiers.Hot.Path = "" // it is the store's, and that is where changes lie: they do not say so again
		if !reflect.DeepEqual(changed.Config, filed.Config) {
			t.Errorf("a change makes %+v of it, a file %+v\n%s", changed.Config, filed.Config, block)
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

func TestASwitchThatIsOffSetsTheOppositeOrNothing(t *testing.T) {
	e := mustLoad(t, "ema.yaml", "settings: {storage: {nvme_storage: false, minimal_metadata: false}, system: {high_priority_processes: false}}")
	if e.StorageTiers.Hot.IOPriority != "normal" || e.CPUOptimization.ProcessPriority.DownloadProcesses != "normal" || e.CacheOptimization.MetadataCache.MaxEntries != 10000 {
		t.Errorf("%+v", e.Config)
	}
	if o := e.Origin("cache_optimization.metadata_cache.max_entries"); o.Level != ByDefault {
		t.Errorf("minimal_metadata: false set max_entries: %v", o)
	}
	_, err := load(t, "ema.yaml", "settings: {storage: {nvme_storage: high}}")
	if err == nil || !strings.Contains(err.Error(), `settings.storage.nvme_storage = "high": wrong type: a text; want true or false`) {
		t.Errorf("%v", err)
	}
}
