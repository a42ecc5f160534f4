package snapshot

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"ema/client"
	"ema/internal/model"
	"ema/internal/store"
)

func TestAModelStandsAsItsFilesAndItsDownloadDo(t *testing.T) {
	id := hub("org/name")
	here := whole(id)
	foreign := stored(id, store.Unverified, store.Unverified)
	half := stored(id, store.Incomplete, store.Available, store.Incomplete)
	hurt := stored(id, store.Damaged, store.Available, store.Damaged)
	older := whole(id)
	older.Revisions = append(older.Revisions, store.Revision{Commit: commit(2), Refs: []string{"next"}, State: store.Incomplete})
	for _, c := range []struct {
		promise string
		store   *store.Model
		state   model.State // of its download; "" for none
		failed  bool
		want    string
	}{
		{"all of it is here", &here, "", false, client.AvailabilityAvailable},
		{"another tool brought it", &foreign, "", false, client.AvailabilityAvailable},
		{"one revision of two is here", &older, "", false, client.AvailabilityAvailable},
		{"an update runs", &here, model.Downloading, false, client.AvailabilityUpdating},
		{"an update is being verified", &here, model.Verifying, false, client.AvailabilityUpdating},
		{"an update waits", &here, model.Queued, false, client.AvailabilityAvailable},
		{"an update failed", &here, "", true, client.AvailabilityAvailable},
		{"a download runs", nil, model.Downloading, false, client.AvailabilityDownloading},
		{"a download is being resolved", &half, model.Resolving, false, client.AvailabilityDownloading},
		{"damage is being repaired", &hurt, model.Downloading, false, client.AvailabilityDownloading},
		{"a download waits", nil, model.Queued, false, client.AvailabilityQueued},
		{"a download will be tried again", &half, model.Retrying, false, client.AvailabilityQueued},
		{"a download is paused", &half, model.Paused, false, client.AvailabilityPaused},
		{"a part is here", &half, "", false, client.AvailabilityPartial},
		{"a part is damaged", &hurt, "", false, client.AvailabilityCorrupted},
		{"a download failed", nil, "", true, client.AvailabilityFailed},
		{"a download failed half way", &half, "", true, client.AvailabilityFailed},
		{"only an empty folder is here", &store.Model{ID: id}, "", false, client.AvailabilityMissing},
	} {
		t.Run(c.promise, func(t *testing.T) {
			w := newWorld(t)
			if c.store != nil {
				w.models[id] = *c.store
			}
			if c.state != "" {
				w.downloads = []model.Download{dl("dl_1", id, c.state)}
			}
			if c.failed {
				w.failed = []model.Download{{Model: id, State: model.Failed, Reason: "the origin is gone"}}
			}
			got := ask[client.Statuses](t, w.naive().ServeStatus).Models[id.Public()]
			if got.Availability != c.want {
				t.Errorf("it is %q, want %q", got.Availability, c.want)
			}
			if complete := c.want == client.AvailabilityAvailable || c.want == client.AvailabilityUpdating; got.IsAvailable != complete || (got.CurrentVersion != nil) != complete {
				t.Errorf("is_available is %v, current_version %v", got.IsAvailable, got.CurrentVersion)
			}
			if (got.DownloadError != "") != c.failed {
				t.Errorf("its download's error is %q", got.DownloadError)
			}
		})
	}
}

func TestWhatNobodyKnowsIsNull(t *testing.T) {
	w := newWorld(t)
	id := hub("org/name")
	w.models[id] = stored(id, store.Unverified, store.Unverified)
	m := w.naive()
	got := ask[map[string]any](t, func(rw http.ResponseWriter, r *http.Request) { m.ServeModel(rw, r, id) })
	for _, key := range []string{
		"integrity_score", "last_health_check", "performance_score", "usage_frequency", "last_used", "average_generation_time",
		"latest_version", "update_available", "download_progress", "estimated_download_time",
	} {
		if v, there := got[key]; !there || v != nil {
			t.Errorf("%s is %v (there: %v), want null", key, v, there)
		}
	}
}

func TestADownloadIsToldWithItsProgress(t *testing.T) {
	w := newWorld(t)
	id, waits := hub("org/name"), hub("org/waits")
	w.downloads = []model.Download{dl("dl_1", id, model.Downloading), dl("dl_2", waits, model.Paused), dl("dl_3", id, model.Queued)}
	w.downloads[1].Reason, w.downloads[1].Class = "the disk is full", "disk_full"
	w.figures["dl_1"] = Figures{Done: 1235, Total: 10000, Rate: 1e6, ETA: 90 * time.Second}
	all := ask[client.Statuses](t, w.naive().ServeStatus)
	got := all.Models[id.Public()]
	if got.DownloadID != "dl_1" || *got.DownloadProgress != 12.3 || *got.EstimatedDownloadTime != 90 || !got.CanPause || got.CanResume {
		t.Errorf("the running one is %+v", got)
	}
	got = all.Models[waits.Public()]
	if *got.DownloadProgress != 25 || got.TotalMB != 8 || got.EstimatedDownloadTime != nil || !got.CanResume || got.DownloadError != "the disk is full" {
		t.Errorf("the paused one is %+v", got)
	}
	if s := all.Summary; s.Total != 2 || s.Downloading != 2 || s.Available != 0 {
		t.Errorf("the summary is %+v", s)
	}
}

func TestFilesThatAreMissingOrDamagedAreNamed(t *testing.T) {
	w := newWorld(t)
	half, hurt := hub("org/half"), hub("org/hurt")
	states := []store.State{store.Available}
	for range mostMissing + 5 {
		states = append(states, store.Incomplete)
	}
	w.models[half] = stored(half, store.Incomplete, states...)
	w.models[hurt] = stored(hurt, store.Damaged, store.Available, store.Damaged, store.Available, store.Available)
	all := ask[client.Statuses](t, w.naive().ServeStatus)
	if got := all.Models[half.Public()]; len(got.MissingFiles) != mostMissing || got.MissingFilesTotal != mostMissing+5 || got.MissingFiles[0] != "1.safetensors" || got.IntegrityScore != nil {
		t.Errorf("of the half one, %d of %d files are missing, from %q; integrity %v", len(got.MissingFiles), got.MissingFilesTotal, got.MissingFiles[0], got.IntegrityScore)
	}
	if got := all.Models[hurt.Public()]; fmt.Sprint(got.CorruptedFiles) != "[1.safetensors]" || !got.CorruptionDetected || *got.IntegrityScore != 0.75 {
		t.Errorf("of the damaged one, %v are corrupted; integrity %v", got.CorruptedFiles, *got.IntegrityScore)
	}
	if s := all.Summary; s.Corrupted != 1 || s.TotalStorageGB != 5./1024 {
		t.Errorf("the summary is %+v", s)
	}
}

func TestTheSecretOfASignedLinkIsNotTold(t *testing.T) {
	w := newWorld(t)
	for _, secret := range []string{"a", "b"} {
		id := model.ID{Scheme: model.HTTPS, Name: "https://host/model?sig=" + secret}
		w.downloads = append(w.downloads, dl("dl_"+secret, id, model.Queued))
	}
	if got := ask[client.Statuses](t, w.naive().ServeStatus); names(got.Models) != "https://host/model" {
		t.Errorf("told are %q, want the link once, without its query", names(got.Models))
	}
}
