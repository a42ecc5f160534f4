package main

import (
	"regexp"

	"github.com/rogpeppe/go-internal/testscript"
)

// anyPort and anyMetricsPort let daemons that run at the same time not stand in each other's way.
const (
	anyPort        = "EMA_SERVER__LISTEN=127.0.0.1:0"
	anyMetricsPort = "EMA_SERVER__METRICS_LISTEN=127.0.0.1:0"
)

// daemonStore reads which store the daemon has from what it said when it was ready.
func daemonStore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: daemon-store")
	}
	of := regexp.MustCompile(`serving the store (.*) at `).FindStringSubmatch(theDaemon(ts).stderr.String())
	if of == nil {
		ts.Fatalf("the daemon does not say which store it has")
	}
	ts.Setenv("HF_HUB_CACHE", of[1])
}

// daemonURL reads where the daemon listens from what it said when it was ready.
func daemonURL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: daemon-url")
	}
	at := regexp.MustCompile(`serving the store .* at .*/daemon\.sock and (https?://\S+): `).FindStringSubmatch(theDaemon(ts).stderr.String())
	if at == nil {
		ts.Fatalf("the daemon does not say where it listens")
	}
	ts.Setenv("URL", at[1])
}
