package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/client"
)

func TestWhatIsAnsweredAboutModelsIsWhatTheDaemonHasJustDone(t *testing.T) {
	_, environ := quickHub(t)
	environ = append(environ, "EMA_HEALTH__AUTO_REPAIR=false") // here somebody repairs by hand, and removes right after it
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	url := daemon.address(t) + client.Base
	all := func() (s client.Statuses) {
		t.Helper()
		asks(t, http.DefaultClient, "GET", url+"/models/status/detailed", "", &s)
		return s
	}
	if got := all(); len(got.Models) != 0 {
		t.Errorf("an empty store holds %+v", got)
	}
	var began client.Managed
	asks(t, http.DefaultClient, "POST", url+"/models/download/manage", `{"model_id":"acme/slow","action":"start"}`, &began)
	if one := all().Models["acme/slow"]; one.DownloadID != began.DownloadID {
		t.Errorf("right after it began it is %+v", one)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	wait := func(what string, until func() bool) {
		t.Helper()
		for !until() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("never: %s", what)
			}
		}
	}
	wait("completed", func() bool {
		var p client.Download
		asks(t, http.DefaultClient, "GET", url+"/models/download/progress/acme%2Fslow?download_id="+began.DownloadID, "", &p)
		return p.Status == client.StatusCompleted
	})
	var one client.ModelStatus
	res := asks(t, http.DefaultClient, "GET", url+"/models/status/detailed/acme/slow", "", &one)
	if one.Availability != client.AvailabilityAvailable || one.DownloadID != "" || one.Path == "" {
		t.Errorf("right after it has come it is %+v", one)
	}
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/models/status/detailed/acme/slow", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("If-None-Match", res.Header.Get("Etag"))
	again, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Body.Close() //nolint:errcheck // it is empty
	if again.StatusCode != http.StatusNotModified {
		t.Errorf("what has not changed is answered with %s", again.Status)
	}
	var stored client.Storage
	asks(t, http.DefaultClient, "GET", url+"/models/storage", "", &stored)
	if len(stored.Models) != 1 || stored.Models[0].SizeBytes < 8<<20 || stored.Summary.CapacityGB <= 0 || stored.Summary.ReserveGB <= 0 {
		t.Errorf("storage: %+v", stored)
	}

	ema := func(command string) (int, string) {
		p := begin(t, environ, command, "acme/slow")
		if err := p.Wait(); err != nil && p.ProcessState == nil {
			t.Fatal(err)
		}
		return p.ProcessState.ExitCode(), p.stderr.String()
	}

	// A damaged file is known to be damaged once the command that finds it has ended.
	store := filepath.Join(strings.TrimPrefix(environ[0], "HOME="), ".cache", "huggingface", "hub")
	blobs, err := filepath.Glob(filepath.Join(store, "models--acme--slow", "blobs", "*"))
	if err != nil || len(blobs) != 1 {
		t.Fatalf("%v, %v", blobs, err)
	}
	file, err := os.ReadFile(blobs[0])
	if err != nil {
		t.Fatal(err)
	}
	file[1<<20] ^= 1
	if err := os.Chmod(blobs[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blobs[0], file, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := ema("verify"); code != 4 {
		t.Errorf("verify ends with %d: %s", code, said)
	}
	if got := all(); got.Models["acme/slow"].Availability != client.AvailabilityCorrupted || got.Summary.Corrupted != 1 {
		t.Errorf("right after it was found damaged it is %+v", got)
	}
	if code, said := ema("repair"); code != 0 {
		t.Errorf("repair ends with %d: %s", code, said)
	}
	if got := all().Models["acme/slow"]; got.Availability != client.AvailabilityAvailable {
		t.Errorf("right after its repair it is %+v", got)
	}
	if code, said := ema("rm"); code != 0 {
		t.Errorf("rm ends with %d: %s", code, said)
	}
	if res := asks(t, http.DefaultClient, "GET", url+"/models/status/detailed/acme/slow", "", nil); res.StatusCode != http.StatusNotFound {
		t.Errorf("right after its removal: %s", res.Status)
	}

	// What another tool brings is seen without a word.
	snapshot := filepath.Join(store, "models--other--tool", "snapshots", strings.Repeat("ab", 20))
	if err := os.MkdirAll(snapshot, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(snapshot, "config.json"), []byte("{}"), 0o666); err != nil {
		t.Fatal(err)
	}
	wait("another tool's model", func() bool { return all().Models["other/tool"].IsAvailable })
	var gone client.Deleted
	asks(t, http.DefaultClient, "DELETE", url+"/models/other%2Ftool", "", &gone)
	if got := all(); !gone.Success || len(got.Models) != 0 {
		t.Errorf("after its deletion (%+v) there is %+v", gone, got)
	}
	daemon.ends(t)
}
