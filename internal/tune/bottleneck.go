package tune

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"ema/internal/model"
	"ema/internal/source"
)

// A Component is a part of the way of a model, or of this machine, that may be what everything waits for.
type Component string

// The components, in the order in which they are told.
const (
	OfNetwork  Component = "network"
	OfServer   Component = "server"
	OfDNS      Component = "dns"
	OfDisk     Component = "disk"
	OfCPU      Component = "cpu"
	OfMemory   Component = "memory"
	OfQueue    Component = "queue"
	OfLimiter  Component = "limiter"
	OfAPI      Component = "api"
	OfDatabase Component = "database"
	OfGPU      Component = "gpu"
)

// Components are all of them.
func Components() []Component {
	return []Component{OfNetwork, OfServer, OfDNS, OfDisk, OfCPU, OfMemory, OfQueue, OfLimiter, OfAPI, OfDatabase, OfGPU}
}

// Evidence is what was seen over one span of time. A figure that is not known is negative, and rates are bytes per second.
type Evidence struct {
	Span      time.Duration
	Downloads []DownloadEvidence // that were worked on
	Links     []LinkEvidence     // connections for the bytes of models
	Disks     []DiskEvidence

	Queue    QueueEvidence
	Limit    float64 // of all downloads together; 0 = none
	LimitWhy string  // why that limit holds

	CPUs       int
	Busy       float64       // of all processors, 0 to 1
	Own        time.Duration // that this process had a processor
	Delayed    time.Duration // that threads of this process waited for a processor that another had
	Pressure   float64       // 0 to 1: of the last ten seconds, the part in which somebody waited for a processor
	Collecting float64       // of Own, the part that the garbage collector took, 0 to 1

	Memory         model.Bytes // that there is for this process; 0 = unknown
	Available      model.Bytes // of these
	MemoryPressure float64
	Buffers        model.Bytes // that downloads may use; 0 = as many as they like

	Received  float64 // of models
	LinkSpeed float64 // of the network cards; 0 = no driver tells it
	HashSpeed float64 // of one processor; 0 = not measured
	HashOf    string  // what Digest that is

	Requests APIEvidence
	Database DatabaseEvidence
	GPU      float64 // of the memory of the graphics cards, the part in use; negative where there are none

	SocketBuffer int // bytes, as configured; 0 = the kernel's choice
	Connections  int // that a download may have to one host
}

// DownloadEvidence is about one download.
type DownloadEvidence struct {
	Model    string
	Lasted   time.Duration // of the span, or of the download if that is shorter
	Waited   time.Duration // in the queue, before it began
	Received model.Bytes
	Spent    source.Spent  // by its connections
	Hashing  time.Duration // by its hashes; more than Lasted where several files come at once
	Retries  map[string]int64
	Limit    float64 // of its own; 0 = none
	Full     string  // that it needs more space than there is, in words; empty when it does not
}

// LinkEvidence is about one connection.
type LinkEvidence struct {
	Host   string
	RTT    time.Duration
	Window model.Bytes // that the other side may have under way
	Rate   float64
	Lost   int64 // packets that came out of order
}

// DiskEvidence is about the disk of one tier.
type DiskEvidence struct {
	Tier, Path string
	Free, Keep model.Bytes   // and what is to be kept free; Free is negative when it is not known
	Busy       float64       // of the time, the part in which it had something to do
	Latency    time.Duration // of one request to it; 0 = there was none
	Written    float64       // read and written
	Ceiling    float64       // that a benchmark has measured for one large file; 0 = none has
	Measured   time.Time     // when
}

// QueueEvidence is about who waits.
type QueueEvidence struct {
	Waiting, Running int
	AtOnce, Most     int           // that may run, and wait
	Longest          time.Duration // that one waits already
}

// APIEvidence is about requests.
type APIEvidence struct {
	Answered int
	Mean     time.Duration
	Slowest  string        // the operation with the longest mean
	Stuck    time.Duration // that the oldest one waits for its answer; streams left out
	StuckIn  string        // which that is
}

// DatabaseEvidence is about the database.
type DatabaseEvidence struct {
	Operations int
	Mean       time.Duration
	Away       string // why it cannot be used; empty when it can
	Waiting    int    // records that are not written yet
	Server     bool   // it is PostgreSQL
}

