// Package api lets other processes see and steer the downloads of a daemon, over HTTP.
//
// wire.go has what goes over the wire, server.go answers, client.go asks. The names of fields are a promise to
// clients that exist already: fields may be added, never renamed.
package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

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

// A Server answers requests about the downloads of one daemon. All fields are required.
type Server struct {
	Queue   scheduler
	History archive
	Events  *event.Bus
	// Figures are of a running download, or of one that ended lately; nil when there are none. They are a copy.
	Figures func(id string) *Figures
	// Limit is the limit for all downloads together that holds now, and why; 0 is none.
	Limit func() (perSecond model.Bytes, why string)
	// Reload reads the settings again. When one of them is wrong, nothing changes.
	Reload func(ctx context.Context) (Reloaded, error)
	// Execute runs a command within the daemon until it ends or ctx does, and returns its exit code.
	Execute func(ctx context.Context, c Command, stdout, stderr io.Writer) int
	Version Version
	Log     *slog.Logger
}

// Limits that keep a stuck client from holding on to the daemon.
const (
	headerPatience = 5 * time.Second
	idlePatience   = 2 * time.Minute
	writePatience  = 30 * time.Second // for each piece of a stream
	stopPatience   = 2 * time.Second  // for requests that are being answered when the server stops
)

// Run answers on l until ctx ends. Streams end with ctx; other requests have two seconds to be answered. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: headerPatience, IdleTimeout: idlePatience, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
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

// Handler answers requests.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"POST /models/download/manage":             s.manage,
		"GET /models/download/active":              s.active,
		"GET /models/download/progress/{model...}": s.progress,
		"GET /models/download/history":             s.history,
		"GET /events":                              s.events,
		"GET /admin/version":                       s.version,
		"POST /admin/reload":                       s.reload,
		"POST /admin/run":                          s.run,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+Base+path, func(w http.ResponseWriter, r *http.Request) {
			if err := handle(w, r); err != nil {
				s.refuse(w, r, err)
			}
		})
		mux.HandleFunc(Base+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", method)
			s.refuse(w, r, &Error{
				Code: WrongMethod, Message: fmt.Sprintf("%s does not take %s; use %s", r.URL.Path, r.Method, method),
				Class: model.Usage, Status: http.StatusMethodNotAllowed,
			})
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, &Error{Code: NoEndpoint, Message: "there is nothing at " + r.URL.Path, Class: model.NotFound, Status: http.StatusNotFound})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "req_"+rand.Text()[:16])
		mux.ServeHTTP(w, r)
	})
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

func (s *Server) version(w http.ResponseWriter, _ *http.Request) error {
	s.answer(w, http.StatusOK, s.Version)
	return nil
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) error {
	what, err := s.Reload(r.Context())
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, what)
	return nil
}

func (s *Server) active(w http.ResponseWriter, _ *http.Request) error {
	list := s.Queue.List()
	a := Active{Downloads: make([]Download, 0, len(list)), Total: len(list)}
	waiting := 0
	for _, d := range list {
		position := 0
		if d.State == model.Queued {
			waiting++
			position = waiting
		}
		one := describe(d, s.Figures(d.ID), position)
		a.SpeedMBps += one.SpeedMBps
		a.Downloads = append(a.Downloads, one)
	}
	limit, why := s.Limit()
	a.LimitMBps, a.LimitWhy = mb(limit), why
	s.answer(w, http.StatusOK, a)
	return nil
}

// progress answers about the newest download of a model, or with ?download_id= about that one.
func (s *Server) progress(w http.ResponseWriter, r *http.Request) error {
	id, err := model.ParseID(r.PathValue("model"))
	if err != nil {
		return invalid("%v", err)
	}
	query := r.URL.Query()
	wanted := func(d model.Download) bool {
		if one := query.Get("download_id"); one != "" {
			return d.ID == one
		}
		return named(d, id) && (!query.Has("revision") || sameRevision(d.Revision, query.Get("revision")))
	}
	var found *model.Download
	waiting, position := 0, 0
	for _, d := range s.Queue.List() {
		if d.State == model.Queued {
			waiting++
		}
		if wanted(d) && (found == nil || d.Order > found.Order) {
			found, position = &d, 0
			if d.State == model.Queued {
				position = waiting
			}
		}
	}
	if one := query.Get("download_id"); found == nil && one != "" {
		if d, err := s.History.Download(r.Context(), one); err == nil {
			found = &d
		}
	}
	if found == nil && !query.Has("download_id") {
		if found, err = s.past(r.Context(), wanted); err != nil {
			return err
		}
	}
	if found == nil {
		return unknown("look at", id)
	}
	s.answer(w, http.StatusOK, describe(*found, s.Figures(found.ID), position))
	return nil
}

