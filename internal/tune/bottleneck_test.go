package tune

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/source"
)

// busy is a download of ten seconds over four connections, of whose time these phases took these parts.
func busy(parts map[source.Phase]float64) Evidence {
	var spent source.Spent
	for p, part := range parts {
		spent[p] = time.Duration(part * float64(40*time.Second))
	}
	e := atRest()
	e.Received = 20 * float64(model.MiB)
	e.Downloads = []DownloadEvidence{{Model: "org/name", Lasted: 10 * time.Second, Received: 200 * model.MiB, Spent: spent}}
	for range 4 {
		e.Links = append(e.Links, LinkEvidence{Host: "hub:443", RTT: 20 * time.Millisecond, Window: 6 * model.MiB, Rate: e.Received / 4})
	}
	return e
}

// atRest is a machine on which nothing happens.
func atRest() Evidence {
	return Evidence{
		Span: 10 * time.Second, CPUs: 4, Busy: 0.1, Own: 2 * time.Second, Delayed: 10 * time.Millisecond, Memory: 16 * model.GiB, Available: 8 * model.GiB,
		GPU: -1, HashSpeed: 1.4e9, Connections: 8, Queue: QueueEvidence{AtOnce: 3, Most: 1000, Running: 1},
		Disks: []DiskEvidence{{Tier: "hot", Path: "/models", Free: 100 * model.GiB, Keep: model.GiB, Busy: 0.2}},
	}
}

func with(e Evidence, change func(*Evidence)) Evidence {
	change(&e)
	return e
}

func TestTheCauseIsNamedFirst(t *testing.T) {
	waits := map[source.Phase]float64{source.InBody: 0.95, source.InWrite: 0.05}
	for promise, c := range map[string]struct {
		seen  Evidence
		first Component
		says  string
	}{
		"a server that sends slowly":      {busy(waits), OfServer, "sends no faster: 20.0 MiB/s over 4 connections"},
		"a server that answers late":      {busy(map[source.Phase]float64{source.InFirstByte: 0.8, source.InBody: 0.2}), OfServer, "begin its answers"},
		"a server that has enough of us":  {with(busy(map[source.Phase]float64{source.InRetry: 0.5, source.InBody: 0.3, source.InGate: 0.2}), retried(model.RateLimited.String(), 7)), OfServer, "holds requests back"},
		"a way that breaks":               {with(busy(map[source.Phase]float64{source.InRetry: 0.6, source.InBody: 0.4}), retried(model.Reset.String(), 7)), OfNetwork, "the way to the server breaks"},
		"names that take long":            {busy(map[source.Phase]float64{source.InDNS: 0.6, source.InBody: 0.4}), OfDNS, "24.0 s"},
		"handshakes that take long":       {busy(map[source.Phase]float64{source.InConnect: 0.3, source.InTLS: 0.3, source.InBody: 0.4}), OfNetwork, "making connections takes 60 %"},
		"a limit of all":                  {with(busy(map[source.Phase]float64{source.InLimiter: 0.9, source.InBody: 0.1}), func(e *Evidence) { e.Limit, e.LimitWhy = 5*float64(model.MiB), "business hours" }), OfLimiter, "5.0 MiB/s holds for all downloads together (business hours)"},
		"a limit of one":                  {with(busy(map[source.Phase]float64{source.InLimiter: 0.9, source.InBody: 0.1}), func(e *Evidence) { e.Downloads[0].Limit = float64(model.MiB) }), OfLimiter, "1.0 MiB/s holds for each download"},
		"a disk that writes slowly":       {busy(map[source.Phase]float64{source.InWrite: 0.5, source.InSync: 0.3, source.InBody: 0.2}), OfDisk, "writing takes 80 %"},
		"a disk that is full":             {with(busy(waits), func(e *Evidence) { e.Disks[0].Free = 0 }), OfDisk, "is full"},
		"a hash that is slow":             {with(busy(map[source.Phase]float64{source.InHash: 0.6, source.InBody: 0.4}), func(e *Evidence) { e.Downloads[0].Hashing = 97 * e.Span / 100 }), OfCPU, "the hash is the slowest step"},
		"others that have the processors": {with(busy(waits), func(e *Evidence) { e.Busy, e.Delayed = 1, 20*time.Second }), OfCPU, "other programs have the processors"},
		"buffers that are too few":        {busy(map[source.Phase]float64{source.InMemory: 0.7, source.InBody: 0.3}), OfMemory, "all their buffers"},
		"a heap that is too small":        {with(busy(map[source.Phase]float64{source.InBody: 0.5, source.InHash: 0.5}), func(e *Evidence) { e.Collecting = 0.8 }), OfMemory, "the memory limit is too small"},
		"a queue that is full":            {with(busy(waits), func(e *Evidence) { e.Queue = QueueEvidence{Waiting: 10, Running: 1, AtOnce: 1, Most: 10} }), OfQueue, "10 downloads wait and new ones are refused"},
		"a window that is too small":      {with(busy(waits), windows(256*model.KiB, 80*time.Millisecond)), OfNetwork, "capped at 3.0 MiB/s by the receive window (RTT 80 ms, window 256 KiB): raise net.ipv4.tcp_rmem's maximum"},
		"a window that we have set":       {with(with(busy(waits), windows(64*model.KiB, 80*time.Millisecond)), func(e *Evidence) { e.SocketBuffer = 65536 }), OfNetwork, "socket_buffer_size is 65536"},
		"a link that is full":             {with(busy(waits), func(e *Evidence) { e.LinkSpeed = e.Received * 1.05 }), OfNetwork, "the link is full: 95 %"},
		"one connection alone":            {with(busy(waits), func(e *Evidence) { e.Connections = 1 }), OfNetwork, "only one connection is allowed"},
		"one connection that is slow":     {with(busy(waits), func(e *Evidence) { e.Links[2].Rate = 1000 }), OfNetwork, "one of 4 connections"},
		"packets that get lost":           {with(busy(waits), func(e *Evidence) { e.Links[1].Lost = 9000 }), OfNetwork, "packets get lost"},
		"an API that hangs":               {with(atRest(), func(e *Evidence) { e.Requests = APIEvidence{Stuck: 3 * time.Second, StuckIn: "list-models"} }), OfAPI, "list-models takes 3.0 s"},
		"an API that is slow":             {with(atRest(), func(e *Evidence) { e.Requests = APIEvidence{Answered: 5, Mean: time.Second, Slowest: "list-models"} }), OfAPI, "list-models takes 1.0 s"},
		"a database that is slow, and the API": {with(atRest(), func(e *Evidence) {
			e.Requests, e.Database = APIEvidence{Answered: 5, Mean: time.Second, Slowest: "get-analytics"}, DatabaseEvidence{Operations: 4, Mean: 900 * time.Millisecond, Server: true}
		}), OfDatabase, "PostgreSQL is slow: an operation takes 900 ms"},
	} {
		t.Run(promise, func(t *testing.T) {
			a := Diagnose(c.seen)
			if len(a.Findings) == 0 || a.Findings[0].Component != c.first || !strings.Contains(a.Findings[0].Verdict, c.says) || a.Findings[0].Share < Worth {
				t.Fatalf("it says %+v", a.Findings)
			}
			if len(a.Findings[0].Evidence) == 0 || !strings.Contains(a.Verdict, a.Findings[0].Verdict) {
				t.Errorf("the verdict is %q, with the evidence %q", a.Verdict, a.Findings[0].Evidence)
			}
		})
	}
}