// A Finding is something that everything waits for, or might soon.
type Finding struct {
	Component Component
	Share     float64 // of the time that it explains, 0 to 1
	Ceiling   bool    // it does as much as it can, and nothing is wrong with it
	Verdict   string
	Evidence  []string
	Setting   string // what to change; empty where no setting helps
	Advised   string
	Command   string
}

// Worth is the share from which on something is called the bottleneck.
const Worth = 0.25

// An Analysis is what the evidence says.
type Analysis struct {
	Verdict  string
	Findings []Finding            // the worst first; never nil
	Others   map[Component]string // what is said of the components that are not among them
}

// Diagnose judges the evidence. The time of the connections is a whole, of which each cause explains a part; what else may be wrong
// is compared with it by how much of the time it takes from whoever waits.
func Diagnose(e Evidence) Analysis {
	j := judge{Evidence: e, spent: e.spent()}
	j.total = j.spent.Busy()
	for _, look := range []func(*judge){
		(*judge).cpu, (*judge).memory, (*judge).limiter, (*judge).dns, (*judge).disks, (*judge).databases, (*judge).api, (*judge).network, (*judge).server,
		(*judge).queue, (*judge).gpu,
	} {
		look(&j)
	}
	slices.SortStableFunc(j.found, func(a, b Finding) int { return cmp.Compare(b.Share, a.Share) })
	a := Analysis{Findings: j.found, Others: map[Component]string{}}
	if a.Findings == nil {
		a.Findings = []Finding{}
	}
	for _, c := range Components() {
		if !slices.ContainsFunc(a.Findings, func(f Finding) bool { return f.Component == c }) {
			a.Others[c] = j.fine(c)
		}
	}
	a.Verdict = j.verdict(a.Findings)
	return a
}

// A judge looks at the evidence from one side after the other.
type judge struct {
	Evidence
	spent source.Spent
	total time.Duration // of spent
	found []Finding

	starved  float64 // of the time in which this process wanted a processor, the part in which another had it
	hashing  float64 // of the time, the part in which the busiest download's hash worked
	database float64 // what database found
}

func (e Evidence) spent() (all source.Spent) {
	for _, d := range e.Downloads {
		for p, t := range d.Spent {
			all[p] += t
		}
	}
	return all
}

// part is the part of the connections' time that phases took.
func (j *judge) part(phases ...source.Phase) (sum float64) {
	if j.total <= 0 {
		return 0
	}
	for _, p := range phases {
		sum += float64(j.spent[p]) / float64(j.total)
	}
	return sum
}

// least is below which share nothing is worth a word.
const least = 0.05

func (j *judge) add(f Finding) {
	if f.Share = min(f.Share, 1); f.Share >= least {
		j.found = append(j.found, f)
	}
}

