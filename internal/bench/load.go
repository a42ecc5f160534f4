package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"ema/internal/model"
)

// LoadSettings say how to load a server. Only URL has to be set.
type LoadSettings struct {
	URL         string // of the server, e.g. http://127.0.0.1:8000; a path in it goes before the API's own
	AllowRemote bool   // URL may be another machine
	Key         string // of the API; empty = none. It is in no report and no error
	Model       string // whose download is started; empty = "test-model"
	Keep        bool   // do not cancel the download that the test has started
	Mix         Mix    // zero = UsualMix

	// A closed loop: each of Users waits for its answer and then from WaitMin to WaitMax before the next request.
	Users            int // 0 = 10
	WaitMin, WaitMax time.Duration
	// Expected also gives latencies that are corrected for what a stalled server kept the users from asking: the interval
	// between two requests of one user had it not stalled. 0 = no. Only in a closed loop.
	Expected time.Duration

	// A constant rate: Rate requests per second leave whatever the server does, as far as Connections allow. A request
	// that had to wait for one counts from when it was due. 0 = a closed loop.
	Rate float64

	Duration    time.Duration // of measuring; 0 = until Requests were made, or 10 s
	Requests    int64         // measured ones; 0 = until Duration is over
	Warmup      time.Duration // before measuring
	Connections int           // most at once; 0 = as many as users, or 64 with a constant rate
	Timeout     time.Duration // of one request, from when it leaves; 0 = 10 s
	Seed        uint64        // of the order of calls and of the waits
	FailOn      []Limit       // what the report is judged by

	// Dial makes the connections; nil = TCP, to loopback only unless AllowRemote.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Progress is called once a second, from one goroutine; nil = not.
	Progress func(LoadProgress)
}

// LoadProgress is how a test stands.
type LoadProgress struct {
	Elapsed   time.Duration // of measuring, or of warming up
	Warmup    bool
	Requests  int64 // measured so far
	Errors    int64
	PerSecond float64 // requests since the last progress
}

// Bounds of the settings. They keep a slip of a digit from taking the machine down that tests.
const (
	mostUsers       = 100_000
	mostRate        = 1e6
	mostConnections = 100_000
	mostExpected    = 100_000 // corrected values of one latency
)

// complete checks the settings and fills in what is left open.
func (s LoadSettings) complete() (LoadSettings, error) {
	s.Model = cmp.Or(s.Model, "test-model")
	if s.Mix == (Mix{}) {
		s.Mix = UsualMix()
	}
	_, err := model.ParseID(s.Model)
	if e := s.Mix.validate(); e != nil {
		err = errors.Join(err, e)
	}
	refuse := func(bad bool, text string, args ...any) {
		if bad {
			err = errors.Join(err, fmt.Errorf(text, args...))
		}
	}
	refuse(s.Rate > 0 && s.Users > 0, "users and a rate exclude each other: users wait for their answers, a rate waits for nobody")
	refuse(s.Rate > 0 && s.WaitMax > 0, "a rate waits for nobody; leave the wait out, or give users instead")
	refuse(s.Rate > 0 && s.Expected > 0, "latencies at a constant rate need no correction; leave the expected interval out")
	refuse(!(s.Rate >= 0 && s.Rate <= mostRate), "rate %v: want up to %d requests per second", s.Rate, int(mostRate))
	refuse(s.Users < 0 || s.Users > mostUsers, "%d users: want 1 to %d", s.Users, mostUsers)
	refuse(s.Connections < 0 || s.Connections > mostConnections, "%d connections: want 1 to %d", s.Connections, mostConnections)
	refuse(s.WaitMin < 0 || s.WaitMax < s.WaitMin, "wait from %v to %v: want the shorter one first", s.WaitMin, s.WaitMax)
	refuse(s.Duration < 0 || s.Warmup < 0 || s.Timeout < 0 || s.Expected < 0 || s.Requests < 0, "a negative duration, or number of requests, means nothing")

	if s.Duration == 0 && s.Requests == 0 {
		s.Duration = 10 * time.Second
	}
	s.Timeout = cmp.Or(s.Timeout, 10*time.Second)
	refuse(s.Timeout > mostLatency, "timeout %v: want up to %v", s.Timeout, mostLatency)
	refuse(s.Expected > 0 && s.Timeout/s.Expected > mostExpected, "an expected interval of %v is too short for a timeout of %v", s.Expected, s.Timeout)
	if s.Rate > 0 {
		s.Connections = cmp.Or(s.Connections, 64)
	} else {
		s.Users = cmp.Or(s.Users, 10)
		s.Connections = cmp.Or(s.Connections, s.Users)
	}
	if err != nil {
		return s, &model.Error{Op: "load test", Class: model.Usage, Err: err}
	}
	return s, nil
}

// Load sends requests to a server and measures its answers. First it asks the server which endpoints it has, and leaves
// out the others. An error of class Usage means that the settings are wrong, NotFound that the server is not ema, Auth
// that the key does not permit it. When ctx ends early the report has what there is, and comes with ctx's error.
func Load(ctx context.Context, s LoadSettings) (LoadReport, error) {
	s, err := s.complete()
	if err != nil {
		return LoadReport{}, err
	}
	d, err := newDoor(s)
	if err != nil {
		return LoadReport{}, &model.Error{Op: "load test", Class: model.Usage, Err: err}
	}
	defer d.close()
	mix, left, err := d.survey(ctx, s.Mix)
	if err != nil {
		return LoadReport{}, err
	}
	var before beginning
	if mix.Start > 0 {
		before.existed, before.err = d.downloading(ctx, s.Model)
	}
	if ctx.Err() != nil {
		return LoadReport{}, ctx.Err()
	}

	r := &run{LoadSettings: s, door: d, schedule: newSchedule(s, mix, time.Now())}
	for c := range r.tallies {
		r.tallies[c] = newTally(s.Expected)
	}
	ended := r.drive(ctx)
	report := r.report(mix, ended, ctx.Err() != nil)
	report.LeftOut = left
	if d.sent[callStart].Load() > 0 {
		report.Download = d.clearAway(ctx, s.Model, before, s.Keep)
	}
	if report.Interrupted {
		return report, ctx.Err()
	}
	return report, nil
}

