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
	"testing"
	"testing/synctest"

	"ema/internal/model"
)

// serve answers on a port of this machine until the test ends, and says where.
func serve(t *testing.T, m *Metrics) (url string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := m.Serve(ctx, l); err != nil {
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
		"\napi_response_time_seconds_bucket{method=\"GET\",operation=\"get-model\",status=\"2xx\",le=\"0.001\"} 1\n",
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
	s.Storage = func() (used, free model.Bytes, err error) { return 0, 0, errors.New("stale file handle") }
	m := New(s)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "\nmodel_active_downloads 3\n") {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "stale file handle") {
		t.Errorf("the log says %q", log.String())
	}
	if n := value(t, m, "promhttp_metric_handler_errors_total", "cause", "gathering"); n != 1 {
		t.Errorf("%v are counted, want 1", n)
	}
}

func TestADiskThatHangsHoldsFewScrapesAndNoneForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mended := make(chan struct{})
		s := everything()
		s.Storage = func() (used, free model.Bytes, err error) {
			<-mended
			return 1, 1, nil
		}
		m := New(s)
		scrape := func() int {
			w := httptest.NewRecorder()
			m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			return w.Code
		}
		var scraping sync.WaitGroup
		for range 3 * mostScrapes {
			scraping.Go(func() {
				if code := scrape(); code != http.StatusServiceUnavailable {
					t.Errorf("a scrape: %d", code)
				}
			})
		}
		scraping.Wait() // ten seconds of the bubble
		close(mended)
		synctest.Wait()
		if code := scrape(); code != http.StatusOK {
			t.Errorf("afterwards: %d", code)
		}
	})
}
