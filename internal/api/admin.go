package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"ema/client"
	"ema/internal/model"
)

// offerAdministration has what can be asked about the daemon itself.
func (s *Server) offerAdministration(rt *router) {
	register(rt, operation{
		id: opVersion, method: http.MethodGet, path: Base + "/admin/version", tag: tagAdmin, summary: "See which ema this is",
		tagged: true,
	}, func(context.Context, *struct{}) (*Version, error) { return &s.Version, nil })
	if s.Reload != nil {
		register(rt, operation{
			id: opReload, method: http.MethodPost, path: Base + "/admin/reload", tag: tagAdmin, summary: "Read the settings again",
			text: "From the file, the environment and the flags. When one of them is wrong, nothing changes.", fails: []int{http.StatusUnprocessableEntity},
		}, s.reload)
	}
	if s.Resources != nil {
		register(rt, operation{
			id: opResources, method: http.MethodGet, path: Base + "/admin/resources", tag: tagAdmin, summary: "See what the daemon takes and the machine has",
		}, func(ctx context.Context, _ *struct{}) (*client.Resources, error) {
			r, err := s.Resources(ctx)
			r.Disks = append([]client.DiskResources{}, r.Disks...)
			return &r, err
		})
	}
	if s.Trail != nil {
		register(rt, operation{
			id: opAudit, method: http.MethodGet, path: Base + "/admin/audit", tag: tagAdmin, summary: "See who has changed what",
			text: "Newest first, page by page.",
		}, s.audit)
	}
	s.offerHealth(rt)
	s.offerProfiles(rt)
}

func (s *Server) reload(ctx context.Context, _ *struct{}) (*Reloaded, error) {
	what, err := s.Reload(ctx)
	if err != nil {
		return nil, err
	}
	return listed(what), nil
}

// probePatience is how long the parts of the daemon have to say how they are. One that says nothing is not well.
const probePatience = 5 * time.Second

// probed is how one part is, and since when that is known.
type probed struct {
	client.PartHealth
	CheckedAt time.Time `json:"checked_at" doc:"When that was found out."`
}

// alive is the answer of a daemon that answers.
type alive struct {
	Status        string  `json:"status" enum:"healthy" doc:"Whoever can answer is."`
	UptimeSeconds float64 `json:"uptime_seconds" doc:"Since the daemon was started."`
}

func (s *Server) offerHealth(rt *router) {
	register(rt, operation{
		id: opAlive, method: http.MethodGet, path: "/healthz", tag: tagAdmin, summary: "See whether the daemon answers", text: "It needs no key.",
	}, func(context.Context, *struct{}) (*alive, error) { return &alive{client.HealthHealthy, s.uptime()}, nil })
	if s.Ready != nil {
		register(rt, operation{
			id: opReady, method: http.MethodGet, path: "/readyz", tag: tagAdmin, summary: "See whether the daemon can serve",
			text:  "That is, whether the store is open and the database answers. It needs no key.",
			fails: []int{http.StatusServiceUnavailable},
		}, s.ready)
	}
	if len(s.Health) == 0 {
		return
	}
	register(rt, operation{
		id: opHealth, method: http.MethodGet, path: Base + "/admin/health", tag: tagAdmin, summary: "See how the daemon is",
		text: "As its worst part.",
	}, func(ctx context.Context, _ *struct{}) (*client.AdminHealth, error) { return s.health(ctx), nil })
	for _, part := range parts() {
		probe := s.Health[part]
		if probe == nil {
			continue
		}
		register(rt, operation{
			id: opHealthOf + part, method: http.MethodGet, path: Base + "/admin/health/" + part, tag: tagAdmin, summary: "See how one part of the daemon is: " + part,
		}, func(ctx context.Context, _ *struct{}) (*probed, error) {
			ctx, stop := context.WithTimeout(ctx, probePatience)
			defer stop()
			return &probed{healthOf(ctx, probe), time.Now().UTC()}, nil
		})
	}
}

func (s *Server) uptime() float64 {
	if s.Version.Since.IsZero() {
		return 0
	}
	return max(0, time.Since(s.Version.Since).Seconds())
}

func (s *Server) ready(ctx context.Context, _ *struct{}) (*alive, error) {
	if err := s.Ready(ctx); err != nil {
		return nil, &Error{Code: NotReady, Message: err.Error(), Class: model.ClassOf(err), Status: http.StatusServiceUnavailable}
	}
	return &alive{client.HealthHealthy, s.uptime()}, nil
}

// health asks all parts at once: one that hangs makes the others wait no longer than it may.
func (s *Server) health(ctx context.Context) *client.AdminHealth {
	ctx, stop := context.WithTimeout(ctx, probePatience)
	defer stop()
	all := &client.AdminHealth{Status: client.HealthHealthy, UptimeSeconds: s.uptime(), Parts: map[string]client.PartHealth{}}
	var mu sync.Mutex
	var asking sync.WaitGroup
	for part, probe := range s.Health {
		asking.Go(func() {
			h := healthOf(ctx, probe)
			mu.Lock()
			defer mu.Unlock()
			all.Parts[part] = h
			if badness(h.Status) > badness(all.Status) {
				all.Status = h.Status
			}
		})
	}
	asking.Wait()
	all.CheckedAt = time.Now().UTC()
	return all
}

// badness orders how parts are, the best first.
func badness(status string) int {
	switch status {
	case client.HealthHealthy:
		return 0
	case client.HealthUnknown:
		return 1
	case client.HealthDegraded:
		return 2
	}
	return 3
}

func healthOf(ctx context.Context, probe func(context.Context) client.PartHealth) client.PartHealth {
	h := probe(ctx)
	h.Issues = append([]string{}, h.Issues...)
	return h
}

func (s *Server) audit(ctx context.Context, r *Paging) (*client.Audit, error) {
	list, err := s.Trail.Audit(ctx, r.Limit, r.offset())
	if err != nil {
		return nil, err
	}
	page := &client.Audit{Entries: []client.AuditEntry{}, Page: r.Page, Limit: r.Limit}
	for _, e := range list {
		page.Entries = append(page.Entries, client.AuditEntry{
			At: e.At.UTC(), Who: e.Who, Role: e.Role, Remote: e.Remote, Action: e.Action, Target: e.Target, Result: e.Result, RequestID: e.RequestID,
		})
	}
	return page, nil
}
