package config

import (
	"testing"
)

// FuzzDocument: whatever a file holds, reading it ends with settings or with mistakes that say where they are.
func FuzzDocument(f *testing.F) {
	f.Add("ema.json", []byte(`{"log": {"level": "info", "level": 1}, "auth": {"api_keys": [{"name": null}]}}`))
	f.Add("ema.yaml", []byte("log:\n  level: info\nsettings: {downloads: {chunk_size_mb: 4}}\nx: [1, {a: b}]\n"))
	f.Add("ema.yaml", []byte("a: &b\n  - *b\n? c\n: |\n  d\n<<: {}\n"))
	f.Add("ema.yaml", []byte("bandwidth_management: {time_based_limits: {night: {start: '22:00', days: [mon]}}}"))
	f.Add("ema.json", []byte(`{"settings": {"storage": {"nvme_storage": 3}, "downloads": null, "x": {}}}`))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if len(content) > 1<<14 {
			return
		}
		doc, errs := parse(name, content)
		if doc == nil {
			if len(errs) == 0 {
				t.Fatal("neither settings nor mistakes")
			}
			return
		}
		root, err := tree()
		if err != nil {
			t.Fatal(err)
		}
		c := Default()
		e := &Effective{Config: c, root: root, origins: map[string]Origin{}, facts: Facts{CPUs: 4}}
		d := &decoder{root: root, origins: e.origins, errs: errs}
		d.layer(&e.Config, ByFile, doc)
		for _, mistake := range d.errs {
			if mistake.Problem == "" || mistake.Where == "" {
				t.Fatalf("%#v says too little", mistake)
			}
		}
		if len(d.errs) == 0 {
			check(e)
			e.Values()
		}
	})
}

// FuzzVariable: any value of any variable is a setting or a mistake.
func FuzzVariable(f *testing.F) {
	for _, name := range []string{"EMA_LOG__LEVEL", "EMA_AUTH__API_KEYS", "EMA_CPU_OPTIMIZATION__CPU_AFFINITY__IO_CORES", "EMA_A____B", "EMA___", "EMA_SETTINGS__STORAGE__NVME_STORAGE"} {
		f.Add(name, "info")
		f.Add(name, "[1,2")
		f.Add(name, `[{"name": 1}]`)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		root, err := tree()
		if err != nil {
			t.Fatal(err)
		}
		c := Default()
		d := &decoder{root: root, origins: map[string]Origin{}}
		d.environment(&c, map[string]string{name: value})
		for _, mistake := range d.errs {
			if mistake.Where != name {
				t.Fatalf("%#v does not name %s", mistake, name)
			}
		}
	})
}
