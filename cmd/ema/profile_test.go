package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"ema/client"
	"ema/internal/demohub"
	"ema/internal/model"
)

// largeHub serves acme/large, of 64 MiB.
func largeHub(t *testing.T) (environ []string) {
	t.Helper()
	srv := httptest.NewServer(demohub.New(demohub.Repo("acme/large", demohub.File("weights.bin", 64*model.MiB))))
	t.Cleanup(srv.Close)
	return []string{"HOME=" + t.TempDir(), "HF_ENDPOINT=" + srv.URL, "GORACE=" + noRest, anyPort, anyMetricsPort}
}

// does runs ema to its end, which must be a good one.
func does(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	p := begin(t, environ, args...)
	if err := p.Wait(); err != nil {
		t.Fatalf("ema %v: %v, %s", args, err, p.stderr.String())
	}
	return p
}

// reports reads what ema profile --json has printed, and holds it against the file that was kept.
func reports(t *testing.T, printed, sample string) (r profileReport) {
	t.Helper()
	if err := json.Unmarshal([]byte(printed), &r); err != nil {
		t.Fatalf("%v: %q", err, printed)
	}
	f, err := os.Open(r.File)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kept, err := profile.Parse(f)
	if err != nil || kept.CheckValid() != nil {
		t.Fatalf("%s: %v", r.File, err)
	}
	at, err := kept.SampleIndexByName(sample)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, s := range kept.Sample {
		total += s.Value[at]
	}
	if r.Total != total || r.Unit != kept.SampleType[at].Unit || r.Memory <= int64(model.MiB) || r.MemoryPeak < r.Memory || !strings.Contains(r.Further, r.File) {
		t.Errorf("%+v, and the file has %d", r, total)
	}
	return r
}

// first reports whether the functions are the first ones of a sensible list, of which one has that in its name.
func (r profileReport) first(most int, name string) bool {
	sorted := slices.IsSortedFunc(r.Functions, func(x, y functionShare) int { return int(min(max(y.Flat-x.Flat, -1), 1)) })
	sound := !slices.ContainsFunc(r.Functions, func(f functionShare) bool {
		return f.Name == "" || f.Flat > f.Cum || f.Cum > r.Total || f.FlatPercent > 100
	})
	named := slices.ContainsFunc(r.Functions, func(f functionShare) bool { return strings.Contains(f.Name, name) })
	return len(r.Functions) > 0 && len(r.Functions) <= most && r.Functions[0].Flat > 0 && sorted && sound && named
}

func TestADaemonIsProfiledWhileItWorks(t *testing.T) {
	environ := largeHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	does(t, environ, "pull", "acme/large", "--quiet")
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	watch := begin(t, environ, "profile", "cpu", "--seconds", "3", "--output", file, "--json")
	if err := watch.stderr.contains(ctx, "watching the daemon for 3 s"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- watch.Wait() }()
	for done := false; !done; {
		does(t, environ, "verify", "acme/large", "--quiet")
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v: %s", err, watch.stderr.String())
			}
			done = true
		default:
		}
	}
	r := reports(t, watch.stdout.String(), "cpu")
	if !r.first(20, "sha256") || r.Kind != "cpu" || r.File != file || r.Seconds < 3 || r.Unit != "nanoseconds" || !strings.Contains(r.Of, fmt.Sprint(daemon.Process.Pid)) {
		t.Errorf("%+v", r)
	}
	r = reports(t, does(t, environ, "profile", "heap", "--output", file+".heap", "--json", "--top", "3").stdout.String(), "inuse_space")
	if !r.first(3, "") || r.Kind != "heap" || r.Unit != "bytes" || r.MemoryPeak <= r.Memory/2 {
		t.Errorf("%+v", r)
	}
	p := begin(t, environ, "profile", "heap", "--output", file)
	if err := p.Wait(); p.ProcessState.ExitCode() != 2 || !strings.Contains(p.stderr.String(), "it exists; name another file with --output") {
		t.Errorf("a file that is there: %v, %s", err, p.stderr.String())
	}
	reports(t, watch.stdout.String(), "cpu") // it is as it was
	daemon.ends(t)
}

