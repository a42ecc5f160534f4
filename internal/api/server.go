// Package api lets other processes see and steer a daemon, over HTTP.
//
// operation.go lists what can be asked for and who may ask; router.go finds it, document.go describes it, failure.go says
// no, and each other file answers. What goes over the wire is package client's. The names of fields are a promise to
// clients that exist already: fields may be added, never renamed.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/client"
	"ema/internal/api/trust"
	"ema/internal/event"
	"ema/internal/model"
)

// scheduler is what requests do with downloads; *queue.Queue satisfies it.
type scheduler interface {
	Add(ctx context.Context, d model.Download) (model.Download, bool, error)
	Pause(ctx context.Context, ids ...string) ([]model.Download, error)
	Resume(ctx context.Context, ids ...string) ([]model.Download, error)
	Cancel(ctx context.Context, ids ...string) ([]model.Download, error)
	Prioritize(ctx context.Context, p model.Priority, ids ...string) ([]model.Download, error)
	Limit(ctx context.Context, perSecond model.Bytes, ids ...string) ([]model.Download, error)
	List() []model.Download
}

// archive remembers downloads that are over; *ledger.Ledger satisfies it.
type archive interface {
	Download(ctx context.Context, id string) (model.Download, error)
	History(ctx context.Context, limit, offset int) ([]model.Download, error)
}

// models answers how models and their storage stand: with client.Statuses, client.ModelStatus and client.Storage.
type models interface {
	ServeStatus(w http.ResponseWriter, r *http.Request)
	ServeModel(w http.ResponseWriter, r *http.Request, id model.ID)
	ServeStorage(w http.ResponseWriter, r *http.Request)
}

// settings are those of the daemon.
type settings interface {
	// Current is a client.Settings, or what looks like one as JSON.
	Current(ctx context.Context) (any, error)
	// Update changes some settings, or none when one of them is wrong.
	Update(ctx context.Context, patch json.RawMessage) (Reloaded, error)
	// Profiles are all profiles, with what each would change.
	Profiles(ctx context.Context) (client.Profiles, error)
	// Schema is the JSON Schema of a configuration file.
	Schema() (json.RawMessage, error)
	// Validate judges settings as Update would, and says what would change. An error with the method Fields has all
	// mistakes.
	Validate(ctx context.Context, doc json.RawMessage) (client.Validated, error)
}

// trail remembers who has changed what; *ledger.Ledger satisfies it.
type trail interface {
	Record(ctx context.Context, e model.AuditEntry) error
	// Audit is newest first.
	Audit(ctx context.Context, limit, offset int) ([]model.AuditEntry, error)
}

// A Server answers requests about one daemon. Log is required. Each other field may be nil: then what it is needed for is
// neither answered nor documented. The fields must not change once the server answers.
type Server struct {
	// Queue has the downloads. It needs History, Figures and Limit too.
	Queue   scheduler
	History archive
	// Figures are of a running download, or of one that ended lately; nil when there are none. They are a copy.
	Figures func(id string) *Figures
	// Limit is the limit for all downloads together that holds now, and why; 0 is none.
	Limit func() (perSecond model.Bytes, why string)
	// MaxRetries is how often those downloads are tried again that have no number of their own.
	MaxRetries func() int
	// Repair makes a model whole again, or begins to, and says in words what it does.
	Repair func(ctx context.Context, id model.ID) (what string, err error)

	Models models
	// Remove removes a model with all of its revisions, and says how many bytes that freed.
	Remove func(ctx context.Context, id model.ID) (freed int64, err error)

	// Tiers brings models to other tiers, and keeps them there.
	Tiers tiers
	// Clean makes space, or says what would go, and what it has decided.
	Clean func(ctx context.Context, c Cleaning) ([]Cleaned, error)
	// StandIns knows which models could stand in for another.
	StandIns standIns
	// Updater knows what the sources of models have that is newer.
	Updater updater
	// Analyst draws conclusions from how models were used.
	Analyst analyst
	// Observer knows how well everything runs.
	Observer observer
	// Assessor measures this machine.
	Assessor assessor
	// Optimizer changes settings by itself.
	Optimizer optimizer
	// Wellbeing knows how well models are.
	Wellbeing wellbeing
	// Use counts a use of a model. It may be asked hundreds of times a second.
	Use func(ctx context.Context, u model.Use) error

	Events *event.Bus
	Live   http.Handler // WebSocket

	Settings settings
	// Reload reads the settings again. When one of them is wrong, nothing changes.
	Reload func(ctx context.Context) (Reloaded, error)

	// Health are probes of parts, by client.PartDownloads and its like. They must end with their context.
	Health    map[string]func(ctx context.Context) client.PartHealth
	Ready     func(ctx context.Context) error // why the daemon cannot serve, or nil
	Resources func(ctx context.Context) (client.Resources, error)
	Trail     trail
	// Memory is what this process has now, and had at most since it began.
	Memory func() (now, peak model.Bytes, err error)
	// Recorded writes what the flight recorder has of the last seconds, or fails with ErrNotRecording.
	Recorded func(w io.Writer) error
	// Slow is told of each answer that took longer than a second, unless it is of those that are meant to. It must not wait.
	Slow func(operation string, took time.Duration)

	// Execute runs a command within the daemon until it ends or ctx does, and returns its exit code.
	Execute func(ctx context.Context, c Command, stdout, stderr io.Writer) int
	// Measure is told of each answer: the operation, of which there are a few dozen and which is empty where there is
	// none, the status and the time it took. It must not wait.
	Measure func(operation string, status int, took time.Duration)
	// Access, unless nil, gets a line for each request that comes over the network.
	Access *slog.Logger
	// Banner, unless empty, is told to all who ask over the network, as the Server header.
	Banner  string
	Version Version
	Log     *slog.Logger

	once    sync.Once
	all     *router
	waiting unanswered
}