// past is the newest download of the history that is wanted; nil when there is none.
func (s *Server) past(ctx context.Context, wanted func(model.Download) bool) (*model.Download, error) {
	const page = 200
	for offset := 0; ; offset += page {
		list, err := s.History.History(ctx, page, offset)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(list, wanted); i >= 0 {
			return &list[i], nil
		}
		if len(list) < page {
			return nil, nil
		}
	}
}

// named reports whether d is a download of the model called id, as it was asked for or as it is shown.
func named(d model.Download, id model.ID) bool {
	return d.Model == id || d.Model.Public() == id.String()
}

// unknown is the answer about a model of which there is no download.
func unknown(op string, id model.ID) error {
	return &model.Error{
		Op: op, Class: model.NotFound, Model: id, Err: errors.New("it has no download, neither now nor earlier"),
		Hint: `see all with "ema ps --all"`,
	}
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) error {
	page, err := number(r, "page", 1, math.MaxInt32)
	if err != nil {
		return err
	}
	limit, err := number(r, "limit", 20, 100)
	if err != nil {
		return err
	}
	list, err := s.History.History(r.Context(), limit, (page-1)*limit)
	if err != nil {
		return err
	}
	h := History{Downloads: []Download{}, Page: page, Limit: limit}
	for _, d := range list {
		h.Downloads = append(h.Downloads, describe(d, s.Figures(d.ID), 0))
	}
	s.answer(w, http.StatusOK, h)
	return nil
}

// number is a parameter from 1 to most.
func number(r *http.Request, name string, otherwise, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, invalid("%s: %q is not a number from 1 to %d", name, text, most)
	}
	return n, nil
}

// events streams what happens, a JSON object a line, to the end of the daemon or of the client. With ?since=SEQ it
// begins after that event, with ?download_id= or ?model_id= it is about one download or one model.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	var want event.Want
	if text := r.URL.Query().Get("since"); text != "" {
		since, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return invalid("since: %q is not the number of an event", text)
		}
		want.Since = since
	}
	download, of := r.URL.Query().Get("download_id"), r.URL.Query().Get("model_id")
	want.Filter = func(e event.Event) bool {
		return (download == "" || e.Download == download) && (of == "" || e.Model.String() == of || e.Model.Public() == of)
	}
	sub, err := s.Events.Subscribe(want)
	if err != nil {
		return &Error{Code: Malformed, Message: "since: events before that number are forgotten; begin without since", Class: model.NotFound, Status: http.StatusGone}
	}
	defer sub.Close()
	out := newStream(w)
	if err := out.flush(); err != nil { // the client may rely on it: what happens from now on, it will hear
		return nil
	}
	for {
		all, err := sub.Next(r.Context())
		if err != nil {
			return nil // the client or the daemon is going, or the client is too slow and resumes by since
		}
		for _, e := range all {
			if out.put(tell(e, s.Figures(e.Download))) != nil {
				return nil
			}
		}
		if out.flush() != nil {
			return nil
		}
	}
}

// run executes a command line and streams what it prints.
func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	var c Command
	if err := decode(w, r, &c); err != nil {
		return err
	}
	if len(c.Args) == 0 {
		return invalid("args: there is no command")
	}
	out := newStream(w)
	if out.flush() != nil {
		return nil
	}
	code := s.Execute(r.Context(), c, framer{out, false}, framer{out, true})
	_ = out.put(Frame{Exit: &code}) //nolint:errcheck // whoever has gone needs no exit code
	_ = out.flush()                 //nolint:errcheck // the same
	return nil
}

// A stream is an answer of many JSON lines. It is safe for concurrent use.
type stream struct {
	mu      sync.Mutex
	enc     *json.Encoder
	control *http.ResponseController
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &stream{enc: enc, control: http.NewResponseController(w)}
}

// put writes one line, with patience for a client that reads slowly.
func (s *stream) put(v any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.control.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	return s.enc.Encode(v)
}

func (s *stream) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.control.Flush()
}

// A framer makes frames of what a command prints.
type framer struct {
	out    *stream
	stderr bool
}

func (f framer) Write(p []byte) (int, error) {
	frame := Frame{Stdout: p}
	if f.stderr {
		frame = Frame{Stderr: p}
	}
	if err := errors.Join(f.out.put(frame), f.out.flush()); err != nil {
		return 0, err
	}
	return len(p), nil
}
