package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"ema/client"
	"ema/internal/model"

	"ema/bench/table"
)

// A peer is one that is asked for the same bytes as the others.
type peer struct {
	name, url, tag string
	connections    int
	results        []outcome
}

// compare asks all peers in turn, in an order that shifts from round to round, and has what they did in their results.
func (b *bench) compare(ctx context.Context, peers []*peer) error {
	for round := range b.rounds {
		for i := range peers {
			p := peers[(i+round)%len(peers)]
			w, err := b.wrk(ctx, p.url, p.tag, p.connections, false, b.time)
			if err != nil {
				return err
			}
			o, err := w.outcome()
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if p.tag != "" && o.Bytes/o.Requests > 1000 {
				return fmt.Errorf("%s: %.0f bytes per answer, which is no 304", p.name, o.Bytes/o.Requests)
			}
			p.results = append(p.results, o)
			fmt.Fprintf(os.Stderr, "  %s: %.0f/s, p99 %.1f ms\n", p.name, o.rate(), o.P99/1000)
		}
	}
	return nil
}

func rate(o outcome) float64 { return o.rate() }
func p50(o outcome) float64  { return o.P50 / 1000 }
func p99(o outcome) float64  { return o.P99 / 1000 }

// median is the middle of a figure over the rounds.
func (p *peer) median(figure func(outcome) float64) float64 {
	var all []float64
	for _, o := range p.results {
		all = append(all, figure(o))
	}
	return table.Middle(all)
}

// over is the median of the ratios within each round: what runs at the same time is disturbed by the same things.
func (p *peer) over(other *peer, figure func(outcome) float64) float64 {
	var all []float64
	for i, o := range p.results {
		all = append(all, figure(o)/figure(other.results[i]))
	}
	return table.Middle(all)
}

// told are figures of peers without a target.
func (b *bench) told(peers ...*peer) {
	for _, p := range peers {
		b.table.Note(p.name, fmt.Sprintf("%.0f/s, p50 %.1f ms, p99 %.1f ms", p.median(rate), p.median(p50), p.median(p99)))
	}
}

// spent adds what the daemon used since before, and for each request if there were no downloads besides.
func (b *bench) spent(d *daemon, before cost, requests float64) error {
	after, err := d.cost()
	if err != nil {
		return err
	}
	cpu := after.cpu - before.cpu
	text := fmt.Sprintf("%.2f s", cpu.Seconds())
	if requests > 0 {
		text += fmt.Sprintf(", %.1f µs per request", float64(cpu.Microseconds())/requests)
	}
	b.table.Note("the daemon's CPU", text)
	b.table.Note("its peak memory", after.peak.String())
	return nil
}

func total(peers ...*peer) (n float64) {
	for _, p := range peers {
		for _, o := range p.results {
			n += o.Requests
		}
	}
	return n
}

// body writes the answer about all models to a file, and returns its name, tag and size.
func (s *store) body(ctx context.Context) (file, tag string, size int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.daemon.url+statuses, http.NoBody)
	if err != nil {
		return "", "", 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", "", 0, err
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return "", "", 0, err
	}
	if res.StatusCode != http.StatusOK || res.Header.Get("Etag") == "" {
		return "", "", 0, fmt.Errorf("%s: %s", res.Status, body)
	}
	file = filepath.Join(s.b.dir, fmt.Sprintf("body-%d.json", s.models))
	return file, res.Header.Get("Etag"), len(body), os.WriteFile(file, body, 0o600)
}