func TestProfilesAreForAdminsAlone(t *testing.T) {
	const key, boss = "ema_key_of_jo", "ema_key_of_an_admin"
	_, environ := quickHub(t)
	keys := fmt.Sprintf(`[{"name":"jo","role":"user","sha256":"%x"},{"name":"boss","role":"admin","sha256":"%x"}]`, sha256.Sum256([]byte(key)), sha256.Sum256([]byte(boss)))
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, append(environ, "EMA_AUTH__API_KEYS="+keys))
	url := daemon.address(t)
	for _, c := range []struct {
		method, path string
	}{{"POST", client.Base + "/admin/profile/cpu?seconds=1"}, {"POST", client.Base + "/admin/profile/heap"}, {"GET", "/debug/pprof/"}, {"GET", "/debug/pprof/profile?seconds=1"}, {"GET", "/debug/pprof/heap"}} {
		for key, want := range map[string]int{"": http.StatusUnauthorized, key: http.StatusForbidden, boss: http.StatusOK} {
			req, err := http.NewRequestWithContext(ctx, c.method, url+c.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if key != "" {
				req.Header.Set("Authorization", "Bearer "+key)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, res.Body)
			if res.Body.Close(); err != nil || res.StatusCode != want {
				t.Errorf("%s with the key %q: %s, %v; want %d", c.path, key, res.Status, err, want)
			}
		}
	}
	elsewhere := []string{"HOME=" + t.TempDir(), "GORACE=" + noRest, "EMA_SERVER=" + url}
	p := begin(t, append(elsewhere, "EMA_API_KEY="+key), "profile", "heap", "--output", filepath.Join(t.TempDir(), "no"))
	if err := p.Wait(); p.ProcessState.ExitCode() != 3 {
		t.Errorf("with a user's key: %v, %s", err, p.stderr.String())
	}
	file := filepath.Join(t.TempDir(), "heap")
	reports(t, does(t, append(elsewhere, "EMA_API_KEY="+boss), "profile", "heap", "--output", file, "--json").stdout.String(), "inuse_space")
	daemon.ends(t)
}

// stacks are what the goroutines of a daemon do.
func stacks(ctx context.Context, t *testing.T, daemon *process) string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", daemon.address(t)+"/debug/pprof/goroutine?debug=1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", res.Status, err)
	}
	return string(text)
}

func TestOneProfileIsTakenAtATimeAndAnEndedOneMakesRoom(t *testing.T) {
	_, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	folder := t.TempDir()
	first := begin(t, environ, "profile", "cpu", "--seconds", "300", "--output", filepath.Join(folder, "first"))
	becomes := func(taken bool) {
		t.Helper()
		for strings.Contains(stacks(ctx, t, daemon), "runtime/pprof.profileWriter") != taken {
			if pause(ctx, 20*time.Millisecond) != nil {
				t.Fatalf("whether a profile is taken never becomes %v", taken)
			}
		}
	}
	becomes(true)
	if res := asks(t, http.DefaultClient, "POST", daemon.address(t)+client.Base+"/admin/profile/cpu?seconds=1", "", nil); res.StatusCode != http.StatusConflict {
		t.Errorf("a second one: %s", res.Status)
	}
	second := begin(t, environ, "profile", "cpu", "--seconds", "1", "--output", filepath.Join(folder, "second"))
	if err := second.Wait(); err == nil || !strings.Contains(second.stderr.String(), "there can be only one; ask again when it is done") {
		t.Errorf("a second one: %v, %s", err, second.stderr.String())
	}
	if err := first.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); first.ProcessState.ExitCode() != 130 {
		t.Errorf("%v: %s", err, first.stderr.String())
	}
	becomes(false)
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("profiles that were not taken leave %v, %v", left, err)
	}
	// A daemon that stops does not wait for it.
	last := begin(t, environ, "profile", "cpu", "--seconds", "300", "--output", filepath.Join(folder, "last"), "--json")
	becomes(true)
	daemon.ends(t)
	if err := last.Wait(); err != nil {
		t.Fatalf("%v: %s", err, last.stderr.String())
	}
	if r := reports(t, last.stdout.String(), "cpu"); r.Seconds > patient.Seconds() {
		t.Errorf("it is of %g s", r.Seconds)
	}
}

