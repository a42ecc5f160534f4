package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
)

// What the hub's own client finds in a cache.
type scan struct {
	Warnings []string
	Size     int64
	Opened   []string
	Repos    []scannedRepo
}

type scannedRepo struct {
	ID, Type  string
	Size      int64
	Revisions []struct {
		Commit string
		Size   int64
		Refs   []string
		Files  map[string]int64 // by full path
	}
}

func TestTheHubsOwnClientReadsTheCache(t *testing.T) {
	install(t)
	entries := []demohub.Entry{
		demohub.Bytes("config.json", []byte("{}\n")), demohub.File("empty.bin", 0), demohub.File("sub/ü %41.bin", 1000),
		demohub.Safetensors("model.safetensors", 5, 3*model.MiB), demohub.SeededFile("a.bin", 5000, 1), demohub.SeededFile("b.bin", 5000, 1),
	}
	w := newWorld(t, demohub.Repo(acme.Name, append(parts(entries), demohub.Tag("v1"))...), demohub.Repo("solo/one", demohub.File("x.bin", 7)))
	path := w.pull(t, acme.Name)
	w.pull(t, acme.Name+"@v1")
	first := filepath.Base(path)
	next := append(slices.Clone(entries[1:]), demohub.Bytes("config.json", []byte("{\"b\":1}\n")))
	if _, err := w.hub.Commit(acme.Name, "main", next...); err != nil {
		t.Fatal(err)
	}
	second := filepath.Base(w.pull(t, acme.Name))
	w.pull(t, acme.Name+"@"+first)
	w.pull(t, "solo/one")

	var found scan
	args := []string{w.cache(), acme.Name, second}
	for _, e := range next {
		args = append(args, e.Path)
	}
	node(t, &found, "scan.mjs", args...)
	if len(found.Warnings) > 0 || len(found.Repos) != 2 {
		t.Fatalf("found %+v", found)
	}
	for i, e := range next {
		if want := filepath.Join(w.cache(), acme.DirName(), "snapshots", second, e.Path); found.Opened[i] != want {
			t.Errorf("opened %s, want %s", found.Opened[i], want)
		}
	}
	r := found.Repos[slices.IndexFunc(found.Repos, func(r scannedRepo) bool { return r.ID == acme.Name })]
	if r.Type != "model" || len(r.Revisions) != 2 || r.Size != unique(flat(append(slices.Clone(entries), next...))) {
		t.Errorf("found %+v", r)
	}
	for _, v := range r.Revisions {
		refs, files := []string{"v1"}, flat(entries)
		if v.Commit == second {
			refs, files = []string{"main"}, flat(next)
		}
		if !slices.Equal(v.Refs, refs) || len(v.Files) != len(files) || v.Size != sizeOf(files) {
			t.Errorf("revision %+v, want refs %v and %d files", v, refs, len(files))
		}
		for _, e := range files {
			name := filepath.Join(w.cache(), acme.DirName(), "snapshots", v.Commit, e.Path)
			if size, ok := v.Files[name]; !ok || size != e.Size() {
				t.Errorf("%s has %d bytes (%v), want %d", name, size, ok, e.Size())
			}
		}
	}
}

// flat are the files that lie in no folder: the client's scan does not descend.
func flat(entries []demohub.Entry) []demohub.Entry {
	return slices.DeleteFunc(slices.Clone(entries), func(e demohub.Entry) bool { return strings.Contains(e.Path, "/") })
}

func TestFormatsAreHealthyAndReadable(t *testing.T) {
	install(t)
	entries := []demohub.Entry{demohub.GGUF("model.gguf", 12, 5*model.MiB), demohub.Safetensors("model.safetensors", 7, 2*model.MiB+11)}
	w := newWorld(t, demohub.Repo(acme.Name, parts(entries)...))
	out, errs := w.run(t, 0, "pull", acme.Name, "--json")
	var pulled struct {
		Path  string
		Notes []string
	}
	if err := json.Unmarshal([]byte(out), &pulled); err != nil || len(pulled.Notes) > 0 {
		t.Fatalf("%s, %v\n%s", out, err, errs)
	}
	var header struct {
		Version int
		Tensors []string
	}
	node(t, &header, "gguf.mjs", filepath.Join(pulled.Path, "model.gguf"))
	if header.Version != 3 || len(header.Tensors) != 12 {
		t.Errorf("the GGUF header says %+v", header)
	}
	out, _ = w.run(t, 0, "verify", acme.Name, "--json")
	if strings.Contains(out, "damaged") || strings.Contains(out, "broken") {
		t.Errorf("verify says %s", out)
	}
}