func partOf(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

func inMiB(rate float64) string { return fmt.Sprintf("%.1f MiB/s", rate/float64(model.MiB)) }

func (j *judge) took(p source.Phase, doing string) string {
	return fmt.Sprintf("connections spent %s of their time %s", partOf(j.part(p)), doing)
}

// cpu tells apart that others have the processors from that our own work needs them.
func (j *judge) cpu() {
	if wanted := j.Own + j.Delayed; j.Delayed >= 0 && j.Own >= 0 && wanted > j.Span/20 {
		j.starved = float64(j.Delayed) / float64(wanted)
	}
	var hash float64
	for _, d := range j.Downloads {
		if d.Lasted > 0 {
			hash = max(hash, float64(d.Hashing)/float64(d.Lasted))
		}
	}
	j.hashing = min(hash, 1)
	own := 0.0
	if j.CPUs > 0 && j.Span > 0 && j.Own > 0 {
		own = min(1, float64(j.Own)/float64(j.Span)/float64(j.CPUs))
	}
	busy := fmt.Sprintf("processors are busy %s of the time, ema has %s of them", partOf(max(0, j.Busy)), partOf(own))
	delayed := fmt.Sprintf("threads of ema waited %.1f s for a processor and had one for %.1f s", j.Delayed.Seconds(), j.Own.Seconds())
	// Threads of our own wait for each other too: it is others only as far as these are busy.
	others := 0.0
	if j.Busy > 0 {
		others = max(0, j.Busy-own) / j.Busy
	}
	if j.Busy >= 0.85 && j.starved > 0.15 && others > 0.2 {
		j.add(Finding{
			Component: OfCPU, Share: max(j.starved, others), Verdict: fmt.Sprintf("other programs have the processors: ema waits for one %s of the time that it could work", partOf(j.starved)),
			Evidence: []string{busy, delayed}, Setting: "cpu_optimization.process_priority.main_process", Advised: "high",
			Command: "ema config set cpu_optimization.process_priority.main_process high",
		})
		return
	}
	waits := j.part(source.InHash)
	switch share := max(waits, j.hashing); {
	case len(j.Downloads) > 0 && (j.hashing >= 0.7 || waits >= Worth):
		f := Finding{
			Component: OfCPU, Share: share, Ceiling: true,
			Verdict:  fmt.Sprintf("the hash is the slowest step: one processor proves one file at a time, and does so %s of the time", partOf(j.hashing)),
			Evidence: []string{j.took(source.InHash, "waiting for the hash"), busy},
		}
		if j.HashSpeed > 0 {
			f.Verdict += fmt.Sprintf(", at %s of the %s that it can", partOf(min(1, j.Received/j.HashSpeed)), inMiB(j.HashSpeed))
		}
		j.add(f)
	case own >= 0.85:
		j.add(Finding{
			Component: OfCPU, Share: own, Ceiling: true, Verdict: "ema itself uses all processors that it may: more downloads at once would not be faster",
			Evidence: []string{busy, delayed},
		})
	}
}

// rest is the part of the time of which it is not known yet that the processors explain it.
func (j *judge) rest() float64 {
	rest := 1.0
	if j.Busy >= 0.85 {
		rest -= j.starved
	}
	return max(0, rest)
}

func (j *judge) memory() {
	waits := j.part(source.InMemory)
	if waits >= least {
		j.add(Finding{
			Component: OfMemory, Share: waits, Verdict: fmt.Sprintf("downloads wait for memory: all their buffers, %s, are in use", j.Buffers),
			Evidence: []string{j.took(source.InMemory, "waiting for a buffer")}, Setting: "memory_management.download_buffer_size_mb", Advised: "128",
			Command: "ema config set memory_management.download_buffer_size_mb 128",
		})
	}
	if j.Collecting > Worth {
		j.add(Finding{
			Component: OfMemory, Share: j.Collecting, Verdict: fmt.Sprintf("the memory limit is too small: %s of the processor time of ema goes into finding free memory", partOf(j.Collecting)),
			Evidence: []string{fmt.Sprintf("%s of memory, %s of it available", j.Memory, j.Available)}, Setting: "memory_management.heap_size_gb", Advised: "0",
			Command: "ema config set memory_management.heap_size_gb 0",
		})
	}
	if j.MemoryPressure > 0.1 {
		j.add(Finding{
			Component: OfMemory, Share: j.MemoryPressure, Verdict: fmt.Sprintf("the machine is short of memory: programs waited for it %s of the last ten seconds", partOf(j.MemoryPressure)),
			Evidence: []string{fmt.Sprintf("%s of %s are available", j.Available, j.Memory)}, Setting: "memory_management.model_cache_size_gb", Advised: "less",
			Command: "ema config show memory_management",
		})
	}
}

func (j *judge) limiter() {
	share := j.part(source.InLimiter)
	f := Finding{Component: OfLimiter, Share: share, Evidence: []string{j.took(source.InLimiter, "waiting for the limit"), "received " + inMiB(j.Received)}}
	own := 0.0
	name := ""
	for _, d := range j.Downloads {
		if d.Limit > 0 && (own == 0 || d.Limit < own) && d.Spent[source.InLimiter] > 0 {
			own, name = d.Limit, d.Model
		}
	}
	switch {
	case own > 0 && (j.Limit == 0 || own < j.Limit):
		f.Verdict = fmt.Sprintf("a limit of %s holds for each download, or for %s alone", inMiB(own), name)
		f.Setting, f.Advised = "bandwidth_management.per_download_limit_mbps", "0"
	case j.Limit > 0:
		f.Verdict = fmt.Sprintf("a limit of %s holds for all downloads together", inMiB(j.Limit))
		if j.LimitWhy != "" {
			f.Verdict += " (" + j.LimitWhy + ")"
		}
		f.Setting, f.Advised = "bandwidth_management.global_limit_mbps", "0"
	default:
		f.Verdict = "a limit held that is gone now"
	}
	if f.Setting != "" {
		f.Command = "ema config set " + f.Setting + " 0"
	}
	j.add(f)
}

func (j *judge) dns() {
	j.add(Finding{
		Component: OfDNS, Share: j.part(source.InDNS), Verdict: fmt.Sprintf("names are slow to become addresses: %.1f s were spent on it", j.spent[source.InDNS].Seconds()),
		Evidence: []string{j.took(source.InDNS, "waiting for an address")}, Setting: "network_optimization.dns_cache_enabled", Advised: "true",
		Command: "ema doctor",
	})
}

func (j *judge) disks() {
	waits := j.part(source.InWrite, source.InSync) * j.rest()
	for _, d := range j.Downloads {
		if d.Full != "" {
			j.add(Finding{Component: OfDisk, Share: 1, Verdict: d.Model + " waits for space: " + d.Full, Evidence: []string{d.Full}, Command: "ema gc --dry-run"})
			return
		}
	}
	for i, d := range j.Disks {
		on := strings.TrimSpace(d.Tier + " tier " + d.Path)
		if d.Free >= 0 && d.Free <= d.Keep {
			j.add(Finding{
				Component: OfDisk, Share: 1, Verdict: fmt.Sprintf("the disk of the %s is full: %s are free, and %s are to be kept free", on, d.Free, d.Keep),
				Evidence: []string{fmt.Sprintf("%s free", d.Free)}, Command: "ema gc --dry-run",
			})
			continue
		}
		if i > 0 || waits < least { // downloads are written to the first
			continue
		}
		f := Finding{
			Component: OfDisk, Share: waits, Verdict: fmt.Sprintf("the disk of the %s is what downloads wait for: writing takes %s of the connections' time", on, partOf(waits)),
			Evidence: []string{j.took(source.InWrite, "writing"), j.took(source.InSync, "waiting until what is written is durable")},
			Command:  "ema benchmark --suite storage",
		}
		if d.Busy >= 0 {
			f.Evidence = append(f.Evidence, fmt.Sprintf("the device is busy %s of the time, moves %s and takes %.1f ms for a request", partOf(d.Busy), inMiB(d.Written), float64(d.Latency.Microseconds())/1000))
		}
		if d.Ceiling > 0 {
			reached := j.Received / d.Ceiling
			f.Evidence = append(f.Evidence, fmt.Sprintf("that is %s of the %s that the benchmark of %s has measured", partOf(reached), inMiB(d.Ceiling), d.Measured.UTC().Format(time.DateOnly)))
			f.Ceiling = reached >= 0.85
		}
		j.add(f)
	}
}

// slowDatabase is how long an operation of the database takes from which on it is half of a wait.
const slowDatabase = 50 * time.Millisecond

func (j *judge) databases() {
	d, name := j.Database, "the store's database"
	setting, command := "", "ema db check"
	if d.Server {
		name, setting = "PostgreSQL", "database.url"
	}
	if d.Away != "" {
		j.add(Finding{
			Component: OfDatabase, Share: 0.2, Verdict: name + " cannot be used: history is kept in memory until it can", Evidence: []string{d.Away, fmt.Sprintf("%d records wait", d.Waiting)},
			Setting: setting, Command: command,
		})
		return
	}
	if d.Operations == 0 || d.Mean <= slowDatabase/2 {
		return
	}
	j.database = float64(d.Mean) / float64(d.Mean+slowDatabase) * j.rest()
	j.add(Finding{
		Component: OfDatabase, Share: j.database, Verdict: fmt.Sprintf("%s is slow: an operation takes %.0f ms", name, float64(d.Mean.Milliseconds())),
		Evidence: []string{fmt.Sprintf("%d operations, %d records wait", d.Operations, d.Waiting)}, Setting: setting, Command: command,
	})
}

func (j *judge) queue() {
	q := j.Queue
	if q.Waiting == 0 || q.AtOnce == 0 || q.Running < q.AtOnce {
		return
	}
	evidence := []string{fmt.Sprintf("%d run, as many as may, and %d wait; the first of them for %.0f s", q.Running, q.Waiting, q.Longest.Seconds())}
	f := Finding{Component: OfQueue, Evidence: evidence, Setting: "downloads.max_concurrent_downloads", Advised: fmt.Sprint(q.AtOnce + 1)}
	f.Command = "ema config set " + f.Setting + " " + f.Advised
	if q.Most > 0 && q.Waiting >= q.Most {
		f.Share, f.Verdict = 1, fmt.Sprintf("the queue is full: %d downloads wait and new ones are refused", q.Waiting)
		j.add(f)
		return
	}
	// Another one at once helps only where those that run leave something unused.
	worst := 0.0
	for _, o := range j.found {
		if o.Component != OfServer {
			worst = max(worst, o.Share)
		}
	}
	f.Share = float64(q.Waiting) / float64(q.Waiting+q.Running) * (1 - worst)
	f.Verdict = fmt.Sprintf("%d downloads wait for their turn: only %d may run at once", q.Waiting, q.AtOnce)
	j.add(f)
}

func (j *judge) api() {
	a, explained := j.Requests, max(j.database, 1-j.rest())
	const slow = 100 * time.Millisecond
	wait, what := a.Mean, a.Slowest
	if a.Stuck > wait && a.Stuck > time.Second {
		wait, what = a.Stuck, a.StuckIn
	}
	if wait < slow {
		return
	}
	f := Finding{
		Component: OfAPI, Share: float64(wait) / float64(wait+slow) * (1 - explained), Setting: "api.response_caching", Advised: "true",
		Verdict:  fmt.Sprintf("the API answers slowly: %s takes %.1f s", cmp.Or(what, "a request"), wait.Seconds()),
		Evidence: []string{fmt.Sprintf("%d answers with a mean of %.0f ms", a.Answered, float64(a.Mean.Milliseconds()))}, Command: "ema profile cpu",
	}
	if a.Stuck > time.Second {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%s has been waiting for %.1f s and has no answer yet", a.StuckIn, a.Stuck.Seconds()))
	}
	j.add(f)
}

func (j *judge) gpu() {
	if j.GPU >= 0.95 {
		j.add(Finding{
			Component: OfGPU, Share: 0.1, Verdict: fmt.Sprintf("the memory of the graphics cards is full to %s; that does not slow downloads, but another model will not fit", partOf(j.GPU)),
			Evidence: []string{"memory in use: " + partOf(j.GPU)},
		})
	}
}

// troubles are how often attempts failed for reasons of these classes.
func (j *judge) troubles(classes ...model.Class) (n int64, words []string) {
	counts := map[string]int64{}
	for _, d := range j.Downloads {
		for class, times := range d.Retries {
			if slices.ContainsFunc(classes, func(c model.Class) bool { return c.String() == class }) {
				counts[class] += times
				n += times
			}
		}
	}
	for _, class := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprintf("%d attempts failed: %s", counts[class], class))
	}
	return n, words
}

