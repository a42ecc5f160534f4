package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/queue"
	"ema/internal/throttle"
)

const (
	tellEvery  = 500 * time.Millisecond // progress of one download
	remembered = 100                    // results of downloads that are over
)

// running is one download that the daemon brings, or has brought lately.
type running struct {
	download model.Download
	begun    time.Time
	share    *throttle.Share
	limit    model.Bytes // of its own, under the daemon's lock; 0 is none
	show     *progress   // reads the pipeline's figures; it shows nothing by itself

	mu     sync.Mutex // guards what follows
	state  model.State
	result *client.Result
	told   event.Progress
}

// bring brings one model for the queue.
func (d *daemon) bring(ctx context.Context, dl model.Download, report queue.Reporter) error {
	leave, err := d.door.enter(ctx, dl.Model)
	if err != nil {
		return err
	}
	defer leave()
	defer d.heap.work()()
	defer d.line.own.begin(dl.Model)()
	from := d.look(ctx, d.metrics.Totals(streams()...))
	r := d.begin(dl)
	defer d.end(r)
	report.Follow(func(dl model.Download) { d.follow(r, dl) })
	begun := time.Now()
	req := pipeline.Request{
		ID: dl.Model, Revision: dl.Revision, Select: pipeline.Selection{Include: dl.Include, Exclude: dl.Exclude},
		Limit: r.share, Connections: dl.Connections,
		Resolved: report.Resolved,
		Retried: func(host string, class model.Class, err error, wait time.Duration) {
			d.retried(dl, event.Retry{Host: host, Class: class, Error: err.Error(), Wait: wait})
		},
	}
	watching, stop := context.WithCancel(ctx)
	var watched sync.WaitGroup
	watched.Go(func() { d.tell(watching, r, report) })
	res, err := d.line.Pull(ctx, req, r.show.progress)
	stop()
	watched.Wait()
	d.gauge.keepTiming(context.WithoutCancel(ctx), dl, from)
	d.line.done(ctx, "pull", dl.Model, begun, err, "download", dl.ID, "revision", dl.Revision, "fetched", r.show.progress.Received.Load(), "retries", r.show.progress.Retries.Load())
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.result = &client.Result{Revision: res.Revision, Files: res.Files, Bytes: int64(res.Bytes), Fetched: int64(res.Fetched), Seconds: res.Seconds, Notes: res.Notes}
	r.mu.Unlock()
	report.Progress(res.Bytes)
	report.Completed(res.Path)
	return nil
}

// begin notes that a download runs, and gives it its part of the bandwidth.
func (d *daemon) begin(dl model.Download) *running {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &running{
		download: dl, begun: time.Now(), state: model.Resolving, show: d.app.watch(dl.Model),
		share: d.limiter.Share(weight(dl.Priority), smaller(dl.Limit, d.perDownload())), limit: dl.Limit,
	}
	d.running[dl.ID] = r
	d.active++
	return r
}

// end notes that it runs no more. What it did is remembered for those who ask soon.
func (d *daemon) end(r *running) {
	r.share.Close()
	select {
	case d.rested <- struct{}{}:
	default:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	if !r.over() {
		delete(d.running, r.download.ID)
		return
	}
	d.ended = append(d.ended, r.download.ID)
	if len(d.ended) > remembered {
		delete(d.running, d.ended[0])
		d.ended = d.ended[1:]
	}
}

// tell reports to the queue and to all who listen how a download stands, until ctx ends.
func (d *daemon) tell(ctx context.Context, r *running, report queue.Reporter) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	received := int64(0)
	count := func() {
		now := r.show.progress.Received.Load()
		d.metrics.Received(r.download.Model.Scheme, now-received)
		received = now
	}
	defer count()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		count()
		f := r.figures()
		switch f.Stage {
		case "checking", "fetching":
			r.enter(report, model.Downloading)
		case "publishing":
			r.enter(report, model.Verifying)
		}
		if f.Total > 0 {
			report.Progress(f.Done)
		}
		if p, news := r.progress(f); news {
			d.bus.Tell(event.Event{Kind: event.KindProgress, Download: r.download.ID, Model: r.download.Model, Data: p})
		}
	}
}

// enter says that the next state begins.
func (r *running) enter(report queue.Reporter, s model.State) {
	r.mu.Lock()
	news := r.state != s
	r.state = s
	r.mu.Unlock()
	if news {
		report.Stage(s)
	}
}

// figures are how it stands now.
func (r *running) figures() api.Figures {
	v := r.show.read(time.Now())
	f := api.Figures{
		Stage: r.show.stageNow().Name, Done: v.done, Total: v.total, Rate: float64(v.rate),
		Connections: v.connections, Files: v.allFiles, FilesDone: v.files, Note: v.trouble,
	}
	if left, known := v.eta(); known && v.moves() {
		f.ETA = left
	}
	for class := range r.show.progress.ByClass {
		if n := r.show.progress.ByClass[class].Load(); n > 0 {
			if f.Retries == nil {
				f.Retries = map[string]int64{}
			}
			f.Retries[model.Class(class).String()] = n
		}
	}
	f.Each = r.show.progress.Files
	r.mu.Lock()
	defer r.mu.Unlock()
	f.Result = r.result
	return f
}

// over reports whether it has brought its model.
func (r *running) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result != nil
}

// progress is the event about those figures, and whether it differs from the last one.
func (r *running) progress(f api.Figures) (event.Progress, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := event.Progress{
		State: r.state, Done: f.Done, Total: f.Total, Rate: f.Rate, ETA: f.ETA, Connections: f.Connections, Note: f.Note,
	}
	news := p != r.told
	r.told = p
	return p, news
}

// figures are those of a download that runs or has ended lately; nil of any other.
func (d *daemon) figures(id string) *api.Figures {
	d.mu.Lock()
	r := d.running[id]
	d.mu.Unlock()
	if r == nil {
		return nil
	}
	f := r.figures()
	return &f
}

// retried tells of an attempt that failed and will be repeated.
func (d *daemon) retried(dl model.Download, r event.Retry) {
	d.bus.Tell(event.Event{Kind: event.KindRetry, Download: dl.ID, Model: dl.Model, Data: r})
	d.log.Debug("retry", "model", dl.Model.Public(), "download", dl.ID, "class", r.Class.String(), "error", r.Error, "wait", r.Wait)
}

// hostWaits tells that requests to a host begin to wait, for whichever downloads they are: all that run show it.
func (d *daemon) hostWaits(host string, err error, wait time.Duration) {
	d.bus.Tell(event.Event{Kind: event.KindRetry, Data: event.Retry{Host: host, Class: model.ClassOf(err), Error: err.Error(), Wait: wait}})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.running {
		if !r.over() {
			r.show.progress.Note.Store(fmt.Sprintf("waiting for %s: %v", host, err))
		}
	}
}

// follow gives a running download the part of the bandwidth that it is to have now.
func (d *daemon) follow(r *running, dl model.Download) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.limit = dl.Limit
	r.share.Weigh(weight(dl.Priority))
	r.share.Set(smaller(r.limit, d.perDownload()))
}

// perDownload is the limit for each download, 0 for none. The caller holds mu.
func (d *daemon) perDownload() model.Bytes {
	return d.settings.BandwidthManagement.PerDownloadLimitMbps.PerSecond()
}

// weight is a download's part of the bandwidth relative to others.
func weight(p model.Priority) int { return 1 << (p - model.LowPriority) }

// smaller is the smaller of two limits, of which 0 is none.
func smaller(a, b model.Bytes) model.Bytes {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
