package tune

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const interval = 5 * time.Minute

// A node is a made-up machine: how fast it downloads depends on its settings, on chance, and on what happens elsewhere.
type node struct {
	rng      *rand.Rand
	shape    func(downloads, connections, chunk float64) float64 // MiB/s without chance
	noise    float64
	outside  func(at time.Time) float64 // by which the speed is multiplied
	busy     func(at time.Time) bool
	defaults map[string]string
	stored   map[string]string
	said     map[string]string
	response func(caching bool) float64
	memory   func(buffers float64) float64
	auto     bool
	limit    float64
	link     float64 // MiB/s
	cpu      float64 // pressure

	now     time.Time
	samples []Sample
	trials  Trials
	changes []time.Time
}

func newNode(seed uint64) *node {
	return &node{
		rng: rand.New(rand.NewPCG(seed, 1)), noise: 0.05, auto: true, link: 1000, cpu: 0.5,
		shape:    func(float64, float64, float64) float64 { return 100 },
		outside:  func(time.Time) float64 { return 1 },
		busy:     func(time.Time) bool { return true },
		response: func(bool) float64 { return 1 },
		memory:   func(float64) float64 { return 0 },
		defaults: map[string]string{
			keyDownloads: "4", keyConnections: "8", keyPool: "20", keyFastChunk: "32", keySlowChunk: "2", keyFastFrom: "100", keySlowTo: "10", keyNetworkChunk: "true",
			keyBuffers: "128", keyModelCache: "16", keyModelCacheOn: "true", keyModelCap: "0", keyAnswers: "true",
		},
		stored: map[string]string{}, said: map[string]string{},
		now: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC),
	}
}

func (n *node) value(key string) string {
	if v, ok := n.stored[key]; ok {
		return v
	}
	return n.defaults[key]
}

func (n *node) number(key string) float64 {
	v, err := strconv.ParseFloat(n.value(key), 64)
	if err != nil {
		panic(err)
	}
	return v
}

// speed is what it downloads without chance, and nothing else going on.
func (n *node) speed() float64 {
	return n.shape(n.number(keyDownloads), n.number(keyConnections), n.number(keyFastChunk))
}

func (n *node) wavers() float64 { return math.Exp(n.noise * n.rng.NormFloat64()) }

func (n *node) signs() Signs {
	f := Signs{Interval: interval, Window: 10, Auto: n.auto, Samples: n.samples, Knobs: map[string]Knob{}, Limit: n.limit, Connections: 64}
	for _, key := range KnobKeys() {
		k := Knob{Value: n.value(key), Said: n.said[key]}
		if v, ok := n.stored[key]; ok {
			k.Stored = &v
		}
		f.Knobs[key] = k
	}
	return f
}

// measure lets an interval pass.
func (n *node) measure() {
	at := n.now
	n.now = n.now.Add(interval)
	caching := n.value(keyAnswers) == "true"
	f := map[string]float64{
		cpuWait: n.cpu * n.wavers(), ioWait: 0.1 * n.wavers(), memoryWait: n.memory(n.number(keyBuffers)) * n.wavers(), memoryUsed: 50, memoryInGiB: 8,
		response: n.response(caching) * n.wavers(), requests: 5 * n.wavers(), retries: 0, waiting: 0, linkUsed: 0,
	}
	if n.busy(at) {
		rate := n.speed() * n.outside(at) * n.wavers()
		if n.limit > 0 {
			rate = min(rate, n.limit)
		}
		f[speed], f[active], f[waiting], f[linkUsed] = rate, n.number(keyDownloads), 5, rate/n.link
	} else {
		f[active] = 0
	}
	n.samples = append(n.samples, Sample{at, f})
	if over := len(n.samples) - 10; over > 0 {
		n.samples = n.samples[over:]
	}
}

// step lets an interval pass and does what is decided; lost says where it is interrupted: 1 before it is done, 2 before that is noted.
func (n *node) step(t fataler, lost int) {
	n.measure()
	next, acts := Decide(n.now, n.trials, n.signs())
	n.trials = next
	if lost > 0 {
		n.store(t, next)
	}
	n.do(t, acts, lost)
}

func (n *node) do(t fataler, acts []Act, lost int) {
	if lost == 1 {
		return
	}
	for _, a := range acts {
		n.set(a)
		if lost == 2 {
			return
		}
		n.trials = n.trials.Done(a.Experiment, n.now)
	}
}

