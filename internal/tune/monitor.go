package tune

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/aclements/go-moremath/stats"

	"ema/internal/model"
)

// A Stage is where an experiment stands.
type Stage string

// The stages of an experiment. What helps is tried twice: figures that recover by themselves look like a success, but do not
// become worse again when the setting is put back.
const (
	Measuring  Stage = "measuring"      // the setting is changed, and its effect is measured
	Checking   Stage = "checking"       // it seemed to help, and is put back for a while, to see whether it is missed
	Confirming Stage = "confirming"     // it was missed, and is changed again
	Kept       Stage = "kept"           // it helped both times
	Undone     Stage = "undone"         // it did not help
	UndoneBy   Stage = "undone_by_user" // somebody has taken it back
	Superseded Stage = "superseded"     // somebody has set the key meanwhile, and that counts
)

// following is the whole life of an experiment; one that begins is measured. A stage without a row is final.
var following = map[Stage][]Stage{
	Measuring:  {Checking, Undone, UndoneBy, Superseded},
	Checking:   {Confirming, Undone, UndoneBy, Superseded},
	Confirming: {Kept, Undone, UndoneBy, Superseded},
	Kept:       {UndoneBy, Superseded},
}

// Final reports whether an experiment in that stage is over for good.
func (s Stage) Final() bool { return len(following[s]) == 0 }

// running reports whether an experiment in that stage is not decided yet.
func (s Stage) running() bool { return s == Measuring || s == Checking || s == Confirming }

// How long things take, in intervals: of five minutes, unless somebody has said otherwise.
const (
	settling  = 2     // before a change shows in figures
	needed    = 6     // samples to judge by
	early     = 3     // samples after which a collapse is one
	patience  = 288   // for so many samples: a day
	firstCool = 144   // until a rule that failed is tried again: half a day, then twice as long each time,
	mostCool  = 9216  // 32 days at most
	firstHold = 2016  // until what was kept may be turned the other way: a week, then twice as long each time
	mostHold  = 64512 // 32 weeks
	respected = 25920 // until a rule is tried again of which somebody has taken back a change: 90 days
)

const (
	chance   = 0.05 // a difference that comes about by chance more often than this is none
	harm     = 0.1  // a figure that is to be spared and is worse by this part has become worse
	collapse = 0.3  // a figure that is worse by this part at once is not looked at any longer
	mostKept = 200  // experiments that are remembered
)

// An Experiment is a change of a setting that is measured, and kept only if it helps.
type Experiment struct {
	ID string `json:"id"`
	Proposal
	Figure string `json:"figure"` // by which it is judged
	// Before is how the key was among the changed settings; nil when it was not.
	Before *string   `json:"before"`
	Stage  Stage     `json:"stage"`
	Why    string    `json:"why,omitempty"` // it is in that stage
	Began  time.Time `json:"began"`
	Since  time.Time `json:"since"` // it is in that stage
	// Pending is set before the setting is changed as the stage asks for, and taken back once that is known to be done. So after a
	// crash in between it is known that it may have to be done again.
	Pending bool      `json:"pending,omitempty"`
	Seen    time.Time `json:"seen"` // begin of the newest sample that was taken
	// What was measured before, changed, put back, and changed again.
	Base   []Sample `json:"base"`
	Trial  []Sample `json:"trial,omitempty"`
	Back   []Sample `json:"back,omitempty"`
	Second []Sample `json:"second,omitempty"`
}

// wants is how the key is to be among the changed settings.
func (e Experiment) wants() *string {
	switch e.Stage {
	case Measuring, Confirming, Kept:
		return &e.To
	}
	return e.Before
}

// Effect is by which part the figure became better with the change; negative when it became worse, NaN when nothing is known.
func (e Experiment) Effect() float64 {
	with, without := values(slices.Concat(e.Trial, e.Second), e.Figure), values(slices.Concat(e.Base, e.Back), e.Figure)
	return better(e.Figure, without, with)
}

// Measured are the medians of the figure without the change and with it; NaN when nothing is known.
func (e Experiment) Measured() (without, with float64) {
	without, with = math.NaN(), math.NaN()
	if some := values(slices.Concat(e.Base, e.Back), e.Figure); len(some) > 0 {
		without = median(some)
	}
	if some := values(slices.Concat(e.Trial, e.Second), e.Figure); len(some) > 0 {
		with = median(some)
	}
	return without, with
}

// values are those of one figure.
func values(some []Sample, figure string) []float64 {
	var all []float64
	for _, s := range some {
		if v, known := s.Figures[figure]; known {
			all = append(all, v)
		}
	}
	return all
}

