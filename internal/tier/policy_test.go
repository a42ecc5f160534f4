package tier

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// usual are the rules of the default configuration, with room for everything.
func usual() Rules {
	return Rules{
		Tiers: map[model.Tier]Rule{
			model.Hot:  {Uses: 10, Window: 7 * day},
			model.Warm: {Uses: 3, Window: 30 * day},
			model.Cold: {Uses: 0, Window: 90 * day},
		},
		Promotion: 0.8, Demotion: 0.3, Residency: day,
	}
}

// lives is a model of 10 GiB that has long lived in a tier.
func lives(name string, t model.Tier) Facts {
	return Facts{ID: named(name), Tier: t, Size: 10 * model.GiB, Since: noon().Add(-100 * day)}
}

// used are so many uses of each model, an hour ago.
func used(times map[string]int) *Uses {
	u := NewUses(90 * day)
	for name, n := range times {
		u.Record(named(name), noon().Add(-time.Hour), n)
	}
	return u
}

// brief tells moves as "a hot>cold", without the reasons.
func brief(moves []model.Move) string {
	var all []string
	for _, m := range moves {
		all = append(all, fmt.Sprintf("%s %s>%s", strings.TrimPrefix(m.Model.Name, "acme/"), m.From, m.To))
	}
	return strings.Join(all, ", ")
}

func TestAModelMovesByItsScoreAndStaysBetweenTheThresholds(t *testing.T) {
	for _, c := range []struct {
		at   model.Tier
		uses int
		to   string
	}{
		{model.Hot, 0, "cold"},
		{model.Hot, 1, "warm"},
		{model.Hot, 2, "warm"},
		{model.Hot, 3, ""},
		{model.Hot, 7, ""},
		{model.Hot, 99, ""},
		{model.Warm, 0, "cold"},
		{model.Warm, 1, ""},
		{model.Warm, 2, ""},
		{model.Warm, 7, ""},
		{model.Warm, 8, "hot"},
		{model.Warm, 99, "hot"},
		{model.Cold, 0, ""},
		{model.Cold, 2, ""},
		{model.Cold, 3, "warm"},
		{model.Cold, 7, "warm"},
		{model.Cold, 8, "hot"},
	} {
		want := ""
		if c.to != "" {
			want = fmt.Sprintf("a %s>%s", c.at, c.to)
		}
		moves := Plan(noon(), []Facts{lives("a", c.at)}, used(map[string]int{"a": c.uses}), usual())
		if got := brief(moves); got != want {
			t.Errorf("in %s with %d uses: %q, want %q", c.at, c.uses, got, want)
		}
	}
}

