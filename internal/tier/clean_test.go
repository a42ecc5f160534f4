package tier

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// usualWish is that of the default configuration, for so much.
func usualWish(free model.Bytes) Wish {
	return Wish{Free: free, MinUnused: 30 * day, KeepRecent: 7 * day, Often: &Rule{Uses: 10, Window: 7 * day}}
}

// unusedFor is a model of 10 GiB that came 100 days ago, and was used that long ago.
func unusedFor(uses *Uses, name string, idle time.Duration) Stock {
	uses.Record(named(name), noon().Add(-idle), 1)
	return Stock{ID: named(name), Size: 10 * model.GiB, Since: noon().Add(-100 * day)}
}

// briefly tells an advice as "a collect 5".
func briefly(a Advice) string {
	var all []string
	for _, s := range a.Suggestions {
		all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", strings.TrimPrefix(s.ID.Name, "acme/"), s.Action, s.Commit)))
	}
	return strings.Join(all, ", ")
}

func why(a Advice, name string) string {
	for _, k := range a.Kept {
		if k.ID == named(name) {
			return k.Why
		}
	}
	return ""
}

func TestTheLeastMissedGoesFirst(t *testing.T) {
	uses := NewUses(90 * day)
	a, b, c := unusedFor(uses, "a", 40*day), unusedFor(uses, "b", 80*day), unusedFor(uses, "c", 10*day)
	a.Garbage = 2 * model.GiB
	c.Garbage = 3 * model.GiB
	c.Old = []Old{{"c1", model.GiB, noon().Add(-50 * day)}, {"c2", 4 * model.GiB, noon().Add(-50 * day)}, {"c3", model.GiB, noon().Add(-day)}}
	stock := []Stock{a, b, c}
	order := []string{"c collect", "a collect", "c remove_revision c2", "c remove_revision c1", "b remove_model", "a remove_model"}
	all := Advise(noon(), stock, uses, usualWish(0))
	if got := briefly(all); got != strings.Join(order, ", ") {
		t.Fatalf("got %s", got)
	}
	if all.Free != 28*model.GiB || all.Short != 0 {
		t.Errorf("frees %s, short of %s", all.Free, all.Short)
	}
	for free, want := range map[model.Bytes]int{1: 1, 3 * model.GiB: 1, 3*model.GiB + 1: 2, 9 * model.GiB: 3, 20 * model.GiB: 5, 21 * model.GiB: 6} {
		if got := Advise(noon(), stock, uses, usualWish(free)); briefly(got) != strings.Join(order[:want], ", ") || got.Short != 0 || got.Free < free {
			t.Errorf("for %s: %s, which frees %s", free, briefly(got), got.Free)
		}
	}
	if got := Advise(noon(), stock, uses, usualWish(30*model.GiB)); got.Short != 2*model.GiB {
		t.Errorf("short of %s, want 2 GiB", got.Short)
	}
	if got, want := why(all, "c"), "only models unused for 30 days may go: it was last used 10 days ago"; got != want {
		t.Errorf("c stays since %q, want %q", got, want)
	}
}

func TestOfUnusedModelsTheLargeThatWereUsedLittleGoFirst(t *testing.T) {
	uses := NewUses(90 * day)
	large, small, often, long := unusedFor(uses, "large", 40*day), unusedFor(uses, "small", 40*day), unusedFor(uses, "often", 40*day), unusedFor(uses, "long", 80*day)
	large.Size = 15 * model.GiB
	small.Size = model.GiB
	uses.Record(often.ID, noon().Add(-40*day), 5)
	if got := briefly(Advise(noon(), []Stock{small, often, large, long}, uses, usualWish(0))); got != "long remove_model, large remove_model, often remove_model, small remove_model" {
		t.Errorf("got %s", got)
	}
}

