package main

import (
	"context"
	"crypto/sha256"
	"maps"
	"path/filepath"
	"runtime/metrics"
	"sync"
	"time"

	"ema/internal/config"
	"ema/internal/host"
	ours "ema/internal/metrics"
	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/source"
	"ema/internal/tune"
)

// A look is what was counted at one moment. What has grown between two of them is evidence of what everything waited for.
type look struct {
	at           time.Time
	ran, delayed time.Duration // by and for this process; negative when the kernel does not tell
	collecting   float64       // seconds of the garbage collector
	busy, all    float64       // seconds of all processors; all is 0 when they cannot be read
	links        map[string]source.Link
	downloads    map[string]progressLook // by download
	disk         host.Device
	noDisk       error

	// What follows is of a daemon only.
	totals  ours.Totals
	writes  uint64 // of batches of history
	writing time.Duration
}

// baselineFile has the report of the benchmark that later ones are compared with, in the store's state folder.
const baselineFile = "baseline.json"

// A progressLook is what was counted of one download.
type progressLook struct {
	spent    source.Spent
	hashing  time.Duration
	received int64
	retries  map[string]int64
}

// lookAt counts a download.
func lookAt(p *pipeline.Progress) progressLook {
	l := progressLook{spent: p.Watch.Spent(), hashing: time.Duration(p.Hashing.Load()), received: p.Received.Load(), retries: map[string]int64{}}
	for class := range p.ByClass {
		if n := p.ByClass[class].Load(); n > 0 {
			l.retries[model.Class(class).String()] = n
		}
	}
	return l
}

// look counts what concerns this machine and this process.
func (l *line) look(ctx context.Context, h *host.Host) look {
	now := look{at: time.Now(), links: map[string]source.Link{}, downloads: map[string]progressLook{}}
	var err error
	if now.ran, now.delayed, err = h.Scheduling(); err != nil {
		now.ran, now.delayed = -1, -1
	}
	now.busy, now.all, _ = host.Processors(ctx) //nolint:errcheck // 0 says that it cannot be read
	gc := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(gc)
	if gc[0].Value.Kind() == metrics.KindFloat64 {
		now.collecting = gc[0].Value.Float64()
	}
	for _, link := range l.sources.Links() {
		now.links[link.Local] = link
	}
	now.disk, now.noDisk = host.DeviceOf(ctx, l.Store.Path())
	return now
}

// evidence is what happened on this machine between two looks; it has nothing of downloads yet.
func (l *line) evidence(h *host.Host, set config.Config, from, to look) tune.Evidence {
	span := to.at.Sub(from.at)
	e := tune.Evidence{Span: span, CPUs: h.CPUs(), Busy: -1, Own: -1, Delayed: -1, GPU: -1, LinkSpeed: h.LinkSpeed()}
	if from.all > 0 && from.ran >= 0 && to.ran >= 0 { // the first look was one
		e.Own, e.Delayed = max(0, to.ran-from.ran), max(0, to.delayed-from.delayed)
	}
	if all := to.all - from.all; all > 0 && from.all > 0 {
		e.Busy = min(1, max(0, (to.busy-from.busy)/all))
	}
	if e.Own > 0 {
		e.Collecting = min(1, (to.collecting-from.collecting)/e.Own.Seconds())
	}
	if p, err := h.Pressure(); err == nil {
		e.Pressure, e.MemoryPressure = p.CPU, p.Memory
	}
	if total, free, err := h.Memory(); err == nil {
		e.Memory, e.Available = total, free
	}
	if used, total := h.GPUMemory(); total > 0 {
		e.GPU = used / total
	}
	e.Buffers = set.MemoryManagement.DownloadBufferSizeMB.Bytes()
	e.SocketBuffer, e.Connections = int(set.ConnectionSettings.SocketBufferSize), set.ConnectionSettings.MaxConnectionsPerHost
	for local, link := range to.links {
		before := from.links[local].Received
		if link.Received < before { // another connection has this address now
			before = 0
		}
		e.Links = append(e.Links, tune.LinkEvidence{
			Host: link.Host, RTT: link.RTT, Window: link.Window, Rate: float64(link.Received-before) / max(span.Seconds(), 0.001),
			Lost: max(0, link.Disorder-from.links[local].Disorder),
		})
	}
	d := tune.DiskEvidence{Path: l.Store.Path(), Tier: string(model.Hot), Free: -1, Busy: -1, Keep: l.LeaveFree()}
	if free, err := l.Store.Free(); err == nil {
		d.Free = free
	}
	if to.noDisk == nil && from.noDisk == nil && from.disk.Name == to.disk.Name && span > 0 {
		d.Busy = min(1, (to.disk.Busy-from.disk.Busy)/span.Seconds())
		d.Written = (to.disk.Bytes - from.disk.Bytes) / span.Seconds()
		if n := to.disk.Operations - from.disk.Operations; n > 0 {
			d.Latency = time.Duration((to.disk.Waited - from.disk.Waited) / n * float64(time.Second))
		}
	}
	d.Ceiling, d.Measured = l.diskCeiling()
	e.Disks = append(e.Disks, d)
	return e
}

// diskCeiling is how fast the disk of the store has written a large file when the kept baseline was measured; 0 when there is none.
func (l *line) diskCeiling() (perSecond float64, at time.Time) {
	a, err := readBaseline(filepath.Join(l.Store.StateDir(), baselineFile))
	if err != nil {
		return 0, time.Time{}
	}
	m, known := a.Metrics["storage.hot.write_direct"]
	if !known {
		return 0, time.Time{}
	}
	return m.Median * 1e6, time.UnixMilli(int64(a.Timestamp * 1000))
}

// since is what one download did between two looks at it.
func (now progressLook) since(before progressLook, name string, lasted time.Duration) tune.DownloadEvidence {
	d := tune.DownloadEvidence{
		Model: name, Lasted: lasted, Received: model.Bytes(now.received - before.received), Spent: now.spent.Since(before.spent),
		Hashing: now.hashing - before.hashing, Retries: maps.Clone(now.retries),
	}
	for class := range d.Retries {
		if d.Retries[class] -= before.retries[class]; d.Retries[class] <= 0 {
			delete(d.Retries, class)
		}
	}
	return d
}

// hashSpeed is how much one processor of this machine hashes in a second. It is measured once: that takes some 20 ms.
func hashSpeed() func() float64 {
	return sync.OnceValue(func() float64 {
		const size = 4 * int(model.MiB)
		buf, best := make([]byte, size), time.Duration(0)
		for range 4 {
			begun := time.Now()
			sha256.Sum256(buf)
			if took := time.Since(begun); best == 0 || took < best {
				best = took
			}
		}
		return float64(size) / best.Seconds()
	})
}