func TestAMoveSaysWhyWithItsFigures(t *testing.T) {
	small := usual()
	small.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 10 * model.GiB}
	for want, got := range map[string][]model.Move{
		"2 uses in 7 days, 10 make a model hot: score 0.2 < 0.3": Plan(noon(), []Facts{lives("a", model.Hot)}, used(map[string]int{"a": 2}), usual()),
		"12 uses in 7 days, 10 make a model hot: score 1 >= 0.8": Plan(noon(), []Facts{lives("a", model.Cold)}, used(map[string]int{"a": 12}), usual()),
		"1 use in 7 days, 10 make a model hot: score 0.1 < 0.3":  Plan(noon(), []Facts{lives("a", model.Hot)}, used(map[string]int{"a": 1}), usual()),
		"acme/b needs its room in hot, with a score of 1: 4 uses in 7 days, 10 make a model hot: score 0.4": Plan(noon(),
			[]Facts{lives("a", model.Hot), lives("b", model.Warm)}, used(map[string]int{"a": 4, "b": 10}), small),
		"hot holds 20.0 GiB and may hold 10.0 GiB; this has one of the lowest scores there: 4 uses in 7 days, 10 make a model hot: score 0.4": Plan(noon(),
			[]Facts{lives("a", model.Hot), lives("b", model.Hot)}, used(map[string]int{"a": 4, "b": 10}), small),
	} {
		if len(got) == 0 || got[0].Why != want || got[0].Bytes != 10*model.GiB {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
	for d, want := range map[time.Duration]string{day: "1 day", 36 * time.Hour: "1.5 days", time.Hour: "1 hour", 15 * time.Minute: "0.25 hours"} {
		if got := span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	if got := decimal(0.29999); got != "0.299" {
		t.Errorf("a score under 0.3 shows as %s", got)
	}
	for i := range 1001 {
		if got := decimal(float64(i) / 1000); len(got) > 5 || got != strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", float64(i)/1000), "0"), ".") {
			t.Errorf("%d thousandths show as %s", i, got)
		}
	}
}

func TestWhatIsPinnedBusyOrInATierThatCannotBeUsedStays(t *testing.T) {
	pinned, busy := lives("pinned", model.Hot), lives("busy", model.Hot)
	pinned.Pinned, busy.Busy = true, true
	wanted, working := lives("wanted", model.Cold), lives("working", model.Cold)
	wanted.Pinned, working.Busy = true, true
	uses := used(map[string]int{"wanted": 99, "working": 99, "away": 99})
	if moves := Plan(noon(), []Facts{pinned, busy, wanted, working}, uses, usual()); len(moves) > 0 {
		t.Errorf("moves %s", brief(moves))
	}
	full := usual()
	full.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 1}
	if moves := Plan(noon(), []Facts{pinned, busy, lives("loose", model.Hot)}, uses, full); brief(moves) != "loose hot>cold" {
		t.Errorf("from a tier that is too large moves %q", brief(moves))
	}

	away := usual()
	delete(away.Tiers, model.Cold)
	if got := brief(Plan(noon(), []Facts{lives("away", model.Cold), lives("a", model.Hot), lives("b", model.Warm)}, uses, away)); got != "a hot>warm" {
		t.Errorf("without a cold tier moves %q", got)
	}
	delete(away.Tiers, model.Warm)
	if got := brief(Plan(noon(), []Facts{lives("a", model.Hot), lives("wanted", model.Warm)}, uses, away)); got != "" {
		t.Errorf("with a hot tier alone moves %q", got)
	}
	odd := lives("odd", "lukewarm")
	if got := brief(Plan(noon(), []Facts{odd}, uses, usual())); got != "" {
		t.Errorf("from a tier that is none moves %q", got)
	}
}

func TestAModelStaysAWhileBeforeItBecomesColder(t *testing.T) {
	for age, want := range map[time.Duration]string{time.Hour: "", day - 1: "", day: "a hot>cold", 9 * day: "a hot>cold"} {
		a := lives("a", model.Hot)
		a.Since = noon().Add(-age)
		if got := brief(Plan(noon(), []Facts{a}, used(nil), usual())); got != want {
			t.Errorf("after %v: %q, want %q", age, got, want)
		}
	}
	up := lives("a", model.Cold)
	up.Since = noon().Add(-time.Minute)
	if got := brief(Plan(noon(), []Facts{up}, used(map[string]int{"a": 10}), usual())); got != "a cold>hot" {
		t.Errorf("a cold model that is wanted is kept waiting: %q", got)
	}
	if got := Residency(6 * time.Hour); got != day {
		t.Errorf("with the default interval it stays %v", got)
	}

	// It is no victim of another that wants its place, but of a tier that is too large.
	young := lives("young", model.Hot)
	young.Since = noon().Add(-time.Hour)
	full := usual()
	full.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 10 * model.GiB}
	uses := used(map[string]int{"b": 10})
	if got := brief(Plan(noon(), []Facts{young, lives("b", model.Warm)}, uses, full)); got != "" {
		t.Errorf("another that wants its place: %q", got)
	}
	if got := brief(Plan(noon(), []Facts{young, lives("b", model.Hot)}, uses, full)); got != "b hot>warm" {
		t.Errorf("one that stayed long goes first: %q", got)
	}
	younger := young
	younger.ID = named("younger")
	if got := brief(Plan(noon(), []Facts{young, younger}, uses, full)); got != "younger hot>cold" {
		t.Errorf("a tier that is too large with young ones alone: %q", got)
	}
}

