package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"ema/internal/api/pages"
	"ema/internal/api/trust"
	"ema/internal/model"
)

// A route is how one operation is reached.
type route struct {
	http.Handler
	id     string // of the operation
	method string
	path   string     // as documented
	least  trust.Role // that may ask for it
	whole  bool       // the path has no parameters
}

// A router finds the operation that a request asks for, lets those do it who may, and remembers who changed what.
type router struct {
	s      *Server
	mux    *http.ServeMux
	api    huma.API
	routes map[string]*route // by their patterns, as the mux has them
	roles  map[string]trust.Role
}

func newRouter(s *Server) *router {
	rt := &router{s: s, mux: http.NewServeMux(), routes: map[string]*route{}, roles: roles()}
	rt.api = huma.NewAPI(rt.config(), rt)
	return rt
}

// Handle registers an operation of Huma's; with ServeHTTP it makes the router a huma.Adapter.
func (rt *router) Handle(op *huma.Operation, handle func(huma.Context)) {
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handle(humago.NewContext(op, r, w)) })
	if op.RequestBody != nil {
		h = rt.whole(h)
	}
	if op.Metadata[tagged] != nil {
		h = withTag(h)
	}
	rt.add(op.OperationID, op.Method, op.Path, h)
}

// add registers an operation. Ids of models have slashes: where one ends a path, it may stand there as it is, and
// escaped it is a segment like any other.
func (rt *router) add(id, method, at string, h http.Handler) {
	pattern := at
	if before, ok := strings.CutSuffix(at, "{model_id}"); ok {
		pattern = before + "{model_id...}"
	} else if strings.HasSuffix(at, "/") {
		pattern += "{$}"
	}
	pattern = method + " " + pattern
	least, declared := rt.roles[id]
	if !declared { // what was forgotten stays shut
		least = trust.Admin
	}
	added := &route{Handler: h, id: id, method: method, path: at, least: least, whole: !strings.Contains(pattern, "{")}
	rt.routes[pattern] = added
	rt.mux.Handle(pattern, added)
	if before, after, ok := strings.Cut(at, "/{model_id}/"); ok { // as it is, too: that of a model of the hub has one slash
		alias := method + " " + before + "/{owner}/{name}/" + after
		other := *added
		other.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.SetPathValue("model_id", r.PathValue("owner")+"/"+r.PathValue("name"))
			h.ServeHTTP(w, r)
		})
		rt.routes[alias] = &other
		rt.mux.Handle(alias, &other)
	}
}

// A visit is what is to be remembered of a request that changes something.
type visit struct {
	target string
	result Code // of the refusal; empty for none
	hushed bool // nothing is, unless it was refused
}

type visitKey struct{}

// aim says what the request under ctx is about, for the audit trail.
func aim(ctx context.Context, target string) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		v.target = target
	}
}

// hush keeps the request under ctx out of the audit trail, unless it is refused.
func hush(ctx context.Context) {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		v.hushed = true
	}
}

// A told answer knows what was told.
type told struct {
	http.ResponseWriter
	status int // 0 until it begins
}

func (t *told) WriteHeader(status int) {
	if t.status == 0 || t.status < 200 {
		t.status = status
	}
	t.ResponseWriter.WriteHeader(status)
}

func (t *told) Write(p []byte) (int, error) {
	if t.status == 0 {
		t.status = http.StatusOK
	}
	return t.ResponseWriter.Write(p)
}

// Unwrap leads http.ResponseController to the connection.
func (t *told) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// ServeHTTP answers one request.
func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	identify(w.Header())
	t := &told{ResponseWriter: w}
	found := rt.find(r)
	if found == nil {
		rt.lost(t, r)
		rt.measure("", t, time.Now())
		return
	}
	begun := time.Now()
	var v *visit
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		v = &visit{}
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
	}
	rt.s.waiting.begin(t, found.id, begun)
	defer func() {
		if broken := recover(); broken != nil {
			rt.broken(t, r, broken)
		}
		rt.s.waiting.end(t)
		rt.measure(found.id, t, begun)
		if v != nil {
			rt.record(t, r, found, v)
		}
	}()
	if found.least != trust.None {
		if err := trust.Permit(r.Context(), found.least); err != nil {
			rt.s.Refuse(t, r, err)
			return
		}
	}
	if found.whole { // it has been found already
		found.ServeHTTP(t, r)
		return
	}
	rt.mux.ServeHTTP(t, r)
}

// identify gives an answer the id by which it can be found in logs and in the audit trail, unless it has one.
func identify(h http.Header) {
	if h["X-Request-Id"] == nil {
		h["X-Request-Id"] = []string{"req_" + rand.Text()[:16]}
	}
}