func TestWhatIsProtectedStaysAndItIsSaidWhy(t *testing.T) {
	for want, protect := range map[string]func(*Stock, *Uses, *Wish){
		"it is being downloaded, moved or repaired": func(s *Stock, _ *Uses, _ *Wish) { s.Busy = true },
		"it is pinned":                func(s *Stock, _ *Uses, _ *Wish) { s.Pinned = true },
		"another program has it open": func(s *Stock, _ *Uses, _ *Wish) { s.Open = true },
		"it may be the last copy: it could not be fetched again":              func(s *Stock, _ *Uses, _ *Wish) { s.LastCopy = true },
		"it came 3 days ago, and models younger than 7 days stay":             func(s *Stock, _ *Uses, _ *Wish) { s.Since = noon().Add(-3 * day) },
		"it is used often: 10 uses in 7 days, and 10 are enough":              func(s *Stock, u *Uses, _ *Wish) { u.Record(s.ID, noon().Add(-day), 10) },
		"only models unused for 30 days may go: it was last used 29 days ago": func(s *Stock, u *Uses, _ *Wish) { u.Record(s.ID, noon().Add(-29*day), 1) },
		"only models unused for 30 days may go: it came 20 days ago and has not been used since": func(s *Stock, _ *Uses, _ *Wish) {
			s.Since = noon().Add(-20 * day)
		},
		"only models unused for 30 days may go: it has not been used for 5 days, and for how long before nobody noticed": func(_ *Stock, _ *Uses, w *Wish) {
			w.Watched = noon().Add(-5 * day)
		},
	} {
		uses, w := NewUses(90*day), usualWish(0)
		s := unusedFor(uses, "a", 60*day)
		if got := briefly(Advise(noon(), []Stock{s}, uses, w)); got != "a remove_model" {
			t.Fatalf("unprotected: %s", got)
		}
		protect(&s, uses, &w)
		got := Advise(noon(), []Stock{s}, uses, w)
		if len(got.Suggestions) > 0 || why(got, "a") != want {
			t.Errorf("%s, since %q; want %q", briefly(got), why(got, "a"), want)
		}
	}
	uses := NewUses(90 * day)
	for _, scheme := range []model.Scheme{model.HTTPS, model.Folder} {
		s := unusedFor(uses, "a", 60*day)
		s.ID.Scheme = scheme
		if got := Advise(noon(), []Stock{s}, uses, usualWish(0)); len(got.Suggestions) > 0 || len(got.Kept) != 1 {
			t.Errorf("of scheme %q: %s", scheme, briefly(got))
		}
	}
	// Whoever says so may let go what is used often.
	s, w := unusedFor(uses, "b", 60*day), usualWish(0)
	w.Often, w.MinUnused = nil, 0
	uses.Record(s.ID, noon(), 99)
	if got := briefly(Advise(noon(), []Stock{s}, uses, w)); got != "b remove_model" {
		t.Errorf("got %s", got)
	}
}

func TestWhatNoRevisionNeedsMayGoUnlessSomebodyWorksOnIt(t *testing.T) {
	uses := NewUses(90 * day)
	s := unusedFor(uses, "a", 0)
	s.Garbage, s.Pinned, s.LastCopy = model.GiB, true, true
	s.Old = []Old{{"c1", model.GiB, noon().Add(-50 * day)}}
	got := Advise(noon(), []Stock{s}, uses, usualWish(0))
	if briefly(got) != "a collect" || got.Suggestions[0].Bytes != model.GiB || got.Suggestions[0].Reason != "no revision needs these 1.0 GiB of contents and partial files" {
		t.Errorf("got %+v", got)
	}
	for _, work := range []func(*Stock){func(s *Stock) { s.Open = true }, func(s *Stock) { s.Busy = true }} {
		s := s
		work(&s)
		if got := briefly(Advise(noon(), []Stock{s}, uses, usualWish(0))); got != "" {
			t.Errorf("got %s", got)
		}
	}
}

func TestConfidenceGrowsWithTheTimeUnusedAndFallsWithUses(t *testing.T) {
	for _, c := range []struct {
		idle time.Duration
		uses int
		want float64
	}{{30 * day, 0, 0.5}, {60 * day, 0, 0.75}, {90 * day, 0, 0.875}, {60 * day, 5, 0.5625}} {
		uses, w := NewUses(365*day), usualWish(0)
		w.Often = &Rule{Uses: 10, Window: 70 * day}
		s := Stock{ID: named("a"), Size: 1, Since: noon().Add(-c.idle)}
		uses.Record(s.ID, noon().Add(-c.idle), c.uses)
		got := Advise(noon(), []Stock{s}, uses, w)
		if len(got.Suggestions) != 1 || math.Abs(got.Suggestions[0].Confidence-c.want) > 1e-9 {
			t.Errorf("%+v: %+v", c, got.Suggestions)
		}
	}
}

