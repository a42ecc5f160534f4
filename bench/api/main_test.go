package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWhatToolsSayIsUnderstood(t *testing.T) {
	o, err := parseOutcome("Running 1s test\n  10 requests in 1s\n\nmeasured {\"requests\":10,\"microseconds\":2000000,\"bytes\":70,\"errors\":0,\"p50\":5,\"p99\":9,\"most\":11}\n")
	if err != nil || o.rate() != 5 || o.P99 != 9 {
		t.Errorf("wrk: %+v, %v", o, err)
	}
	for what, text := range map[string]string{
		"nothing":         "unable to connect",
		"failed requests": "\nmeasured {\"requests\":10,\"microseconds\":1,\"errors\":1}\n",
		"no requests":     "\nmeasured {\"requests\":0,\"microseconds\":1}\n",
	} {
		if o, err := parseOutcome(text); err == nil {
			t.Errorf("%s counts as %+v", what, o)
		}
	}
	const table = "Percentage served,Time in ms\n0,0.151\n94,1.5\n95,2.25\n"
	if p95, err := percentileOf(table, "95"); err != nil || p95 != 2.25 {
		t.Errorf("ab: %v, %v", p95, err)
	}
	if got, err := percentileOf(table, "99"); err == nil {
		t.Errorf("a percentage that is not there is %v", got)
	}
	if got := address("ema: serving the store /x and y at /run/ema.sock and http://127.0.0.1:8000: 0 downloads queued, 0 paused\n"); got != "http://127.0.0.1:8000" {
		t.Errorf("the daemon serves at %q", got)
	}
	if got := address(`level=INFO msg="serving" and http://127.0.0.1:1: `); got != "" {
		t.Errorf("a line of the log says that it serves at %q", got)
	}
}

func TestTheBareHandlerSendsTheBytesOrSaysThatTheyAreKnown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, end := io.Pipe()
	out, said := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- bare(file, in, said) }()
	line := make([]byte, 100)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := answering(t.Context(), strings.TrimSpace(string(line[:n])), 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for tag, status := range map[string]int{"": http.StatusOK, bareTag: http.StatusNotModified, `"other"`: http.StatusOK} {
		r, w := httptest.NewRequest(http.MethodGet, "/", http.NoBody), httptest.NewRecorder()
		r.Header.Set("If-None-Match", tag)
		bareHandler([]byte("{}")).ServeHTTP(w, r)
		if w.Code != status || (status == http.StatusOK) != (w.Body.String() == "{}") {
			t.Errorf("who has %q gets %d and %q", tag, w.Code, w.Body)
		}
	}
}

func TestRatiosAreTakenWithinRounds(t *testing.T) {
	at := func(rates ...float64) *peer {
		p := &peer{}
		for _, r := range rates {
			p.results = append(p.results, outcome{Requests: r, Microseconds: 1e6})
		}
		return p
	}
	if got := at(10, 100, 30).over(at(20, 100, 20), rate); got != 1 {
		t.Errorf("the ratio is %v, want the median of 0.5, 1 and 1.5", got)
	}
}
