package tier

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"ema/internal/model"
)

// Facts are what Plan knows of one model.
type Facts struct {
	ID     model.ID
	Tier   model.Tier // where it lives; where most of it does while it is split
	Size   model.Bytes
	Since  time.Time // when it came to this tier; zero is long ago
	Pinned bool      // never moves by itself
	Busy   bool      // is downloaded, moved or repaired, or is not sound: nobody else touches it
}

// Rules say which models belong where.
type Rules struct {
	// Tiers are those that can be used now. One that is not configured, missing or read-only is left out: nothing moves to
	// it or away from it.
	Tiers map[model.Tier]Rule
	// Promotion is the score from which a model moves into a faster tier, Demotion the one under which it leaves its tier.
	// A Demotion above Promotion counts as Promotion: else a model between the two would move for ever.
	Promotion, Demotion float64
	// Residency is how long a model stays in a tier before it may become colder, however little it is used. It binds only
	// the way down: a cold model that is wanted is not kept waiting, and still no model goes up and down more often than
	// once in this time. The size of a tier goes before it.
	Residency time.Duration
}

// A Rule is one tier's.
type Rule struct {
	// Uses within Window are what makes a model belong here fully; with 0 every model does.
	Uses   int
	Window time.Duration
	// Max is what its models may take together; 0 is no bound.
	Max model.Bytes
}

// Residency is the least time in a tier that goes with an interval between checks: four of them, which is a day with the
// default of six hours.
func Residency(interval time.Duration) time.Duration { return 4 * interval }

// Score is how far uses go towards what the tier asks for, from 0 to 1.
func (r Rule) Score(uses int) float64 {
	if r.Uses <= 0 {
		return 1
	}
	return min(1, float64(uses)/float64(r.Uses))
}

// Plan says which models should move to which tier, and why, in the order in which that is to be done. It reads nothing
// and moves nothing. Done one after the other, no move makes a tier larger than it may be, though what moves counts in both
// tiers meanwhile.
//
// A model moves up into the fastest tier where its score reaches Promotion, and out of its tier when its score there is
// under Demotion: then into the fastest of the colder ones where it is not, or into the coldest. Where room is short the
// higher scores have it, and of equal ones those that are there already: who finds none is pushed down or stays. Pinned and
// busy models stay where they are, and count.
func Plan(now time.Time, models []Facts, uses *Uses, r Rules) []model.Move {
	p := newPlanner(now, models, uses, r)
	p.assign()
	return p.order()
}

const tiers = 3

// A planner is a plan in the making. Tiers are told by their place in model.Tiers.
type planner struct {
	Rules
	rules   [tiers]Rule
	usable  [tiers]bool
	coldest int                // of those that are usable
	fixed   [tiers]model.Bytes // by models that do not move
	used    [tiers]model.Bytes // by all models
	models  []*candidate
}

// A candidate is a model that may move.
type candidate struct {
	Facts
	at, to int // the tier where it is, and where it is to be
	uses   [tiers]int
	score  [tiers]float64
	last   time.Time
	young  bool
	falls  string // why it leaves its tier for a colder one; "" while it does not
	yields bool   // because another comes, and for no other reason
}

func newPlanner(now time.Time, models []Facts, uses *Uses, r Rules) *planner {
	p := &planner{Rules: r}
	p.Demotion = min(r.Demotion, r.Promotion)
	for i, t := range model.Tiers() {
		if p.rules[i], p.usable[i] = r.Tiers[t]; p.usable[i] {
			p.coldest = i
		}
	}
	for _, m := range models {
		at := slices.Index(model.Tiers(), m.Tier)
		if at < 0 || !p.usable[at] {
			continue
		}
		p.used[at] += m.Size
		if m.Pinned || m.Busy {
			p.fixed[at] += m.Size
			continue
		}
		c := &candidate{Facts: m, at: at, last: uses.Last(m.ID), young: now.Sub(m.Since) < r.Residency}
		for t, rule := range p.rules {
			if p.usable[t] {
				c.uses[t] = uses.Count(m.ID, now.Add(-rule.Window))
				c.score[t] = rule.Score(c.uses[t])
			}
		}
		p.models = append(p.models, c)
	}
	return p
}

