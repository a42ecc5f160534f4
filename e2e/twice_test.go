package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

var acme = model.ID{Name: "acme/model"} //nolint:gochecknoglobals // constant

func TestTwoProcessesForOneModelAreOneDownload(t *testing.T) {
	entries := generate(t, "20x1KiB-200KiB,2x6MiB")
	w := newWorld(t, demohub.Repo(acme.Name, parts(entries)...), demohub.Rate(8*model.MiB))
	first := w.start(t, "pull", acme.Name)
	until(t, "bytes come", func() bool { return w.hub.Stats().Body > 0 })
	second := w.start(t, "pull", acme.Name)
	until(t, "the second one waits", func() bool {
		return strings.Contains(second.err.String(), fmt.Sprint(first.Process.Pid)) || second.ProcessState != nil
	})
	if a, b := first.end(t), second.end(t); a != 0 || b != 0 || first.out.String() != second.out.String() {
		t.Fatalf("exit codes %d and %d\n%s%s\n%s%s", a, b, first.out.String(), first.err.String(), second.out.String(), second.err.String())
	}
	holds(t, strings.TrimSpace(first.out.String()), entries)
	if sent, size := w.hub.Stats().Body, sizeOf(entries); sent > size+4*inFlight {
		t.Errorf("%d bytes were sent for %d", sent, size)
	}
	if !strings.Contains(second.err.String(), fmt.Sprint(first.Process.Pid)) {
		t.Errorf("who waits does not say for whom: %s", second.err.String())
	}
}

func TestManyProcessesAtOnceAreOneDownload(t *testing.T) {
	entries := generate(t, "5x1KiB-200KiB,1x6MiB")
	w := newWorld(t, demohub.Repo(acme.Name, parts(entries)...), demohub.Rate(16*model.MiB))
	var all []*process
	for range 6 {
		all = append(all, w.start(t, "pull", acme.Name))
	}
	for _, p := range all {
		if code := p.end(t); code != 0 || p.out.String() != all[0].out.String() {
			t.Errorf("exit code %d\n%s%s", code, p.out.String(), p.err.String())
		}
	}
	holds(t, strings.TrimSpace(all[0].out.String()), entries)
	if sent, size := w.hub.Stats().Body, sizeOf(entries); sent > size+4*inFlight {
		t.Errorf("%d bytes were sent for %d", sent, size)
	}
}

func TestOneProcessAskedTwiceFetchesOnce(t *testing.T) {
	entries := generate(t, "5x1KiB-200KiB,1x3MiB")
	w := newWorld(t, demohub.Repo(acme.Name, parts(entries)...))
	out, _ := w.run(t, 0, "pull", acme.Name, acme.Name)
	lines := strings.Fields(out)
	if len(lines) != 2 || lines[0] != lines[1] {
		t.Fatalf("printed %q, want the same path twice", out)
	}
	holds(t, lines[0], entries)
	if sent := w.hub.Stats().Body; sent != sizeOf(entries) {
		t.Errorf("%d bytes were sent for %d", sent, sizeOf(entries))
	}
}

func TestTheLocksOfAKilledProcessBlockNobody(t *testing.T) {
	e := demohub.File("large.bin", 8*model.MiB)
	w := newWorld(t, demohub.Repo(acme.Name, e), demohub.Rate(4*model.MiB))
	victim := w.start(t, "pull", acme.Name)
	until(t, "bytes come", func() bool { return w.hub.Stats().Body > int64(2*model.MiB) })
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	victim.end(t)
	locks, err := filepath.Glob(filepath.Join(w.cache(), ".locks", "*", "*.lock"))
	owner, ownerErr := os.ReadFile(filepath.Join(w.cache(), ".locks", "ema.owner"))
	if err != nil || ownerErr != nil || len(locks) != 1 || !bytes.Contains(owner, []byte(fmt.Sprint(victim.Process.Pid))) {
		t.Fatalf("the test needs stale locks: %v, %v, %q, %v", locks, err, owner, ownerErr)
	}
	begun := time.Now()
	p := w.start(t, "pull", acme.Name)
	if code := p.end(t); code != 0 || time.Since(begun) > 10*time.Second || strings.Contains(p.err.String(), fmt.Sprint(victim.Process.Pid)) {
		t.Errorf("exit code %d after %v\n%s", code, time.Since(begun), p.err.String())
	}
	holds(t, strings.TrimSpace(p.out.String()), []demohub.Entry{e})
}

func TestAnotherToolsLockIsWaitedFor(t *testing.T) {
	e := demohub.File("large.bin", 3*model.MiB)
	w := newWorld(t, demohub.Repo(acme.Name, e))
	unlock := w.lock(t, acme, e)
	p := w.start(t, "pull", acme.Name)
	until(t, "it says that it waits", func() bool { return strings.Contains(p.err.String(), "another program") })
	if sent := w.hub.Stats().Body; sent != 0 {
		t.Errorf("%d bytes were fetched beside the other tool", sent)
	}
	// The other tool completes the file, as tools in this cache do: beside, and then by its name.
	d, err := e.Digest()
	if err != nil {
		t.Fatal(err)
	}
	content, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, e.Size())
	if _, err := content.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	blobs := filepath.Join(w.cache(), acme.DirName(), "blobs")
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(blobs, d.Hex()+".incomplete")
	if err := os.WriteFile(tmp, b, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(blobs, d.Hex())); err != nil {
		t.Fatal(err)
	}
	unlock()
	if code := p.end(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p.err.String())
	}
	holds(t, strings.TrimSpace(p.out.String()), []demohub.Entry{e})
	if sent := w.hub.Stats().Body; sent != 0 {
		t.Errorf("%d bytes were fetched although the other tool brought them", sent)
	}
}

func TestWithoutAHubWhatIsHereIsServedAtOnce(t *testing.T) {
	entries := generate(t, "5x1KiB-200KiB,1x3MiB")
	w := newWorld(t, demohub.Repo(acme.Name, parts(entries)...))
	path := w.pull(t, acme.Name)
	w.url = "http://127.0.0.1:1"
	begun := time.Now()
	out, errs := w.run(t, 0, "pull", acme.Name)
	if strings.TrimSpace(out) != path || time.Since(begun) > 3*time.Second || !strings.Contains(errs, "could not be asked") {
		t.Errorf("%q after %v\n%s", out, time.Since(begun), errs)
	}
	w.hub.ResetStats()
	if got := w.pull(t, acme.Name, "--offline"); got != path {
		t.Errorf("offline: %q, want %q", got, path)
	}
	out, _ = w.run(t, 1, "pull", "acme/other", "--offline", "--json")
	var answer struct{ Error struct{ Class string } }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Error.Class != "offline" {
		t.Errorf("%q, %v", out, err)
	}
}
