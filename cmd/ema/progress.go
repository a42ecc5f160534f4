package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

const (
	lineEvery   = 5 * time.Second  // where nobody watches
	rateWindow  = 5 * time.Second  // over which the speed is averaged
	troubleStay = 10 * time.Second // how long a reason for a retry is shown
	silence     = 2 * time.Second  // without a byte: the reason is shown as long as this lasts
)

// A progress shows on stderr how the work on one model stands: a live bar on a terminal, a line every few seconds where
// there is none, nothing with --quiet. It changes nothing of the work.
type progress struct {
	app      *app
	name     string
	progress *pipeline.Progress // what it shows
	stageNow func() pipeline.Stage

	bars  *mpb.Progress // nil where there is no terminal
	bar   *mpb.Bar
	lines chan struct{} // closed to end the lines
	ended sync.WaitGroup

	mu        sync.Mutex // guards what read remembers
	stage     string
	most      model.Bytes // shown in this stage: it never runs backwards
	speed     speed
	retries   int64
	retriedAt time.Time
	waits     bool // for another process, until the next stage
}

// A view is one moment of a progress.
type view struct {
	name        string
	stage       string // in words; empty before the beginning
	done, total model.Bytes
	files       int // finished
	allFiles    int
	rate        model.Bytes // per second; 0 while unknown
	connections int
	trouble     string // the newest reason for a retry; empty while all is well
}

// watch makes the progress of a model. It shows nothing before start.
func (a *app) watch(id model.ID) *progress {
	p := &pipeline.Progress{}
	return &progress{app: a, name: id.Public(), progress: p, stageNow: p.Stage}
}

// start begins to show. Every start needs a stop.
func (p *progress) start() {
	switch {
	case p.app.quiet:
	case p.app.columns > 0 || interactive(p.app.stderr) && p.app.getenv("TERM") != "dumb":
		options := []mpb.ContainerOption{mpb.WithOutput(p.app.stderr), mpb.WithRefreshRate(200 * time.Millisecond)}
		if p.app.columns > 0 {
			options = append(options, mpb.WithWidth(p.app.columns), mpb.WithAutoRefresh(), mpb.ForceTTY())
		}
		p.bars = mpb.New(options...)
		bar, err := p.bars.Add(1, mpb.BarFillerFunc(p.fillBar), mpb.BarFillerTrim(), mpb.BarBtmExtender(mpb.BarFillerFunc(p.fillTrouble)))
		if err == nil { // it fails after Wait only
			p.bar = bar
		}
	default:
		p.lines = make(chan struct{})
		p.ended.Go(p.printLines)
	}
}

// stop takes the bar away, or ends the lines. A second stop does nothing.
func (p *progress) stop() {
	if p.bars != nil {
		p.bar.Abort(true)
		p.bars.Wait()
		p.bar, p.bars = nil, nil
		io.WriteString(p.app.stderr, "\r\x1b[K") // what an echoed Ctrl-C left
	}
	if p.lines != nil {
		close(p.lines)
		p.ended.Wait()
		p.lines = nil
	}
}

// say prints a line that stays, unless nothing is to be said.
func (p *progress) say(line string) {
	if !p.app.quiet {
		p.tell(line)
	}
}

// tell prints a line that stays, above the bar where there is one.
func (p *progress) tell(line string) {
	var out io.Writer = p.app.stderr
	if p.bars != nil {
		out = p.bars
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(out, line)
}

// waiting says whom we wait for. It is said even with --quiet: who waits for something unknown thinks that it hangs.
func (p *progress) waiting(o store.Owner) {
	p.tell(p.name + ": waiting for " + o.String())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage, p.waits = p.stageNow().Name, true
}

// printLines prints how it stands every few seconds, until lines is closed.
func (p *progress) printLines() {
	p.read(time.Now()) // the first speed counts from here
	tick := time.NewTicker(lineEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.lines:
			return
		case <-tick.C:
			p.say(p.read(time.Now()).line())
		}
	}
}

func (p *progress) fillBar(w io.Writer, at decor.Statistics) error {
	// The terminal's own echo of Ctrl-C moves the cursor; from the first column no line gets too long.
	_, err := io.WriteString(w, "\r"+p.read(time.Now()).bar(at.AvailableWidth))
	return err
}

