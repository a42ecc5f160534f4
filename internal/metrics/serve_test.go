package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/common/expfmt"
	common "github.com/prometheus/common/model"

	"ema/internal/model"
)

// serve answers on a port of this machine until the test ends, and says where.
func serve(t *testing.T, m *Metrics) (url string) {
	t.Helper()
	return serveBehind(t, m, nil)
}

// serveBehind does so behind a guard.
func serveBehind(t *testing.T, m *Metrics, guard func(http.Handler) http.Handler) (url string) {
	t.Helper()
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := m.Serve(ctx, l, guard); err != nil {
			t.Errorf("serving ended with %v", err)
		}
		if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
			t.Error("it still listens")
		}
	})
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		serving.Wait()
	})
	return "http://" + l.Addr().String()
}

func ask(t *testing.T, method, url, accept string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestMetricsAreShownInTheFormatThatIsAskedFor(t *testing.T) {
	url := serve(t, used()) + "/metrics"
	res, body := ask(t, http.MethodGet, url, "")
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("plain: %s, %s", res.Status, res.Header.Get("Content-Type"))
	}
	for _, want := range []string{
		"\nmodel_active_downloads 3\n",
		"\nmodel_download_success_total 1\n",
		"\n# TYPE model_download_duration_seconds histogram\n",
		"\napi_response_time_seconds_bucket{operation=\"get-model\",status=\"2xx\",le=\"0.001\"} 1\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("it lacks %q", want)
		}
	}
	res, body = ask(t, http.MethodGet, url, "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(body, "# EOF\n") {
		t.Errorf("OpenMetrics: %s, %s", res.Status, res.Header.Get("Content-Type"))
	}
}

func TestThereAreThatPageAndTheIndexAndNothingElse(t *testing.T) {
	url := serve(t, New(Settings{}))
	res, body := ask(t, http.MethodGet, url+"/", "")
	if res.StatusCode != http.StatusOK || !strings.Contains(body, `href="/metrics"`) || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the index: %s, %v, %s", res.Status, res.Header, body)
	}
	for _, at := range []string{"/debug/pprof/", "/metrics/", "/api/v1/models/status/detailed", "/x"} {
		if res, _ := ask(t, http.MethodGet, url+at, ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", at, res.Status)
		}
	}
	for _, at := range []string{"/", "/metrics"} {
		if res, _ := ask(t, http.MethodPost, url+at, ""); res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %s", at, res.Status)
		}
	}
}

func TestAScrapeThatMissesSomethingSaysSoInTheLogAndInACounter(t *testing.T) {
	var log bytes.Buffer
	s := everything()
	s.Log = slog.New(slog.NewTextHandler(&log, nil))
	stale := errors.New("stale file handle")
	s.Storage = func() (used, free model.Bytes, err error) { return 0, 0, stale }
	m := New(s)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "\nmodel_active_downloads 3\n") {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "stale file handle") {
		t.Errorf("the log says %q", log.String())
	}
	w = httptest.NewRecorder() // the next one tells of this one
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if want := `promhttp_metric_handler_errors_total{cause="gathering"} 1`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("there is no %s", want)
	}
}

func TestTheOfficialLibraryReadsWhatIsShown(t *testing.T) {
	m := used()
	_, body := ask(t, http.MethodGet, serve(t, m)+"/metrics", "")
	parser := expfmt.NewTextParser(common.LegacyValidation)
	read, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	want := gathered(t, m)
	for name, f := range want {
		if read[name].GetType() != f.GetType() || len(read[name].GetMetric()) != len(f.GetMetric()) || read[name].GetHelp() != f.GetHelp() {
			t.Errorf("%s: read %v", name, read[name])
		}
	}
	if len(read) != len(want) {
		t.Errorf("%d metrics are read, want %d", len(read), len(want))
	}
	answers := read["api_response_time_seconds"].GetMetric()[0].GetHistogram()
	if answers.GetSampleCount() != 1 || answers.GetSampleSum() != 0.001 || read["model_storage_usage_bytes"].GetMetric()[0].GetGauge().GetValue() != 3<<30 {
		t.Error("values are read that are others")
	}
}

func TestAGuardDecidesWhoIsAnswered(t *testing.T) {
	url := serveBehind(t, New(Settings{}), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	for at, want := range map[string]int{"/": http.StatusForbidden, "/metrics": http.StatusOK} {
		if res, _ := ask(t, http.MethodGet, url+at, ""); res.StatusCode != want {
			t.Errorf("%s: %s", at, res.Status)
		}
	}
}

func TestAPortThatIsTakenIsSaidWithWhatToDo(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), l.Addr().String())
	if model.ClassOf(err) != model.Usage || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "server.metrics_listen") {
		t.Errorf("it says %v", err)
	}
}

func TestADiskThatHangsHidesNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mended := make(chan struct{})
		var asked atomic.Int32
		s := everything()
		s.Storage = func() (used, free model.Bytes, err error) {
			asked.Add(1)
			<-mended
			return 1, 2, nil
		}
		m := New(s)
		scrape := func() string {
			w := httptest.NewRecorder()
			m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			if w.Code != http.StatusOK {
				t.Errorf("a scrape: %d", w.Code)
			}
			return w.Body.String()
		}
		begun := time.Now()
		for range 5 { // one after the other, and all of them together
			var scraping sync.WaitGroup
			for range mostScrapes {
				scraping.Go(func() {
					if body := scrape(); strings.Contains(body, "model_storage_usage_bytes") || !strings.Contains(body, "\nmodel_active_downloads 3\n") {
						t.Error("a scrape has not what it should")
					}
				})
			}
			scraping.Wait()
		}
		if took := time.Since(begun); took != 5*storagePatience {
			t.Errorf("5 scrapes took %v, want %v for each", took, storagePatience)
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the disk is asked %d times at once", n)
		}
		close(mended)
		synctest.Wait()
		if body := scrape(); !strings.Contains(body, "\nmodel_storage_usage_bytes 1\n") || !strings.Contains(body, "\nema_storage_free_bytes 2\n") {
			t.Error("what the disk said at last is not shown")
		}
	})
}

func TestTheStorageIsMeasuredAgainOnceWhatIsKnownIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var measured model.Bytes
		m := New(Settings{Storage: func() (used, free model.Bytes, err error) {
			measured++
			return measured, 0, nil
		}})
		for _, want := range []float64{1, 1, 1, 2, 2, 2, 3} {
			if got := value(t, m, "model_storage_usage_bytes"); got != want {
				t.Errorf("measurement %v is shown, want %v", got, want)
			}
			time.Sleep(storageAge / 3)
		}
	})
}

// A request that is never answered would hold on to the daemon when clients come again and again.
func TestAScrapeEndsEvenIfWhatItReadsHangsAndFewDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		going := make(chan struct{})
		var asked atomic.Int32
		m := New(Settings{Limit: func() model.Bytes {
			asked.Add(1)
			<-going
			return 0
		}})
		var scraping sync.WaitGroup
		for range 3 * mostScrapes {
			scraping.Go(func() {
				w := httptest.NewRecorder()
				m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
				if w.Code != http.StatusServiceUnavailable {
					t.Errorf("a scrape: %d", w.Code)
				}
			})
		}
		scraping.Wait() // ten seconds of the bubble
		if n := asked.Load(); n != mostScrapes {
			t.Errorf("%d scrapes hang, want %d", n, mostScrapes)
		}
		close(going)
	})
}