func (n *node) set(a Act) {
	if a.Value == nil {
		delete(n.stored, a.Key)
	} else {
		n.stored[a.Key] = *a.Value
	}
	n.changes = append(n.changes, n.now)
}

type fataler interface{ Fatalf(string, ...any) }

// store keeps the state as a file would.
func (n *node) store(t fataler, next Trials) {
	raw, err := json.Marshal(next)
	if err != nil {
		t.Fatalf("%v", err)
	}
	n.trials = Trials{}
	if err := json.Unmarshal(raw, &n.trials); err != nil {
		t.Fatalf("%v", err)
	}
}

func (n *node) last() Experiment {
	if len(n.trials.Experiments) == 0 {
		return Experiment{}
	}
	return n.trials.Experiments[len(n.trials.Experiments)-1]
}

// until lets time pass until something is so.
func (n *node) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 4 * 288 {
		if is() {
			return
		}
		n.step(t, 0)
	}
	t.Fatalf("never %s; last %+v", what, n.last())
}

func (n *node) becomes(t *testing.T, s Stage) Experiment {
	t.Helper()
	n.until(t, string(s), func() bool { return n.last().Stage == s })
	return n.last()
}

// thrashing becomes slower the more downloads run at once.
func thrashing(downloads, _, _ float64) float64 { return 120 / (1 + 0.2*downloads) }

// sinking is a speed that goes down by a third within some hours, and stays there.
func sinking(begin time.Time) func(time.Time) float64 {
	return func(at time.Time) float64 { return 1 - 0.35*min(1, max(0, at.Sub(begin).Hours()/4)) }
}

func TestWhatHelpsTwiceIsKept(t *testing.T) {
	n := newNode(1)
	n.shape, n.outside = thrashing, sinking(n.now)
	e := n.becomes(t, Measuring)
	if e.Rule != "reduce_concurrent_downloads" || e.From != "4" || e.To != "3" || n.value(keyDownloads) != "3" || e.Before != nil {
		t.Fatalf("begun: %+v", e)
	}
	if n.becomes(t, Checking); n.value(keyDownloads) != "4" || len(n.stored) != 0 {
		t.Errorf("while it is checked: %v", n.stored)
	}
	if n.becomes(t, Confirming); n.value(keyDownloads) != "3" {
		t.Errorf("while it is confirmed: %v", n.stored)
	}
	if e = n.becomes(t, Kept); n.value(keyDownloads) != "3" || !(e.Effect() > 0.05) {
		t.Errorf("kept: %v, %g", n.stored, e.Effect())
	}
	// It is taken back exactly, and not tried again for long.
	next, acts, err := Undo(n.now, n.trials, n.signs(), e.ID)
	if err != nil || len(acts) != 1 || acts[0].Value != nil {
		t.Fatalf("undo: %+v, %v", acts, err)
	}
	n.store(t, next)
	n.do(t, acts, 0)
	if _, there := n.stored[keyDownloads]; there || n.last().Stage != UndoneBy {
		t.Errorf("undone: %v, %v", n.stored, n.last().Stage)
	}
	if _, _, err := Undo(n.now, n.trials, n.signs(), e.ID); err == nil {
		t.Error("it is taken back twice")
	}
	if until := n.trials.Rules[e.Rule].Until; until.Sub(n.now) < 80*24*time.Hour {
		t.Errorf("it is tried again at %v", until)
	}
}

func TestARecoveryIsNoSuccess(t *testing.T) {
	n := newNode(2)
	begin := n.now
	n.outside = func(at time.Time) float64 {
		if n.last().ID != "" && n.trials.Changed.Sub(begin) > 0 { // as soon as anything is changed
			return 1
		}
		return sinking(begin)(at)
	}
	n.becomes(t, Checking)
	if e := n.becomes(t, Undone); len(n.stored) != 0 || !strings.Contains(e.Why, "not missed") {
		t.Errorf("%q, %v", e.Why, n.stored)
	}
	if len(n.changes) != 2 {
		t.Errorf("changed %d times", len(n.changes))
	}
}

