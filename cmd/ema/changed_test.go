package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ema/client"
	"ema/internal/config"
	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

func TestSettingsChangedOverTheNetworkActAllOrNone(t *testing.T) {
	_, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	c, err := client.New(daemon.address(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	current := func() map[string]any {
		t.Helper()
		s, err := c.ConfigCurrent(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s.Config
	}
	size := func() any { return current()["downloads"].(map[string]any)["queue_size"] }
	before := size()

	// All mistakes at once, and nothing changes.
	wrong := map[string]any{"downloads": map[string]any{"queue_size": 7, "queue_sice": 1}, "websocket": map[string]any{"batch_size": 0}}
	_, err = c.ConfigUpdate(ctx, wrong)
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != http.StatusUnprocessableEntity || len(e.Fields) != 2 {
		t.Errorf("%v: %+v", err, e)
	}
	v, err := c.ConfigValidate(ctx, wrong)
	if err != nil || v.Valid || len(v.Mistakes) != 2 || v.Mistakes[0].Nearest+v.Mistakes[1].Nearest != "downloads.queue_size" {
		t.Errorf("%v: %+v", err, v)
	}
	if got := size(); got != before {
		t.Errorf("it became %v", got)
	}

	right := map[string]any{"downloads": map[string]any{"queue_size": 7}, "server": map[string]any{"access_log": true}}
	v, err = c.ConfigValidate(ctx, right)
	if err != nil || !v.Valid || strings.Join(v.Updated, " ") != "downloads.queue_size server.access_log" || strings.Join(v.RestartKeys, " ") != "server.access_log" {
		t.Errorf("%v: %+v", err, v)
	}
	if got := size(); got != before {
		t.Errorf("judged, it became %v", got)
	}
	done, err := c.ConfigUpdate(ctx, right)
	if err != nil || !done.Success || strings.Join(done.Updated, " ") != "downloads.queue_size server.access_log" || strings.Join(done.RestartKeys, " ") != "server.access_log" {
		t.Errorf("%v: %+v", err, done)
	}
	if got := size(); got != 7.0 {
		t.Errorf("it became %v", got)
	}
	// A token of a database is accepted, and nobody is told it.
	if _, err := c.ConfigUpdate(ctx, map[string]any{"database": map[string]any{"url": "postgres://ema:hunter2@db.example/ema"}}); err != nil {
		t.Error(err)
	}
	if all, err := json.Marshal(current()); err != nil || strings.Contains(string(all), "hunter2") || !strings.Contains(string(all), "db.example") {
		t.Errorf("%v: %s", err, all)
	}
	if schema, err := c.ConfigSchema(ctx); err != nil || !strings.Contains(string(schema), "queue_size") {
		t.Errorf("%v: %.100s", err, schema)
	}
	daemon.ends(t)
	if strings.Contains(daemon.stderr.String(), "hunter2") {
		t.Error("the password is in the log")
	}
}

func TestAKillAtAnyTimeLeavesAllOfAChangeOrNothing(t *testing.T) {
	home := t.TempDir()
	environ := []string{"HOME=" + home, "GORACE=" + noRest}
	if p := begin(t, environ, "config", "set", "downloads.queue_size", "1"); p.Wait() != nil {
		t.Fatal(p.stderr.String())
	}
	file := filepath.Join(home, ".cache", "huggingface", "ema", "hub", changedFile)
	acknowledged := 1
	begun := time.Now()
	first := begin(t, environ, "config", "set", "downloads.queue_size", "2")
	if first.Wait() == nil {
		acknowledged = 2
	}
	whole := time.Since(begun)
	for i := range 40 {
		value := 100 + i
		p := begin(t, environ, "config", "set", "downloads.queue_size", fmt.Sprint(value))
		kill := time.AfterFunc(whole*time.Duration(i)/40, func() { _ = p.Process.Kill() }) // it may have ended
		if p.Wait() == nil {
			acknowledged = value
		}
		kill.Stop()
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		o, err := config.ParseOverlay(file, content)
		if err != nil {
			t.Fatalf("after a kill: %v", err)
		}
		e, err := config.Load(config.Request{Overlay: o})
		if err != nil {
			t.Fatal(err)
		}
		if n := e.Downloads.QueueSize; n != value && n != acknowledged {
			t.Fatalf("%d is there, acknowledged was %d, and the last change %d", n, acknowledged, value)
		}
		acknowledged = e.Downloads.QueueSize
	}
	if p := begin(t, environ, "config", "set", "downloads.queue_size", "3"); p.Wait() != nil {
		t.Fatal(p.stderr.String())
	}
	if _, err := os.Stat(file + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a kill left is still there: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v: others may read it: %v", err, info.Mode())
	}
}

// queued is an overlay with that size of the queue.
func queued(t *testing.T, size int) config.Overlay {
	t.Helper()
	o, err := config.Overlay{}.Merge(fmt.Appendf(nil, `{"downloads":{"queue_size":%d}}`, size))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// sizeIn is the size of the queue that the file has; 0 is none.
func sizeIn(t *testing.T, file string) int {
	t.Helper()
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		Downloads struct {
			QueueSize int `json:"queue_size"`
		}
	}
	if _, err := config.ParseOverlay(file, content); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &kept); err != nil {
		t.Fatal(err)
	}
	return kept.Downloads.QueueSize
}

func TestAPowerLossAtAnyStepLeavesAllOfAChangeOrNothing(t *testing.T) {
	for _, first := range []bool{true, false} { // the first change makes the folder too
		for stop := 0; ; stop++ {
			if power(t, first, stop) {
				break
			}
		}
	}
}

// power cuts the power after so many steps of a change, and reports whether the change was made by then.
func power(t *testing.T, first bool, stop int) (made bool) {
	root := t.TempDir()
	file := filepath.Join(root, "disk", "ema", "hub", changedFile)
	if err := os.Mkdir(filepath.Join(root, "disk"), 0o777); err != nil {
		t.Fatal(err)
	}
	var was config.Overlay
	before := 0
	if !first {
		was, before = queued(t, 7), 7
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := replaceOverlay(store.OS{}, file, was); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".new", []byte("of a killed process"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(8) {
		from, err := os.MkdirTemp(root, "disk")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(from, os.DirFS(filepath.Join(root, "disk"))); err != nil {
			t.Fatal(err)
		}
		disk, err := crashdisk.New(from)
		if err != nil {
			t.Fatal(err)
		}
		if stop > 0 {
			disk.StopAfter(stop)
		} else if err := disk.Kill(); err != nil {
			t.Fatal(err)
		}
		at := filepath.Join(from, "ema", "hub", changedFile)
		err = makeFolder(disk, filepath.Dir(at))
		if err == nil {
			err = writeOverlay(disk, at, was, queued(t, 8))
		}
		made = err == nil
		after := from + "-after"
		if err := disk.PowerLoss(seed, after); err != nil {
			t.Fatal(err)
		}
		got := sizeIn(t, filepath.Join(after, "ema", "hub", changedFile))
		if got != 8 && (made || got != before) {
			t.Fatalf("cut after %d steps (told of success: %v), it is %d", stop, made, got)
		}
	}
	return made
}

func TestAChangeThatCannotBeStoredIsNotThere(t *testing.T) {
	for _, op := range []string{"open", "write", "sync", "rename", "remove"} {
		for _, again := range []bool{false, true} {
			for nth := range 3 {
				folder := t.TempDir()
				disk, err := crashdisk.New(folder)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(folder, changedFile)
				if err := writeOverlay(disk, file, config.Overlay{}, queued(t, 7)); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file+".lock", nil, 0o600); err != nil {
					t.Fatal(err)
				}
				seen := 0
				disk.Fail(func(is, _ string) error {
					if is != op {
						return nil
					}
					seen++
					if seen == nth+1 || again && seen > nth {
						return unix.EIO
					}
					return nil
				})
				err = writeOverlay(disk, file, queued(t, 7), queued(t, 8))
				got := sizeIn(t, file)
				switch {
				case err == nil && got != 8:
					t.Errorf("%s %d: told of success, and it is %d", op, nth, got)
				case err != nil && strings.Contains(err.Error(), "nothing was changed") && got != 7:
					t.Errorf("%s %d: %v, and it is %d", op, nth, err, got)
				case err != nil && !strings.Contains(err.Error(), "nothing was changed") && got != 8:
					t.Errorf("%s %d: %v, and it is %d", op, nth, err, got)
				case op == "sync" && nth == 1 && !again && (err == nil || got != 7):
					t.Errorf("the folder could not be synced once: %v, and it is %d", err, got)
				}
			}
		}
	}
}

func TestAChangeThatIsStoredBeforeTheDaemonAnswersActs(t *testing.T) {
	_, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	a := &app{stdout: io.Discard, stderr: io.Discard, environ: environ}
	e, err := a.settings()
	if err != nil {
		t.Fatal(err)
	}
	file := overlayFile(e.Config)
	end, err := alone(ctx, file) // as a command that has found no daemon
	if err != nil {
		t.Fatal(err)
	}
	daemon := serving(ctx, t, environ) // it answers all the same
	if err := writeOverlay(store.OS{}, file, config.Overlay{}, queued(t, 7)); err != nil {
		t.Fatal(err)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if err := daemon.stderr.contains(ctx, "configuration reloaded"); err != nil {
		t.Fatal(err)
	}
	// And who finds it once nobody else changes settings leaves the change to it.
	done, running, err := a.storeSettings(ctx, json.RawMessage(`{"downloads":{"max_concurrent_per_model":3}}`))
	if err != nil || !running || strings.Join(done.Updated, " ") != "downloads.max_concurrent_per_model" {
		t.Errorf("%v, in the daemon: %v, %+v", err, running, done)
	}
	c := client.Local(filepath.Dir(file))
	s, err := c.ConfigCurrent(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Config["downloads"].(map[string]any); d["queue_size"] != 7.0 || d["max_concurrent_per_model"] != 3.0 {
		t.Errorf("the daemon has %v", d)
	}
	daemon.ends(t)
}

func TestAChangeThatCannotBeStoredActsNoLonger(t *testing.T) {
	_, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	a := &app{environ: environ}
	e, err := a.settings()
	if err != nil {
		t.Fatal(err)
	}
	file := overlayFile(e.Config)
	if err := os.MkdirAll(filepath.Join(file+".new", "in the way"), 0o777); err != nil {
		t.Fatal(err)
	}
	c := client.Local(filepath.Dir(file))
	_, err = c.ConfigUpdate(ctx, map[string]any{"downloads": map[string]any{"queue_size": 7}})
	if err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v", err)
	}
	s, err := c.ConfigCurrent(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if size := s.Config["downloads"].(map[string]any)["queue_size"]; size != float64(e.Downloads.QueueSize) || sizeIn(t, file) != 0 {
		t.Errorf("it is %v, and %d is stored", size, sizeIn(t, file))
	}
	daemon.ends(t)
}

func TestChangesOfAnotherUserDoNotKeepThisOneFromTheStore(t *testing.T) {
	root, err := os.MkdirTemp("", "ema-shared") // a folder that everybody can enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root)
	self := filepath.Join(root, "ema")
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(root, 0o755), os.WriteFile(self, program, 0o755), os.Mkdir(filepath.Join(root, "usual"), 0o777)); err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(root, "models", "hub")
	environ := []string{"HOME=" + root, "GORACE=" + noRest}
	if p := begin(t, environ, "--store", kept, "config", "set", "downloads.queue_size", "7"); p.Wait() != nil {
		t.Fatal(p.stderr.String())
	}
	usual, err := os.Stat(filepath.Join(root, "usual"))
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(root, "models", "ema")
	for _, folder := range []string{state, filepath.Join(state, "hub")} {
		if info, err := os.Stat(folder); err != nil || info.Mode() != usual.Mode() {
			t.Errorf("%s: %v, %v, want %v", folder, err, info.Mode(), usual.Mode())
		}
	}
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), self, append([]string{"--store", kept}, args...)...)
		cmd.Args[0], cmd.Env = "ema", environ
		if os.Geteuid() == 0 {
			const nobody = 65534
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		said, err := cmd.CombinedOutput()
		return string(said), err
	}
	if os.Geteuid() != 0 { // then nobody else can be played, but the file can be as closed to us
		if err := os.Chmod(filepath.Join(state, "hub", changedFile), 0); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := run("ls"); err != nil || strings.Contains(said, "settings.json") {
		t.Errorf("%v: %s", err, said)
	}
	if said, err := run("config", "show"); err != nil || !strings.Contains(said, "queue_size: 1000") || !strings.Contains(said, "is not for this user to read") {
		t.Errorf("%v: %s", err, said)
	}
	for _, args := range [][]string{{"config", "set", "downloads.queue_size", "8"}, {"serve"}} {
		if said, err := run(args...); err == nil || !strings.Contains(said, "permission denied") {
			t.Errorf("%v: %v, %s", args, err, said)
		}
	}
}