func TestATierThatIsTooLargePushesOutTheLowestScores(t *testing.T) {
	r := usual()
	r.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 25 * model.GiB}
	models := []Facts{lives("a", model.Hot), lives("b", model.Hot), lives("c", model.Hot), lives("d", model.Hot)}
	if got := brief(Plan(noon(), models, used(map[string]int{"a": 9, "b": 5, "c": 7, "d": 4}), r)); got != "d hot>warm, b hot>warm" {
		t.Errorf("moves %q", got)
	}
	if got := brief(Plan(noon(), models, used(map[string]int{"a": 90, "b": 50, "c": 70, "d": 60}), r)); got != "b hot>warm, d hot>warm" {
		t.Errorf("of equal scores moves %q", got)
	}
	models[0].Size = 20 * model.GiB // it alone is what is too much
	if got := brief(Plan(noon(), models, used(map[string]int{"a": 6, "b": 9, "c": 5, "d": 4}), r)); got != "d hot>warm, a hot>warm" {
		t.Errorf("moves %q", got)
	}
	models[0].Size = 1 * model.GiB
	models[3].Size = 30 * model.GiB
	if got := brief(Plan(noon(), models, used(map[string]int{"a": 3, "b": 9, "c": 8, "d": 7}), r)); got != "d hot>warm" {
		t.Errorf("more than needed moves: %q", got)
	}
}

func TestAPromotionTakesOnlyThePlaceOfLowerScores(t *testing.T) {
	r := usual()
	r.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 20 * model.GiB}
	models := []Facts{lives("a", model.Hot), lives("b", model.Hot), lives("new", model.Warm)}
	for _, c := range []struct {
		a, b, new int
		want      string
	}{
		{9, 5, 9, "b hot>warm, new warm>hot"}, {9, 9, 9, ""}, {10, 10, 99, ""}, {9, 10, 8, ""}, {8, 9, 10, "a hot>warm, new warm>hot"},
	} {
		if got := brief(Plan(noon(), models, used(map[string]int{"a": c.a, "b": c.b, "new": c.new}), r)); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	models[2].Size = 21 * model.GiB // fits never
	if got := brief(Plan(noon(), models, used(map[string]int{"a": 3, "b": 3, "new": 99}), r)); got != "" {
		t.Errorf("for one that never fits moves %q", got)
	}
	models[2].Tier = model.Cold
	if got := brief(Plan(noon(), models, used(map[string]int{"a": 3, "b": 3, "new": 99}), r)); got != "new cold>warm" {
		t.Errorf("one that never fits into the fastest goes %q", got)
	}
}

func TestOfEqualScoresWhoIsThereStaysAndTheOtherGetsTheNextBest(t *testing.T) {
	r := usual()
	r.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 10 * model.GiB}
	models := []Facts{lives("a", model.Hot), lives("b", model.Cold)}
	if got := brief(Plan(noon(), models, used(map[string]int{"a": 10, "b": 99}), r)); got != "b cold>warm" {
		t.Errorf("moves %q", got)
	}
}

func TestNobodyMakesRoomForWhoCannotCome(t *testing.T) {
	r := usual()
	r.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 21}
	r.Tiers[model.Warm] = Rule{Uses: 3, Window: 30 * day, Max: 20}
	r.Tiers[model.Cold] = Rule{Uses: 0, Window: 90 * day, Max: 10}
	sized := func(name string, at model.Tier, size model.Bytes) Facts {
		m := lives(name, at)
		m.Size = size
		return m
	}
	// For the new one the small and the large would have to go, and for the large there is no room anywhere.
	models := []Facts{sized("small", model.Hot, 3), sized("large", model.Hot, 18), sized("new", model.Warm, 20)}
	if got := brief(Plan(noon(), models, used(map[string]int{"small": 5, "large": 6, "new": 10}), r)); got != "" {
		t.Errorf("moves %q", got)
	}
}

func TestEveryModelBelongsToATierThatAsksForNoUse(t *testing.T) {
	r := usual()
	r.Tiers[model.Warm] = Rule{Uses: 0, Window: 30 * day}
	moves := Plan(noon(), []Facts{lives("a", model.Cold), lives("b", model.Hot)}, used(nil), r)
	if got := brief(moves); got != "b hot>warm, a cold>warm" {
		t.Errorf("moves %q", got)
	}
	if want := "every model belongs to warm: score 1 >= 0.8"; moves[1].Why != want {
		t.Errorf("because %q, want %q", moves[1].Why, want)
	}
}

