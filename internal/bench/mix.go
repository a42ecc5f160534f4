package bench

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A Mix says how often each endpoint is called, in comparison with the others: 0 is never, 1000 the most. The zero Mix
// stands for the usual one, 3:1:1.
type Mix struct {
	Status    int `json:"status"`    // GET /api/v1/models/status/detailed
	Start     int `json:"start"`     // POST /api/v1/models/download/manage, action start
	Analytics int `json:"analytics"` // GET /api/v1/models/analytics
}

// UsualMix is three looks at all models to one start of a download and one look at the analytics.
func UsualMix() Mix { return Mix{Status: 3, Start: 1, Analytics: 1} }

// mostWeight bounds a weight: a round of the mix is as long as its weights together.
const mostWeight = 1000

// ParseMix reads "status=3,start=1,analytics=1". What is not named is never called.
func ParseMix(s string) (Mix, error) {
	var m Mix
	seen := map[string]bool{}
	for part := range strings.SplitSeq(s, ",") {
		name, number, found := strings.Cut(strings.TrimSpace(part), "=")
		weight := m.weight(name)
		switch {
		case !found:
			return Mix{}, fmt.Errorf("mix %q: want name=weight, as in status=3,start=1,analytics=1", part)
		case weight == nil:
			return Mix{}, unknownEndpoint(name)
		case seen[name]:
			return Mix{}, fmt.Errorf("mix: %s is named twice", name)
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			return Mix{}, fmt.Errorf("mix: the weight of %s is %q; want a whole number from 0 to %d", name, number, mostWeight)
		}
		*weight, seen[name] = n, true
	}
	if m == (Mix{}) {
		return Mix{}, fmt.Errorf("mix %q calls nothing; give one weight at least", s)
	}
	return m, m.validate()
}

// Only is the mix without the endpoints that are not named. One whose weight is 0 is called with weight 1.
func (m Mix) Only(names ...string) (Mix, error) {
	if m == (Mix{}) {
		m = UsualMix()
	}
	var only Mix
	for _, name := range names {
		weight := only.weight(name)
		if weight == nil {
			return Mix{}, unknownEndpoint(name)
		}
		*weight = max(*m.weight(name), 1)
	}
	if only == (Mix{}) {
		return Mix{}, fmt.Errorf("only: name one endpoint at least: %s", strings.Join(endpointNames(), ", "))
	}
	return only, nil
}

func (m Mix) validate() error {
	for _, name := range endpointNames() {
		if w := *m.weight(name); w < 0 || w > mostWeight {
			return fmt.Errorf("mix: the weight of %s is %d; want 0 to %d", name, w, mostWeight)
		}
	}
	return nil
}

// weight is where the weight of that endpoint is kept; nil when there is no such endpoint.
func (m *Mix) weight(name string) *int {
	switch name {
	case "status":
		return &m.Status
	case "start":
		return &m.Start
	case "analytics":
		return &m.Analytics
	}
	return nil
}

func unknownEndpoint(name string) error {
	return fmt.Errorf("endpoint %q is none of %s", name, strings.Join(endpointNames(), ", "))
}

// A call is one endpoint of the mix: the index of its route.
type call int

const (
	callStatus call = iota
	callStart
	callAnalytics
	calls // how many there are
)

// A route is how a call is made, and what an answer to it always has.
type route struct {
	name, method, path string
	fields             []string
}

// String is the route as people write it.
func (r route) String() string { return r.method + " " + r.path }

const (
	managePath = "/api/v1/models/download/manage"
	activePath = "/api/v1/models/download/active"
)

func routes() [calls]route {
	return [calls]route{
		callStatus:    {"status", http.MethodGet, "/api/v1/models/status/detailed", []string{"models", "summary"}},
		callStart:     {"start", http.MethodPost, managePath, []string{"success", "message", "new_status"}},
		callAnalytics: {"analytics", http.MethodGet, "/api/v1/models/analytics", []string{"models", "summary"}},
	}
}

func endpointNames() []string {
	var names []string
	for _, r := range routes() {
		names = append(names, r.name)
	}
	return names
}

// A deck deals calls in exactly the proportions of a mix: every round has each call as often as its weight says, in an
// order of its own. Drawing lots would be right only in the long run, and two runs could not be compared.
type deck struct {
	rng   *rand.Rand
	cards []call
	next  int
}

func newDeck(m Mix, rng *rand.Rand) *deck {
	d := &deck{rng: rng}
	for c, r := range routes() {
		d.cards = append(d.cards, slices.Repeat([]call{call(c)}, *m.weight(r.name))...)
	}
	d.next = len(d.cards)
	return d
}

func (d *deck) deal() call {
	if d.next == len(d.cards) {
		d.rng.Shuffle(len(d.cards), func(i, k int) { d.cards[i], d.cards[k] = d.cards[k], d.cards[i] })
		d.next = 0
	}
	d.next++
	return d.cards[d.next-1]
}
