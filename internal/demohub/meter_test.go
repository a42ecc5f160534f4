package demohub_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
)

func TestCountersAndLog(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.File("model.bin", 2*model.MiB)))
	first, second := httptest.NewServer(hub), httptest.NewServer(hub.CDN())
	hub.Set(demohub.ViaCDN(second.URL))
	base := first.URL
	var info any
	getJSON(t, base+"/api/models/acme/tiny", &info)
	hop := ask(t, "GET", base+"/acme/tiny/resolve/main/model.bin", "Authorization", "Bearer hf_x")
	ask(t, "GET", hop.Header.Get("Location"), "Range", "bytes=0-99", "Accept-Encoding", "identity")
	ask(t, "GET", hop.Header.Get("Location"), "Accept-Encoding", "gzip, br", "Authorization", "leaked")
	ask(t, "HEAD", hop.Header.Get("Location"))
	first.Close() // waits for the handlers, so that all has been counted
	second.Close()
	stats := hub.Stats()
	stats.Hub.MaxBusy, stats.CDN.MaxBusy, stats.MaxTransfers = 1, 1, 1 // one or two: see Stats
	want := demohub.Stats{
		Requests: map[demohub.Kind]int64{demohub.API: 1, demohub.Resolve: 2, demohub.Bulk: 2},
		Body:     2<<20 + 100, Paths: map[string]int64{"model.bin": 2<<20 + 100},
		Ranged: 1, Encoded: 1, MaxTransfers: 1,
		Hub: demohub.Side{Requests: 2, Authorization: 1, Connections: 2, MaxBusy: 1},
		CDN: demohub.Side{Requests: 3, Authorization: 1, Connections: 3, MaxBusy: 1},
	}
	if fmt.Sprint(stats) != fmt.Sprint(want) {
		t.Errorf("counted %+v\nwant    %+v", stats, want)
	}
	rows := hub.Log()
	if len(rows) != 5 || rows[2].Range != "bytes=0-99" || rows[2].Sent != 100 || rows[2].Status != 206 || !rows[2].CDN || rows[2].Path != "model.bin" ||
		!rows[3].Authorization || rows[3].Encoding != "gzip, br" || rows[1].Kind != demohub.Resolve || rows[4].Method != "HEAD" {
		t.Errorf("the log is %+v", rows)
	}
	hub.ResetStats()
	if s := hub.Stats(); s.Body != 0 || len(s.Requests) != 0 || len(hub.Log()) != 0 {
		t.Errorf("after ResetStats: %+v", s)
	}
}

func TestKeepAliveIsOneConnection(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.File("small.bin", 100*model.KiB)), demohub.Rate(100*model.MiB))
	addr := strings.TrimPrefix(serveHub(t, hub), "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 3 {
		if _, err := fmt.Fprintf(conn, "GET /acme/tiny/resolve/main/small.bin HTTP/1.1\r\nHost: %s\r\n\r\n", addr); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != 100<<10 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
		errorless(t, res)
	}
	if s := hub.Stats(); s.Hub.Connections != 1 || s.Hub.Requests != 3 {
		t.Errorf("%d connections for %d requests", s.Hub.Connections, s.Hub.Requests)
	}
}