// assign gives every model its place, as if all moved at once: first the fastest tier takes those that belong there most,
// then the next of the others, and who is left stays where it is.
//
// With the models in their places it would give all the same ones again: who has a place comes before who has the same
// score and has none. So nothing goes to and fro.
func (p *planner) assign() {
	holds := p.fixed
	fits := func(t int, size model.Bytes) bool { return p.rules[t].Max <= 0 || holds[t]+size <= p.rules[t].Max }
	waiting := slices.Clone(p.models) // that are not in their places yet
	for t := range tiers {
		if !p.usable[t] {
			continue
		}
		slices.SortFunc(waiting, func(a, b *candidate) int { return a.before(b, t) })
		var newcomer *candidate // the last one that found room
		rest := waiting[:0]
		for _, c := range waiting {
			if p.claims(c, t) && fits(t, c.Size) {
				c.to = t
				holds[t] += c.Size
				if c.at != t {
					newcomer = c
				}
				continue
			}
			if c.at == t {
				c.falls, c.yields = p.why(c, newcomer)
			}
			rest = append(rest, c)
		}
		waiting = rest
	}
	for _, c := range waiting {
		c.to = c.at
		for t := p.coldest; t > c.at; t-- {
			if p.usable[t] && fits(t, c.Size) { // it does not belong there, but there it may be
				c.to = t
				holds[t] += c.Size
				break
			}
		}
	}
}

// claims reports whether a model wants to be in a tier.
func (p *planner) claims(c *candidate, t int) bool {
	switch {
	case t < c.at:
		return c.score[t] >= p.Promotion
	case t == c.at && c.young:
		return true
	}
	return c.score[t] >= p.Demotion || t == p.coldest
}

// before orders models by how much they belong to a tier, those that do most first.
func (c *candidate) before(o *candidate, t int) int {
	return cmp.Or(
		first(c.at == t && c.young, o.at == t && o.young), // staying a while is a promise, as far as there is room
		cmp.Compare(o.score[t], c.score[t]),
		first(c.at == t, o.at == t),
		cmp.Compare(o.uses[t], c.uses[t]),
		o.last.Compare(c.last),
		compareIDs(c.ID, o.ID),
	)
}

func compareIDs(a, b model.ID) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Scheme, b.Scheme))
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// why says for what reason a model leaves its tier for a colder one, and whether that is only the newcomer, who found room
// before it.
func (p *planner) why(c, newcomer *candidate) (reason string, yields bool) {
	t := c.at
	name, rule := model.Tiers()[t], p.rules[t]
	switch {
	case !p.claims(c, t):
		return fmt.Sprintf("%s < %s", p.explain(c, t), decimal(p.Demotion)), false
	case rule.Max > 0 && p.used[t] > rule.Max || newcomer == nil:
		return fmt.Sprintf("%s holds %s and may hold %s; this has one of the lowest scores there: %s", name, p.used[t], rule.Max, p.explain(c, t)), false
	}
	return fmt.Sprintf("%s needs its room in %s, with a score of %s: %s", newcomer.ID.Public(), name, decimal(newcomer.score[t]), p.explain(c, t)), true
}

// order brings moves into an order in which each finds room when its turn comes. What never does is left out: the next plan
// will want the same.
func (p *planner) order() []model.Move {
	for {
		used := p.used
		done, moves := p.sequence()
		vain := p.vain(done)
		if len(vain) == 0 {
			return moves
		}
		for _, c := range vain {
			c.to = c.at
		}
		p.used = used
	}
}

