package tune

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// A Sample is what figures were on average over one interval, by their names; one that was not known is not there.
type Sample struct {
	At      time.Time          `json:"at"` // when the interval began
	Figures map[string]float64 `json:"figures"`
}

// Signs are what rules and experiments are judged by.
type Signs struct {
	Interval time.Duration // between two samples
	Window   int           // samples over which a trend is judged
	Auto     bool          // settings may be changed; else they are only advised
	Samples  []Sample      // the oldest first, of whole intervals
	Knobs    map[string]Knob
	// Limit is the bandwidth in MiB/s that downloads may take now, 0 is any, and Each that of one download.
	Limit, Each float64
	LimitSince  time.Time // when it became that; zero when it is not known
	Connections int       // of the running download that has the most
}

// A Knob is a setting that rules may turn.
type Knob struct {
	Value  string  // that acts; of an automatic one, what it comes to
	Stored *string // as it is among the changed settings; nil when it is not
	// Said is where a person has set it - a file, a variable, a flag - and "" where nobody has. Such a one is never changed.
	Said string
}

// The settings that rules turn. All of them act on a daemon that runs.
const (
	keyDownloads    = "downloads.max_concurrent_downloads"
	keyConnections  = "connection_settings.max_connections_per_host"
	keyPool         = "connection_settings.connection_pool_size" // only read
	keyFastChunk    = "chunk_optimization.network_based_chunking.fast_network_chunk_mb"
	keySlowChunk    = "chunk_optimization.network_based_chunking.slow_network_chunk_mb"
	keyFastFrom     = "chunk_optimization.network_based_chunking.fast_network_threshold_mbps" // only read
	keySlowTo       = "chunk_optimization.network_based_chunking.slow_network_threshold_mbps" // only read
	keyNetworkChunk = "chunk_optimization.network_based_chunking.enabled"                     // only read
	keyBuffers      = "memory_management.download_buffer_size_mb"
	keyModelCache   = "cache_optimization.model_cache.max_size_gb"
	keyModelCacheOn = "cache_optimization.model_cache.enabled" // only read
	keyModelCap     = "memory_management.model_cache_size_gb"  // only read
	keyAnswers      = "api.response_caching"
)

// KnobKeys are the settings that rules look at.
func KnobKeys() []string {
	return []string{
		keyDownloads, keyConnections, keyPool, keyFastChunk, keySlowChunk, keyFastFrom, keySlowTo, keyNetworkChunk,
		keyBuffers, keyModelCache, keyModelCacheOn, keyModelCap, keyAnswers,
	}
}

// The figures that rules look at.
const (
	speed       = "downloads.average_speed_mbps"
	active      = "downloads.active_count"
	waiting     = "downloads.queue_length"
	retries     = "downloads.retry_frequency"
	response    = "api.average_response_time_ms"
	requests    = "api.requests_per_second"
	hits        = "storage.cache_hit_rate"
	cpuWait     = "system.cpu_pressure"
	ioWait      = "system.io_pressure"
	memoryWait  = "system.memory_pressure"
	memoryUsed  = "system.memory_usage_percent"
	memoryInGiB = "system.memory_usage_gb"
	linkUsed    = "system.network_bandwidth_utilization"
)

// FigureNames are the figures that rules look at.
func FigureNames() []string {
	return []string{speed, active, waiting, retries, response, requests, hits, cpuWait, ioWait, memoryWait, memoryUsed, memoryInGiB, linkUsed}
}

const (
	worthwhile = 0.1  // by so much a figure must have become worse before anything is done about it
	quiet      = 0.25 // pressure below this leaves room
	roomy      = 0.7  // a link that is used less has room
	explained  = 0.8  // downloads that take this part of the limit are as fast as they may be
	full       = 0.25 // so many downloads less than may run are as many as may run: some are just ending
)

