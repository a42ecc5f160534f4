// Package demohub is a model hub in this process: made-up models, the real protocol, faults on request.
//
// A Hub is an http.Handler that speaks the Hugging Face hub protocol (reference/hub-protocol, sections
// 2 to 12) for models whose content is generated while it is sent, so that a 60 GB file costs no memory.
// Hub.CDN is the second host to which large files are redirected. Hub.Fault and Hub.Next bend single
// answers on the wire: resets, cuts, stalls, wrong ranges, changed validators, rate limits. A Hub leaves no
// goroutine behind; all its waits end with the request, so it runs over sockets, over PipeListener, and in
// testing/synctest bubbles. All its methods may be called at any time from several goroutines.
package demohub

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"ema/internal/model"
)

// Hub serves repositories as a model hub does. New makes one; the zero Hub is not usable.
type Hub struct {
	mu       sync.Mutex // guards the fields up to the empty line
	repos    map[string]*repo
	renamed  map[string]string
	files    map[string]Entry
	accounts map[string]string // token to user name
	settings settings
	api      quota
	resolver quota
	uses     map[string]int // requests per signature, counted only when signatures have limited uses
	rules    []*rule
	next     []Fault

	nonce  atomic.Int64 // tells signatures apart
	meter  meter
	buffer sync.Pool // of *[]byte of pieceSize
}

type settings struct {
	cdn         string        // base URL of the second host; empty: files are served directly
	life        time.Duration // of signed URLs
	maxUses     int           // of one signed URL; 0: unlimited
	smallHop    bool
	pageSize    int
	maxSiblings int
	rate        model.Bytes
	latency     time.Duration
	collapse    int
	collapsed   model.Bytes
}

// An Option gives a Hub content or behaviour: see New and Hub.Set.
type Option func(*Hub)

// New makes a hub. Without options it has no repositories, every token is valid, large files are served
// directly, signed URLs live an hour, tree pages hold 1000 entries, and nothing is slowed down.
func New(opts ...Option) *Hub {
	h := &Hub{
		repos:    map[string]*repo{},
		renamed:  map[string]string{},
		files:    map[string]Entry{},
		accounts: map[string]string{},
		uses:     map[string]int{},
		settings: settings{life: time.Hour, pageSize: 1000},
	}
	h.meter.reset()
	h.buffer.New = func() any { b := make([]byte, pieceSize); return &b }
	h.Set(opts...)
	return h
}

// Set applies further options, also while requests are being served.
func (h *Hub) Set(opts ...Option) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, opt := range opts {
		opt(h)
	}
}

// Account makes token a valid one, of the named user. As soon as a hub has one account, all tokens that
// are not of an account are refused, on every request, as the real hub does.
func Account(token, user string) Option { return func(h *Hub) { h.accounts[token] = user } }

// Renamed makes every request for the repository old answer 307 to the same place of the repository id.
// Old may be a legacy id of one part.
func Renamed(old, id string) Option { return func(h *Hub) { h.renamed[old] = id } }

// Files serves entries as a plain web server at /files/PATH, with ETag, Last-Modified and ranges.
func Files(entries ...Entry) Option {
	return func(h *Hub) {
		for _, e := range entries {
			h.files[e.Path] = e
		}
	}
}

// ViaCDN redirects requests for LFS files to base, the URL at which Hub.CDN is mounted (no slash at its
// end), with a signed query. An empty base serves them directly again.
func ViaCDN(base string) Option { return func(h *Hub) { h.settings.cdn = base } }

// SignedFor is how long a signed URL is valid. It is checked when a request begins.
func SignedFor(d time.Duration) Option { return func(h *Hub) { h.settings.life = d } }

// SignedUses is how many requests a signed URL is good for; 0 is any number.
func SignedUses(n int) Option { return func(h *Hub) { h.settings.maxUses = n } }

// SmallViaRedirect answers resolve requests for small files with a 307 to /api/resolve-cache, as the real
// hub does, instead of the content.
func SmallViaRedirect() Option { return func(h *Hub) { h.settings.smallHop = true } }

// PageSize is the largest number of entries in one page of a tree listing.
func PageSize(n int) Option { return func(h *Hub) { h.settings.pageSize = max(1, n) } }

// MaxSiblings cuts the file list of repository info to n entries, as hubs do for very large
// repositories; 0 lists all.
func MaxSiblings(n int) Option { return func(h *Hub) { h.settings.maxSiblings = n } }

// Rate caps each bulk transfer, and with it each connection, at bytes per second; 0 is no cap.
func Rate(perSecond model.Bytes) Option { return func(h *Hub) { h.settings.rate = perSecond } }

// Latency is waited before each answer, API answers included.
func Latency(d time.Duration) Option { return func(h *Hub) { h.settings.latency = d } }

// Collapse makes throughput break down under concurrency: while more than conns bulk transfers run, they
// share total bytes per second among them. A total of 0 switches it off; conns 0 makes total a plain cap.
func Collapse(conns int, total model.Bytes) Option {
	return func(h *Hub) { h.settings.collapse, h.settings.collapsed = conns, total }
}

// APIQuota allows n API requests per window; more are answered 429 with RateLimit headers. n 0 is no limit.
func APIQuota(n int, window time.Duration) Option {
	return func(h *Hub) { h.api = quota{bucket: "api", most: n, window: window} }
}

// ResolveQuota allows n requests for files (the CDN's are not counted) per window; see APIQuota.
func ResolveQuota(n int, window time.Duration) Option {
	return func(h *Hub) { h.resolver = quota{bucket: "resolvers", most: n, window: window} }
}

// ServeHTTP answers as the hub's own host.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.serve(w, r, hubSide, h.plan)
}

// CDN answers as the second host: it serves the signed URLs to which the hub redirects. Mount it on a
// listener of its own and tell the hub by ViaCDN.
func (h *Hub) CDN() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, r, cdnSide, h.planCDN)
	})
}

// serve is the way of every request: plan the honest answer, bend it if a fault is due, send it.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request, s side, plan func(*http.Request) *answer) {
	a := plan(r)
	fault := h.pick(r, a)
	entry := h.meter.begin(r, s, a, fault.name)
	defer h.meter.end(entry)

	if latency := h.current().latency; latency > 0 && wait(r.Context(), latency) != nil {
		return
	}
	if fault.bend != nil {
		fault.bend(a, r)
	}
	h.send(w, r, a, entry)
}

func (h *Hub) current() settings {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.settings
}