// waiting splits the time of retries and of held back requests between the server, which refuses, and the way to it, which fails.
func (j *judge) waiting() (refused, failed float64, evidence []string) {
	pauses := j.part(source.InRetry, source.InGate)
	byServer, words := j.troubles(model.RateLimited, model.ServerError)
	byWay, more := j.troubles(model.Timeout, model.Reset, model.Truncated)
	switch all := float64(byServer + byWay); {
	case all > 0:
		return pauses * float64(byServer) / all, pauses * float64(byWay) / all, append(words, more...)
	default:
		return pauses, 0, []string{fmt.Sprintf("requests were held back for %s of the time, because their host asks for it or has enough of them", partOf(pauses))}
	}
}

// roundTrips are how long the links' are, as a median.
func (j *judge) roundTrip() time.Duration {
	var all []float64
	for _, l := range j.Links {
		all = append(all, float64(l.RTT))
	}
	if len(all) == 0 {
		return 0
	}
	return time.Duration(median(all))
}

// far is the round trip from which on the window of a connection can matter.
const far = 5 * time.Millisecond

func (j *judge) network() {
	rest := j.rest()
	body := j.part(source.InBody) * rest * (1 - j.hashing*j.hashing)
	_, failed, words := j.waiting()
	if failed >= least {
		j.add(Finding{Component: OfNetwork, Share: failed, Verdict: "the way to the server breaks: attempts fail and are repeated", Evidence: words, Command: "ema doctor"})
	}
	if hello := j.part(source.InConnect, source.InTLS) * rest; hello >= least {
		j.add(Finding{
			Component: OfNetwork, Share: hello, Verdict: fmt.Sprintf("making connections takes %s of the time", partOf(hello)),
			Evidence: []string{j.took(source.InConnect, "connecting"), j.took(source.InTLS, "shaking hands")}, Setting: "connection_settings.keep_alive_enabled", Advised: "true",
			Command: "ema config show connection_settings",
		})
	}
	if body < least {
		return
	}
	evidence := []string{j.took(source.InBody, "waiting for bytes"), "received " + inMiB(j.Received)}
	switch {
	case j.LinkSpeed > 0 && j.Received >= 0.85*j.LinkSpeed:
		j.add(Finding{
			Component: OfNetwork, Share: body, Ceiling: true, Evidence: evidence,
			Verdict: fmt.Sprintf("the link is full: %s of its %s", partOf(min(1, j.Received/j.LinkSpeed)), inMiB(j.LinkSpeed)),
		})
	case j.window(body, evidence), j.lossy(body, evidence), j.straggler(body, evidence):
	case j.Connections == 1 && len(j.Downloads) > 0:
		j.add(Finding{
			Component: OfNetwork, Share: body, Evidence: evidence, Setting: "connection_settings.max_connections_per_host", Advised: "8",
			Verdict: fmt.Sprintf("only one connection is allowed, and it brings %s: servers and routes mostly give each connection its part, so that more bring more", inMiB(j.Received)),
			Command: "ema config set connection_settings.max_connections_per_host 8",
		})
	}
}

