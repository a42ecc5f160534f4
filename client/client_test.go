package client_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/model"
)

const key = "ema_s3cr3tk3y"

// soon is how long a client waits in tests for a daemon that never answers.
const soon = 30 * time.Millisecond

// answers is a server that answers everything so.
func answers(t *testing.T, status int, kind, body string) *httptest.Server {
	t.Helper()
	return serves(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func serves(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(handle)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // broken connections are meant
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// silence answers nothing until the client gives up, which a server notices once it has read the body.
func silence(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// at is a client of a URL that shows the key.
func at(t *testing.T, address string, change ...func(*client.Options)) *client.Client {
	t.Helper()
	o := client.Options{Key: key}
	for _, c := range change {
		c(&o)
	}
	c, err := client.New(address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// impatient clients do not wait long.
func impatient(o *client.Options) { o.Timeout = soon }

// behind serves on the socket of a state folder, and returns its client.
func behind(t *testing.T, handle http.HandlerFunc) *client.Client {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40)) // longer than the path of a socket may be
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	address, done, err := client.Address(client.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) //nolint:errcheck // its address is not good for long
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: handle}}
	srv.Start()
	t.Cleanup(srv.Close)
	return client.Local(dir)
}

func TestADaemonIsReachedByItsURLWithTheKey(t *testing.T) {
	srv := serves(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		if r.Header.Get("Authorization") != "Bearer "+key {
			t.Errorf("Authorization is %q", r.Header.Get("Authorization"))
		}
		_ = json.NewEncoder(w).Encode(client.Version{Version: r.URL.Path})
	})
	for address, path := range map[string]string{
		"":             "/api/v1/admin/version",
		"/":            "/api/v1/admin/version",
		"/api/v1":      "/api/v1/admin/version",
		"/api/v1/":     "/api/v1/admin/version",
		"/behind/ema/": "/behind/ema/api/v1/admin/version",
	} {
		v, err := at(t, srv.URL+address).Version(t.Context())
		if err != nil || v.Version != path {
			t.Errorf("%q is asked at %q (%v), want %q", address, v.Version, err, path)
		}
	}
}

func TestNoKeyIsShownWhereThereIsNone(t *testing.T) {
	says := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if _, there := r.Header["Authorization"]; there {
			t.Error("there is an Authorization")
		}
		_, _ = io.WriteString(w, `{"version":"v1"}`)
	}
	for _, c := range []*client.Client{at(t, serves(t, says).URL, func(o *client.Options) { o.Key = "" }), behind(t, says)} {
		if _, err := c.Version(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAnAddressThatIsNoneIsRefusedWithoutRepeatingItsSecrets(t *testing.T) {
	for _, address := range []string{
		"", "models.example", "127.0.0.1:8000", "ftp://models.example", "http://", "http://:80",
		"http://admin:" + key + "@models.example", "http://models.example/?key=" + key, "http://models.example/#" + key, "http://models.example:" + key,
	} {
		_, err := client.New(address, client.Options{})
		if model.ClassOf(err) != model.Usage || strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), "http://127.0.0.1:8000") {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := client.New("http://models.example", client.Options{Key: key + "\n"}); model.ClassOf(err) != model.Usage || strings.Contains(err.Error(), key) {
		t.Errorf("a key with a line break: %v", err)
	}
}

func TestWhereNobodyListensTheErrorNamesTheURLAndWhatToDo(t *testing.T) {
	srv := answers(t, 200, "", "")
	srv.Close()
	_, err := at(t, srv.URL).Version(t.Context())
	if !errors.Is(err, client.ErrUnreachable) || errors.Is(err, client.ErrNoDaemon) || model.ClassOf(err) != model.Timeout {
		t.Errorf("%v", err)
	}
	want := "ask the daemon: no daemon answers: dial tcp " + srv.Listener.Addr().String() + `: connect: connection refused (` + srv.URL + `); check the address, and that "ema serve" listens there`
	if err.Error() != want {
		t.Errorf("it says\n%v, want\n%s", err, want)
	}
}

func TestWhereNoSocketIsThereIsNoDaemon(t *testing.T) {
	if _, err := client.Local(t.TempDir()).Version(t.Context()); err != client.ErrNoDaemon { //nolint:errorlint // exactly that
		t.Errorf("%v", err)
	}
	if _, err := client.Local(filepath.Join(t.TempDir(), strings.Repeat("none/", 40))).Version(t.Context()); err != client.ErrNoDaemon { //nolint:errorlint // exactly that
		t.Errorf("%v", err)
	}
}

func TestACertificateThatNobodyVouchesForIsNotTrusted(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"version":"v1"}`)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	if _, err := at(t, srv.URL).Version(t.Context()); !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "SSL_CERT_FILE") {
		t.Errorf("%v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	if _, err := at(t, srv.URL, func(o *client.Options) { o.Roots = roots }).Version(t.Context()); err != nil {
		t.Errorf("with its authority: %v", err)
	}
}

func TestAProxyIsAskedWhereOneIsNamed(t *testing.T) {
	proxy := serves(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(client.Version{Version: r.Host})
	})
	through, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	v, err := at(t, "http://models.invalid", func(o *client.Options) { o.Proxy = http.ProxyURL(through) }).Version(t.Context())
	if err != nil || v.Version != "models.invalid" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestAnotherServerBehindTheAddressIsFoundOut(t *testing.T) {
	for promise, c := range map[string]struct {
		status     int
		kind, body string
		class      model.Class
		says       string
	}{
		"a page":               {200, "text/html", "<html>", model.Usage, `with "text/html" instead of application/json; is something else behind that address?`},
		"nothing":              {200, "", "", model.Usage, "instead of application/json"},
		"other JSON":           {200, "application/json", "{}", model.Usage, "answers without a version; is something else"},
		"half of an answer":    {200, "application/json", `{"version":`, model.Truncated, "its answer cannot be read"},
		"not found in HTML":    {404, "text/html", "<html>", model.NotFound, "answers 404 Not Found without saying why; is something else behind that address?"},
		"a proxy without peer": {502, "text/html", "<html>", model.ServerError, "502 Bad Gateway"},
		"other errors":         {401, "application/json", `{"error":"denied"}`, model.Auth, "401 Unauthorized"},
		"errors that say none": {429, "application/json", `{"error":{}}`, model.RateLimited, "429 Too Many Requests"},
		"no space, says one":   {507, "text/plain", "full", model.DiskFull, "507"},
	} {
		says := func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}
		srv := serves(t, says)
		_, err := at(t, srv.URL).Version(t.Context())
		if model.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), srv.URL) || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", promise, err)
		}
		if _, err := behind(t, says).Version(t.Context()); model.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "http") {
			t.Errorf("%s on a socket: %v", promise, err)
		}
		events, err := at(t, srv.URL).Events(t.Context(), client.Interest{})
		if err == nil {
			_ = events.Close()
			t.Errorf("%s: it has events", promise)
		}
	}
}

func TestAServerThatIsNoHTTPIsFoundOut(t *testing.T) {
	plain := answers(t, 200, "application/json", `{"version":"v1"}`)
	_, err := at(t, "https://"+plain.Listener.Addr().String()).Version(t.Context())
	if !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "https://"+plain.Listener.Addr().String()) {
		t.Errorf("https where http is spoken: %v", err)
	}
}

func TestTheKeyIsInNoErrorAndGoesNowhereElse(t *testing.T) {
	elsewhere := serves(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed, with %q", r.Header)
	})
	refusing := answers(t, 401, "application/json", `{"error":{"code":"UNAUTHORIZED","message":"this key is not known","details":{"class":"auth"}}}`)
	hangup := serves(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	silent := serves(t, silence)
	moved := serves(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	gone := answers(t, 200, "", "")
	gone.Close()
	for promise, srv := range map[string]*httptest.Server{"refused": refusing, "hung up": hangup, "silent": silent, "moved": moved, "gone": gone} {
		c := at(t, srv.URL, impatient)
		_, err := c.Manage(t.Context(), client.Manage{Action: "start", Model: "acme/tiny"})
		if err == nil {
			t.Errorf("%s: no error", promise)
			continue
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("asked", "client", c, "error", err)
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v %#v %v", err, err, c), log.String()} {
			if strings.Contains(text, key) {
				t.Errorf("%s: %s", promise, text)
			}
		}
	}
}

func TestADaemonThatIsSilentIsGivenUp(t *testing.T) {
	for promise, handle := range map[string]http.HandlerFunc{
		"before its answer": silence,
		"in the middle of it": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"version":`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		srv := serves(t, handle)
		_, err := at(t, srv.URL, impatient).Version(t.Context())
		if model.ClassOf(err) != model.Timeout || !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), srv.URL) {
			t.Errorf("%s: %v", promise, err)
		}
	}
}

