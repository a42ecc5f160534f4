package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sync/errgroup"

	"ema/internal/api"
	"ema/internal/api/live"
	"ema/internal/api/trust"
	"ema/internal/config"
	"ema/internal/model"
)

// A network is the daemon's door for other processes, machines and browsers: HTTP with a WebSocket, behind a guard.
type network struct {
	listener net.Listener
	guard    *trust.Guard
	hub      *live.Hub
	server   config.Server // as it was at the start: its changes wait for the next
	local    bool          // it hears this machine alone
	open     bool          // everybody who reaches it may everything, also from other machines
}

// openNetwork begins to listen where e says. Nobody is answered yet.
func (d *daemon) openNetwork(ctx context.Context, e *config.Effective, insecure bool) (*network, error) {
	n := &network{server: e.Server, open: insecure}
	n.hub = live.New(d.bus, n.telling(e.Config, nil))
	files := trust.TLS{Cert: e.Server.TLS.Cert, Key: e.Server.TLS.Key, Changed: func(err error) {
		if err != nil {
			d.log.Warn("new certificate not taken up: the old one stays", "error", err.Error())
			return
		}
		d.log.Info("new certificate taken up", "file", e.Server.TLS.Cert)
	}}
	l, err := trust.Listen(ctx, e.Server.Listen, files, len(e.Auth.APIKeys) > 0, insecure)
	if err != nil {
		return nil, &model.Error{Op: "serve", Class: model.Usage, Err: err}
	}
	n.listener, n.local = l, trust.Loopback(l)
	settings, err := n.guarding(e.Config, nil)
	if err == nil {
		n.guard, err = trust.New(settings)
	}
	if err != nil {
		return nil, errors.Join(&model.Error{Op: "serve", Class: model.Usage, Err: err}, l.Close())
	}
	return n, nil
}

// url is where it can be reached.
func (n *network) url() string {
	scheme := "http"
	if n.server.TLS.Cert != "" {
		scheme = "https"
	}
	return scheme + "://" + n.listener.Addr().String()
}

// configure makes c hold for those who ask from now on. Refusals look like all answers of server.
func (n *network) configure(c config.Config, server *api.Server) error {
	settings, err := n.guarding(c, server)
	if err != nil {
		return err
	}
	n.hub.Configure(n.telling(c, server))
	return n.guard.Configure(settings)
}

// guarding is who may do what, as c says.
func (n *network) guarding(c config.Config, server *api.Server) (trust.Settings, error) {
	s := trust.Settings{
		AllowedHosts: n.server.AllowedHosts, AllowedOrigins: n.server.AllowedOrigins,
		Loopback: n.local, Insecure: n.open,
		PerMinute: c.RateLimit.RequestsPerMinute, Burst: c.RateLimit.Burst, Open: api.Open(),
	}
	if server != nil {
		s.Refuse = server.Refuse
	}
	for _, k := range c.Auth.APIKeys {
		role, err := trust.ParseRole(k.Role)
		if err != nil {
			return s, fmt.Errorf("auth.api_keys: %s: %w", k.Name, err)
		}
		s.Keys = append(s.Keys, trust.Key{Name: k.Name, SHA256: k.SHA256, Role: role})
	}
	var err error
	if s.DefaultRole, err = trust.ParseRole(c.Auth.DefaultRole); err != nil {
		return s, fmt.Errorf("auth.default_role: %w", err)
	}
	return s, nil
}

// telling is how clients are told what happens, as c says.
func (n *network) telling(c config.Config, server *api.Server) live.Settings {
	s := live.Settings{
		BatchSize: c.Websocket.BatchSize, BatchTimeout: c.Websocket.BatchTimeoutMs.Duration(), Queue: c.Websocket.QueueSize,
		AllowedOrigins: n.server.AllowedOrigins,
	}
	if server != nil {
		s.Refuse = server.Refuse
	}
	return s
}

// run answers until ctx ends.
func (n *network) run(ctx context.Context, server *api.Server) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.hub.Run(ctx) })
	g.Go(func() error { return server.RunGuarded(ctx, n.listener, n.guard, trust.Patience{}) })
	return g.Wait()
}

// removeModel removes a model with all its revisions, as "ema rm" does, and says how many bytes that freed.
func (d *daemon) removeModel(ctx context.Context, id model.ID) (freed int64, err error) {
	busy, open, err := d.door.shut(ctx)
	if err != nil {
		return 0, err
	}
	defer open()
	if busy[id] {
		return 0, &model.Error{
			Op: "remove", Class: model.Busy, Model: id, Err: errors.New("it is being downloaded, moved or repaired"),
			Hint: "wait until that is over, or cancel its download",
		}
	}
	if _, err := d.line.Store.Model(id); err != nil {
		return 0, named("remove", err)
	}
	plan, err := d.line.Store.PlanRemove(id, "")
	if err != nil {
		return 0, err
	}
	err = d.line.Writer.Remove(ctx, plan)
	d.stored(id, "removed") // of what failed, a part may have gone
	if err != nil {
		return 0, err
	}
	d.log.Info("removed", "model", id.Public(), "freed", plan.Bytes.String())
	return int64(plan.Bytes), nil
}