// better is by which part of a figure its median became better from some samples to others.
func better(figure string, from, to []float64) float64 {
	if len(from) == 0 || len(to) == 0 {
		return math.NaN()
	}
	was, is := median(from), median(to)
	change := (is - was) / max(was, trifle(figure))
	if Better(figure) == Falling {
		return -change
	}
	return change
}

// trifle is so little of a figure that less is as good as nothing, and no change of it is a large part of it.
func trifle(figure string) float64 {
	switch figure {
	case retries:
		return 1 // in a minute
	case cpuWait, ioWait, memoryWait:
		return 0.02
	case response:
		return 0.05 // milliseconds
	}
	return 1e-9
}

// surely reports whether a figure is better in some samples than in others, and not by chance (Mann and Whitney, On a test of whether
// one of two random variables is stochastically larger than the other, 1947).
func surely(figure string, from, to []float64) bool {
	side := stats.LocationGreater
	if Better(figure) == Falling {
		side = stats.LocationLess
	}
	result, err := stats.MannWhitneyUTest(to, from, side)
	return err == nil && result.P < chance // it fails where all samples are equal
}

// Trials are the experiments of one daemon, and what they have taught. The zero Trials have none.
type Trials struct {
	Last        int                `json:"last"`        // id that was given
	Experiments []Experiment       `json:"experiments"` // the oldest first
	Rules       map[string]Lesson  `json:"rules"`       // by name
	Keys        map[string]Turning `json:"keys"`
	Changed     time.Time          `json:"changed"` // when a setting was changed last
	Limit       float64            `json:"limit"`   // as it was last seen
	Each        float64            `json:"each"`
	LimitSince  time.Time          `json:"limit_since"`
}

// A Lesson is what is known of a rule.
type Lesson struct {
	Failures int       `json:"failures"` // in a row
	Until    time.Time `json:"until"`    // it is not tried before
}

// A Turning is what was kept of a key last.
type Turning struct {
	Up    bool      `json:"up"`
	Turns int       `json:"turns"` // times that it was turned the other way
	Until time.Time `json:"until"` // it is not turned the other way before
}

func (t Trials) clone() Trials {
	t.Experiments = slices.Clone(t.Experiments)
	t.Rules, t.Keys = maps.Clone(t.Rules), maps.Clone(t.Keys)
	if t.Rules == nil {
		t.Rules = map[string]Lesson{}
	}
	if t.Keys == nil {
		t.Keys = map[string]Turning{}
	}
	return t
}

// An Act is a change of a setting that is to be made: for good, as a person would.
type Act struct {
	Experiment string
	Key        string
	Value      *string // nil takes back what was changed of it
}

// Recommended is a proposal, and why it is not tried by itself; "" when it will be.
type Recommended struct {
	Proposal
	Held string
}

// Recommend is what may help now.
func Recommend(now time.Time, t Trials, f Signs) []Recommended {
	var all []Recommended
	t = t.clone()
	t.noteLimit(now, f)
	for _, r := range rules() {
		if p, ok := r.proposal(f, t.unsettled(f), t.LimitSince); ok {
			all = append(all, Recommended{p, t.held(now, f, r)})
		}
	}
	return all
}

// held is why r is not tried now; "" when it may be.
func (t Trials) held(now time.Time, f Signs, r rule) string {
	k, lesson, turned := f.Knobs[r.key], t.Rules[r.name], t.Keys[r.key]
	on := func(at time.Time) string { return at.UTC().Format("2006-01-02 15:04 UTC") }
	switch {
	case !f.Auto:
		return "monitoring.auto_apply is off"
	case r.figure == "":
		return r.advice
	case k.Said != "":
		return "you have set it yourself: " + k.Said
	case k.Stored != nil && !t.own(r.key, *k.Stored):
		return "you have set it yourself, by ema config set or by the API"
	case slices.ContainsFunc(t.Experiments, func(e Experiment) bool { return e.Stage.running() || e.Pending }):
		return "another change is being measured"
	case now.Before(lesson.Until):
		return "it did not help before, or was taken back; it is tried again after " + on(lesson.Until)
	case now.Before(turned.Until) && turned.Up != r.up:
		return "a change to the other side was kept; it stays at least until " + on(turned.Until)
	}
	return ""
}

// newest is the last experiment whose change of a key may hold; -1 when there is none.
func (t Trials) newest(key string) int {
	for i := len(t.Experiments) - 1; i >= 0; i-- {
		if e := t.Experiments[i]; e.Key == key && (!e.Stage.Final() || e.Pending) {
			return i
		}
	}
	return -1
}