func TestNothingIsTriedThatMustNotBe(t *testing.T) {
	sink := func(n *node) { n.shape, n.outside = thrashing, sinking(n.now) }
	for promise, c := range map[string]struct {
		make  func(n *node)
		held  string // why it is advised and not tried
		quiet bool   // it is not even advised
	}{
		"while that is off":                            {func(n *node) { sink(n); n.auto = false }, "auto_apply is off", false},
		"to a key that a person has set in a file":     {func(n *node) { sink(n); n.said[keyDownloads] = "ema.yaml:3" }, "ema.yaml:3", false},
		"to a key that a person has set while it ran":  {func(n *node) { sink(n); n.stored[keyDownloads] = "4" }, "ema config set", false},
		"while nothing is downloaded":                  {func(n *node) { sink(n); n.busy = func(time.Time) bool { return false } }, "", true},
		"where the limit explains the speed":           {func(n *node) { sink(n); n.limit = 40 }, "", true},
		"below one download":                           {func(n *node) { sink(n); n.defaults[keyDownloads] = "1" }, "", true},
		"while fewer downloads run than might":         {func(n *node) { sink(n); n.shape = nil }, "", true},
		"where nothing is worse, and the link is used": {func(n *node) { n.link, n.cpu = 110, 0.1 }, "", true},
		"with answers that are cached already":         {func(n *node) { n.response = worsening(n) }, "", true},
	} {
		t.Run(promise, func(t *testing.T) {
			n := newNode(3)
			c.make(n)
			few := n.shape == nil
			if few {
				n.shape = thrashing
			}
			var seen []Recommended
			for range 60 {
				n.step(t, 0)
				if few {
					n.samples[len(n.samples)-1].Figures[active] = 2
				}
				for _, r := range Recommend(n.now, n.trials, n.signs()) {
					if !slices.ContainsFunc(seen, func(s Recommended) bool { return s.Rule == r.Rule && s.Held == r.Held }) {
						seen = append(seen, r)
					}
				}
			}
			var what []string
			for _, e := range n.trials.Experiments {
				what = append(what, e.Rule)
			}
			if slices.Contains(what, "reduce_concurrent_downloads") || c.quiet && len(what) > 0 {
				t.Errorf("tried %v", what)
			}
			i := slices.IndexFunc(seen, func(r Recommended) bool { return r.Rule == "reduce_concurrent_downloads" })
			if c.quiet != (i < 0) || i >= 0 && !strings.Contains(seen[i].Held, c.held) {
				t.Errorf("advised: %+v", seen)
			}
		})
	}
}

// worsening is a response time that rises with each answer.
func worsening(n *node) func(bool) float64 {
	begin := n.now
	return func(bool) float64 { return 1 + n.now.Sub(begin).Hours()/4 }
}

func TestEachRuleCanHelp(t *testing.T) {
	for name, c := range map[string]struct {
		make func(n *node)
		key  string
		want string
	}{
		"enable_response_caching": {func(n *node) {
			n.defaults[keyAnswers], n.link = "false", 110
			slow := worsening(n)
			n.response = func(caching bool) float64 {
				if caching {
					return 0.5
				}
				return min(3, slow(false))
			}
		}, keyAnswers, "true"},
		"shrink_download_buffers": {func(n *node) {
			n.memory = func(buffers float64) float64 { return 0.3 * buffers / 128 }
		}, keyBuffers, "64"},
		"more_connections": {func(n *node) {
			n.shape = func(_, connections, _ float64) float64 { return 10 * connections }
		}, keyConnections, "12"},
		"more_concurrent_downloads": {func(n *node) {
			n.shape = func(downloads, _, _ float64) float64 { return 20 * downloads }
			n.said[keyConnections] = "ema.yaml:1"
		}, keyDownloads, "5"},
		"larger_chunks": {func(n *node) {
			n.shape = func(_, _, chunk float64) float64 { return 200 + chunk }
			n.said[keyConnections], n.said[keyDownloads] = "ema.yaml:1", "ema.yaml:2"
		}, keyFastChunk, "64"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(4)
			n.cpu = 0.1
			c.make(n)
			e := n.becomes(t, Kept)
			if e.Rule != name || n.value(c.key) != c.want {
				t.Errorf("%+v, %v", e, n.stored)
			}
		})
	}
}

