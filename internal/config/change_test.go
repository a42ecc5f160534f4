package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ema/internal/config"
)

func TestChangesSayWhatActsAndWhatNeedsARestart(t *testing.T) {
	load := func(text string) *config.Effective {
		t.Helper()
		file := filepath.Join(t.TempDir(), "ema.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := config.Load(config.Request{File: file})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	window := "bandwidth_management: {global_limit_mbps: 5, time_based_limits: {day: {start: '08:00', end: '18:00', limit_mbps: 3}}}\n"
	for promise, c := range map[string]struct {
		from, to        string
		acting, restart []string
	}{
		"nothing changed":       {window, window, nil, nil},
		"a limit acts":          {"", "bandwidth_management: {global_limit_mbps: 5}\n", []string{"bandwidth_management.global_limit_mbps"}, nil},
		"a folder does not":     {"", "store: {path: /models}\n", nil, []string{"store.path"}},
		"a window that is gone": {window, "bandwidth_management: {global_limit_mbps: 5}\n", []string{"bandwidth_management.time_based_limits.day.start", "bandwidth_management.time_based_limits.day.end", "bandwidth_management.time_based_limits.day.limit_mbps"}, nil},
	} {
		t.Run(promise, func(t *testing.T) {
			acting, restart := config.Changes(load(c.from), load(c.to))
			for _, key := range c.acting {
				if !slices.Contains(acting, key) {
					t.Errorf("%q is not among what acts: %q", key, acting)
				}
			}
			if c.acting == nil && len(acting) > 0 || !slices.Equal(restart, c.restart) {
				t.Errorf("acting %q, restart %q, want %q and %q", acting, restart, c.acting, c.restart)
			}
		})
	}
}

func TestDifferencesHideSecrets(t *testing.T) {
	load := func(token string) *config.Effective {
		t.Helper()
		e, err := config.Load(config.Request{Environ: []string{"EMA_DATABASE__URL=postgres://ema:" + token + "@127.0.0.1/ema"}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	all := config.Differences(load("one-secret"), load("two-secret"))
	if len(all) != 1 || all[0].Key != "database.url" || strings.Contains(fmt.Sprint(all), "-secret") {
		t.Errorf("they are %+v", all)
	}
}