// own reports whether a key was set so by an experiment that was kept.
func (t Trials) own(key, stored string) bool {
	i := t.newest(key)
	return i >= 0 && t.Experiments[i].To == stored
}

// noteLimit notes since when the limit of bandwidth is as it is.
func (t *Trials) noteLimit(now time.Time, f Signs) {
	if f.Limit != t.Limit || f.Each != t.Each {
		t.Limit, t.Each, t.LimitSince = f.Limit, f.Each, now
	}
	if f.LimitSince.After(t.LimitSince) {
		t.LimitSince = f.LimitSince
	}
}

// Decide says what becomes of the experiments, and which settings are to be changed for that. The state is to be stored before these
// are, and Done to be told of each one afterwards. It reads nothing and changes nothing, so that months of a machine are tested in
// seconds.
func Decide(now time.Time, t Trials, f Signs) (Trials, []Act) {
	t = t.clone()
	t.noteLimit(now, f)
	var acts []Act
	settled := true
	for i := range t.Experiments {
		if act, waits := t.reconcile(now, f, i); waits {
			settled = false
			if act != nil {
				acts = append(acts, *act)
			}
		}
	}
	if !settled {
		return t, acts
	}
	for i := range t.Experiments {
		if t.Experiments[i].Stage.running() {
			return t, t.advance(now, f, i)
		}
	}
	for _, r := range rules() {
		if t.held(now, f, r) != "" {
			continue
		}
		if p, ok := r.proposal(f, t.unsettled(f), t.LimitSince); ok {
			return t, []Act{t.begin(now, f, p)}
		}
	}
	return t, nil
}

// unsettled is until when figures do not show yet what was changed last.
func (t Trials) unsettled(f Signs) time.Time {
	if t.Changed.IsZero() {
		return time.Time{}
	}
	return t.Changed.Add(settling * f.Interval)
}

func equal(a, b *string) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

// reconcile compares what an experiment wants with what is set. It waits when the setting is to be changed first.
func (t *Trials) reconcile(now time.Time, f Signs, i int) (act *Act, waits bool) {
	e := &t.Experiments[i]
	if e.Stage.Final() && !e.Pending || t.newest(e.Key) != i {
		return nil, false
	}
	k := f.Knobs[e.Key]
	if e.Pending {
		switch {
		case equal(k.Stored, e.wants()):
			*t = t.Done(e.ID, now)
		case equal(k.Stored, e.Before) || equal(k.Stored, &e.To): // it was not done yet
			return &Act{e.ID, e.Key, e.wants()}, true
		default:
			e.Pending = false
			t.end(now, f, i, Superseded, "somebody has set it meanwhile")
		}
		return nil, false
	}
	switch {
	case !equal(k.Stored, e.wants()):
		t.end(now, f, i, Superseded, "somebody has set it meanwhile")
	case k.Said != "" && equal(k.Stored, &e.To) && !equal(e.wants(), e.Before):
		// What a person says counts. The change would outvote the file.
		t.end(now, f, i, Superseded, "you have set it yourself: "+k.Said)
		return t.pend(i), true
	case k.Said != "" && e.Stage.running():
		t.end(now, f, i, Superseded, "you have set it yourself: "+k.Said)
	}
	return nil, false
}

// pend notes that the setting is to be changed.
func (t *Trials) pend(i int) *Act {
	e := &t.Experiments[i]
	e.Pending = true
	return &Act{e.ID, e.Key, e.wants()}
}

// Done notes that what an experiment asked for was set.
func (t Trials) Done(id string, now time.Time) Trials {
	t = t.clone()
	for i := range t.Experiments {
		if e := &t.Experiments[i]; e.ID == id && e.Pending {
			e.Pending, e.Since = false, now
			t.Changed = now
		}
	}
	return t
}

// Refused notes that what an experiment asked for cannot be set, and why. One that has not changed anything is over; one that is to be
// undone stays to be.
func (t Trials) Refused(id string, now time.Time, f Signs, why string) Trials {
	t = t.clone()
	for i := range t.Experiments {
		if e := &t.Experiments[i]; e.ID == id && e.Pending && (e.Stage == Measuring || e.Stage == Confirming) {
			e.Pending = false
			t.end(now, f, i, Undone, why)
		}
	}
	return t
}