func TestRetriesAreJudgedToo(t *testing.T) {
	n := newNode(5)
	n.shape = func(_, connections, _ float64) float64 { return 8 }
	begin := n.now
	for range 400 {
		n.measure()
		f := n.samples[len(n.samples)-1].Figures
		f[retries] = max(0, n.number(keyConnections)-5) * 2 * min(2, 0.8+n.now.Sub(begin).Hours()/3) * n.wavers()
		next, acts := Decide(n.now, n.trials, n.signs())
		n.store(t, next)
		n.do(t, acts, 0)
		if n.last().Stage == Kept {
			break
		}
	}
	if e := n.last(); e.Rule != "fewer_connections" || e.Stage != Kept || n.value(keyConnections) != "6" {
		t.Errorf("%+v", e)
	}
}

func TestAPersonCountsMore(t *testing.T) {
	begun := func(t *testing.T) (*node, Experiment) {
		n := newNode(6)
		n.shape, n.outside = thrashing, sinking(n.now)
		return n, n.becomes(t, Measuring)
	}
	t.Run("who sets the key meanwhile", func(t *testing.T) {
		n, e := begun(t)
		n.stored[keyDownloads] = "7"
		if _, _, err := Undo(n.now, n.trials, n.signs(), e.ID); err == nil || !strings.Contains(err.Error(), "was set to something else since") {
			t.Errorf("undo: %v", err)
		}
		n.step(t, 0)
		if n.trials.Experiments[0].Stage != Superseded || n.value(keyDownloads) != "7" {
			t.Errorf("%+v, %v", n.last(), n.stored)
		}
	})
	t.Run("who sets it in the file: the change must not outvote it", func(t *testing.T) {
		n, _ := begun(t)
		n.said[keyDownloads] = "ema.yaml:3"
		n.step(t, 0)
		if _, there := n.stored[keyDownloads]; there || n.trials.Experiments[0].Stage != Superseded {
			t.Errorf("%+v, %v", n.last(), n.stored)
		}
	})
	t.Run("who switches it off meanwhile", func(t *testing.T) {
		n, _ := begun(t)
		n.auto = false
		n.step(t, 0)
		if n.last().Stage != Undone || len(n.stored) != 0 {
			t.Errorf("%+v, %v", n.last(), n.stored)
		}
	})
	t.Run("who takes back one on which another builds", func(t *testing.T) {
		n, _ := begun(t)
		e := n.becomes(t, Kept)
		was, again := n.outside, sinking(n.now.Add(2*time.Hour))
		n.outside = func(at time.Time) float64 { return was(at) * again(at) }
		n.until(t, "a second one", func() bool { return n.last().ID != e.ID && n.last().Key == keyDownloads })
		if n.last().From != "3" || n.last().Before == nil || *n.last().Before != "3" {
			t.Fatalf("second: %+v", n.last())
		}
		if _, _, err := Undo(n.now, n.trials, n.signs(), e.ID); err == nil || !strings.Contains(err.Error(), "builds on it") {
			t.Errorf("undo of the first: %v", err)
		}
		next, acts, err := Undo(n.now, n.trials, n.signs(), n.last().ID)
		if err != nil {
			t.Fatal(err)
		}
		n.store(t, next)
		n.do(t, acts, 0)
		if n.stored[keyDownloads] != "3" {
			t.Errorf("after the second: %v", n.stored)
		}
		next, acts, err = Undo(n.now, n.trials, n.signs(), e.ID)
		if err != nil {
			t.Fatal(err)
		}
		n.store(t, next)
		n.do(t, acts, 0)
		if len(n.stored) != 0 {
			t.Errorf("after both: %v", n.stored)
		}
	})
}

// The world turns round: what was kept stays for a week all the same, what is kept then for two.
func TestWhatWasKeptIsNotTurnedSoon(t *testing.T) {
	n := newNode(8)
	n.shape, n.outside = thrashing, sinking(n.now)
	for _, key := range KnobKeys() {
		if key != keyDownloads {
			n.said[key] = "ema.yaml:1"
		}
	}
	down := n.becomes(t, Kept)
	n.cpu, n.noise, n.outside = 0.1, 0.02, func(time.Time) float64 { return 1 }
	n.shape = func(downloads, _, _ float64) float64 { return 30 * downloads }
	begun := func() bool { return n.last().Rule == "more_concurrent_downloads" }
	for n.now.Sub(down.Since) < 7*24*time.Hour {
		if n.step(t, 0); begun() && n.now.Sub(down.Since) < 7*24*time.Hour {
			t.Fatalf("turned after %v", n.now.Sub(down.Since))
		}
	}
	n.until(t, "turned", begun)
	up := n.becomes(t, Kept)
	if k := n.trials.Keys[keyDownloads]; k.Turns != 1 || !k.Up || k.Until.Sub(up.Since) < 14*24*time.Hour {
		t.Errorf("%+v, kept %v", k, up.Since)
	}
}

