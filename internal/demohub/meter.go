package demohub

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// side is one of the two hosts.
type side uint8

const (
	hubSide side = iota
	cdnSide
)

// A Request is a row of the log.
type Request struct {
	At            time.Time `json:"at"`
	CDN           bool      `json:"cdn"` // seen by the second host
	Kind          Kind      `json:"kind"`
	Method        string    `json:"method"`
	URL           string    `json:"url"`  // path and query
	Path          string    `json:"path"` // of the file it is about; empty if none
	Range         string    `json:"range"`
	Encoding      string    `json:"encoding"`      // Accept-Encoding
	Authorization bool      `json:"authorization"` // whether one was sent
	Remote        string    `json:"remote"`        // address of the connection's other end
	Fault         string    `json:"fault"`         // the fault that bent the answer; empty: none
	Status        int       `json:"status"`        // 0 until headers are sent, and for good if none were
	Sent          int64     `json:"sent"`          // body bytes handed to the connection
	Done          bool      `json:"done"`          // whether the answer is over
}

// Side is what one host saw.
type Side struct {
	Requests      int64 `json:"requests"`
	Authorization int64 `json:"authorization"` // requests that carried an Authorization header
	Connections   int   `json:"connections"`   // distinct connections, by the address of their other end
	Busy          int   `json:"busy"`          // requests being answered now
	MaxBusy       int   `json:"max_busy"`
}

// Stats counts since the hub was made, or since Hub.ResetStats. Bytes are counted before they leave, so
// that what a client has is always counted; what is busy is the server's view: an answer ends a moment
// after its last byte has left, so a client that goes on at once elsewhere may be seen twice.
type Stats struct {
	Requests     map[Kind]int64   `json:"requests"`
	Body         int64            `json:"body"`          // bytes of bulk bodies handed to connections; those still in flight count as sent
	Paths        map[string]int64 `json:"paths"`         // the same by path in the repository (of all repositories together)
	Ranged       int64            `json:"ranged"`        // bulk requests with a Range header
	Encoded      int64            `json:"encoded"`       // bulk requests whose Accept-Encoding allows more than identity
	Limited      int64            `json:"limited"`       // requests refused by a quota
	Transfers    int              `json:"transfers"`     // bulk bodies being sent now
	MaxTransfers int              `json:"max_transfers"` // the most of them at once
	Hub          Side             `json:"hub"`
	CDN          Side             `json:"cdn"`
}

// logSize bounds the log; the oldest requests leave first.
const logSize = 20000

type meter struct {
	mu    sync.Mutex
	stats Stats
	seen  [2]map[string]bool
	log   []*Request
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.stats
	m.stats = Stats{
		Requests: map[Kind]int64{}, Paths: map[string]int64{}, Transfers: old.Transfers, MaxTransfers: old.Transfers,
		Hub: Side{Busy: old.Hub.Busy, MaxBusy: old.Hub.Busy}, CDN: Side{Busy: old.CDN.Busy, MaxBusy: old.CDN.Busy},
	}
	m.seen = [2]map[string]bool{{}, {}}
	m.log = nil
}

func (m *meter) side(cdn bool) (*Side, map[string]bool) {
	if cdn {
		return &m.stats.CDN, m.seen[cdnSide]
	}
	return &m.stats.Hub, m.seen[hubSide]
}

func (m *meter) begin(r *http.Request, s side, a *answer, fault string) *Request {
	row := &Request{
		At: time.Now(), CDN: s == cdnSide, Kind: a.kind, Method: r.Method, URL: r.URL.RequestURI(), Path: a.path,
		Range: r.Header.Get("Range"), Encoding: strings.Join(r.Header.Values("Accept-Encoding"), ", "),
		Authorization: r.Header.Get("Authorization") != "", Remote: r.RemoteAddr, Fault: fault,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Requests[a.kind]++
	if a.kind == Bulk {
		if row.Range != "" {
			m.stats.Ranged++
		}
		if row.Encoding != "" && row.Encoding != "identity" {
			m.stats.Encoded++
		}
	}
	side, seen := m.side(row.CDN)
	side.Requests++
	if row.Authorization {
		side.Authorization++
	}
	if !seen[r.RemoteAddr] {
		seen[r.RemoteAddr] = true
		side.Connections++
	}
	side.Busy++
	side.MaxBusy = max(side.MaxBusy, side.Busy)
	if len(m.log) >= logSize {
		m.log = append(m.log[:0:0], m.log[logSize/10:]...)
	}
	m.log = append(m.log, row)
	return row
}

func (m *meter) end(row *Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row.Done = true
	side, _ := m.side(row.CDN)
	side.Busy--
}

func (m *meter) status(row *Request, status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row.Status = status
}

func (m *meter) limited() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Limited++
}

// transfer counts a bulk body that begins (+1) or ends (-1).
func (m *meter) transfer(by int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Transfers += by
	m.stats.MaxTransfers = max(m.stats.MaxTransfers, m.stats.Transfers)
}

func (m *meter) transfers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats.Transfers
}

func (m *meter) sent(row *Request, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row.Sent += n
	if row.Kind == Bulk {
		m.stats.Body += n
		m.stats.Paths[row.Path] += n
	}
}

// Stats is a snapshot of the counters.
func (h *Hub) Stats() Stats {
	h.meter.mu.Lock()
	defer h.meter.mu.Unlock()
	s := h.meter.stats
	s.Requests, s.Paths = maps.Clone(s.Requests), maps.Clone(s.Paths)
	return s
}

// ResetStats sets all counters to zero and empties the log; what is going on now still counts as going on.
func (h *Hub) ResetStats() { h.meter.reset() }

// Log copies the newest requests, at most 20000, oldest first, in the order in which they came.
func (h *Hub) Log() []Request {
	h.meter.mu.Lock()
	defer h.meter.mu.Unlock()
	rows := make([]Request, len(h.meter.log))
	for i, row := range h.meter.log {
		rows[i] = *row
	}
	return rows
}
