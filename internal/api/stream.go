package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/internal/event"
	"ema/internal/model"
)

// offerStreams has what goes on until somebody ends it.
func (s *Server) offerStreams(rt *router) {
	if s.Events != nil {
		rt.hidden(opEvents, http.MethodGet, Base+"/events", rt.handled(s.events))
	}
	if s.Execute != nil {
		rt.hidden(opRun, http.MethodPost, Base+"/admin/run", rt.handled(s.run))
	}
	if s.Live != nil {
		text := func(name, description string) *huma.Param {
			return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
		}
		rt.raw(operation{
			id: opLive, method: http.MethodGet, path: "/ws", tag: tagLive, summary: "Follow what happens",
			text: "A WebSocket. Messages come as `{\"type\":\"batch\",\"messages\":[…]}`, each with its `type` and a sequence number. " +
				"A client that is too slow is closed with code 1013 and goes on with `since`.",
			fails: []int{http.StatusUpgradeRequired, http.StatusGone},
			parameters: []*huma.Param{
				text("types", "Only messages of these types, separated by commas."),
				text("model_id", "Only messages about this model."),
				text("since", "Messages after that number, as far as they are kept."),
			},
		}, s.Live)
	}
}

// events streams what happens, a JSON object a line, to the end of the daemon or of the client. With ?since=SEQ it
// begins after that event, with ?download_id= or ?model_id= it is about one download or one model.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	var want event.Want
	if text := r.URL.Query().Get("since"); text != "" {
		since, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return invalid("since", "%q is not the number of an event", clip(text))
		}
		want.Since = since
	}
	download, of := r.URL.Query().Get("download_id"), r.URL.Query().Get("model_id")
	want.Filter = func(e event.Event) bool {
		return (download == "" || e.Download == download) && (of == "" || e.Model.String() == of || e.Model.Public() == of)
	}
	sub, err := s.Events.Subscribe(want)
	if err != nil {
		return &Error{Code: Forgotten, Message: "since: events before that number are forgotten; begin without since", Class: model.NotFound, Status: http.StatusGone}
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
			if out.put(tell(e, s.figures(e.Download))) != nil {
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
		return invalid("args", "there is no command")
	}
	aim(r.Context(), c.Args[0]) // the others may hold anything
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