// window finds connections that have as much under way as we let them.
func (j *judge) window(body float64, evidence []string) bool {
	var full []LinkEvidence
	active := 0
	for _, l := range j.Links {
		if l.Rate > 0 {
			active++
		}
		if l.RTT >= far && l.Window > 0 && l.Rate*l.RTT.Seconds() >= 0.7*float64(l.Window) {
			full = append(full, l)
		}
	}
	if len(full) == 0 || 2*len(full) < active {
		return false
	}
	slices.SortFunc(full, func(a, b LinkEvidence) int { return cmp.Compare(a.Rate, b.Rate) })
	l := full[len(full)/2]
	f := Finding{
		Component: OfNetwork, Share: body, Setting: "net.ipv4.tcp_rmem", Advised: "a larger maximum", Command: "ema tune apply --only sysctl",
		Verdict: fmt.Sprintf("one connection is capped at %s by the receive window (RTT %.0f ms, window %.0f KiB): raise net.ipv4.tcp_rmem's maximum",
			inMiB(l.Rate), float64(l.RTT.Microseconds())/1000, float64(l.Window)/float64(model.KiB)),
		Evidence: append(evidence, fmt.Sprintf("%d of %d connections have their whole window under way", len(full), active)),
	}
	if j.SocketBuffer > 0 {
		f.Setting, f.Advised, f.Command = "connection_settings.socket_buffer_size", "0", "ema config set connection_settings.socket_buffer_size 0"
		f.Verdict = strings.Replace(f.Verdict, "raise net.ipv4.tcp_rmem's maximum", fmt.Sprintf("socket_buffer_size is %d, and 0 lets the kernel choose", j.SocketBuffer), 1)
	}
	j.add(f)
	return true
}

