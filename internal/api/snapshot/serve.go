package snapshot

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"

	"ema/internal/model"
)

// ServeStatus answers how all models stand.
func (m *Models) ServeStatus(w http.ResponseWriter, r *http.Request) {
	p, err := m.current(r.Context())
	if err != nil {
		m.set.Refuse(w, r, err)
		return
	}
	p.serve(w, r)
}

// ServeModel answers how one model stands. One that nobody here knows is refused by a *model.Error of class NotFound.
func (m *Models) ServeModel(w http.ResponseWriter, r *http.Request, id model.ID) {
	p, err := m.current(r.Context())
	if err != nil {
		m.set.Refuse(w, r, err)
		return
	}
	i, there := p.index[id.Public()]
	if !there {
		m.set.Refuse(w, r, &model.Error{
			Op: "look at", Class: model.NotFound, Model: id, Err: errors.New("it is neither here nor on its way"),
			Hint: "GET /api/v1/models/status/detailed shows all that are",
		})
		return
	}
	p.fragments[i].serve(w, r)
}

// serve writes a. No lock is held meanwhile: who reads slowly delays nobody.
func (a *answer) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Etag"], h["Cache-Control"] = a.tag, a.control
	if known := r.Header["If-None-Match"]; len(known) > 0 {
		switch {
		case len(known) == 1 && known[0] == a.tag[0]:
			w.WriteHeader(http.StatusNotModified)
			return
		case len(known) > 1 || !single(known[0]):
			// A list, a weak tag or a star: the library knows the rules. It writes in pieces, which is slower.
			h["Content-Type"] = a.kind
			if len(known) > 1 { // of which it looks at the first line only
				r = r.Clone(r.Context())
				r.Header.Set("If-None-Match", strings.Join(known, ", "))
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
			return
		}
	}
	h["Content-Type"], h["Content-Length"] = a.kind, a.length
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	_, _ = w.Write(a.body) //nolint:errcheck // whoever hangs up misses it; there is nobody left to tell
}

// single reports whether a condition is one strong tag.
func single(tag string) bool { return strings.HasPrefix(tag, `"`) && strings.Count(tag, `"`) == 2 }
