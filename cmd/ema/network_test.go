package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ema/client"
	"ema/internal/config"
	"ema/internal/demohub"
	"ema/internal/model"
)

// quickHub serves acme/slow without a limit.
func quickHub(t *testing.T) (hub *demohub.Hub, environ []string) {
	t.Helper()
	hub, environ = slowHub(t)
	hub.Set(demohub.Rate(0))
	return hub, environ
}

// address is where a daemon says that it listens.
func (p *process) address(t *testing.T) string {
	t.Helper()
	at := regexp.MustCompile(` and (https?://\S+): `).FindStringSubmatch(p.stderr.String())
	if at == nil {
		t.Fatalf("it does not say where it listens: %s", p.stderr.String())
	}
	return at[1]
}

// asks makes one request, and reads the answer into out unless that is nil.
func asks(t *testing.T, c *http.Client, method, url, body string, out any) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(raw, out); err != nil {
			t.Errorf("%s %s: %v: %s", method, url, err, raw)
		}
	}
	return res
}

func TestTheNetworkSpeaksTLSAndLogsWhoAsks(t *testing.T) {
	ca := httptest.NewUnstartedServer(nil)
	ca.StartTLS()
	defer ca.Close()
	pair := ca.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	files := map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}}
	for name, block := range files {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, environ := quickHub(t)
	environ = append(environ, "EMA_SERVER__TLS__CERT="+folder+"/cert.pem", "EMA_SERVER__TLS__KEY="+folder+"/key.pem",
		"EMA_SERVER__ACCESS_LOG=true", "EMA_SERVER__SERVER_HEADER=true")
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	url := daemon.address(t)
	res := asks(t, ca.Client(), "GET", url+client.Base+"/admin/version?token=secret", "", nil)
	if res.TLS == nil || res.TLS.Version < tls.VersionTLS12 || res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Server"), "ema/") {
		t.Errorf("%s over %v from %q", res.Status, res.TLS, res.Header.Get("Server"))
	}
	if err := daemon.stderr.contains(ctx, "path="+client.Base+"/admin/version status=200"); err != nil {
		t.Error(err)
	}
	daemon.ends(t)
	if strings.Contains(daemon.stderr.String(), "secret") {
		t.Errorf("a query is in the log: %s", daemon.stderr.String())
	}
}