// begin starts an experiment.
func (t *Trials) begin(now time.Time, f Signs, p Proposal) Act {
	r, _ := ruleNamed(p.Rule)
	t.Last++
	e := Experiment{ID: strconv.Itoa(t.Last), Proposal: p, Figure: r.figure, Before: f.Knobs[p.Key].Stored, Stage: Measuring, Why: p.Reason, Began: now, Since: now}
	c := courseFor(r, f, t.unsettled(f), t.LimitSince)
	// The last of them: when it has become worse, the first are of a time that is over.
	e.Base = only(c.samples[max(0, len(c.samples)-needed):], r)
	t.Experiments = append(t.Experiments, e)
	if over := len(t.Experiments) - mostKept; over > 0 {
		t.Experiments = slices.DeleteFunc(t.Experiments, func(old Experiment) bool {
			gone := over > 0 && old.Stage.Final() && !old.Pending
			if gone {
				over--
			}
			return gone
		})
	}
	return *t.pend(len(t.Experiments) - 1)
}

// only are samples with no more figures than r is judged by.
func only(some []Sample, r rule) []Sample {
	var all []Sample
	for _, s := range some {
		one := Sample{At: s.At, Figures: map[string]float64{}}
		for _, name := range slices.Concat([]string{r.figure, r.alike, active}, r.spare) {
			if v, known := s.Figures[name]; known && name != "" {
				one.Figures[name] = v
			}
		}
		all = append(all, one)
	}
	return all
}

// enter moves an experiment to a stage that changes its setting.
func (t *Trials) enter(now time.Time, i int, to Stage, why string) []Act {
	e := &t.Experiments[i]
	if !slices.Contains(following[e.Stage], to) {
		return nil
	}
	was := e.wants()
	e.Stage, e.Why, e.Since = to, why, now
	if equal(was, e.wants()) {
		return nil
	}
	return []Act{*t.pend(i)}
}

// end has an experiment end, and learns from it. Whether the setting is still to be changed is for the caller to say.
func (t *Trials) end(now time.Time, f Signs, i int, to Stage, why string) {
	e := &t.Experiments[i]
	if !slices.Contains(following[e.Stage], to) {
		return
	}
	e.Stage, e.Why, e.Since = to, why, now
	r, _ := ruleNamed(e.Rule)
	lesson, turned := t.Rules[e.Rule], t.Keys[e.Key]
	switch to {
	case Kept:
		lesson = Lesson{}
		if turned.Until.IsZero() {
			turned.Up = r.up
		} else if turned.Up != r.up {
			turned.Up, turned.Turns = r.up, turned.Turns+1
		}
		turned.Until = now.Add(time.Duration(min(firstHold<<min(turned.Turns, 16), mostHold)) * f.Interval)
	case Undone:
		lesson.Until = now.Add(time.Duration(min(firstCool<<min(lesson.Failures, 16), mostCool)) * f.Interval)
		lesson.Failures++
	case UndoneBy:
		lesson.Until = now.Add(respected * f.Interval)
	}
	t.Rules[e.Rule], t.Keys[e.Key] = lesson, turned
}

// advance judges the experiment that is running.
func (t *Trials) advance(now time.Time, f Signs, i int) []Act {
	e := &t.Experiments[i]
	r, known := ruleNamed(e.Rule)
	taken := map[Stage]*[]Sample{Measuring: &e.Trial, Checking: &e.Back, Confirming: &e.Second}[e.Stage]
	undo := func(why string) []Act {
		was := e.wants()
		t.end(now, f, i, Undone, why)
		if equal(was, e.wants()) {
			return nil
		}
		return []Act{*t.pend(i)}
	}
	if known {
		t.take(f, e, r, taken)
	}
	var off string
	with, without := e.Trial, e.Base
	switch e.Stage {
	case Checking:
		without = e.Back
	case Confirming:
		with, without = e.Second, e.Back
	}
	switch {
	case !known:
		return undo("this version does not know the rule")
	case !f.Auto:
		return undo("monitoring.auto_apply was switched off before it was judged")
	case t.LimitSince.After(e.Began) && r.downloads:
		return undo("another limit of bandwidth came before it was judged")
	case e.Stage != Checking && len(*taken) >= early && better(r.figure, values(without, r.figure), values(with, r.figure)) <= -collapse:
		return undo(e.verdict(r, without, with))
	case len(*taken) < needed && now.Sub(e.Since) > patience*f.Interval:
		return undo("too little happened within a day to judge it")
	case len(*taken) < needed:
		return nil
	}
	if off = r.against(without, with); off != "" {
		if e.Stage == Checking {
			off = "put back, it was not missed: " + off
		}
		return undo(off)
	}
	switch e.Stage {
	case Measuring:
		return t.enter(now, i, Checking, e.verdict(r, without, with)+"; it is put back for a while, to see whether it is missed")
	case Checking:
		return t.enter(now, i, Confirming, "it was missed: "+e.verdict(r, without, with))
	default:
		t.end(now, f, i, Kept, e.verdict(r, slices.Concat(e.Base, e.Back), slices.Concat(e.Trial, e.Second))+", both times")
		return nil
	}
}