// A Proposal is a change of one setting that may help.
type Proposal struct {
	Rule   string `json:"rule"`
	Key    string `json:"key"`
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

// A rule says when a setting is to be changed, to what, and by which figure it is judged whether that helped.
type rule struct {
	name, key string
	figure    string   // that is to become better; "" when none can tell: then it is only advised
	least     float64  // the part of the figure by which it must
	spare     []string // figures that must not become worse meanwhile
	alike     string   // a figure that must be about as it was before, for samples to be compared
	downloads bool     // it is about downloads: samples count only while they run, and nothing else limits them
	up        bool     // it makes the setting larger
	advice    string   // why it is only advised
	propose   func(c *course) (to, reason string)
}

// rules are all of them; of several that hold, the first is tried.
func rules() []rule {
	return []rule{
		{
			name: "shrink_download_buffers", key: keyBuffers, figure: memoryWait, least: 0.25, spare: []string{speed}, downloads: true,
			propose: func(c *course) (string, string) {
				wait, n := c.median(memoryWait), c.number(keyBuffers)
				if !(wait >= 0.1) || !(n > 32) {
					return "", ""
				}
				return text(max(32, math.Round(n/2))), fmt.Sprintf("for %.0f %% of the time somebody waits for memory while downloads run", 100*wait)
			},
		},
		{
			name: "shrink_model_cache", key: keyModelCache, figure: memoryWait, least: 0.25,
			propose: func(c *course) (string, string) {
				wait, n := c.median(memoryWait), c.number(keyModelCache)
				if !(wait >= 0.1) || !(n > 1) || c.knob(keyModelCacheOn) != "true" {
					return "", ""
				}
				return text(max(1, math.Floor(n*0.75))), fmt.Sprintf("for %.0f %% of the time somebody waits for memory", 100*wait)
			},
		},
		{
			name: "reduce_concurrent_downloads", key: keyDownloads, figure: speed, least: 0.05, downloads: true,
			propose: func(c *course) (string, string) {
				n := c.number(keyDownloads)
				by, worse := c.worse(speed)
				if !worse || !(n >= 2) || !(c.median(active) >= n-full) {
					return "", ""
				}
				return text(n - max(1, math.Floor(n/4))), fmt.Sprintf("downloads have become %.0f %% slower", 100*by)
			},
		},
		{
			name: "enable_response_caching", key: keyAnswers, figure: response, least: 0.1, alike: requests, up: true,
			propose: func(c *course) (string, string) {
				by, worse := c.worse(response)
				if !worse || c.knob(keyAnswers) != "false" {
					return "", ""
				}
				return "true", fmt.Sprintf("answers take %.0f %% longer", 100*by)
			},
		},
		{
			name: "fewer_connections", key: keyConnections, figure: retries, least: 0.3, spare: []string{speed}, downloads: true,
			propose: func(c *course) (string, string) {
				n, often := c.number(keyConnections), c.median(retries)
				_, slower := c.worse(speed)
				_, oftener := c.worse(retries)
				if !(often >= 2) || !slower && !oftener || !(n > 2) {
					return "", ""
				}
				return text(max(2, math.Floor(n*0.75))), fmt.Sprintf("%.1f attempts per minute fail and are repeated", often)
			},
		},
		{
			name: "smaller_chunks", key: keySlowChunk, figure: speed, least: 0.05, downloads: true,
			propose: func(c *course) (string, string) {
				n, often := c.number(keySlowChunk), c.median(retries)
				if !(often >= 2) || !(c.median(speed) <= c.number(keySlowTo)) || c.knob(keyNetworkChunk) != "true" || !(n > 1) {
					return "", ""
				}
				return text(max(1, math.Floor(n/2))), fmt.Sprintf("the network is slow, and %.1f attempts per minute fail: less of each is lost", often)
			},
		},
		{
			name: "more_connections", key: keyConnections, figure: speed, least: 0.05, spare: []string{retries}, downloads: true, up: true,
			propose: func(c *course) (string, string) {
				n := c.number(keyConnections)
				most := min(32, c.number(keyPool))
				if !c.idle() || !(n < most) || float64(c.signs.Connections) < n || !(c.median(retries) < 1) {
					return "", ""
				}
				return text(min(most, math.Ceil(n*1.5))), fmt.Sprintf("a download uses all %.0f connections, and link, processors and disk have room", n)
			},
		},
		{
			name: "more_concurrent_downloads", key: keyDownloads, figure: speed, least: 0.05, spare: []string{retries}, downloads: true, up: true,
			propose: func(c *course) (string, string) {
				n, queued := c.number(keyDownloads), c.median(waiting)
				if !c.idle() || !(n < 16) || !(queued >= 1) || !(c.median(active) >= n-full) {
					return "", ""
				}
				return text(min(16, n+max(1, math.Floor(n/4)))), fmt.Sprintf("%.0f downloads wait, and link, processors and disk have room", queued)
			},
		},
		{
			name: "larger_chunks", key: keyFastChunk, figure: speed, least: 0.05, downloads: true, up: true,
			propose: func(c *course) (string, string) {
				n := c.number(keyFastChunk)
				if !c.idle() || !(n < 128) || !(c.median(speed) >= c.number(keyFastFrom)) || c.knob(keyNetworkChunk) != "true" {
					return "", ""
				}
				return text(min(128, n*2)), "the network is fast, and link, processors and disk have room: fewer requests cost fewer round trips"
			},
		},
		{
			name: "grow_model_cache", key: keyModelCache, up: true,
			advice: "its figure counts since the daemon was started, so that it could not be told whether it helped",
			propose: func(c *course) (string, string) {
				by, worse := c.worse(hits)
				n, limit, used, percent := c.number(keyModelCache), c.number(keyModelCap), c.median(memoryInGiB), c.median(memoryUsed)
				// A quarter more, as far as half of the free memory reaches.
				to := math.Floor(n * 1.25)
				if to == n {
					to++
				}
				free := used/(percent/100) - used
				if !worse || c.knob(keyModelCacheOn) != "true" || !(percent < 70) || !(c.median(memoryWait) < 0.05) || !(to-n <= free/2) || limit > 0 && to > limit {
					return "", ""
				}
				return text(to), fmt.Sprintf("models in memory are found %.0f %% less often, and memory is free", 100*by)
			},
		},
	}
}

// ruleNamed is the rule of that name; ok is false where there is none, as for one of another version.
func ruleNamed(name string) (r rule, ok bool) {
	all := rules()
	i := slices.IndexFunc(all, func(r rule) bool { return r.name == name })
	if i < 0 {
		return rule{}, false
	}
	return all[i], true
}

// RuleNames are the names of all rules.
func RuleNames() []string {
	var names []string
	for _, r := range rules() {
		names = append(names, r.name)
	}
	return names
}

func text(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// A course is what a rule looks at: the samples that count for it, and the settings.
type course struct {
	signs   Signs
	samples []Sample
	trends  map[string]Trend
}

// counts reports whether a sample tells something about r: a sample of a machine that does nothing does not, nor one of downloads
// that were as fast as they might be.
func (r rule) counts(s Sample, f Signs, limited time.Time) bool {
	if !r.downloads {
		if r.alike != "" {
			n, known := s.Figures[r.alike]
			return known && n > 0
		}
		return true
	}
	n, known := s.Figures[active]
	rate, received := s.Figures[speed]
	most := f.Limit
	if f.Each > 0 && (most <= 0 || f.Each*n < most) {
		most = f.Each * n
	}
	return known && received && n >= 0.5 && !s.At.Before(limited) && (most <= 0 || rate < explained*most)
}

// courseFor has the samples that count for r since from.
func courseFor(r rule, f Signs, from, limited time.Time) *course {
	c := &course{signs: f, trends: map[string]Trend{}}
	for _, s := range f.Samples {
		if !s.At.Before(from) && r.counts(s, f, limited) {
			c.samples = append(c.samples, s)
		}
	}
	if over := len(c.samples) - f.Window; over > 0 {
		c.samples = c.samples[over:]
	}
	return c
}

// enough reports whether there are samples for a trend over the whole window, but for one in five.
func (c *course) enough(n int) bool { return n >= max(fewest, (4*c.signs.Window+4)/5) }

// of are the samples of one figure.
func (c *course) of(figure string) []float64 {
	var all []float64
	for _, s := range c.samples {
		if v, known := s.Figures[figure]; known {
			all = append(all, v)
		}
	}
	return all
}

func (c *course) trend(figure string) (Trend, bool) {
	some := c.of(figure)
	if !c.enough(len(some)) {
		return Trend{}, false
	}
	t, known := c.trends[figure]
	if !known {
		t = TrendOf(some)
		c.trends[figure] = t
	}
	return t, true
}

// worse reports whether a figure goes where it is not wanted, and by which part of it.
func (c *course) worse(figure string) (by float64, yes bool) {
	t, known := c.trend(figure)
	bad := known && (t.Course == Rising || t.Course == Falling) && t.Course != Better(figure) && math.Abs(t.Change) >= worthwhile
	return math.Abs(t.Change), bad
}

// median is the middle of a figure; NaN, with which nothing compares, where too little is known.
func (c *course) median(figure string) float64 {
	some := c.of(figure)
	if !c.enough(len(some)) {
		return math.NaN()
	}
	return median(some)
}

func (c *course) knob(key string) string { return c.signs.Knobs[key].Value }

// number is a setting that is one; NaN where it is not known.
func (c *course) number(key string) float64 {
	n, err := strconv.ParseFloat(c.knob(key), 64)
	if err != nil {
		return math.NaN()
	}
	return n
}

// idle reports whether link, processors and disk are known to have room, and downloads are no faster for it.
func (c *course) idle() bool {
	t, known := c.trend(speed)
	return known && t.Course == Steady && c.median(linkUsed) < roomy && c.median(cpuWait) < quiet && c.median(ioWait) < quiet
}

// propose is what r proposes, if anything.
func (r rule) proposal(f Signs, from, limited time.Time) (Proposal, bool) {
	c := courseFor(r, f, from, limited)
	if !c.enough(len(c.samples)) {
		return Proposal{}, false
	}
	to, reason := r.propose(c)
	p := Proposal{Rule: r.name, Key: r.key, From: c.knob(r.key), To: to, Reason: reason}
	return p, to != "" && to != p.From
}