func TestNothingMovesWhereThereIsNoRoom(t *testing.T) {
	r := usual()
	r.Tiers[model.Cold] = Rule{Uses: 0, Window: 90 * day, Max: 10 * model.GiB}
	models := []Facts{lives("a", model.Hot), lives("b", model.Hot), lives("c", model.Hot)}
	if got := brief(Plan(noon(), models, used(nil), r)); got != "c hot>warm, b hot>warm, a hot>cold" {
		t.Errorf("moves %q", got)
	}
	r.Tiers[model.Warm] = Rule{Uses: 3, Window: 30 * day, Max: 1}
	if got := brief(Plan(noon(), models, used(nil), r)); got != "a hot>cold" {
		t.Errorf("moves %q", got)
	}
}

// naive is where a model belongs when there is room for all.
func naive(at model.Tier, score map[model.Tier]float64, r Rules) model.Tier {
	for _, t := range model.Tiers() {
		if at.Colder(t) && score[t] >= r.Promotion {
			return t
		}
	}
	if score[at] >= r.Demotion {
		return at
	}
	to := at
	for _, t := range model.Tiers() {
		if t.Colder(at) {
			to = t
			if score[t] >= r.Demotion {
				break
			}
		}
	}
	return to
}

// TestHysteresisIsAsItsDefinition uses models, lets time pass and plans at random, against the definition above.
func TestHysteresisIsAsItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := usual()
		r.Residency = 0
		r.Promotion = float64(rapid.IntRange(1, 10).Draw(t, "promotion")) / 10
		r.Demotion = float64(rapid.IntRange(0, int(r.Promotion*10)).Draw(t, "demotion")) / 10
		for _, tier := range model.Tiers() {
			r.Tiers[tier] = Rule{Uses: rapid.IntRange(0, 6).Draw(t, "uses"), Window: time.Duration(rapid.IntRange(1, 20).Draw(t, "days")) * day}
		}
		uses, now := NewUses(20*day), noon()
		where := map[string]model.Tier{"a": model.Hot, "b": model.Warm, "c": model.Cold}
		plan := func() []model.Move {
			var models []Facts
			for name, tier := range where {
				models = append(models, lives(name, tier))
			}
			return Plan(now, models, uses, r)
		}
		t.Repeat(map[string]func(*rapid.T){
			"use": func(t *rapid.T) {
				uses.Record(named(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")), now, rapid.IntRange(1, 4).Draw(t, "times"))
			},
			"wait": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "days")) * day) },
			"plan": func(t *rapid.T) {
				moves := plan()
				for name, at := range where {
					score := map[model.Tier]float64{}
					for tier, rule := range r.Tiers {
						score[tier] = rule.Score(uses.Count(named(name), now.Add(-rule.Window)))
					}
					i := slices.IndexFunc(moves, func(m model.Move) bool { return m.Model == named(name) })
					to := at
					if i >= 0 {
						to = moves[i].To
					}
					if want := naive(at, score, r); to != want {
						t.Fatalf("%s goes from %s to %s, want %s, with %v", name, at, to, want, score)
					}
					where[name] = to
				}
				if again := plan(); len(again) > 0 {
					t.Fatalf("and at once again: %s", brief(again))
				}
			},
		})
	})
}

func TestAModelInSteadyUseNeverGoesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := usual()
		r.Residency = 0
		r.Tiers[model.Hot] = Rule{Uses: rapid.IntRange(3, 20).Draw(t, "hot"), Window: 7 * day}
		r.Tiers[model.Warm] = Rule{Uses: rapid.IntRange(3, 20).Draw(t, "warm"), Window: 30 * day}
		period := time.Duration(rapid.IntRange(6, 400).Draw(t, "hours")) * time.Hour
		m := lives("a", rapid.SampledFrom(model.Tiers()).Draw(t, "tier"))
		uses, begin, ups, downs := NewUses(90*day), noon(), 0, 0
		next := begin
		for now := begin; now.Before(begin.Add(120 * day)); now = now.Add(6 * time.Hour) {
			for ; next.Before(now); next = next.Add(period) {
				uses.Record(m.ID, next, 1)
			}
			if now.Before(begin.Add(30 * day)) {
				continue // until then its use begins, and is not steady
			}
			for _, move := range Plan(now, []Facts{m}, uses, r) {
				if move.To.Colder(move.From) {
					downs++
				} else {
					ups++
				}
				m.Tier = move.To
			}
		}
		if ups > 0 && downs > 0 || ups+downs > 2 {
			t.Fatalf("it moved up %d times and down %d times with a use every %v", ups, downs, period)
		}
	})
}

