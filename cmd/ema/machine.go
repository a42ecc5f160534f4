package main

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"ema/client"
	"ema/internal/config"
	"ema/internal/host"
	"ema/internal/model"
)

// workers lets so many threads run Go code at once as the settings say, and never more than there are processors.
func (a *app) workers(c config.CPUOptimization) (wanted, given int) {
	wanted = max(c.WorkerProcesses, 1) * max(c.WorkerThreadsPerProcess, 1)
	if c.WorkerProcesses == 0 && c.WorkerThreadsPerProcess == 0 {
		return 0, a.processors()
	}
	a.cpus = min(wanted, a.processors())
	runtime.GOMAXPROCS(a.cpus)
	return wanted, a.cpus
}

// pools are the threads on which the daemon does what can wait.
type pools struct {
	threads    *host.Threads
	io         *host.Pool // verifies and moves
	background *host.Pool // reads ahead
	download   *host.Pool // hashes what is downloaded: a thread for each large file
	main       host.Class
}

func newPools(c config.CPUOptimization, tell func(problem string)) *pools {
	threads := host.NewThreads(tell)
	pool := func(name string) *host.Pool { return threads.NewPool(name, 1, host.Class{}) }
	p := &pools{threads: threads, io: pool("io"), background: pool("background"), download: pool("download")}
	p.configure(c)
	return p
}

// configure has threads run as the settings say, also those that are under way.
func (p *pools) configure(c config.CPUOptimization) {
	work, io, background, download := classes(c)
	p.io.Configure(c.IOThreads, io)
	p.background.Configure(c.BackgroundTaskThreads, background)
	p.download.Configure(0, download)
	if work.Priority != p.main.Priority || len(work.Cores)+len(p.main.Cores) > 0 {
		p.threads.Main(work)
	}
	p.main = work
}

// classes are how threads run that do each kind of work.
func classes(c config.CPUOptimization) (work, io, background, download host.Class) {
	work.Priority = host.Priority(c.ProcessPriority.MainProcess)
	io.Priority = host.Priority(c.ProcessPriority.BackgroundProcesses)
	background.Priority = io.Priority
	download.Priority = host.Priority(c.ProcessPriority.DownloadProcesses)
	if bound := c.CPUAffinity; bound.Enabled {
		work.Cores, io.Cores, background.Cores, download.Cores = bound.WorkerCores, bound.IOCores, bound.BackgroundCores, bound.WorkerCores
	}
	return work, io, background, download
}

// heapRule says when memory is collected and given back.
type heapRule struct {
	limit      int64 // bytes of the heap from which it is collected all the time
	every      time.Duration
	aggressive bool
}

// heapRuleOf are the keys about the heap, on a machine or in a container with so much memory. Without a size of its own the
// heap may take nine tenths of that.
func heapRuleOf(c config.MemoryManagement, memory model.Bytes) heapRule {
	most := float64(c.HeapSizeGB.Bytes())
	if most == 0 {
		most = 0.9 * float64(memory)
	}
	r := heapRule{limit: math.MaxInt64}
	gc := c.GCOptimization
	if gc.Enabled {
		most *= gc.GCThreshold
		r.every, r.aggressive = gc.GCIntervalSeconds.Duration(), gc.AggressiveGCOnLowMemory
	}
	if most > 0 {
		r.limit = int64(most)
	}
	return r
}

// lowMemory is the part of all memory from which on a machine is short of it: one of so many is left.
const lowMemory = 10

// A janitor gives memory back while there is work: of an idle daemon nothing grows.
type janitor struct {
	memory  func() (total, available model.Bytes, err error)
	collect func() // the heap
	release func() // collects, and gives back to the system what is free then

	mu      sync.Mutex
	rule    heapRule
	changed chan struct{}
}

func newJanitor(memory func() (total, available model.Bytes, err error)) *janitor {
	return &janitor{memory: memory, collect: runtime.GC, release: debug.FreeOSMemory, changed: make(chan struct{}, 1)}
}

func (j *janitor) configure(r heapRule) {
	j.mu.Lock()
	j.rule = r
	j.mu.Unlock()
	select {
	case j.changed <- struct{}{}:
	default:
	}
}

// run collects every so often while something works, and once more when that has ended, until ctx ends. It sleeps while
// nothing does.
func (j *janitor) run(ctx context.Context, h *heap) error {
	for {
		working, turn := h.state()
		j.mu.Lock()
		every := j.rule.every
		j.mu.Unlock()
		var due <-chan time.Time
		if working && every > 0 {
			due = time.After(every)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-j.changed:
		case <-due:
			j.tidy()
		case <-turn:
			if now, _ := h.state(); working && !now && every > 0 {
				j.tidy()
			}
		}
	}
}

// tidy collects, and gives memory back where the machine is short of it.
func (j *janitor) tidy() {
	j.mu.Lock()
	aggressive := j.rule.aggressive
	j.mu.Unlock()
	if total, available, err := j.memory(); aggressive && err == nil && available < total/lowMemory {
		j.release()
		return
	}
	j.collect()
}

// limits are those that the daemon keeps.
func (d *daemon) limits() client.Limits {
	c := d.settingsNow()
	l := client.Limits{Workers: runtime.GOMAXPROCS(0), IOThreads: c.CPUOptimization.IOThreads, BackgroundThreads: c.CPUOptimization.BackgroundTaskThreads}
	if most := debug.SetMemoryLimit(-1); most < math.MaxInt64 {
		l.HeapMB = new(float64(most) / float64(model.MiB))
	}
	return l
}

// heapRule is what the settings say about the heap, on this machine.
func (d *daemon) heapRule(c config.Config) (heapRule, error) {
	total, _, err := d.host.Memory()
	if err != nil {
		return heapRule{}, &model.Error{Op: "read the size of the memory", Err: err}
	}
	return heapRuleOf(c.MemoryManagement, total), nil
}

// keepMemory bounds the heap by a rule. GOMEMLIMIT goes before.
func (d *daemon) keepMemory(r heapRule) {
	if d.app.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(r.limit)
	}
	d.janitor.configure(r)
}
