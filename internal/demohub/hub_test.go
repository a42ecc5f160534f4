package demohub_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
)

func TestSmoke(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny",
		demohub.Bytes("config.json", []byte("{}\n")), demohub.File("model.bin", 3*model.MiB)))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	cdn := httptest.NewServer(hub.CDN())
	defer cdn.Close()
	hub.Set(demohub.ViaCDN(cdn.URL))
	res, err := http.Get(srv.URL + "/api/models/acme/tiny/revision/main?blobs=true")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var v any
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	b, _ := json.MarshalIndent(v, "", " ")
	t.Logf("%s", b)
	req, _ := http.NewRequest("GET", srv.URL+"/acme/tiny/resolve/main/model.bin", nil)
	req.Header.Set("Range", "bytes=5-1000005")
	res, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, _ := io.ReadAll(res.Body)
	t.Log(res.Status, res.Header, len(got), hub.Stats())
}