func TestADaemonThatNeverBeginsAStreamIsGivenUp(t *testing.T) {
	c := at(t, serves(t, silence).URL, impatient)
	if _, err := c.Events(t.Context(), client.Interest{}); model.ClassOf(err) != model.Timeout || !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

func TestWhoStopsAskingGetsTheReasonOfTheContext(t *testing.T) {
	arrived := make(chan struct{}, 4)
	handle := func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}
	for promise, c := range map[string]*client.Client{"by URL": at(t, serves(t, handle).URL), "over a socket": behind(t, handle)} {
		for name, ask := range map[string]func(context.Context) error{
			"Active": func(ctx context.Context) error { _, err := c.Active(ctx); return err },
			"Events": func(ctx context.Context) error { _, err := c.Events(ctx, client.Interest{}); return err },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- ask(ctx) }()
			<-arrived
			cancel()
			if err := <-ended; err != context.Canceled { //nolint:errorlint // exactly that
				t.Errorf("%s, %s: %v", promise, name, err)
			}
		}
	}
}

func TestARefusalKeepsAllThatItSays(t *testing.T) {
	srv := answers(t, 507, "application/json", `{"error":{"code":"NO_SPACE","message":"start acme/tiny: 3 bytes too few","details":{
		"class":"disk_full","model_id":"acme/tiny","state":"QUEUED","allowed_actions":["cancel"],"retry_after_seconds":1.5,"short_bytes":3,
		"freeable_bytes":9,"fields":[{"path":"model_id","message":"too large"}],"unknown":1},"timestamp":"2026-01-01T00:00:00Z","request_id":"req_1"}}`)
	_, err := at(t, srv.URL).Manage(t.Context(), client.Manage{})
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Code != client.NoSpace || e.Class != client.ClassDiskFull || e.Model != "acme/tiny" || e.State != "QUEUED" || len(e.Allowed) != 1 ||
		e.After != 1500*time.Millisecond || e.Short != 3 || e.Freeable != 9 || len(e.Fields) != 1 || e.Fields[0].Path != "model_id" ||
		e.RequestID != "req_1" || e.Status != 507 {
		t.Errorf("%#v", err)
	}
	if err.Error() != "start acme/tiny: 3 bytes too few" || model.ClassOf(err) != model.DiskFull {
		t.Errorf("it is of class %v and says %v", model.ClassOf(err), err)
	}
}