func TestACommandIsProfiled(t *testing.T) {
	environ := largeHub(t)
	folder := t.TempDir()
	store := filepath.Join(folder, "store")
	p := does(t, environ, "profile", "cpu", "--store", store, "--output", filepath.Join(folder, "cpu"), "--json", "--", "pull", "acme/large")
	r := reports(t, p.stdout.String(), "cpu")
	if !r.first(20, "") || r.Seconds <= 0 || !strings.HasPrefix(r.Of, "ema --store=") || !strings.HasSuffix(r.Of, " pull acme/large") || r.MemoryPeak < int64(8*model.MiB) {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(p.stderr.String(), store+"/models--acme--large/snapshots/") {
		t.Errorf("the flags of every command are lost, or its output: %s", p.stderr.String())
	}
	r = reports(t, does(t, environ, "profile", "heap", "--output", filepath.Join(folder, "heap"), "--json", "--", "verify", "--store", store, "acme/large").stdout.String(), "alloc_space")
	if !r.first(20, "") {
		t.Errorf("%+v", r)
	}
	text := does(t, environ, "profile", "cpu", "--output", filepath.Join(folder, "text"), "--", "verify", "--store", store, "acme/large").stdout.String()
	for _, want := range []string{"FLAT", "CUM %", "memory: ", "kept: " + folder, "look further with: go tool pprof"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	for code, args := range map[int][]string{
		0: {"version"}, 2: {"pull"}, 3: {"path", "acme/none"},
	} {
		p := begin(t, environ, append([]string{"profile", "cpu", "--json", "--output", filepath.Join(folder, args[0]), "--"}, args...)...)
		err := p.Wait()
		if p.ProcessState.ExitCode() != code || code != 0 && strings.Count(p.stderr.String(), "ema: ") != 1 {
			t.Errorf("%v: %v, %s", args, err, p.stderr.String())
		}
		if r := reports(t, p.stdout.String(), "cpu"); r.Functions == nil {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestACommandThatIsInterruptedLeavesItsProfile(t *testing.T) {
	hub, environ := slowHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	p := begin(t, environ, "profile", "cpu", "--json", "--output", filepath.Join(t.TempDir(), "cpu"), "--", "pull", "acme/slow")
	if err := sent(ctx, hub, model.MiB); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := p.Wait()
	if p.ProcessState.ExitCode() != 130 || !strings.Contains(p.stderr.String(), "ema: pull acme/slow: interrupted") {
		t.Errorf("%v: %s", err, p.stderr.String())
	}
	reports(t, p.stdout.String(), "cpu")
}

func TestTheTopFunctionsAreCountedByThemselvesAndWithWhatTheyCall(t *testing.T) {
	f := func(name string) profile.Line { return profile.Line{Function: &profile.Function{Name: name}} }
	at := func(lines ...profile.Line) *profile.Location { return &profile.Location{Line: lines} }
	p := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: "samples"}, {Type: "cpu"}},
		Sample: []*profile.Sample{
			{Location: []*profile.Location{at(f("leaf"), f("inlined into")), at(f("root"))}, Value: []int64{9, 30}},
			{Location: []*profile.Location{at(f("again")), at(f("again")), at(f("root"))}, Value: []int64{9, 60}},
			{Location: []*profile.Location{at(f("root"))}, Value: []int64{9, 10}},
			{Location: []*profile.Location{at(f("never"))}, Value: []int64{9, 0}},
			{Location: []*profile.Location{at(profile.Line{})}, Value: []int64{9, 0}},
		},
	}
	want := []functionShare{{"again", 60, 60, 60, 60}, {"leaf", 30, 30, 30, 30}, {"root", 10, 10, 100, 100}, {"inlined into", 0, 0, 30, 30}}
	if total, got := topOf(p, 1, 20); total != 100 || !slices.Equal(got, want) {
		t.Errorf("%d, %+v", total, got)
	}
	if _, got := topOf(p, 1, 2); !slices.Equal(got, want[:2]) {
		t.Errorf("%+v", got)
	}
	if total, got := topOf(&profile.Profile{}, 0, 20); total != 0 || got == nil || len(got) != 0 {
		t.Errorf("%d, %+v", total, got)
	}
}
