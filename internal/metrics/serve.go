package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

// Limits that keep clients, and a disk that hangs, from holding on to the daemon.
const (
	mostConnections = 64
	mostScrapes     = 4 // at once; a scrape whose functions hang counts until they return
	scrapePatience  = 10 * time.Second
	headerPatience  = 5 * time.Second
	writePatience   = 30 * time.Second
	idlePatience    = 2 * time.Minute
	stopPatience    = time.Second // for scrapes that are being answered when the server stops
	mostHeader      = 64 << 10
)

// Listen listens on a TCP address HOST:PORT, that of server.metrics_listen; port 0 is any free one.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &model.Error{
			Op: "listen for Prometheus", Class: model.Usage, Err: err, // it names the address
			Hint: `choose another address of this machine as server.metrics_listen, or "" for no metrics`,
		}
	}
	return l, nil
}

// Paths are those that Handler answers.
func Paths() []string { return []string{"/", page} }

// page is where Prometheus looks when nobody tells it otherwise.
const page = "/metrics"

// Handler shows the metrics at /metrics, in the text formats of Prometheus and of OpenMetrics, and says at / where they
// are. There is nothing else, and nobody is asked who they are.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Serve answers on l, a listener of Listen, until ctx ends; scrapes have a second then to be answered. It closes l, and
// returns nil when it was ctx that ended it. Unless guard is nil, it stands before Handler and decides who is answered.
func (m *Metrics) Serve(ctx context.Context, l net.Listener, guard func(http.Handler) http.Handler) error {
	handler := m.handler
	if guard != nil {
		handler = guard(handler)
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerPatience, ReadTimeout: headerPatience, WriteTimeout: writePatience,
		IdleTimeout: idlePatience, MaxHeaderBytes: mostHeader,
		ErrorLog: slog.NewLogLogger(m.settings.Log.Handler(), slog.LevelDebug),
	}
	g, gone := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Serve(netutil.LimitListener(l, mostConnections)) })
	g.Go(func() error {
		<-gone.Done()
		brief, stop := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
		defer stop()
		if err := server.Shutdown(brief); err != nil {
			return server.Close()
		}
		return nil
	})
	if err := g.Wait(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (m *Metrics) pages() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+page, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(m.settings.Log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // one figure that cannot be had hides no other
		Registry:            m.registry,
		MaxRequestsInFlight: mostScrapes,
		Timeout:             scrapePatience,
		EnableOpenMetrics:   true,
	}))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		_, _ = io.WriteString(w, index) //nolint:errcheck // whoever has gone needs no page
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

const index = `<!doctype html><html lang="en"><title>ema: metrics</title>` +
	`<h1>ema</h1><p>Metrics for Prometheus are at <a href="/metrics">/metrics</a>.</p></html>
`