// lossy finds routes on which packets get lost.
func (j *judge) lossy(body float64, evidence []string) bool {
	var lost int64
	var rate float64
	for _, l := range j.Links {
		lost, rate = lost+l.Lost, rate+l.Rate
	}
	const packet = 1448
	packets := rate * j.Span.Seconds() / packet
	if packets < 1000 || float64(lost)/packets < 0.005 || j.roundTrip() < time.Millisecond {
		return false
	}
	j.add(Finding{
		Component: OfNetwork, Share: body, Setting: "net.ipv4.tcp_congestion_control", Advised: "bbr", Command: "ema tune check --only sysctl",
		Verdict:  fmt.Sprintf("packets get lost or overtaken on the way: %s of them", partOf(float64(lost)/packets)),
		Evidence: append(evidence, fmt.Sprintf("%d packets came out of order", lost)),
	})
	return true
}

// straggler finds one connection that is far slower than the others, when it is what a download waits for.
func (j *judge) straggler(body float64, evidence []string) bool {
	var rates []float64
	for _, l := range j.Links {
		rates = append(rates, l.Rate)
	}
	if len(rates) < 3 {
		return false
	}
	slices.Sort(rates)
	slowest, usual := rates[0], median(rates)
	if usual < float64(model.MiB)/8 || slowest > 0.2*usual || slowest <= 0 {
		return false
	}
	j.add(Finding{
		Component: OfNetwork, Share: body, Setting: "connection_settings.read_timeout_seconds", Advised: "less", Command: "ema config show connection_settings",
		Verdict:  fmt.Sprintf("one of %d connections brings only %s, the others %s each: it is replaced when it stays so", len(rates), inMiB(slowest), inMiB(usual)),
		Evidence: evidence,
	})
	return true
}