func TestThresholdsOutOfOrderMakeNothingMoveForEver(t *testing.T) {
	r := usual()
	r.Promotion, r.Demotion = 0.3, 0.8
	m := lives("a", model.Warm)
	uses := used(map[string]int{"a": 5})
	for range 3 {
		for _, move := range Plan(noon(), []Facts{m}, uses, r) {
			m.Tier = move.To
		}
	}
	if moves := Plan(noon(), []Facts{m}, uses, r); len(moves) > 0 || m.Tier != model.Hot {
		t.Errorf("it is %s, and moves %s", m.Tier, brief(moves))
	}
}

// drawCrowd draws models and rules where room is short.
func drawCrowd(t *rapid.T) ([]Facts, *Uses, Rules) {
	r := usual()
	r.Residency = day * time.Duration(rapid.IntRange(0, 1).Draw(t, "residency"))
	for _, tier := range model.Tiers() {
		rule := r.Tiers[tier]
		rule.Max = model.Bytes(rapid.IntRange(0, 30).Draw(t, "max"))
		r.Tiers[tier] = rule
	}
	if rapid.IntRange(0, 4).Draw(t, "away") == 0 {
		delete(r.Tiers, rapid.SampledFrom([]model.Tier{model.Warm, model.Cold}).Draw(t, "which"))
	}
	uses := NewUses(90 * day)
	var models []Facts
	for i := range rapid.IntRange(0, 12).Draw(t, "models") {
		m := Facts{
			ID: named(fmt.Sprint(i)), Tier: rapid.SampledFrom(model.Tiers()).Draw(t, "tier"), Size: model.Bytes(rapid.IntRange(1, 12).Draw(t, "size")),
			Since: noon().Add(-time.Duration(rapid.IntRange(0, 48).Draw(t, "hours")) * time.Hour),
		}
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			m.Pinned = true
		case 1:
			m.Busy = true
		}
		uses.Record(m.ID, noon().Add(-time.Hour), rapid.IntRange(0, 12).Draw(t, "uses"))
		models = append(models, m)
	}
	return models, uses, r
}

// carryOut does what a plan says, and checks each step.
func carryOut(t *rapid.T, models []Facts, uses *Uses, r Rules, moves []model.Move) []Facts {
	models = slices.Clone(models)
	holds := map[model.Tier]model.Bytes{}
	for _, m := range models {
		holds[m.Tier] += m.Size
	}
	before := map[model.Tier]model.Bytes{}
	for tier, n := range holds {
		before[tier] = n
	}
	moved := map[model.ID]bool{}
	for _, move := range moves {
		i := slices.IndexFunc(models, func(m Facts) bool { return m.ID == move.Model })
		m := &models[i]
		if m.Pinned || m.Busy {
			t.Fatalf("%s is pinned or busy", m.ID)
		}
		if moved[m.ID] || move.From != m.Tier || move.To == m.Tier || move.Bytes != m.Size || move.Why == "" {
			t.Fatalf("%+v, of %+v", move, *m)
		}
		moved[m.ID] = true
		from, usable := r.Tiers[move.From]
		to, reachable := r.Tiers[move.To]
		if !usable || !reachable {
			t.Fatalf("%+v uses a tier that is not there", move)
		}
		if holds[move.To] += m.Size; to.Max > 0 && holds[move.To] > to.Max {
			t.Fatalf("%s makes %s hold %d of %d", m.ID, move.To, holds[move.To], to.Max)
		}
		score := func(tier model.Tier) float64 {
			return r.Tiers[tier].Score(uses.Count(m.ID, noon().Add(-r.Tiers[tier].Window)))
		}
		tooLarge := from.Max > 0 && before[move.From] > from.Max
		young := noon().Sub(m.Since) < r.Residency
		if move.To.Colder(move.From) {
			if young && !tooLarge {
				t.Fatalf("%s came lately and moves down", m.ID)
			}
			forAnother := slices.ContainsFunc(moves, func(o model.Move) bool {
				return o.To == move.From && r.Tiers[o.To].Score(uses.Count(o.Model, noon().Add(-r.Tiers[o.To].Window))) > score(move.From)
			})
			if score(move.From) >= r.Demotion && !tooLarge && !forAnother {
				t.Fatalf("%s moves down without cause", m.ID)
			}
		} else if score(move.To) < r.Promotion {
			t.Fatalf("%s moves up without cause", m.ID)
		}
		holds[move.From] -= m.Size
		m.Tier, m.Since = move.To, noon()
	}
	return models
}