// Limits that keep a stuck client from holding on to the daemon.
const (
	headerPatience = 5 * time.Second
	idlePatience   = 2 * time.Minute
	writePatience  = 30 * time.Second // for each piece of a stream
	stopPatience   = 2 * time.Second  // for requests that are being answered when the server stops
)

// Run answers on the daemon's socket until ctx ends: whoever gets through to it may everything. Streams end with ctx;
// other requests have two seconds to be answered. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, &http.Server{
		Handler: trust.Local(s.Handler()), ReadHeaderTimeout: headerPatience, IdleTimeout: idlePatience, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	})
}

// RunGuarded answers those whom guard lets in, on a listener of trust.Listen, as Run does. The guard must refuse by
// s.Refuse, and have Open among its open paths.
func (s *Server) RunGuarded(ctx context.Context, l net.Listener, guard *trust.Guard, p trust.Patience) error {
	return s.serve(ctx, l, trust.HTTPServer(s.entrance(guard.Wrap(s.Handler())), p, s.Log))
}

// entrance stands before the guard: it also sees whom that refuses. Queries are not logged, they may have secrets in them.
func (s *Server) entrance(next http.Handler) http.Handler {
	if s.Access == nil && s.Banner == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.Banner != "" {
			w.Header().Set("Server", s.Banner)
		}
		if s.Access == nil {
			next.ServeHTTP(w, r)
			return
		}
		begun, t := time.Now(), &told{ResponseWriter: w}
		defer func() {
			s.Access.Info("request", "method", clip(r.Method), "path", clip(r.URL.Path), "status", t.status, "took", time.Since(begun),
				"remote", r.RemoteAddr, "request_id", w.Header().Get("X-Request-Id"))
		}()
		next.ServeHTTP(t, r)
	})
}

func (s *Server) serve(ctx context.Context, l net.Listener, server *http.Server) error {
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	g, gone := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Serve(l) })
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

// Handler answers requests from other machines and from browsers. Who asks must be in their contexts, where a trust.Guard
// puts it: strangers get next to nothing. It is made once, of the fields as they are then.
func (s *Server) Handler() http.Handler {
	s.once.Do(func() { s.all = s.router() })
	return s.all
}

// router is all that can be asked for.
func (s *Server) router() *router {
	rt := newRouter(s)
	if s.Queue != nil {
		s.offerDownloads(rt)
	}
	s.offerModels(rt)
	s.offerStorage(rt)
	s.offerWellbeing(rt)
	s.offerAnalytics(rt)
	s.offerPerformance(rt)
	s.offerBenchmarks(rt)
	s.offerOptimizations(rt)
	s.offerUpdates(rt)
	s.offerFallback(rt)
	s.offerStreams(rt)
	if s.Settings != nil {
		s.offerSettings(rt)
	}
	s.offerAdministration(rt)
	rt.offerDocument()
	return rt
}

// answer writes v. Whoever hangs up meanwhile misses it; there is nobody left to tell.
func (s *Server) answer(w http.ResponseWriter, httpStatus int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		s.Log.Debug("answer not taken", "error", err.Error())
	}
}