func TestEachMethodAsksWhereTheContractSays(t *testing.T) {
	asked := make(chan string, 1)
	c := at(t, serves(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		asked <- strings.TrimSpace(strings.TrimPrefix(r.Method+" "+r.RequestURI, " ") + " " + string(body))
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"version":"v1"}`)
	}).URL)
	ctx := t.Context()
	part := map[string]any{"log": map[string]any{"level": "debug"}}
	for want, ask := range map[string]func() error{
		"GET /api/v1/admin/version":    func() error { _, err := c.Version(ctx); return err },
		"POST /api/v1/admin/reload {}": func() error { _, err := c.Reload(ctx); return err },
		`POST /api/v1/models/download/manage {"model_id":"acme/tiny","action":"pause"}`: func() error { _, err := c.Manage(ctx, client.Manage{Model: "acme/tiny", Action: "pause"}); return err },
		"GET /api/v1/models/download/active":                                            func() error { _, err := c.Active(ctx); return err },
		"GET /api/v1/models/download/history?page=2&limit=50":                           func() error { _, err := c.History(ctx, 2, 50); return err },
		"GET /api/v1/models/download/progress/acme%2Ftiny":                              func() error { _, err := c.Progress(ctx, "acme/tiny", ""); return err },
		"GET /api/v1/models/download/progress/acme%2Ftiny?download_id=dl_1":             func() error { _, err := c.Progress(ctx, "acme/tiny", "dl_1"); return err },
		"GET /api/v1/models/status/detailed":                                            func() error { _, err := c.Statuses(ctx); return err },
		"GET /api/v1/models/status/detailed/s3:%2F%2Fa%2Fb%3Fc":                         func() error { _, err := c.Status(ctx, "s3://a/b?c"); return err },
		"GET /api/v1/models/storage":                                                    func() error { _, err := c.Storage(ctx); return err },
		`POST /api/v1/models/storage/move {"model_id":"acme/tiny","tier":"cold"}`: func() error {
			_, err := c.MoveModel(ctx, client.MoveRequest{Model: "acme/tiny", Tier: "cold"})
			return err
		},
		`POST /api/v1/models/storage/pin {"model_id":"acme/tiny","pinned":false}`: func() error { _, err := c.PinModel(ctx, "acme/tiny", false); return err },
		`POST /api/v1/models/cleanup {"cleanup_type":"auto","dry_run":true}`: func() error {
			_, err := c.CleanUp(ctx, client.Cleanup{Type: client.CleanupAuto, DryRun: true})
			return err
		},
		`POST /api/v1/models/usage {"model_id":"acme/tiny","operation":"generate"}`: func() error {
			_, err := c.RecordUse(ctx, client.Use{Model: "acme/tiny", Operation: "generate"})
			return err
		},
		"DELETE /api/v1/models/acme%2Ftiny":                      func() error { _, err := c.DeleteModel(ctx, "acme/tiny"); return err },
		"GET /api/v1/config/current":                             func() error { _, err := c.ConfigCurrent(ctx); return err },
		"GET /api/v1/config/profile":                             func() error { _, err := c.ConfigProfiles(ctx); return err },
		`PUT /api/v1/config/profile {"profile":"low_latency"}`:   func() error { _, err := c.ConfigProfile(ctx, "low_latency"); return err },
		`PUT /api/v1/config/update {"log":{"level":"debug"}}`:    func() error { _, err := c.ConfigUpdate(ctx, part); return err },
		`POST /api/v1/config/validate {"log":{"level":"debug"}}`: func() error { _, err := c.ConfigValidate(ctx, part); return err },
		"GET /api/v1/config/schema": func() error {
			schema, err := c.ConfigSchema(ctx)
			if string(schema) != `{"version":"v1"}` {
				t.Errorf("the schema is %s", schema)
			}
			return err
		},
		"GET /api/v1/admin/health":                                   func() error { _, err := c.AdminHealth(ctx); return err },
		"GET /api/v1/admin/health/db":                                func() error { _, err := c.PartHealth(ctx, client.PartDatabase); return err },
		"GET /api/v1/admin/resources":                                func() error { _, err := c.Resources(ctx); return err },
		"GET /api/v1/admin/performance/baseline":                     func() error { _, err := c.Baseline(ctx); return err },
		"GET /api/v1/admin/performance/regressions":                  func() error { _, err := c.Regressions(ctx); return err },
		`POST /api/v1/admin/performance/baseline {"hours":2}`:        func() error { _, err := c.SetBaseline(ctx, 2); return err },
		"GET /api/v1/admin/performance/analysis":                     func() error { _, err := c.Analysis(ctx, ""); return err },
		"GET /api/v1/admin/performance/analysis?model_id=org%2Fname": func() error { _, err := c.Analysis(ctx, "org/name"); return err },
		"GET /api/v1/admin/audit?page=1&limit=100":                   func() error { _, err := c.Audit(ctx, 1, 100); return err },
	} {
		err := ask()
		if got := <-asked; err != nil || got != want {
			t.Errorf("asked %s (%v), want %s", got, err, want)
		}
	}
}

func TestEventsAreHeardUntilTheDaemonStops(t *testing.T) {
	c := at(t, serves(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/api/v1/events?download_id=dl_1&model_id=acme%2Ftiny&since=7" {
			t.Errorf("asked %s", r.RequestURI)
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, `{"seq":8,"type":"state","state":{"old_status":"QUEUED","new_status":"RESOLVING"}}`+"\n")
	}).URL)
	events, err := c.Events(t.Context(), client.Interest{Since: 7, Download: "dl_1", Model: "acme/tiny"})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if e, err := events.Next(); err != nil || e.Seq != 8 || e.Change == nil || e.Change.New != client.StatusResolving {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := events.Next(); !errors.Is(err, io.EOF) || err.Error() == "EOF" {
		t.Errorf("after its end: %v", err)
	}
}

func TestSilenceBetweenEventsIsNoError(t *testing.T) {
	next := make(chan struct{})
	c := at(t, serves(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_ = http.NewResponseController(w).Flush()
		<-next
		_, _ = io.WriteString(w, `{"seq":1}`+"\n")
	}).URL, impatient)
	events, err := c.Events(t.Context(), client.Interest{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	time.AfterFunc(3*soon, func() { close(next) }) // longer than any patience of this client
	if e, err := events.Next(); err != nil || e.Seq != 1 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestACommandEndsWithItsExitCodeOrWithAnError(t *testing.T) {
	for promise, c := range map[string]struct {
		body string
		code int
		fail string
	}{
		"done":      {`{"stdout":"aGk="}` + "\n" + `{"stderr":"bm8="}` + "\n" + `{"exit":4}` + "\n", 4, ""},
		"cut short": {`{"stdout":"aGk="}` + "\n" + `{"stderr":"bm8="}` + "\n", 0, "the daemon stopped before the command was done"},
	} {
		var out, errs strings.Builder
		srv := answers(t, 200, "application/x-ndjson", c.body)
		code, err := at(t, srv.URL).Run(t.Context(), client.Command{Args: []string{"verify"}}, &out, &errs)
		if code != c.code || out.String() != "hi" || errs.String() != "no" || (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) {
			t.Errorf("%s: %d, %q, %q, %v", promise, code, out.String(), errs.String(), err)
		}
	}
}

func TestADownloadThatIsOverSaysHowItEnded(t *testing.T) {
	for status, class := range map[string]model.Class{client.StatusFailed: model.Integrity, client.StatusCancelled: model.Cancelled} {
		d := client.Download{Status: status, Model: "acme/tiny", ErrorMessage: "no", ErrorClass: "integrity"}
		if err := d.Err(); !d.Over() || model.ClassOf(err) != class {
			t.Errorf("%s: %v, %v", status, d.Over(), err)
		}
	}
	if d := (client.Download{Status: client.StatusCompleted}); !d.Over() || d.Err() != nil {
		t.Error("a completed one is not over, or has failed")
	}
	for _, s := range []string{client.StatusQueued, client.StatusResolving, client.StatusDownloading, client.StatusVerifying, client.StatusPaused, client.StatusRetrying} {
		if d := (client.Download{Status: s, ErrorMessage: "no"}); d.Over() || d.Err() != nil {
			t.Errorf("%s is over", s)
		}
	}
}

func TestTheNamesOfFieldsAreThoseOfTheContract(t *testing.T) {
	for want, v := range map[string]any{
		`model_id is_available is_loaded size_mb availability_status download_progress missing_files integrity_score last_health_check performance_score
		corruption_detected usage_frequency last_used average_generation_time can_pause_download can_resume_download estimated_download_time
		current_version latest_version update_available`: client.ModelStatus{},
		"total_models available_models downloading_models corrupted_models total_storage_gb": client.StatusSummary{},
		"models summary": client.Statuses{},
		"storage_summary models_storage tiers cleanup_suggestions":                      client.Storage{},
		"total_capacity_gb used_space_gb available_space_gb usage_percent models_count": client.StorageSummary{},
		"model_id size_gb last_accessed usage_frequency storage_tier":                   client.ModelStorage{},
		"potential_savings_gb safe_to_remove_count candidates":                          client.CleanupSuggestions{},
		"success message download_id new_status estimated_completion":                   client.Managed{},
		"active_downloads total_active total_bandwidth_usage_mbps":                      client.Active{},
		"success updated_settings restart_required restart_keys":                        client.Reloaded{},
		"error": client.Envelope{},
		"code message details timestamp request_id": client.Problem{},
		`model_id status progress_percent downloaded_mb total_mb speed_mbps eta_seconds retry_count max_retries error_message can_pause can_resume can_cancel`: client.Download{},
	} {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(raw, &fields); err != nil {
			t.Fatal(err)
		}
		for name := range strings.FieldsSeq(want) {
			if _, there := fields[name]; !there {
				t.Errorf("%T has no %s, or leaves it out when it is zero", v, name)
			}
		}
	}
}

func TestWhatNobodyKnowsOfAModelIsNull(t *testing.T) {
	raw, err := json.Marshal(client.ModelStatus{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"download_progress", "integrity_score", "last_health_check", "performance_score", "usage_frequency", "last_used",
		"average_generation_time", "estimated_download_time", "storage_tier", "current_version", "latest_version", "update_available",
	} {
		if !strings.Contains(string(raw), `"`+name+`":null`) {
			t.Errorf("%s is not null", name)
		}
	}
}
