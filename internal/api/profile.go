package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"runtime"
	profiles "runtime/pprof"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
	"ema/internal/model"
)

// How long a profile may be taken, in seconds. One of the processors costs next to nothing; others that take time are large, or
// written while they are taken, for which the server has less patience.
const (
	usualProfile  = 10
	mostProfile   = 300
	mostOtherwise = 30
)

const profileKind = "application/octet-stream"

// offerProfiles has the profiles of Go. The daemon's command line is not among them: people pass secrets there.
func (s *Server) offerProfiles(rt *router) {
	rt.raw(operation{
		id: opProfiles, method: http.MethodGet, path: "/debug/pprof/", tag: tagAdmin, summary: "List the profiles that can be taken", text: "A page for people.", kind: "text/html",
	}, http.HandlerFunc(pprof.Index))
	seconds := func(most int, text string) *huma.Param {
		return &huma.Param{Name: "seconds", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: new(1.0), Maximum: new(float64(most))}, Description: text}
	}
	rt.raw(operation{
		id: opProfile, method: http.MethodGet, path: "/debug/pprof/{profile}", tag: tagAdmin, summary: "Take a profile of the daemon",
		text: "As `go tool pprof` and `go tool trace` read it.", fails: []int{http.StatusNotFound, http.StatusConflict}, kind: profileKind,
		parameters: []*huma.Param{
			{Name: "profile", In: "path", Required: true, Example: "heap", Schema: &huma.Schema{Type: huma.TypeString}, Description: "profile (of the processors), trace, heap, allocs, goroutine, block, mutex or threadcreate."},
			seconds(mostProfile, "For how long: of profile up to 300, of others up to 30; others than profile and trace then tell of that time alone."),
			{Name: "debug", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: new(0.0), Maximum: new(2.0)}, Description: "1 and 2 are text for people."},
			{Name: "gc", In: "query", Schema: &huma.Schema{Type: huma.TypeInteger, Minimum: new(0.0), Maximum: new(1.0)}, Description: "Of heap: 1 collects garbage first."},
		},
	}, rt.handled(s.profile))
	memory := " `" + client.MemoryNow + "` and `" + client.MemoryPeak + "` tell the memory of the daemon, now and at most since it began, in bytes."
	rt.raw(operation{
		id: opProfileCPU, method: http.MethodPost, path: Base + "/admin/profile/cpu", tag: tagAdmin, summary: "Profile what the daemon's processors do",
		text: "For `go tool pprof`. One such profile is taken at a time. It ends before its time when the daemon stops, and when nobody waits for it any more." + memory,
		kind: profileKind, fails: []int{http.StatusConflict},
		parameters: []*huma.Param{seconds(mostProfile, "For how long; 10 when it is not said.")},
	}, rt.handled(s.profileCPU))
	rt.raw(operation{
		id: opProfileHeap, method: http.MethodPost, path: Base + "/admin/profile/heap", tag: tagAdmin, summary: "Profile what the daemon's memory holds",
		text: "For `go tool pprof`. Garbage is collected first, so that it tells of what is in use." + memory, kind: profileKind,
	}, rt.handled(s.profileHeap))
	if s.Recorded == nil {
		return
	}
	rt.raw(operation{
		id: opProfileTrace, method: http.MethodPost, path: Base + "/admin/profile/trace", tag: tagAdmin, summary: "Get what the daemon did in the last seconds",
		text: "For `go tool trace`: up to 10 seconds, as far as 16 MiB of memory reach, if `monitoring.flight_recorder` is set." + memory,
		kind: profileKind, fails: []int{http.StatusConflict},
	}, rt.handled(s.recorded))
}

// ErrNotRecording means that the flight recorder does not run.
var ErrNotRecording = errors.New("the flight recorder does not run; let it, by setting monitoring.flight_recorder to true")