// many asks for all of many models, which is a large answer, from 400 connections.
func (b *bench) many(ctx context.Context, s *store) (err error) {
	file, _, size, err := s.body(ctx)
	if err != nil {
		return err
	}
	nginx, err := b.nginx(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, nginx.stop()) }()
	plain, err := b.bare(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	const connections = 400
	ema := &peer{name: "ema", url: s.daemon.url + statuses, connections: connections}
	theirs := &peer{name: "nginx", url: nginx.url, connections: connections}
	simple := &peer{name: "bare net/http", url: plain.url, connections: connections}
	before, err := s.daemon.cost()
	if err != nil {
		return err
	}
	if err := b.compare(ctx, []*peer{ema, theirs, simple}); err != nil {
		return err
	}
	b.table.Note("the answer", fmt.Sprintf("%d models, %d bytes; %d connections", s.models, size, connections))
	b.told(ema, theirs, simple)
	b.table.AtLeast("requests/s ÷ nginx's", "%.2f", ema.over(theirs, rate), 0.7)
	b.table.AtLeast("requests/s ÷ bare's", "%.2f", ema.over(simple, rate), 0.9)
	b.table.AtMost("p99 ÷ nginx's", "%.2f", ema.over(theirs, p99), 3)
	return b.spent(s.daemon, before, total(ema))
}

// few asks for all of a few models, which is a small answer, and for whether it has changed.
func (b *bench) few(ctx context.Context, s *store) (err error) {
	file, tag, size, err := s.body(ctx)
	if err != nil {
		return err
	}
	plain, err := b.bare(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	const connections = 100
	ema := &peer{name: "ema", url: s.daemon.url + statuses, connections: connections}
	simple := &peer{name: "bare net/http", url: plain.url, connections: connections}
	same := &peer{name: "ema, 304", url: ema.url, tag: tag, connections: connections}
	sameSimple := &peer{name: "bare net/http, 304", url: simple.url, tag: bareTag, connections: connections}
	before, err := s.daemon.cost()
	if err != nil {
		return err
	}
	if err := b.compare(ctx, []*peer{ema, simple, same, sameSimple}); err != nil {
		return err
	}
	b.table.Note("the answer", fmt.Sprintf("%d models, %d bytes; %d connections", s.models, size, connections))
	b.told(ema, simple, same, sameSimple)
	// On a machine where the bare handler sends 60,000 in a second, that is 45,000.
	b.table.AtLeast("requests/s ÷ bare's", "%.2f", ema.over(simple, rate), 0.75)
	b.table.AtLeast("304/s", "%.0f", same.median(rate), 60_000)
	b.table.Note("304/s ÷ bare's", fmt.Sprintf("%.2f", same.over(sameSimple, rate)))
	return b.spent(s.daemon, before, total(ema, same))
}

// impatient has ab ask, over a new connection for each request.
func (b *bench) impatient(ctx context.Context, small, large *store) (err error) {
	file, _, size, err := large.body(ctx)
	if err != nil {
		return err
	}
	plain, err := b.bare(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.stop()) }()
	asked := []struct {
		what, url string
		all       []float64
	}{
		{what: fmt.Sprintf("all of %d models", small.models), url: small.daemon.url + statuses},
		{what: fmt.Sprintf("one of %d models", large.models), url: large.daemon.url + statuses + "/" + name(0)},
		{what: fmt.Sprintf("storage with %d models", large.models), url: large.daemon.url + client.Base + "/models/storage"},
		{what: fmt.Sprintf("all of %d models, %d bytes", large.models, size), url: large.daemon.url + statuses},
		{what: "the same bytes by bare net/http", url: plain.url},
	}
	for range b.rounds {
		for i := range asked {
			p95, err := b.ab(ctx, asked[i].url)
			if err != nil {
				return err
			}
			asked[i].all = append(asked[i].all, p95)
		}
	}
	for i, a := range asked {
		if i == len(asked)-1 {
			b.table.Note("p95 ms, "+a.what, fmt.Sprintf("%.1f", table.Middle(a.all)))
			break
		}
		b.table.AtMost("p95 ms, "+a.what, "%.1f", table.Middle(a.all), 5)
	}
	return nil
}