func retried(class string, times int64) func(*Evidence) {
	return func(e *Evidence) { e.Downloads[0].Retries = map[string]int64{class: times} }
}

// windows makes all links far, with their whole window under way.
func windows(size model.Bytes, rtt time.Duration) func(*Evidence) {
	return func(e *Evidence) {
		for i := range e.Links {
			e.Links[i].Window, e.Links[i].RTT, e.Links[i].Rate = size, rtt, 0.96*float64(size)/rtt.Seconds()
		}
	}
}

func TestNothingIsFoundWhereNothingIsWrong(t *testing.T) {
	if a := Diagnose(atRest()); len(a.Findings) != 0 || !strings.HasPrefix(a.Verdict, "no bottleneck: nothing is being downloaded") {
		t.Errorf("%+v", a)
	}
	at := with(busy(map[source.Phase]float64{source.InWrite: 0.5, source.InBody: 0.5}), func(e *Evidence) {
		e.Disks[0].Ceiling, e.Downloads[0].Hashing = e.Received/0.94, 0
		e.Downloads[0].Spent[source.InBody] = 10 * time.Second
	})
	if a := Diagnose(at); !strings.HasPrefix(a.Verdict, "no bottleneck that a setting would move: ") || !strings.Contains(strings.Join(a.Findings[0].Evidence, "\n"), "94 %") {
		t.Errorf("a disk at its ceiling: %+v", a)
	}
}

// Whatever is seen, the findings are in order, their shares are shares, and each component is either found or spoken of.
func TestAnyEvidenceIsJudged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := map[source.Phase]float64{}
		for _, p := range source.Phases() {
			parts[p] = rapid.Float64Range(0, 1).Draw(t, p.String())
		}
		e := busy(parts)
		e.Busy = rapid.Float64Range(-1, 1).Draw(t, "busy")
		e.Own, e.Delayed = time.Duration(rapid.Int64Range(-1, 1e11).Draw(t, "own")), time.Duration(rapid.Int64Range(-1, 1e11).Draw(t, "delayed"))
		e.Span = time.Duration(rapid.Int64Range(0, 1e11).Draw(t, "span"))
		e.Queue.Waiting, e.Queue.Running = rapid.IntRange(0, 5).Draw(t, "waiting"), rapid.IntRange(0, 5).Draw(t, "running")
		e.Received, e.LinkSpeed = rapid.Float64Range(0, 1e10).Draw(t, "received"), rapid.Float64Range(0, 1e10).Draw(t, "link")
		e.Requests = APIEvidence{Answered: 3, Mean: time.Duration(rapid.Int64Range(0, 1e11).Draw(t, "mean")), Stuck: time.Duration(rapid.Int64Range(0, 1e11).Draw(t, "stuck"))}
		e.Downloads[0].Hashing = time.Duration(rapid.Int64Range(0, 1e11).Draw(t, "hashing"))
		a := Diagnose(e)
		if a.Verdict == "" {
			t.Fatal("there is no verdict")
		}
		for i, f := range a.Findings {
			if math.IsNaN(f.Share) || f.Share < 0 || f.Share > 1 || i > 0 && f.Share > a.Findings[i-1].Share {
				t.Fatalf("finding %d: %+v", i, a.Findings)
			}
			if f.Verdict == "" || strings.Contains(f.Verdict+strings.Join(f.Evidence, ""), "NaN") || strings.Contains(f.Verdict, "Inf") {
				t.Fatalf("finding %d: %+v", i, f)
			}
		}
		for _, c := range Components() {
			found := slices.ContainsFunc(a.Findings, func(f Finding) bool { return f.Component == c })
			if _, other := a.Others[c]; other == found {
				t.Fatalf("%s is found: %v, spoken of: %v", c, found, other)
			}
		}
	})
}