// A run is one load test while it goes on.
type run struct {
	LoadSettings
	door     *door
	schedule *schedule
	tallies  [calls]*tally
}

// drive lets everybody make requests until the test is over or ctx ends, and returns when it was: all have their answers
// then, or have given up.
func (r *run) drive(ctx context.Context) time.Time {
	stopped := make(chan time.Time, 1)
	finish := context.AfterFunc(ctx, func() { stopped <- time.Now() })
	over, stop := context.WithCancel(ctx)
	defer stop()
	var watching, working sync.WaitGroup
	if r.Progress != nil {
		watching.Go(func() { r.watch(over) })
	}
	workers := r.Users
	if r.Rate > 0 { // one for each connection: a turn for which none is free stays in the schedule
		workers = r.Connections
	}
	for n := range workers {
		working.Go(func() { r.work(ctx, n) })
	}
	working.Wait()
	stop()
	watching.Wait()
	if finish() {
		return time.Now()
	}
	return <-stopped
}

// breather keeps a closed loop from spinning when nobody listens: a refusal takes only microseconds.
const breather = 10 * time.Millisecond

// work makes one request after the other.
func (r *run) work(ctx context.Context, n int) {
	rng := rand.New(rand.NewPCG(r.Seed, uint64(n)+3))
	if r.WaitMax > 0 { // else all users would ask at once, and all of them again after the shortest wait
		r.sleep(ctx, time.Duration(rng.Int64N(int64(r.WaitMax))))
	}
	for ctx.Err() == nil {
		ready := time.Now()
		t, ok := r.schedule.next(ready)
		if !ok || !r.sleep(ctx, time.Until(t.due)) {
			return
		}
		begin := beginOf(t.due, ready, time.Now())
		o := r.door.call(ctx, t.call)
		done := time.Now()
		if ctx.Err() != nil {
			return // cut short by us: no fault of the server, and no figure either
		}
		if t.measured {
			r.tallies[t.call].add(o, done.Sub(begin), done)
		}
		switch {
		case r.Rate > 0:
		case r.WaitMax > 0:
			r.sleep(ctx, r.WaitMin+time.Duration(rng.Int64N(int64(r.WaitMax-r.WaitMin)+1)))
		case !o.timed():
			r.sleep(ctx, breather)
		}
	}
}

// timerSlack is how late a timer may fire without anybody being to blame: the kernel is asked for whole milliseconds.
const timerSlack = 2 * time.Millisecond

// beginOf is from when the latency of a request counts: from when it was due, whatever kept it from leaving then. Only
// the timer of one who was ready in time is not the server's fault.
func beginOf(due, ready, left time.Time) time.Time {
	if !ready.Before(due) {
		return due
	}
	return due.Add(max(min(left.Sub(due), timerSlack), 0))
}

// sleep waits, but not longer than the test lasts; false when ctx has ended.
func (r *run) sleep(ctx context.Context, d time.Duration) bool {
	if !r.schedule.end.IsZero() {
		d = min(d, time.Until(r.schedule.end))
	}
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch tells once a second how it stands.
func (r *run) watch(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var before int64
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p := LoadProgress{Elapsed: now.Sub(r.schedule.warm)}
			if p.Elapsed < 0 {
				p.Elapsed, p.Warmup = now.Sub(r.schedule.start), true
			}
			for _, t := range r.tallies {
				requests, errors := t.seen()
				p.Requests, p.Errors = p.Requests+requests, p.Errors+errors
			}
			p.PerSecond, before = float64(p.Requests-before), p.Requests
			r.Progress(p)
		}
	}
}

// report is what the run has measured. Nobody works any more.
func (r *run) report(mix Mix, ended time.Time, interrupted bool) LoadReport {
	report := LoadReport{
		URL: r.door.base.String(), Started: r.schedule.warm.UTC(), Mode: "users", Users: r.Users, Rate: r.Rate,
		WaitMin: r.WaitMin.Seconds(), WaitMax: r.WaitMax.Seconds(), Connections: r.Connections, Timeout: r.Timeout.Seconds(),
		Warmup: r.Warmup.Seconds(), Seed: r.Seed, Mix: mix, Interrupted: interrupted, Missed: r.schedule.missed(ended),
		LeftOut: []Left{}, Endpoints: []EndpointLoad{},
	}
	if r.Rate > 0 {
		report.Mode = "rate"
	}
	total := newTally(r.Expected)
	for _, t := range r.tallies {
		total.merge(t)
	}
	took := max(total.last.Sub(r.schedule.warm), r.schedule.planned())
	if interrupted {
		took = max(ended.Sub(r.schedule.warm), 0)
	}
	report.Seconds = took.Seconds()
	for c, route := range routes() {
		if weight := *mix.weight(route.name); weight > 0 {
			report.Endpoints = append(report.Endpoints, EndpointLoad{route.name, route.method, route.path, weight, r.tallies[c].figures(report.Seconds)})
		}
	}
	report.Total = total.figures(report.Seconds)
	if len(total.examples) > 0 {
		report.Examples = total.examples
	}
	report.Violations = report.violations(r.FailOn)
	return report
}