func (j *judge) server() {
	rest := j.rest()
	refused, _, words := j.waiting()
	if refused >= least {
		j.add(Finding{
			Component: OfServer, Share: refused, Verdict: "the server holds requests back: it answers that there are too many, or that it cannot now", Evidence: words,
			Setting: "connection_settings.max_connections_per_host", Advised: "fewer", Command: "ema config show connection_settings",
		})
	}
	first := j.part(source.InFirstByte) * rest
	if first >= least {
		j.add(Finding{
			Component: OfServer, Share: first, Verdict: fmt.Sprintf("the server takes long to begin its answers: %s of the time goes into waiting for first bytes", partOf(first)),
			Evidence: []string{j.took(source.InFirstByte, "waiting for an answer"), fmt.Sprintf("a round trip takes %.1f ms", float64(j.roundTrip().Microseconds())/1000)},
			Setting:  "chunk_optimization.default_chunk_size_mb", Advised: "more", Command: "ema config show chunk_optimization",
		})
	}
	body := j.part(source.InBody) * rest * (1 - j.hashing*j.hashing)
	if body < least || slices.ContainsFunc(j.found, func(f Finding) bool { return f.Component == OfNetwork && f.Share >= body }) {
		return
	}
	j.add(Finding{
		Component: OfServer, Share: body,
		Verdict:  fmt.Sprintf("the server sends no faster: %s over %d connections, while disk, processors and limits here leave room", inMiB(j.Received), len(j.Links)),
		Evidence: []string{j.took(source.InBody, "waiting for bytes"), fmt.Sprintf("a round trip takes %.1f ms", float64(j.roundTrip().Microseconds())/1000)},
		Command:  "ema doctor",
	})
}

// verdict is the whole in one sentence.
func (j *judge) verdict(found []Finding) string {
	if len(found) == 0 || found[0].Share < Worth {
		if len(j.Downloads) == 0 {
			return "no bottleneck: nothing is being downloaded, and nothing on this machine is short"
		}
		return "no bottleneck: no part takes more than " + partOf(max(Worth, j.worst(found))) + " of the time"
	}
	worst := found[0]
	if worst.Ceiling {
		return "no bottleneck that a setting would move: " + worst.Verdict
	}
	return string(worst.Component) + ": " + worst.Verdict
}

func (j *judge) worst(found []Finding) float64 {
	if len(found) == 0 {
		return 0
	}
	return found[0].Share
}

// fine is what is said of a component of which nothing was found.
func (j *judge) fine(c Component) string {
	idle := len(j.Downloads) == 0
	switch c {
	case OfNetwork, OfServer, OfDNS, OfLimiter:
		if idle {
			return "nothing is being downloaded"
		}
		return "it takes less than " + partOf(least) + " of the time"
	case OfDisk:
		return "there is room, and nobody waits for it"
	case OfCPU:
		if j.Busy < 0 {
			return "it cannot be read on this machine"
		}
		return "busy " + partOf(j.Busy) + " of the time"
	case OfMemory:
		return fmt.Sprintf("%s of %s are available", j.Available, j.Memory)
	case OfQueue:
		return fmt.Sprintf("%d run, %d wait", j.Queue.Running, j.Queue.Waiting)
	case OfAPI:
		return fmt.Sprintf("%d answers with a mean of %.1f ms", j.Requests.Answered, float64(j.Requests.Mean.Microseconds())/1000)
	case OfDatabase:
		return fmt.Sprintf("%d operations with a mean of %.1f ms", j.Database.Operations, float64(j.Database.Mean.Microseconds())/1000)
	case OfGPU:
		if math.Signbit(j.GPU) {
			return "there is no graphics card whose driver tells of its memory"
		}
		return "memory in use: " + partOf(j.GPU)
	}
	return ""
}
