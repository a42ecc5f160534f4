package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tierFolders makes a folder with these in it, and a file called "file".
func tierFolders(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTiersHaveFoldersOfTheirOwn(t *testing.T) {
	dir := tierFolders(t, "hub", "warm", "cold")
	if err := os.Symlink(filepath.Join(dir, "hub"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for promise, c := range map[string]struct{ content, key, says string }{
		"not the store's":               {"warm: {path: DIR/hub}", "storage_tiers.warm.path", "is the folder of storage_tiers.hot.path too"},
		"not inside the store":          {"cold: {path: DIR/hub/cold}", "storage_tiers.cold.path", "lies inside the folder of storage_tiers.hot.path"},
		"not around the store":          {"cold: {path: DIR}", "storage_tiers.cold.path", "has the folder of storage_tiers.hot.path, DIR/hub, inside"},
		"not one in the other":          {"warm: {path: DIR/warm}, cold: {path: DIR/warm/cold}", "storage_tiers.cold.path", "lies inside the folder of storage_tiers.warm.path"},
		"not one around the other":      {"warm: {path: DIR/cold/warm}, cold: {path: DIR/cold/}", "storage_tiers.cold.path", "has the folder of storage_tiers.warm.path"},
		"not the same through a link":   {"cold: {path: DIR/link}", "storage_tiers.cold.path", "leads to the folder of storage_tiers.hot.path too"},
		"not inside through a link":     {"cold: {path: DIR/link/not/there}", "storage_tiers.cold.path", "lies inside the folder of storage_tiers.hot.path"},
		"no file":                       {"cold: {path: DIR/file}", "storage_tiers.cold.path", "is a file, and models need a folder"},
		"not where ema keeps its notes": {"cold: {path: DIR/ema/hub}", "store.state_dir", "is the folder of storage_tiers.cold.path too"},
		"not around ema's notes":        {"cold: {path: DIR/ema}", "store.state_dir", "lies inside the folder of storage_tiers.cold.path"},
	} {
		content := strings.ReplaceAll("store: {path: DIR/hub}\nstorage_tiers: {"+c.content+"}", "DIR", dir)
		says := c.key + " = "
		_, err := load(t, "ema.yaml", content)
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), strings.ReplaceAll(c.says, "DIR", dir)) || !strings.Contains(err.Error(), "want ") {
			t.Errorf("%s: %v, want %q", promise, err, c.says)
		}
	}
	for promise, content := range map[string]string{
		"folders beside each other":        "warm: {path: DIR/warm}, cold: {path: DIR/cold}",
		"names that begin alike":           "warm: {path: DIR/hub-warm}, cold: {path: DIR/hub-warm2}",
		"a folder that is not mounted yet": "cold: {path: DIR/not/there}",
		"a colder tier and no warm one":    "cold: {path: DIR/cold}",
		"no tiers":                         "",
	} {
		e := mustLoad(t, "ema.yaml", strings.ReplaceAll("store: {path: DIR/hub}\nstorage_tiers: {"+content+"}", "DIR", dir))
		if len(e.Warnings) > 0 || len(e.Inactive()) > 0 {
			t.Errorf("%s: %v, %v", promise, e.Warnings, e.Inactive())
		}
	}
}

func TestTierRulesThatDisappointGetWarnings(t *testing.T) {
	for content, want := range map[string]string{
		"warm: {path: /w, criteria: {usage_frequency_threshold: 11}}":                  "storage_tiers.warm.criteria.usage_frequency_threshold: 11 uses make a model warm, and only 10 make it hot, which is the faster tier",
		"warm: {path: /w}, cold: {path: /c, criteria: {usage_frequency_threshold: 4}}": "4 uses make a model cold, and only 3 make it warm",
		"cold: {path: /c, criteria: {usage_frequency_threshold: 50}}":                  "50 uses make a model cold, and only 10 make it hot",
		"cold: {max_size_gb: 5}": "storage_tiers.cold.max_size_gb: limits nothing while storage_tiers.cold.path names no folder",
		"warm: {criteria: {usage_frequency_threshold: 11}}, hot: {max_size_gb: 5}":                                      "",
		"warm: {path: /w, criteria: {usage_frequency_threshold: 10}, max_size_gb: 1}":                                   "",
		"warm: {path: /w, criteria: {usage_frequency_threshold: 11}}, hot: {criteria: {usage_frequency_threshold: 11}}": "",
	} {
		e := mustLoad(t, "ema.yaml", "storage_tiers: {"+content+"}")
		switch {
		case want == "" && len(e.Warnings) > 0:
			t.Errorf("%s: %v", content, e.Warnings)
		case want != "" && (len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0].String(), want)):
			t.Errorf("%s: warnings %v, want %q", content, e.Warnings, want)
		}
	}
}