func TestAFailureIsTriedAgainLaterAndLater(t *testing.T) {
	n := newNode(7)
	n.cpu = 0.1
	n.said[keyConnections], n.said[keyFastChunk] = "ema.yaml:1", "ema.yaml:2"
	var begun []time.Time
	for range 6 * 7 * 288 {
		n.step(t, 0)
		if e := n.last(); e.Began.Equal(n.now) && e.Rule == "more_concurrent_downloads" {
			begun = append(begun, n.now)
		}
	}
	if len(begun) < 4 || len(begun) > 8 {
		t.Fatalf("tried %d times within six weeks", len(begun))
	}
	for i := 2; i < len(begun); i++ {
		if was, is := begun[i-1].Sub(begun[i-2]), begun[i].Sub(begun[i-1]); is < was*3/2 {
			t.Errorf("again after %v, then after %v", was, is)
		}
	}
}

// Whatever the machine is like, and wherever it is interrupted: it tries what fails ever more rarely, turns nothing to and fro, and is no
// slower in the end.
func TestTheMonitorNeverOscillates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNode(rapid.Uint64().Draw(t, "seed"))
		n.cpu = 0.1
		n.noise = rapid.Float64Range(0, 0.15).Draw(t, "noise")
		start := rapid.IntRange(1, 12).Draw(t, "downloads")
		n.defaults[keyDownloads] = strconv.Itoa(start)
		best := rapid.Float64Range(1, 12).Draw(t, "best")
		shapes := map[string]func(float64, float64, float64) float64{
			"nothing helps":    func(_, _, _ float64) float64 { return 100 },
			"a link":           func(d, c, _ float64) float64 { return min(100, 8*d, 20*c) },
			"a disk":           thrashing,
			"a peak":           func(d, _, _ float64) float64 { return 100 * (d / best) * math.Exp(1-d/best) },
			"a hub that drops": func(_, c, _ float64) float64 { return 100 * c / (1 + math.Pow(c/10, 4)) },
			"chunks":           func(_, _, k float64) float64 { return 100 + 200*k/(k+64) },
		}
		kind := rapid.SampledFrom([]string{"nothing helps", "a link", "a disk", "a peak", "a hub that drops", "chunks"}).Draw(t, "shape")
		n.shape = shapes[kind]
		n.link = rapid.SampledFrom([]float64{110, 1000}).Draw(t, "link")
		levels, level := map[int64]float64{}, 1.0
		outside := rapid.SampledFrom([]string{"nothing", "days", "jumps", "decline"}).Draw(t, "outside")
		n.outside = func(at time.Time) float64 {
			days := float64(at.Unix()) / 86400
			switch outside {
			case "days":
				return 1 + 0.3*math.Sin(2*math.Pi*days)
			case "jumps": // about every other day
				slot := at.Unix() / 300
				if _, known := levels[slot]; !known {
					if n.rng.Float64() < 1./576 {
						level = 0.6 + 0.8*n.rng.Float64()
					}
					levels[slot] = level
				}
				return levels[slot]
			case "decline":
				return math.Exp(-at.Sub(time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)).Hours() / 24 / 10)
			}
			return 1
		}
		if rapid.Bool().Draw(t, "idle at night") {
			n.busy = func(at time.Time) bool { return at.Hour() >= 8 }
		}
		lossy := rapid.Bool().Draw(t, "interrupted")
		was := n.speed()
		for range weeks * 7 * 288 {
			lost := 0
			if lossy && n.rng.IntN(20) == 0 {
				lost = 1 + n.rng.IntN(2)
			}
			n.step(t, lost)
			running := 0
			for _, e := range n.trials.Experiments {
				if e.Stage.running() {
					running++
				}
			}
			if running > 1 {
				t.Fatalf("%d experiments at once", running)
			}
			if d := n.number(keyDownloads); d < 1 || d > 16 {
				t.Fatalf("%g downloads", d)
			}
		}
		n.staysCalm(t)
		if is := n.speed(); is < 0.97*was {
			t.Errorf("%s: %.1f MiB/s became %.1f: %s", kind, was, is, n.story())
		}
	})
}