func TestHoweverShortRoomIsEveryStepKeepsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		models, uses, r := drawCrowd(t)
		moves := Plan(noon(), models, uses, r)
		carryOut(t, models, uses, r, moves)
		shuffled := slices.Clone(models)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Plan(noon(), shuffled, uses, r); !reflect.DeepEqual(again, moves) {
			t.Fatalf("in another order: %s, want %s", brief(again), brief(moves))
		}
	})
}

func TestFullTiersTradePlacesByWayOfAColderOne(t *testing.T) {
	r := usual()
	r.Tiers[model.Hot] = Rule{Uses: 10, Window: 7 * day, Max: 10 * model.GiB}
	r.Tiers[model.Warm] = Rule{Uses: 3, Window: 30 * day, Max: 10 * model.GiB}
	models := []Facts{lives("a", model.Hot), lives("b", model.Warm)}
	uses := used(map[string]int{"a": 5, "b": 10})
	if got := brief(Plan(noon(), models, uses, r)); got != "a hot>cold, b warm>hot" {
		t.Errorf("moves %q", got)
	}
	models[0].Tier, models[1].Tier = model.Cold, model.Hot
	if got := brief(Plan(noon(), models, uses, r)); got != "a cold>warm" {
		t.Errorf("then moves %q", got)
	}
	delete(r.Tiers, model.Cold)
	models[0].Tier, models[1].Tier = model.Hot, model.Warm
	if got := brief(Plan(noon(), models, uses, r)); got != "" {
		t.Errorf("without a colder one moves %q", got)
	}
}

func TestHoweverShortRoomIsPlansComeToRestAndNothingGoesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		models, uses, r := drawCrowd(t)
		r.Residency = 0
		left := map[model.ID][]model.Tier{}
		for round := 0; ; round++ {
			moves := Plan(noon(), models, uses, r)
			if len(moves) == 0 {
				return
			}
			for _, m := range moves {
				if slices.Contains(left[m.Model], m.To) {
					t.Fatalf("in round %d %s goes back from %s to %s", round, m.Model, m.From, m.To)
				}
				left[m.Model] = append(left[m.Model], m.From)
			}
			models = carryOut(t, models, uses, r, moves)
		}
	})
}

func BenchmarkPlan(b *testing.B) {
	for _, room := range []string{"ample", "short", "none"} {
		b.Run(fmt.Sprintf("models=10000/uses=1000000/room=%s", room), func(b *testing.B) {
			uses, r := NewUses(90*day), usual()
			random := rand.New(rand.NewPCG(1, 2))
			var models []Facts
			for i := range 10_000 {
				m := lives(fmt.Sprint(i), model.Tiers()[i%3])
				m.Size = model.Bytes(1+random.Int64N(40)) * model.GiB
				models = append(models, m)
				for range 100 {
					uses.Record(m.ID, noon().Add(-time.Duration(random.Float64()*random.Float64()*float64(90*day))), 1)
				}
			}
			for _, tier := range model.Tiers() { // each holds 67 TiB
				rule := r.Tiers[tier]
				if room == "none" || room == "short" && tier != model.Cold {
					rule.Max = 50 * model.TiB
				}
				r.Tiers[tier] = rule
			}
			moves := 0
			for b.Loop() {
				moves = len(Plan(noon(), models, uses, r))
			}
			b.ReportMetric(float64(moves), "moves")
		})
	}
}