// take adds the samples that count, since the setting has settled. Those of before are only compared with such of a machine that was as busy.
func (t *Trials) take(f Signs, e *Experiment, r rule, to *[]Sample) {
	from := e.Since.Add(settling * f.Interval)
	least := 0.0
	if r.key == keyDownloads { // no more run than may, and fewer tell nothing about how many are right
		a, _ := strconv.ParseFloat(e.From, 64) //nolint:errcheck // such a sample would not be left out
		b, _ := strconv.ParseFloat(e.To, 64)   //nolint:errcheck // such a sample would not be left out
		least = min(a, b) - full
	}
	for _, s := range f.Samples {
		if s.At.Before(from) || !s.At.After(e.Seen) || !r.counts(s, f, t.LimitSince) {
			continue
		}
		e.Seen = s.At
		if _, known := s.Figures[r.figure]; !known || s.Figures[active] < least {
			continue
		}
		if base := values(e.Base, r.alike); len(base) > 0 && r.alike != "" {
			if was, is := median(base), s.Figures[r.alike]; is < was/2 || is > was*2 {
				continue
			}
		}
		*to = append(*to, only([]Sample{s}, r)...)
	}
}

// against is what speaks against a change; "" when nothing does.
func (r rule) against(without, with []Sample) string {
	a, b := values(without, r.figure), values(with, r.figure)
	by := better(r.figure, a, b)
	switch {
	case !(by >= r.least):
		return fmt.Sprintf("%s is %s: not enough", r.figure, percent(by))
	case !surely(r.figure, a, b):
		return fmt.Sprintf("%s is %s, which may be chance", r.figure, percent(by))
	}
	for _, name := range r.spare {
		if a, b := values(without, name), values(with, name); len(a) > 0 && len(b) > 0 && better(name, a, b) < -harm {
			return fmt.Sprintf("%s is better, but %s is %s", r.figure, name, percent(better(name, a, b)))
		}
	}
	return ""
}

func (e *Experiment) verdict(r rule, without, with []Sample) string {
	return fmt.Sprintf("%s is %s", r.figure, percent(better(r.figure, values(without, r.figure), values(with, r.figure))))
}

// percent tells how much better a figure is.
func percent(by float64) string {
	switch {
	case math.IsNaN(by):
		return "unknown"
	case by < 0:
		return fmt.Sprintf("worse by %.0f %%", -100*max(by, -10))
	}
	return fmt.Sprintf("better by %.0f %%", 100*min(by, 10))
}

// Undo takes back an experiment for a person: its setting becomes what it was before. It refuses where it does not hold any more.
func Undo(now time.Time, t Trials, f Signs, id string) (Trials, []Act, error) {
	t = t.clone()
	i := slices.IndexFunc(t.Experiments, func(e Experiment) bool { return e.ID == id })
	refuse := func(class model.Class, text, hint string) (Trials, []Act, error) {
		return t, nil, &model.Error{Op: "undo the optimization " + id, Class: class, Err: errors.New(text), Hint: hint}
	}
	if i < 0 {
		return refuse(model.NotFound, "there is none with this id", `"ema optimizations" lists all`)
	}
	e := &t.Experiments[i]
	k := f.Knobs[e.Key]
	switch newest := t.newest(e.Key); {
	case e.Stage.Final():
		return refuse(model.Usage, "nothing of it holds: it is "+string(e.Stage), "")
	case newest != i:
		return refuse(model.Usage, "a later change of "+e.Key+" builds on it", "undo "+t.Experiments[newest].ID+" first")
	case !equal(k.Stored, e.wants()) && (!e.Pending || !equal(k.Stored, e.Before) && !equal(k.Stored, &e.To)):
		return refuse(model.Usage, e.Key+" was set to something else since, and that stays", "ema config set "+e.Key+" VALUE, or ema config unset "+e.Key)
	}
	e.Pending = false
	t.end(now, f, i, UndoneBy, "somebody has taken it back")
	if equal(k.Stored, e.Before) {
		return t, nil, nil
	}
	return t, []Act{*t.pend(i)}, nil
}
