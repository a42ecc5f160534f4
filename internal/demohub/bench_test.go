package demohub_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
)

// BenchmarkServe says how fast an origin is: no client can be measured to be faster.
func BenchmarkServe(b *testing.B) {
	const size = 64 * model.MiB
	path := filepath.Join(b.TempDir(), "model.bin")
	if err := os.WriteFile(path, make([]byte, size), 0o666); err != nil {
		b.Fatal(err)
	}
	for name, e := range map[string]demohub.Entry{"generated": demohub.File("model.bin", size), "disk": demohub.Disk("model.bin", path)} {
		for _, rate := range []model.Bytes{0, 100 * model.GiB} {
			b.Run(fmt.Sprintf("content=%s/paced=%t", name, rate > 0), func(b *testing.B) {
				srv := httptest.NewServer(demohub.New(demohub.Files(e), demohub.Rate(rate)))
				defer srv.Close()
				b.SetBytes(int64(size))
				for b.Loop() {
					get(b, srv.URL+"/files/model.bin")
				}
			})
		}
	}
}

// BenchmarkInfo says what a listing of many files costs.
func BenchmarkInfo(b *testing.B) {
	parts := make([]demohub.Part, 5000)
	for i := range parts {
		parts[i] = demohub.File(fmt.Sprintf("dir%d/%05d.bin", i%10, i), 100)
	}
	srv := httptest.NewServer(demohub.New(demohub.Repo("acme/many", parts...)))
	defer srv.Close()
	for _, path := range []string{"/api/models/acme/many/revision/main?blobs=true", "/api/models/acme/many/tree/main?recursive=true"} {
		b.Run("path="+filepath.Base(filepath.Dir(path)), func(b *testing.B) {
			for b.Loop() {
				get(b, srv.URL+path)
			}
		})
	}
}

func get(b *testing.B, url string) {
	res, err := http.Get(url)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		b.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		b.Fatal(err)
	}
}