// recorded is what the flight recorder has.
func (s *Server) recorded(w http.ResponseWriter, _ *http.Request) error {
	var taken bytes.Buffer // a failure at the end must not look like a whole one
	if err := s.Recorded(&taken); errors.Is(err, ErrNotRecording) {
		return &Error{Code: NotRecording, Message: ErrNotRecording.Error(), Class: model.Usage, Status: http.StatusConflict}
	} else if err != nil {
		return err
	}
	s.answerProfile(w, "seconds", "trace", taken.Bytes())
	return nil
}

// number is what the query says under that name; 0 when it says nothing.
func number(r *http.Request, name string, least, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, invalid("query."+name, "expected a number from %d to %d, not %q", least, most, clip(text))
	}
	return n, nil
}

// profile is one of those that Go has.
func (s *Server) profile(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("profile")
	if name == "profile" {
		return s.profileCPU(w, r)
	}
	seconds, err := number(r, "seconds", 1, mostOtherwise)
	if err != nil {
		return err
	}
	for other, most := range map[string]int{"debug": 2, "gc": 1} {
		if _, err := number(r, other, 0, most); err != nil {
			return err
		}
	}
	switch {
	case name == "trace":
		query := r.URL.Query()
		if seconds == 0 {
			query.Set("seconds", strconv.Itoa(usualProfile))
		}
		r.URL.RawQuery = query.Encode()
		pprof.Trace(w, r)
	case profiles.Lookup(name) != nil:
		pprof.Handler(name).ServeHTTP(w, r)
	default:
		return &Error{Code: NoEndpoint, Message: "there is no profile " + clip(name) + "; /debug/pprof/ lists them", Class: model.NotFound, Status: http.StatusNotFound}
	}
	return nil
}

// profileCPU takes a profile for as long as it is asked to, until who asked goes away, or until the daemon stops: what there is then
// is answered all the same.
func (s *Server) profileCPU(w http.ResponseWriter, r *http.Request) error {
	seconds, err := number(r, "seconds", 1, mostProfile)
	if err != nil {
		return err
	}
	if seconds == 0 {
		seconds = usualProfile
	}
	// While a body is unread, net/http does not notice that its sender has gone.
	if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, mostBody)); err != nil {
		return unreadable(err)
	}
	took := time.Duration(seconds) * time.Second
	var taken bytes.Buffer
	if err := profiles.StartCPUProfile(&taken); err != nil {
		return &Error{
			Code: ProfileTaken, Message: "a profile of the processors is being taken already, and there can be only one; ask again when it is done",
			Class: model.Busy, Status: http.StatusConflict,
		}
	}
	// The server's patience for answers is shorter. Where there is no connection, there is none.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(took + writePatience)) //nolint:errcheck // see above
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	profiles.StopCPUProfile()
	s.answerProfile(w, "cpu", "pprof", taken.Bytes())
	return nil
}

// profileHeap tells what is in use.
func (s *Server) profileHeap(w http.ResponseWriter, _ *http.Request) error {
	var taken bytes.Buffer
	runtime.GC() // the profile is as of the last collection
	if err := profiles.Lookup("heap").WriteTo(&taken, 0); err != nil {
		return err
	}
	s.answerProfile(w, "heap", "pprof", taken.Bytes())
	return nil
}

// answerProfile writes a profile, and how much memory this process has.
func (s *Server) answerProfile(w http.ResponseWriter, kind, ending string, taken []byte) {
	h := w.Header()
	if s.Memory != nil {
		now, peak, err := s.Memory()
		if err == nil {
			h.Set(client.MemoryNow, strconv.FormatInt(int64(now), 10))
			h.Set(client.MemoryPeak, strconv.FormatInt(int64(peak), 10))
		} else { // the profile is worth having all the same
			s.Log.Warn("the memory of the daemon is not known", "error", err.Error())
		}
	}
	h.Set("Content-Type", profileKind)
	h.Set("Content-Length", strconv.Itoa(len(taken)))
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="ema-%s-%s.%s"`, kind, time.Now().UTC().Format("20060102-150405"), ending))
	if _, err := w.Write(taken); err != nil {
		s.Log.Debug("answer not taken", "error", err.Error())
	}
}