func TestAdviceNeverNamesWhatIsProtectedAndReachesItsAimIfThatIsPossible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		uses := NewUses(90 * day)
		w := Wish{
			MinUnused: time.Duration(rapid.IntRange(0, 20).Draw(t, "unused")) * day, KeepRecent: time.Duration(rapid.IntRange(0, 20).Draw(t, "recent")) * day,
			Free: model.Bytes(rapid.IntRange(0, 60).Draw(t, "free")),
		}
		if rapid.Bool().Draw(t, "often") {
			w.Often = &Rule{Uses: rapid.IntRange(0, 5).Draw(t, "uses"), Window: 10 * day}
		}
		if rapid.IntRange(0, 3).Draw(t, "watched") == 0 {
			w.Watched = noon().Add(-10 * day)
		}
		ago := func(name string) time.Time {
			return noon().Add(-time.Duration(rapid.IntRange(0, 40).Draw(t, name)) * day)
		}
		flag := func(name string) bool { return rapid.IntRange(0, 5).Draw(t, name) == 0 }
		var stock []Stock
		byID := map[model.ID]Stock{}
		for i := range rapid.IntRange(0, 8).Draw(t, "models") {
			s := Stock{
				ID: named(fmt.Sprint(i)), Since: ago("came"), Pinned: flag("pinned"), Open: flag("open"), Busy: flag("busy"), LastCopy: flag("last copy"),
				Garbage: model.Bytes(rapid.IntRange(0, 3).Draw(t, "garbage")),
			}
			if flag("folder") {
				s.ID.Scheme = model.Folder
			}
			s.Size = s.Garbage + model.Bytes(rapid.IntRange(1, 20).Draw(t, "size"))
			for j := range rapid.IntRange(0, 2).Draw(t, "old") {
				o := Old{fmt.Sprint(j), model.Bytes(rapid.IntRange(0, 4).Draw(t, "old size")), ago("old came")}
				s.Old, s.Size = append(s.Old, o), s.Size+o.Size
			}
			for range rapid.IntRange(0, 6).Draw(t, "times") {
				uses.Record(s.ID, ago("used"), 1)
			}
			stock, byID[s.ID] = append(stock, s), s
		}
		a := Advise(noon(), stock, uses, w)

		named, freed, total := map[string]bool{}, map[model.ID]model.Bytes{}, model.Bytes(0)
		for _, g := range a.Suggestions {
			s := byID[g.ID]
			if key := fmt.Sprint(g.ID, g.Action, g.Commit); named[key] {
				t.Fatalf("%s is named twice", key)
			} else {
				named[key] = true
			}
			freed[g.ID] += g.Bytes
			total += g.Bytes
			if s.Open || s.Busy {
				t.Fatalf("%s is open or busy", s.ID)
			}
			if g.Confidence <= 0 && w.MinUnused > 0 || g.Confidence > 1 || g.Reason == "" {
				t.Fatalf("%+v", g)
			}
			if g.Action == Collect {
				continue
			}
			if s.Pinned || s.LastCopy || s.ID.Scheme != model.Hub || noon().Sub(s.Since) < w.KeepRecent {
				t.Fatalf("%+v is protected: %+v", g, s)
			}
			if w.Often != nil && uses.Count(s.ID, noon().Add(-w.Often.Window)) >= max(1, w.Often.Uses) {
				t.Fatalf("%s is used often", s.ID)
			}
			if g.Action == RemoveModel && (noon().Sub(uses.Last(s.ID)) < w.MinUnused || noon().Sub(s.Since) < w.MinUnused || noon().Sub(w.Watched) < w.MinUnused) {
				t.Fatalf("%s was used lately", s.ID)
			}
		}
		for id, n := range freed {
			if n > byID[id].Size {
				t.Fatalf("%s has %d, and %d are freed", id, byID[id].Size, n)
			}
		}
		if total != a.Free || a.Short != max(0, w.Free-a.Free) {
			t.Fatalf("frees %d, said %d, short of %d", total, a.Free, a.Short)
		}
		removed := map[model.ID]bool{}
		for _, g := range a.Suggestions {
			if g.Action == RemoveModel {
				removed[g.ID] = true
			}
		}
		for _, k := range a.Kept {
			if k.Why == "" || removed[k.ID] {
				t.Fatalf("%s is kept since %q", k.ID, k.Why)
			}
		}

		everything := w
		everything.Free = 0
		all := Advise(noon(), stock, uses, everything)
		if a.Short > 0 && a.Free < all.Free {
			t.Fatalf("%d could be freed of %d, and only %d are", all.Free, w.Free, a.Free)
		}
		if n := len(a.Suggestions); w.Free > 0 && n > 0 && a.Free-a.Suggestions[n-1].Bytes >= w.Free {
			t.Fatalf("the last suggestion is one too many")
		}
		if !slices.EqualFunc(a.Suggestions, all.Suggestions[:len(a.Suggestions)], func(x, y Suggestion) bool { return x == y }) {
			t.Fatalf("to wish for more changes what is named: %s, and %s", briefly(a), briefly(all))
		}
		shuffled := slices.Clone(stock)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := Advise(noon(), shuffled, uses, w); !reflect.DeepEqual(again, a) {
			t.Fatalf("in another order: %s, and %s", briefly(again), briefly(a))
		}
	})
}