// beside asks modestly while a download runs at full speed, and sees what that takes from it.
func (b *bench) beside(ctx context.Context, s *store) error {
	const connections = 10
	asked := &peer{name: "requests meanwhile", url: s.daemon.url + statuses}
	var lost, alone []float64
	before, err := s.daemon.cost()
	if err != nil {
		return err
	}
	if _, err := s.download(ctx); err != nil { // the first one finds neither buffers nor pages
		return err
	}
	for round := range b.rounds {
		var took [2]time.Duration // without and with requests
		for i := range took {
			with := (i + round) % 2
			if with == 0 {
				if took[0], err = s.download(ctx); err != nil {
					return err
				}
				continue
			}
			w, err := b.wrk(ctx, asked.url, "", connections, true, time.Hour)
			if err != nil {
				return err
			}
			took[1], err = s.download(ctx)
			o, failed := w.interrupt()
			if err := errors.Join(err, failed); err != nil {
				return err
			}
			asked.results = append(asked.results, o)
		}
		alone = append(alone, float64(b.file)/took[0].Seconds())
		lost = append(lost, 100*(1-took[0].Seconds()/took[1].Seconds()))
		fmt.Fprintf(os.Stderr, "  download: %.2f s alone, %.2f s beside requests\n", took[0].Seconds(), took[1].Seconds())
	}
	b.table.Note("the load", fmt.Sprintf("%d models, %d connections, each with %v between its requests", s.models, connections, think))
	b.told(asked)
	b.table.Note("the download alone", fmt.Sprintf("%.0f MiB/s of %d MiB", table.Middle(alone), b.file))
	b.table.AtMost("p99 ms", "%.1f", asked.median(p99), 20)
	b.table.AtMost("% that the download loses", "%.1f", table.Middle(lost), 10)
	return b.spent(s.daemon, before, 0)
}

// download brings the big model, says how long that took, and removes it.
func (s *store) download(ctx context.Context) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	events, err := s.daemon.Events(ctx, client.Interest{Model: big})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, events.Close()) }()
	begun := time.Now()
	if _, err := s.daemon.Manage(ctx, client.Manage{Action: "start", Model: big}); err != nil {
		return 0, err
	}
	for took == 0 {
		e, err := events.Next()
		if err != nil {
			return 0, err
		}
		switch {
		case e.Change == nil:
		case e.Change.New == client.StatusCompleted:
			took = time.Since(begun)
		case e.Change.New == client.StatusFailed:
			return 0, fmt.Errorf("the download failed: %s", e.Change.Reason)
		}
	}
	_, err = s.daemon.DeleteModel(ctx, big)
	return took, err
}

// start starts the daemon anew, and sees how soon it serves.
func (b *bench) start(ctx context.Context, s *store) error {
	var ready, answer []float64
	for range b.rounds {
		if err := s.daemon.stop(); err != nil {
			return err
		}
		var err error
		if s.daemon, err = s.serve(ctx); err != nil {
			return err
		}
		at, err := answering(ctx, s.daemon.url+"/readyz", 10*time.Second)
		if err != nil {
			return err
		}
		ready = append(ready, float64(at.Sub(s.daemon.began).Microseconds())/1000)
		if at, err = answering(ctx, s.daemon.url+statuses, 10*time.Second); err != nil {
			return err
		}
		answer = append(answer, float64(at.Sub(s.daemon.began).Microseconds())/1000)
	}
	b.table.Note("the store", fmt.Sprintf("%d models", s.models))
	b.table.AtMost("ms to /readyz", "%.0f", table.Middle(ready), 300)
	b.table.Note("ms to the first answer about all", fmt.Sprintf("%.0f", table.Middle(answer)))
	c, err := s.daemon.cost()
	if err != nil {
		return err
	}
	b.table.Note("CPU until then", fmt.Sprintf("%.2f s", c.cpu.Seconds()))
	b.table.Note("peak memory then", model.Bytes(c.peak).String())
	return nil
}
