package live

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"ema/internal/model"
)

// A Refusal says why a request gets no WebSocket. It wraps event.ErrGone when the client has missed more than is kept.
type Refusal struct {
	Status int     // of HTTP
	Fields []Field // of the query that are wrong; nil when it is something else
	Err    error
}

// A Field is a part of the query that is wrong.
type Field struct {
	Name    string // types, model_id or since
	Message string
}

// Error is the sentence of its cause.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// mostModels bounds what has to be compared for each message.
const mostModels = 100

// A filter picks messages. The zero filter picks all.
type filter struct {
	types, models map[string]bool // nil is all
	key           string          // equal for filters that pick the same
}

func (f filter) all() bool { return f.types == nil && f.models == nil }

func (f filter) wants(m *message) bool {
	return (f.types == nil || f.types[m.kind]) && (f.models == nil || f.models[m.model])
}

// parseQuery reads what a client asks for: ?types=a,b&model_id=org/name&since=SEQ. Each may be given more than once, save for
// since, and none that is empty counts. The error, a *Refusal, names everything that is wrong.
func parseQuery(raw string) (f filter, since uint64, err error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return f, 0, &Refusal{Status: http.StatusBadRequest, Err: usage("the query is not one: %v; escape it", err)}
	}
	var wrong []Field
	blame := func(name, format string, args ...any) {
		wrong = append(wrong, Field{name, fmt.Sprintf(format, args...)})
	}

	for kind := range strings.SplitSeq(strings.Join(query["types"], ","), ",") {
		switch {
		case kind == "":
		case !slices.Contains(types(), kind):
			blame("types", "there are no messages of type %q; there are %s", clip(kind), strings.Join(types(), ", "))
		default:
			f.types = with(f.types, kind)
		}
	}
	for _, name := range query["model_id"] {
		if name == "" {
			continue
		}
		id, err := model.ParseID(name)
		if err != nil {
			blame("model_id", "%v", err)
			continue
		}
		f.models = with(f.models, id.Public())
	}
	if len(f.models) > mostModels {
		blame("model_id", "%d models are more than the %d that one client may ask for; ask for all, or connect twice", len(f.models), mostModels)
	}
	if text := query.Get("since"); text != "" {
		if since, err = strconv.ParseUint(text, 10, 64); err != nil {
			blame("since", "%q is not the seq of a message", clip(text))
		}
	}
	if len(wrong) > 0 {
		var all []string
		for _, w := range wrong {
			all = append(all, w.Name+": "+w.Message)
		}
		return filter{}, 0, &Refusal{Status: http.StatusUnprocessableEntity, Fields: wrong, Err: usage("%s", strings.Join(all, "; "))}
	}
	if !f.all() {
		f.key = fmt.Sprintf("%q %q", slices.Sorted(maps.Keys(f.types)), slices.Sorted(maps.Keys(f.models)))
	}
	return f, since, nil
}

func with(set map[string]bool, one string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	set[one] = true
	return set
}

func usage(format string, args ...any) error {
	return &model.Error{Op: "follow messages", Class: model.Usage, Err: fmt.Errorf(format, args...)}
}

// clip shortens foreign text for an error message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
