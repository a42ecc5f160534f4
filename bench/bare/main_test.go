package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBareBringsTheFile(t *testing.T) {
	content := make([]byte, 10*page+123)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(content)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/file" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(content))
	}))
	defer srv.Close()
	for _, cold := range []bool{true, false} {
		j := job{url: srv.URL + "/file", out: filepath.Join(t.TempDir(), "file"), want: hex.EncodeToString(sum[:]), conns: 3, span: page, write: 1000, cold: cold}
		if err := j.run(t.Context()); err != nil {
			t.Fatalf("cold=%t: %v", cold, err)
		}
		if got, err := os.ReadFile(j.out); err != nil || !bytes.Equal(got, content) {
			t.Errorf("cold=%t: %d bytes arrived, %v; want the %d that were sent", cold, len(got), err, len(content))
		}
		j.want = hex.EncodeToString(make([]byte, sha256.Size))
		if err := j.run(t.Context()); err == nil {
			t.Errorf("cold=%t: a wrong hash went unnoticed", cold)
		}
		j.url = srv.URL + "/nothing"
		if err := j.run(t.Context()); err == nil {
			t.Errorf("cold=%t: a missing file went unnoticed", cold)
		}
	}
}
