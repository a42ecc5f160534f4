package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/config"
)

// over is an overlay after these patches.
func over(t *testing.T, patches ...string) config.Overlay {
	t.Helper()
	var o config.Overlay
	for _, p := range patches {
		next, err := o.Merge([]byte(p))
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		o = next
	}
	return o
}

func encoded(t testing.TB, o config.Overlay) string {
	t.Helper()
	raw, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		t.Fatal(err)
	}
	return compact.String()
}

func TestAnOverlayWinsOverTheFileAndNothingElse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ema.yaml")
	if err := os.WriteFile(file, []byte("downloads: {queue_size: 5, max_concurrent_per_model: 2}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := over(t, `{"downloads":{"queue_size":7,"max_concurrent_downloads":3},"websocket":{"queue_size":9}}`)
	e, err := config.Load(config.Request{
		File: file, Overlay: o,
		Environ: []string{"EMA_DOWNLOADS__MAX_CONCURRENT_DOWNLOADS=4"},
		Flags:   []config.Setting{{Key: "websocket.queue_size", Value: "11", Where: "--queue"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := e.Downloads; d.QueueSize != 7 || d.MaxConcurrentDownloads != 4 || d.MaxConcurrentPerModel != 2 || e.Websocket.QueueSize != 11 {
		t.Errorf("%+v, %+v", d, e.Websocket)
	}
	out := e.Outvoted(o)
	if len(out) != 2 || out[0].Key != "downloads.max_concurrent_downloads" || !strings.Contains(out[0].Text, "EMA_DOWNLOADS__MAX_CONCURRENT_DOWNLOADS") || !strings.Contains(out[1].Text, "--queue") {
		t.Errorf("outvoted: %v", out)
	}
}

func TestPatchesAddUpAndNullTakesThemBack(t *testing.T) {
	for name, c := range map[string]struct {
		patches []string
		want    string
	}{
		"nothing":                     {nil, `{}`},
		"an empty one":                {[]string{`{}`}, `{}`},
		"two of one section":          {[]string{`{"downloads":{"queue_size":7}}`, `{"downloads":{"max_concurrent_downloads":3}}`}, `{"downloads":{"max_concurrent_downloads":3,"queue_size":7}}`},
		"the last one counts":         {[]string{`{"downloads":{"queue_size":7}}`, `{"downloads":{"queue_size":8}}`}, `{"downloads":{"queue_size":8}}`},
		"null takes a key back":       {[]string{`{"downloads":{"queue_size":7,"max_concurrent_downloads":3}}`, `{"downloads":{"queue_size":null}}`}, `{"downloads":{"max_concurrent_downloads":3}}`},
		"and an empty section":        {[]string{`{"downloads":{"queue_size":7}}`, `{"downloads":{"queue_size":null}}`}, `{}`},
		"null takes a section back":   {[]string{`{"downloads":{"queue_size":7}}`, `{"downloads":null}`}, `{}`},
		"null where nothing is":       {[]string{`{"downloads":null,"websocket":{"queue_size":null}}`}, `{}`},
		"lists are replaced":          {[]string{`{"sources":{"allowed":["a.example","b.example"]}}`, `{"sources":{"allowed":["c.example"]}}`}, `{"sources":{"allowed":["c.example"]}}`},
		"an alias is its key":         {[]string{`{"downloads":{"queue_size":7,"bandwidth_limit_mbps":5}}`, `{"bandwidth_management":{"global_limit_mbps":6}}`}, `{"bandwidth_management":{"global_limit_mbps":6},"downloads":{"queue_size":7}}`},
		"a later alias counts":        {[]string{`{"bandwidth_management":{"global_limit_mbps":6}}`, `{"settings":{"downloads":{"bandwidth_limit_mbps":5}}}`}, `{"bandwidth_management":{"global_limit_mbps":5}}`},
		"null of an alias":            {[]string{`{"bandwidth_management":{"global_limit_mbps":6}}`, `{"downloads":{"bandwidth_limit_mbps":null}}`}, `{}`},
		"named entries come and go":   {[]string{`{"bandwidth_management":{"time_based_limits":{"night":{"start":"22:00","end":"06:00","limit_mbps":7}}}}`, `{"bandwidth_management":{"time_based_limits":{"night":{"limit_mbps":8}}}}`, `{"bandwidth_management":{"time_based_limits":{"night":{"start":null}}}}`}, `{"bandwidth_management":{"time_based_limits":{"night":{"end":"06:00","limit_mbps":8}}}}`},
		"a switch that sets two keys": {[]string{`{"settings":{"system":{"high_priority_processes":true}}}`}, `{"cpu_optimization":{"process_priority":{"download_processes":"high","main_process":"high"}}}`},
	} {
		if got := encoded(t, over(t, c.patches...)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestAPatchWithMistakesChangesNothingAndTellsAllOfThem(t *testing.T) {
	o := over(t, `{"downloads":{"queue_size":7}}`)
	next, err := o.Merge([]byte(`{"downloads":{"queue_size":"many","queue_sice":1},"websocket":{"batch_size":0},"databse":null,"store":{"path":"/x","state_dir":null}}`))
	all, ok := errors.AsType[config.Errors](err)
	if !ok {
		t.Fatalf("%v", err)
	}
	var keys []string
	for _, e := range all {
		keys = append(keys, e.Key)
		if e.Where != "" || e.Problem == "" {
			t.Errorf("%+v", e)
		}
	}
	slices.Sort(keys)
	if want := []string{"databse", "downloads.queue_sice", "downloads.queue_size", "store.path", "store.state_dir", "websocket.batch_size"}; !slices.Equal(keys, want) {
		t.Errorf("mistakes about %q, want %q", keys, want)
	}
	if encoded(t, next) != encoded(t, o) {
		t.Errorf("it became %s", encoded(t, next))
	}
	for _, patch := range []string{``, `nonsense`, `[]`, `7`, `{"downloads":{"queue_size":1,"queue_size":2}}`, "{\"log\":{\"file\":\"/\xff\"}}"} {
		if next, err := o.Merge([]byte(patch)); patch != `` && err == nil || encoded(t, next) != encoded(t, o) {
			t.Errorf("%q: %v, %s", patch, err, encoded(t, next))
		}
	}
}

func TestWhatIsShownCanBeSentBack(t *testing.T) {
	o := over(t, `{"database":{"url":"postgres://ema:hunter2@db.example/ema"},"monitoring":{"alert_webhook":"https://hooks.example/T0/hunter2"}}`)
	e, err := config.Load(config.Request{Overlay: o, Flags: []config.Setting{{Key: "store.path", Value: "/models/hub", Where: "--store"}}})
	if err != nil {
		t.Fatal(err)
	}
	shown := e.Values()
	shown["downloads"].(map[string]any)["queue_size"] = 7
	patch, err := json.Marshal(shown)
	if err != nil || bytes.Contains(patch, []byte("hunter2")) {
		t.Fatalf("%v: %s", err, patch)
	}
	next, err := o.MergeOver(e, patch)
	if err != nil {
		t.Fatal(err)
	}
	content := encoded(t, next)
	if strings.Count(content, "hunter2") != 2 || strings.Contains(content, "hidden") || !strings.Contains(content, `"queue_size":7`) || strings.Contains(content, "/models/hub") {
		t.Errorf("it became %s", content)
	}
	if again, err := next.MergeOver(e, []byte(`{"monitoring":{"alert_webhook":"https://other.example/x"}}`)); err != nil || !strings.Contains(encoded(t, again), "https://other.example/x") {
		t.Errorf("%v: another secret is no change", err)
	}
	for _, patch := range []string{`{"store":{"path":"/elsewhere"}}`, `{"store":{"state_dir":"/elsewhere"}}`, `{"storage_tiers":{"hot":{"path":"/elsewhere"}}}`, `{"store":{"path":7}}`} {
		if _, err := o.MergeOver(e, []byte(patch)); err == nil {
			t.Errorf("%s is accepted", patch)
		}
	}
}

func TestNoMistakeShowsASecret(t *testing.T) {
	for _, patch := range []string{
		`{"database":{"url":"ema:hunter2@db/ema"}}`, `{"database":{"url":"postgres:/ema:hunter2@db/ema"}}`, `{"database":{"url":"postgres:ema?password=hunter2"}}`, `{"database":{"url":["postgres://ema:hunter2@db"]}}`, `{"database":{"url":{"a":"hunter2"}}}`,
		`{"monitoring":{"alert_webhook":["https://hooks.example/hunter2"]}}`, `{"monitoring":{"alert_webhook":"hooks.example/hunter2"}}`, `{"monitoring":{"alert_webhook":"ftp://hooks.example/hunter2"}}`,
		`{"database":{"ulr":"postgres://ema:hunter2@db"}}`, `{"database":{"password":["hunter2"]}}`,
	} {
		if _, err := (config.Overlay{}).Merge([]byte(patch)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", patch, err)
		}
	}
}

func TestChangesNeverGrowBeyondWhatCanBeRead(t *testing.T) {
	windows := func(from int) []byte {
		var b strings.Builder
		for i := range 6000 {
			fmt.Fprintf(&b, `,"w%d":{"start":"01:00","end":"02:00","timezone":"Europe/Vienna","limit_mbps":1}`, from+i)
		}
		return []byte(`{"bandwidth_management":{"time_based_limits":{` + b.String()[1:] + `}}}`)
	}
	o, err := config.Overlay{}.Merge(windows(0))
	if err != nil {
		t.Fatal(err)
	}
	next, err := o.Merge(windows(6000))
	if _, ok := errors.AsType[config.Errors](err); !ok || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("%v", err)
	}
	content, err := next.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := config.ParseOverlay("settings.json", content); err != nil {
		t.Errorf("what was kept is not read again: %v", err)
	}
}

func TestADamagedFileOfChangesSaysWhichAndWhatToDo(t *testing.T) {
	for content, want := range map[string]string{
		`{"downloads":{"queue_size":7}`:     "not valid JSON",
		`{"downloads":{"queue_sice":7}}`:    "did you mean downloads.queue_size?",
		`{"store":{"path":"/elsewhere"}}`:   "cannot be one of them",
		`{"downloads":{"queue_size":"six"}`: "not valid JSON",
	} {
		if _, err := config.ParseOverlay("/state/settings.json", []byte(content)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/state/settings.json") || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: %v", content, err)
		}
	}
	o, err := config.ParseOverlay("/state/settings.json", []byte(encoded(t, over(t, `{"downloads":{"queue_size":7}}`))))
	if err != nil {
		t.Fatal(err)
	}
	e, err := config.Load(config.Request{Overlay: o})
	if err != nil || e.Origin("downloads.queue_size").String() != "/state/settings.json:1" {
		t.Errorf("%v from %v", err, e.Origin("downloads.queue_size"))
	}
}

func TestOneKeyIsSetAndUnsetAsInTheEnvironment(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"downloads.queue_size", "7", `{"downloads":{"queue_size":7}}`},
		{"downloads.queue_size", "+16", `{"downloads":{"queue_size":16}}`},
		{"downloads.bandwidth_limit_mbps", "2.5", `{"downloads":{"bandwidth_limit_mbps":2.5}}`},
		{"sources.allowed", "a.example, b.example", `{"sources":{"allowed":["a.example","b.example"]}}`},
		{"log.level", "debug", `{"log":{"level":"debug"}}`},
		{"server.access_log", "true", `{"server":{"access_log":true}}`},
		{"bandwidth_management.time_based_limits", `{"night":{"limit_mbps":7}}`, `{"bandwidth_management":{"time_based_limits":{"night":{"limit_mbps":7}}}}`},
		{"bandwidth_management.global_limit_mbps", "NaN", `{"bandwidth_management":{"global_limit_mbps":"NaN"}}`}, // which Merge refuses
	} {
		if got, err := config.Set(c.key, c.value); err != nil || string(got) != c.want {
			t.Errorf("%s=%s: %s, %v", c.key, c.value, got, err)
		}
	}
	if got, err := config.Unset("downloads"); err != nil || string(got) != `{"downloads":null}` {
		t.Errorf("%s, %v", got, err)
	}
	_, err := config.Set("downloads.queue_sice", "7")
	if e, ok := errors.AsType[*config.Error](err); !ok || e.Nearest != "downloads.queue_size" {
		t.Errorf("%v", err)
	}
}

// reference is RFC 7396, with sections that became empty left out.
func reference(target any, patch map[string]any) map[string]any {
	out, _ := target.(map[string]any)
	out = maps.Clone(out)
	if out == nil {
		out = map[string]any{}
	}
	for name, v := range patch {
		inner, table := v.(map[string]any)
		if table {
			v = reference(out[name], inner)
		}
		if m, empty := v.(map[string]any); v == nil || empty && len(m) == 0 {
			delete(out, name)
			continue
		}
		out[name] = v
	}
	return out
}

func TestAnyPatchesAddUpAsTheRFCSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		leaf := func(values ...any) *rapid.Generator[any] { return rapid.SampledFrom(append(values, nil)) }
		section := func(keys map[string]*rapid.Generator[any]) *rapid.Generator[any] {
			return rapid.Custom(func(t *rapid.T) any {
				m := map[string]any{}
				for _, name := range slices.Sorted(maps.Keys(keys)) {
					if rapid.Bool().Draw(t, name) {
						m[name] = keys[name].Draw(t, name)
					}
				}
				return m
			})
		}
		window := section(map[string]*rapid.Generator[any]{"start": leaf("22:00", "23:00"), "end": leaf("06:00"), "limit_mbps": leaf(1.5, 2.0)})
		whole := section(map[string]*rapid.Generator[any]{
			"downloads": rapid.OneOf(leaf(), section(map[string]*rapid.Generator[any]{"queue_size": leaf(1.0, 2.0), "max_concurrent_downloads": leaf(3.0)})),
			"sources":   section(map[string]*rapid.Generator[any]{"allowed": leaf([]any{}, []any{"a.example"}, []any{"b.example", "c.example"})}),
			"bandwidth_management": section(map[string]*rapid.Generator[any]{
				"time_based_limits": rapid.OneOf(leaf(), section(map[string]*rapid.Generator[any]{"night": rapid.OneOf(leaf(), window), "day": window})),
			}),
		})
		var o config.Overlay
		want := map[string]any{}
		for range rapid.IntRange(1, 6).Draw(t, "patches") {
			patch := whole.Draw(t, "patch").(map[string]any)
			raw, err := json.Marshal(patch)
			if err != nil {
				t.Fatal(err)
			}
			if o, err = o.Merge(raw); err != nil {
				t.Fatalf("%s: %v", raw, err)
			}
			want = reference(want, patch)
			content, err := o.Encode()
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(content, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("after %s it is %s, want %v", raw, content, want)
			}
			if _, err := config.ParseOverlay("settings.json", content); err != nil {
				t.Fatalf("%s is not read again: %v", content, err)
			}
		}
	})
}

func FuzzMerge(f *testing.F) {
	for _, s := range [][2]string{
		{`{}`, `{}`},
		{`{"downloads":{"queue_size":7}}`, `{"downloads":{"queue_size":null}}`},
		{`{"sources":{"allowed":["a"]}}`, `{"settings":{"system":{"high_priority_processes":true}}}`},
		{``, `{"auth":{"api_keys":[{"name":"a","sha256":"x","role":null}]}}`},
		{`{"bandwidth_management":{"time_based_limits":{"n":{"limit_mbps":1e400}}}}`, `{"store":null}`},
	} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, before, patch []byte) {
		o, err := config.ParseOverlay("settings.json", before)
		if err != nil {
			return
		}
		was := encoded(t, o)
		next, err := o.Merge(patch)
		if encoded(t, o) != was || err != nil && encoded(t, next) != was {
			t.Fatalf("%s was changed in place by %s", was, patch)
		}
		if err != nil {
			return
		}
		again, err := config.ParseOverlay("settings.json", []byte(encoded(t, next)))
		if err != nil || encoded(t, again) != encoded(t, next) {
			t.Fatalf("%s and %s become %s, which is not read again: %v", was, patch, encoded(t, next), err)
		}
	})
}