// find is the route of a request; nil when there is none. No request is redirected to a path that would do: whoever
// writes another one means something else.
func (rt *router) find(r *http.Request) *route {
	if p := r.URL.EscapedPath(); path.Clean(p) != p && path.Clean(p)+"/" != p {
		return nil
	}
	h, _ := rt.mux.Handler(r)
	found, ok := h.(*route)
	if !ok {
		return nil
	}
	if found.id == opDelete && r.URL.RawPath == "" && len(rt.methods(r)) > 1 {
		// That is no model but a place of ours. A model that is called alike is deleted by its escaped name.
		return nil
	}
	return found
}

// methods are those that the path of r takes.
func (rt *router) methods(r *http.Request) []string {
	var all []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		other := &http.Request{Method: method, Host: r.Host, URL: r.URL}
		if h, _ := rt.mux.Handler(other); isRoute(h) {
			all = append(all, method)
		}
	}
	return all
}

// isRoute tells our handlers from those by which the mux redirects and refuses.
func isRoute(h http.Handler) bool {
	_, ok := h.(*route)
	return ok
}

// lost answers where there is nothing.
func (rt *router) lost(w http.ResponseWriter, r *http.Request) {
	allowed := rt.methods(r)
	if r.Method == http.MethodDelete { // see find
		allowed = slices.DeleteFunc(allowed, func(m string) bool { return m == http.MethodDelete })
	}
	if p := r.URL.EscapedPath(); len(allowed) == 0 || path.Clean(p) != p && path.Clean(p)+"/" != p {
		rt.s.Refuse(w, r, &Error{Code: NoEndpoint, Message: "there is nothing at " + clip(r.URL.Path), Class: model.NotFound, Status: http.StatusNotFound})
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	rt.s.Refuse(w, r, &Error{
		Code: WrongMethod, Message: fmt.Sprintf("%s does not take %s; use %s", clip(r.URL.Path), clip(r.Method), strings.Join(allowed, " or ")),
		Class: model.Usage, Status: http.StatusMethodNotAllowed,
	})
}

// broken answers when a handler has panicked.
func (rt *router) broken(t *told, r *http.Request, why any) {
	if err, ok := why.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(why) // it means to cut the connection
	}
	rt.s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "panic", why, "stack", string(debug.Stack()))
	if t.status != 0 {
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	rt.s.Refuse(t, r, &Error{Code: Internal, Message: "that is a mistake of ema; report what the log of the daemon says", Status: http.StatusInternalServerError})
}

func (rt *router) measure(id string, t *told, begun time.Time) {
	if took := time.Since(begun); rt.s.Slow != nil && took > slowAnswer && !slices.Contains(lasting(), id) {
		rt.s.Slow(id, took)
	}
	if rt.s.Measure == nil {
		return
	}
	status := t.status
	if status == 0 {
		status = http.StatusOK
	}
	rt.s.Measure(id, status, time.Since(begun))
}

// recordPatience is how long the audit trail may take to be written, after the answer.
const recordPatience = 5 * time.Second

// record adds a request to the audit trail, whatever has become of its client meanwhile.
func (rt *router) record(t *told, r *http.Request, found *route, v *visit) {
	if rt.s.Trail == nil || v.hushed && v.result == "" {
		return
	}
	who := trust.From(r.Context())
	entry := model.AuditEntry{
		At: time.Now().UTC(), Who: who.Name, Role: who.Role.String(), Action: found.id, Target: v.target, Result: "ok",
		RequestID: t.Header().Get("X-Request-Id"), Remote: trust.Remote(r),
	}
	if v.result != "" {
		entry.Result = string(v.result)
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(r.Context()), recordPatience)
	defer stop()
	if err := rt.s.Trail.Record(ctx, entry); err != nil {
		rt.s.Log.Error("audit trail not written", "action", entry.Action, "who", entry.Who, "request", entry.RequestID, "error", err.Error())
	}
}

// whole reads the body of a request before next does, because only here it is known why it cannot be read.
func (rt *router) whole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBody))
		if err != nil {
			rt.s.Refuse(w, r, unreadable(err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// tagged marks operations whose answers bear an ETag.
const tagged = "tagged"

// withTag lets clients keep answers of next: one that they have already is not sent again.
func withTag(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k := &keptAnswer{ResponseWriter: w}
		next.ServeHTTP(k, r)
		if k.status != http.StatusOK {
			return
		}
		w.Header().Set("Etag", pages.Tag(k.body.Bytes()))
		w.Header().Set("Cache-Control", "private, no-cache")
		pages.ServeTagged(w, r, k.body.Bytes())
	})
}

// A keptAnswer holds back an answer that says yes.
type keptAnswer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (k *keptAnswer) WriteHeader(status int) {
	if k.status = status; status != http.StatusOK {
		k.ResponseWriter.WriteHeader(status)
	}
}

func (k *keptAnswer) Write(p []byte) (int, error) {
	if k.status == 0 {
		k.status = http.StatusOK
	}
	if k.status == http.StatusOK {
		return k.body.Write(p)
	}
	return k.ResponseWriter.Write(p)
}

// Unwrap leads http.ResponseController to the connection.
func (k *keptAnswer) Unwrap() http.ResponseWriter { return k.ResponseWriter }
