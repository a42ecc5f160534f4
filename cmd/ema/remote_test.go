package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"

	"github.com/rogpeppe/go-internal/testscript"

	"ema/client"
)

// daemonURL stands before the socket of the script's daemon as a proxy with keys would.
func daemonURL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon-url KEY")
	}
	at := regexp.MustCompile(`serving the store .* at (.*/daemon\.sock): `).FindStringSubmatch(theDaemon(ts).stderr.String())
	if at == nil {
		ts.Fatalf("the daemon does not say where its socket is")
	}
	to := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "daemon"})
			r.Out.Header.Del("Authorization")
		},
		FlushInterval: -1,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", filepath.Clean(at[1]))
			},
		},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer "+args[0] {
			to.ServeHTTP(w, r)
			return
		}
		var no client.Envelope
		no.Error.Code, no.Error.Message, no.Error.Details.Class = client.Unauthorized, "this needs a key", client.ClassAuth.String()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(no) // whoever has gone needs no answer
	}))
	ts.Defer(srv.Close)
	ts.Setenv("URL", srv.URL)
}