// sequence finds that order, as far as there is room.
func (p *planner) sequence() (done []*candidate, moves []model.Move) {
	var pending []*candidate
	for _, c := range p.models {
		if c.to != c.at {
			pending = append(pending, c)
		}
	}
	// Down before up and from the coldest on, since that makes room; of one tier the last to be wanted goes down first, and
	// the most wanted up.
	slices.SortFunc(pending, func(a, b *candidate) int {
		switch down := a.to > a.at; {
		case down != (b.to > b.at):
			return first(down, !down)
		case down:
			return cmp.Or(cmp.Compare(b.at, a.at), b.before(a, a.at))
		}
		return cmp.Or(cmp.Compare(a.to, b.to), a.before(b, a.to))
	})
	for progress := true; progress; {
		progress = false
		pending = slices.DeleteFunc(pending, func(c *candidate) bool {
			if !p.fits(c.to, c.Size) {
				return false
			}
			done, moves = append(done, c), append(moves, p.move(c))
			progress = true
			return true
		})
		if !progress {
			progress = p.unlock(pending)
		}
	}
	return done, moves
}

// unlock lets one model go further down than it has to, because where it should go there is no room, and it stands in the
// way: of a size that is exceeded, or of one that should come up from just there.
func (p *planner) unlock(pending []*candidate) bool {
	var trades [tiers][tiers]bool // from where to where something should go up
	for _, c := range pending {
		trades[c.at][c.to] = true
	}
	for _, c := range pending {
		over := p.rules[c.at].Max > 0 && p.used[c.at] > p.rules[c.at].Max
		for t := p.coldest; t > c.to && c.to > c.at && (over || trades[c.to][c.at]); t-- {
			if p.usable[t] && p.fits(t, c.Size) {
				c.to = t
				return true
			}
		}
	}
	return false
}

// vain are those that made room for others who then did not come.
func (p *planner) vain(done []*candidate) (vain []*candidate) {
	var best [tiers]float64 // scores of those that came
	for t := range best {
		best[t] = -1
	}
	for _, c := range done {
		best[c.to] = max(best[c.to], c.score[c.to])
	}
	for _, c := range done {
		if c.yields && best[c.at] <= c.score[c.at] {
			vain = append(vain, c)
		}
	}
	return vain
}

// fits reports whether a tier has room for so much, after the moves so far.
func (p *planner) fits(t int, size model.Bytes) bool {
	return p.rules[t].Max <= 0 || p.used[t]+size <= p.rules[t].Max
}

func (p *planner) move(c *candidate) model.Move {
	p.used[c.at] -= c.Size
	p.used[c.to] += c.Size
	why := c.falls
	if c.to < c.at {
		why = fmt.Sprintf("%s >= %s", p.explain(c, c.to), decimal(p.Promotion))
	}
	return model.Move{Model: c.ID, From: c.Tier, To: model.Tiers()[c.to], Bytes: c.Size, Why: why}
}

// explain is a model's score for a tier, with its figures.
func (p *planner) explain(c *candidate, t int) string {
	r, name := p.rules[t], model.Tiers()[t]
	if r.Uses <= 0 {
		return fmt.Sprintf("every model belongs to %s: score 1", name)
	}
	return fmt.Sprintf("%s, %d make a model %s: score %s", useCount(c.uses[t], r.Window), r.Uses, name, decimal(c.score[t]))
}

// useCount is "3 uses in 7 days".
func useCount(n int, window time.Duration) string {
	uses := "uses"
	if n == 1 {
		uses = "use"
	}
	return fmt.Sprintf("%d %s in %s", n, uses, span(window))
}

// span is a length of time in days, or in hours when it is shorter than one.
func span(d time.Duration) string {
	n, unit := d.Hours()/24, "day"
	if d < 24*time.Hour {
		n, unit = d.Hours(), "hour"
	}
	if text := decimal(n); text != "1" {
		return text + " " + unit + "s"
	}
	return "1 " + unit
}

// decimal is a figure with up to three places, cut and not rounded: 0.2999 is under 0.3 and must look so.
func decimal(f float64) string {
	cut := math.Floor(f*1000+1e-9) / 1000 // a figure that has three places is not a hair less
	return strconv.FormatFloat(cut, 'f', -1, 64)
}