func TestWhatIsAskedForOverTheNetworkIsDone(t *testing.T) {
	hub, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	url := daemon.address(t) + client.Base
	var began client.Managed
	asks(t, http.DefaultClient, "POST", url+"/models/download/manage", `{"model_id":"acme/slow","action":"start"}`, &began)
	if !began.Success {
		t.Fatalf("%+v", began)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var p client.Download
		asks(t, http.DefaultClient, "GET", url+"/models/download/progress/acme%2Fslow?download_id="+began.DownloadID, "", &p)
		if p.Status == client.StatusCompleted {
			if p.MaxRetries != 5 || len(p.Each) != 1 || p.Each[0].Path != "weights.bin" || p.Each[0].DownloadedBytes != 8<<20 || p.Each[0].ProgressPercent != 100 {
				t.Errorf("%d retries, its files: %+v", p.MaxRetries, p.Each)
			}
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never completed: %+v", p)
		}
	}
	store := filepath.Join(strings.TrimPrefix(environ[0], "HOME="), ".cache", "huggingface", "hub")
	blobs, err := filepath.Glob(filepath.Join(store, "models--acme--slow", "blobs", "*"))
	if err != nil || len(blobs) != 1 {
		t.Fatalf("%v, %v", blobs, err)
	}
	// A damaged file is found and mended by the action repair.
	whole, err := os.ReadFile(blobs[0])
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte{}, whole...)
	damaged[1<<20] ^= 1
	if err := os.Chmod(blobs[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blobs[0], damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	hub.ResetStats()
	if res := asks(t, http.DefaultClient, "POST", url+"/models/download/manage", `{"model_id":"acme/slow","action":"repair"}`, nil); res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	if err := daemon.stderr.contains(ctx, "msg=repaired"); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(blobs[0]); err != nil || string(again) != string(whole) {
		t.Errorf("not mended: %v", err)
	}
	if n := hub.Stats().Body; n > 4<<20 {
		t.Errorf("%d bytes fetched for one damaged block", n)
	}

	var gone client.Deleted
	if res := asks(t, http.DefaultClient, "DELETE", url+"/models/acme%2Fslow", "", &gone); !gone.Success || gone.FreedBytes < 8<<20 {
		t.Errorf("%s: %+v", res.Status, gone)
	}
	if left, _ := filepath.Glob(filepath.Join(store, "models--acme--slow", "blobs", "*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if res := asks(t, http.DefaultClient, "DELETE", url+"/models/acme%2Fslow", "", nil); res.StatusCode != http.StatusNotFound {
		t.Error(res.Status)
	}

	var trail client.Audit
	asks(t, http.DefaultClient, "GET", url+"/admin/audit", "", &trail)
	if len(trail.Entries) != 4 || trail.Entries[0].Result != "MODEL_NOT_FOUND" || !strings.HasPrefix(trail.Entries[3].Target, "start acme/slow") {
		t.Errorf("the audit trail says %+v", trail)
	}
	var usage client.Resources
	asks(t, http.DefaultClient, "GET", url+"/admin/resources", "", &usage)
	if usage.Process.PID != daemon.Process.Pid || usage.Process.ResidentMB == nil || *usage.Process.ResidentMB < 5 || usage.Machine.CPUs < 1 || len(usage.Disks) != 1 || usage.Disks[0].TotalGB < usage.Disks[0].AvailableGB {
		t.Errorf("%+v", usage)
	}
	var health client.AdminHealth
	asks(t, http.DefaultClient, "GET", url+"/admin/health", "", &health)
	if health.Status != client.HealthHealthy && health.Status != client.HealthDegraded {
		t.Errorf("%+v", health)
	}
	daemon.ends(t)
}

func TestPrometheusSeesWhatTheDaemonDoes(t *testing.T) {
	_, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, append(environ, "EMA_LOG__LEVEL=info"))
	if err := daemon.stderr.contains(ctx, "msg=metrics listen="); err != nil {
		t.Fatal(err)
	}
	at := regexp.MustCompile(`msg=metrics listen=(\S+)`).FindStringSubmatch(daemon.stderr.String())[1]
	for _, command := range []string{"pull", "verify", "repair"} {
		if p := begin(t, environ, command, "acme/slow"); p.Wait() != nil {
			t.Fatalf("%s: %s", command, p.stderr.String())
		}
	}
	res, err := http.Get("http://" + at + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	shown, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"model_download_success_total 1", "model_download_failures_total 0", "model_download_duration_seconds_count 1",
		"model_active_downloads 0", `ema_received_bytes_total{source="huggingface"} 8.388608e+06`,
		`ema_verifications_total{result="whole"} 1`, `ema_repairs_total{result="whole"} 1`,
	} {
		if !strings.Contains(string(shown), "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	for _, beginning := range []string{
		"model_storage_usage_bytes", "api_response_time_seconds_bucket", `ema_database_duration_seconds_count{operation="save"}`,
	} {
		if !strings.Contains(string(shown), "\n"+beginning) {
			t.Errorf("no line begins with %s", beginning)
		}
	}
	daemon.ends(t)
}

func TestAPortOfMetricsThatIsTakenIsAnErrorOnlyForWhoChoseIt(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, environ := quickHub(t)
	p := begin(t, append(environ, "EMA_SERVER__METRICS_LISTEN="+taken.Addr().String()), "serve")
	if p.Wait() == nil || !strings.Contains(p.stderr.String(), "server.metrics_listen") {
		t.Errorf("it said %s", p.stderr.String())
	}
	e, err := config.Load(config.Request{})
	if err != nil {
		t.Fatal(err)
	}
	e.Server.MetricsListen = taken.Addr().String() // by nobody
	var said bytes.Buffer
	d := &daemon{app: &app{stderr: &said}, log: slog.New(slog.DiscardHandler)}
	if l, err := d.openMetrics(t.Context(), e); l != nil || err != nil || !strings.Contains(said.String(), "no metrics") {
		t.Errorf("%v, %v, said %s", l, err, said.String())
	}
}

// Whoever was told that a download was accepted finds it after any end of the daemon, polite or not.
func TestARestartUnderLoadLosesNoAcceptedStart(t *testing.T) {
	hub, environ := slowHub(t)
	hub.Set(demohub.Rate(model.KiB)) // the first one runs all the time, the others wait
	environ = append(environ, "EMA_DOWNLOADS__MAX_CONCURRENT_DOWNLOADS=1", "EMA_DOWNLOADS__QUEUE_SIZE=100000")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()
	var mu sync.Mutex
	accepted := map[string]string{} // models by the ids of their downloads
	for round, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		daemon := serving(ctx, t, environ)
		c, err := client.New(daemon.address(t), client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		enough := make(chan struct{})
		var once sync.Once
		var users sync.WaitGroup
		for user := range 8 {
			users.Go(func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("acme/r%d-u%d-%d", round, user, i)
					done, err := c.Manage(ctx, client.Manage{Model: name, Action: "start"})
					if err != nil {
						return // it has gone
					}
					mu.Lock()
					accepted[done.DownloadID] = name
					if len(accepted) > 100*(round+1) {
						once.Do(func() { close(enough) })
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-ctx.Done():
			t.Fatal("not enough starts were accepted")
		}
		if err := daemon.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		if err := daemon.Wait(); (err == nil) != (end == syscall.SIGTERM) {
			t.Errorf("after %v it ends with %v: %s", end, err, daemon.stderr.String())
		}
		users.Wait()
		c.Close()
	}
	daemon := serving(ctx, t, environ)
	c, err := client.New(daemon.address(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for id, name := range accepted {
		if d, err := c.Progress(ctx, name, id); err != nil || d.ID != id || d.Model != name {
			t.Errorf("%s of %s was accepted; now: %+v, %v", id, name, d, err)
		}
	}
	daemon.ends(t)
}

func TestAWebSocketIsRefusedAsEverythingElseIs(t *testing.T) {
	_, environ := quickHub(t)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	daemon := serving(ctx, t, environ)
	for query, want := range map[string]struct {
		status int
		code   client.Code
		field  string
	}{
		"":                 {http.StatusUpgradeRequired, "MALFORMED_REQUEST", ""},
		"?since=999999999": {http.StatusGone, "EVENTS_FORGOTTEN", ""},
		"?types=nonsense":  {http.StatusUnprocessableEntity, "VALIDATION_FAILED", "query.types"},
		"?since=%zz":       {http.StatusBadRequest, "MALFORMED_REQUEST", ""},
	} {
		res, err := http.Get(daemon.address(t) + "/ws" + query)
		if err != nil {
			t.Fatal(err)
		}
		var no client.Envelope
		err = errors.Join(json.NewDecoder(res.Body).Decode(&no), res.Body.Close())
		if err != nil || res.StatusCode != want.status || no.Error.Code != want.code || no.Error.RequestID == "" {
			t.Errorf("%q: %s, %+v, %v", query, res.Status, no.Error, err)
		}
		if all := no.Error.Details.Fields; (want.field != "") != (len(all) == 1 && all[0].Path == want.field) {
			t.Errorf("%q: %+v", query, all)
		}
	}
	daemon.ends(t)
}
