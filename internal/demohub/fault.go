package demohub

import (
	"net/http"
)

// A Fault bends one answer. The zero Fault bends nothing.
type Fault struct {
	name string
	bend func(*answer, *http.Request)
}

// String names the fault as ParseFault reads it.
func (f Fault) String() string { return f.name }

type rule struct {
	match Match
	fault Fault
	left  int // negative: for good
}

// A Match chooses requests; the zero Match chooses all.
type Match struct {
	Kind   Kind
	Method string
	// Path is a pattern for the file's path in the repository, or for the path of the URL: * stands for any
	// characters, slashes included. Empty matches all.
	Path string
}

// pick is the fault for a request.
func (h *Hub) pick(r *http.Request, a *answer) Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.kind == Bulk && len(h.next) > 0 {
		f := h.next[0]
		h.next = h.next[1:]
		return f
	}
	return Fault{}
}