func (p *progress) fillTrouble(w io.Writer, at decor.Statistics) error {
	trouble := p.read(time.Now()).trouble
	if trouble == "" {
		return nil
	}
	text := clip("  retrying: "+trouble, at.AvailableWidth)
	if p.app.colored(p.app.stderr) {
		text = "\x1b[33m" + text + "\x1b[0m"
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// read is how it stands now.
func (p *progress) read(now time.Time) view {
	s := p.stageNow()
	v := view{
		name: p.name, stage: stageWords[s.Name], total: s.Bytes, allFiles: s.Files,
		files: s.FilesHere + int(p.progress.FilesDone.Load()), connections: int(p.progress.Connections.Load()),
	}
	moved := p.progress.Received.Load()
	v.done = s.Here + model.Bytes(p.progress.Written.Load())
	if s.Name == "checking" {
		moved = p.progress.Hashed.Load()
		v.done = s.Here + model.Bytes(moved)
	}
	v.done = min(v.done, v.total)

	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Name != p.stage {
		p.stage, p.most, p.speed, p.waits = s.Name, 0, speed{}, false
	}
	if p.waits && !v.moves() {
		v.stage = "waiting for another process"
	}
	p.most = max(p.most, v.done)
	v.done = p.most
	p.speed.add(now, moved)
	v.rate = p.speed.perSecond()
	v.trouble = p.trouble(now)
	return v
}

// trouble is the newest reason for a retry, shown for a while, and as long as no byte comes. The caller holds mu.
func (p *progress) trouble(now time.Time) string {
	note, _ := p.progress.Note.Load().(string) //nolint:errcheck // none yet is empty
	reason, retrying := strings.CutSuffix(note, "; retrying")
	if n := p.progress.Retries.Load(); n != p.retries {
		p.retries, p.retriedAt = n, now
	}
	silent := now.Sub(time.Unix(0, p.progress.LastByte.Load())) > silence
	if !retrying || p.retries == 0 || now.Sub(p.retriedAt) > troubleStay && !silent {
		return ""
	}
	return brief(reason, p.name)
}

// brief leaves out of an error's sentence what the line above says already: the model, and where it comes from.
func brief(reason, name string) string {
	for _, op := range []string{"fetch ", "resolve "} {
		reason = strings.TrimPrefix(reason, op+name+": ")
	}
	before, rest, found := strings.Cut(reason, " (http")
	if _, after, closed := strings.Cut(rest, ")"); found && closed {
		return before + after
	}
	return reason
}

// stageWords are the stages of a pipeline as they are shown.
var stageWords = map[string]string{
	"resolving": "asking what there is", "checking": "checking what is here", "fetching": "fetching",
	"publishing": "publishing", "exporting": "copying", "done": "done",
	// Of a download in the daemon, besides:
	"queued": "waiting in the daemon's queue", "paused": "paused", "retrying": "waiting to try again",
	// Of a move:
	"waiting": "waiting for its turn", "moving": "moving",
}

// eta is how much longer it takes at this speed; unknown without one.
func (v view) eta() (left time.Duration, known bool) {
	if v.rate <= 0 {
		return 0, false
	}
	return time.Duration(float64(v.total-v.done) / float64(v.rate) * float64(time.Second)), true
}

// moves reports whether v is about bytes on their way.
func (v view) moves() bool {
	return v.total > 0 && (v.stage == stageWords["fetching"] || v.stage == stageWords["checking"] || v.stage == stageWords["moving"])
}

// line is v for a log.
func (v view) line() string {
	if !v.moves() {
		return v.name + ": " + v.stage
	}
	text := fmt.Sprintf("%s: %s, %s of %s (%d %%)", v.name, v.stage, v.done, v.total, percent(v.done, v.total))
	if v.allFiles > 0 { // of what moves nobody counts them
		text += fmt.Sprintf(", %d of %s", v.files, files(v.allFiles))
	}
	if v.rate > 0 {
		text += fmt.Sprintf(", %s/s", v.rate)
	}
	if left, known := v.eta(); known {
		text += ", " + clock(left) + " left"
	}
	if v.connections > 0 {
		text += fmt.Sprintf(", %d connections", v.connections)
	}
	if v.trouble != "" {
		text += "; retrying: " + v.trouble
	}
	return text
}

// Columns of the bar's line: a name is cut when the bar would get shorter than good, down to the least of both.
const leastName, leastBar, goodBar, longestBar = 16, 8, 20, 40

// bar is v in one line of at most width columns. With little room it says less.
func (v view) bar(width int) string {
	if !v.moves() {
		return shorten(v.name+"  "+v.stage, width)
	}
	figures := ""
	for _, figures = range v.figures() {
		if min(len(v.name), leastName)+leastBar+4+len(figures) <= width {
			break
		}
	}
	room := width - len(figures) - 4 // brackets, and a blank on either side
	if room < leastBar+1 {
		return shorten(figures, width)
	}
	name := shorten(v.name, max(room-goodBar, min(leastName, room-leastBar)))
	bar := min(room-len([]rune(name)), longestBar)
	full := int(float64(bar) * float64(v.done) / float64(v.total))
	return name + " [" + strings.Repeat("#", full) + strings.Repeat(".", bar-full) + "] " + figures
}

// figures are the numbers beside the bar, with much room and with little. Their widths hardly change, so that the eye
// finds them.
func (v view) figures() []string {
	rate, eta, connections := "", "", ""
	if v.rate > 0 {
		rate = v.rate.String() + "/s"
	}
	if left, known := v.eta(); known {
		eta = "ETA " + clock(left)
	}
	if v.stage == stageWords["checking"] {
		connections = "checking"
	} else if v.connections > 0 {
		connections = fmt.Sprintf("%d conn", v.connections)
	}
	size, count := ratio(v.done, v.total), fmt.Sprintf("%d/%d", v.files, v.allFiles)
	short := fmt.Sprintf("%s %10s %8s", size, rate, eta)
	if v.allFiles == 0 {
		return []string{fmt.Sprintf("%s  %11s  %8s", size, rate, eta), short, size}
	}
	return []string{
		fmt.Sprintf("%s  %11s  %8s  %8s  %s files", size, rate, eta, connections, count),
		fmt.Sprintf("%s %6s %s", short, connections, count),
		short + " " + count,
		short,
		size,
	}
}

// ratio says "1.2/14.2 GiB": both in the unit of the second.
func ratio(done, total model.Bytes) string {
	number, unit, _ := strings.Cut(total.String(), " ")
	size := map[string]model.Bytes{"B": 1, "KiB": model.KiB, "MiB": model.MiB, "GiB": model.GiB, "TiB": model.TiB}[unit]
	if size <= 1 {
		return fmt.Sprintf("%d/%s B", int64(done), number)
	}
	return fmt.Sprintf("%*.1f/%s %s", len(number), float64(done)/float64(size), number, unit)
}

// percent is rounded down: 100 means all.
func percent(done, total model.Bytes) int { return int(float64(done) / float64(max(total, 1)) * 100) }

// shorten cuts the middle out of what is too wide: both ends of a model's name tell it from others.
func shorten(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	if width < 2 {
		return ""
	}
	head := width / 2
	return string(r[:head]) + "…" + string(r[len(r)-(width-head-1):])
}

// clip cuts the end off a sentence that is too wide.
func clip(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:max(width-1, 0)]) + "…"
}

// A speed is the mean of the last few seconds. The zero speed is unknown.
type speed struct {
	samples []sample
}

type sample struct {
	at    time.Time
	bytes int64
}

// add notes a counter's value, and forgets what is older than needed.
func (s *speed) add(at time.Time, bytes int64) {
	for len(s.samples) > 1 && at.Sub(s.samples[1].at) >= rateWindow {
		s.samples = s.samples[1:]
	}
	if n := len(s.samples); n > 0 && at.Sub(s.samples[n-1].at) < 100*time.Millisecond {
		return // too close to tell anything
	}
	s.samples = append(s.samples, sample{at, bytes})
}

// perSecond is the mean over the window.
func (s *speed) perSecond() model.Bytes {
	if len(s.samples) < 2 {
		return 0
	}
	first, last := s.samples[0], s.samples[len(s.samples)-1]
	return model.Bytes(float64(last.bytes-first.bytes) / last.at.Sub(first.at).Seconds())
}