// staysCalm fails when more was changed than may be: what does not help, again sooner than twice as long after it; what was kept, back.
func (n *node) staysCalm(t *rapid.T) {
	kept, most := map[string]bool{}, 0 // by key, whether it was turned up
	failed := map[string][]time.Time{}
	turns := map[string]int{}
	for _, e := range n.trials.Experiments {
		r, _ := ruleNamed(e.Rule)
		switch e.Stage {
		case Kept:
			if up, before := kept[e.Key]; before && up != r.up {
				turns[e.Key]++
			}
			kept[e.Key] = r.up
			delete(failed, e.Rule)
			most += 3
		case Undone:
			if row := failed[e.Rule]; len(row) > 0 && e.Began.Sub(row[len(row)-1]) < firstCool*interval<<(len(row)-1)-time.Hour { // putting it back may have been interrupted
				t.Errorf("%s was tried again after %v, having failed %d times: %s", e.Rule, e.Began.Sub(row[len(row)-1]), len(row), n.story())
			}
			failed[e.Rule] = append(failed[e.Rule], e.Since)
			most += 4
		case Superseded, UndoneBy:
			t.Errorf("nobody has done that: %s", n.story())
		default:
			most += 3
		}
	}
	for key, times := range turns {
		if times > weeks-1 { // a week after the first, two after the second
			t.Errorf("%s was turned %d times: %s", key, times, n.story())
		}
	}
	if len(n.changes) > most {
		t.Errorf("%d changes for what takes %d: %s", len(n.changes), most, n.story())
	}
}

func (n *node) story() string {
	var b strings.Builder
	for _, e := range n.trials.Experiments {
		fmt.Fprintf(&b, "\n%s %s: %s %s→%s %s: %s", e.Began.Format("01-02 15:04"), e.Rule, e.Key, e.From, e.To, e.Stage, e.Why)
	}
	return b.String()
}

func TestWhatCountsAsHelp(t *testing.T) {
	r, _ := ruleNamed("more_connections")
	some := func(name string, values ...float64) (all []Sample) {
		for _, v := range values {
			all = append(all, Sample{Figures: map[string]float64{name: v, retries: 0}})
		}
		return all
	}
	before := some(speed, 100, 101, 99, 100, 102, 98)
	failing := some(speed, 150, 151, 149, 150, 152, 148)
	for _, s := range failing {
		s.Figures[retries] = 3
	}
	for promise, c := range map[string]struct {
		with []Sample
		says string // against it
	}{
		"half as much again":                  {some(speed, 150, 151, 149, 150, 152, 148), ""},
		"surely more, and not worth it":       {some(speed, 103, 104, 103, 104, 103, 104), "not enough"},
		"more, and perhaps by chance":         {some(speed, 110, 60, 112, 90, 111, 109), "may be chance"},
		"more, but something else has broken": {failing, "downloads.retry_frequency is worse"},
		"nothing known":                       {nil, "unknown"},
	} {
		if says := r.against(before, c.with); !strings.Contains(says, c.says) || (says == "") != (c.says == "") {
			t.Errorf("%s: %q", promise, says)
		}
	}
}

func TestAnInterruptedChangeIsDoneAgain(t *testing.T) {
	for lost := 1; lost <= 2; lost++ {
		n := newNode(9)
		n.shape, n.outside = thrashing, sinking(n.now)
		for n.last().ID == "" {
			n.step(t, lost)
		}
		if !n.last().Pending || (n.value(keyDownloads) == "3") != (lost == 2) {
			t.Fatalf("interrupted at %d: %+v", lost, n.last())
		}
		n.step(t, 0)
		if e := n.last(); e.ID != "1" || e.Pending || e.Stage != Measuring || n.value(keyDownloads) != "3" || len(n.changes) != 1 {
			t.Errorf("interrupted at %d: %+v, changed %d times", lost, e, len(n.changes))
		}
	}
}

func TestAnotherLimitEndsAnExperiment(t *testing.T) {
	n := newNode(10)
	n.shape, n.outside = thrashing, sinking(n.now)
	n.becomes(t, Measuring)
	n.limit = 500 // far away, but whoever sets it may have changed more
	n.step(t, 0)
	if e := n.last(); e.Stage != Undone || !strings.Contains(e.Why, "limit") || len(n.stored) != 0 {
		t.Errorf("%+v", e)
	}
}
