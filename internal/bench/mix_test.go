package bench

import (
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAMixIsReadAsItIsWritten(t *testing.T) {
	for text, want := range map[string]Mix{
		"status=3,start=1,analytics=1": UsualMix(),
		" start=2 , status=1":          {Status: 1, Start: 2},
		"analytics=1000":               {Analytics: 1000},
	} {
		if got, err := ParseMix(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"":                  "want name=weight",
		"status":            "want name=weight",
		"delete=1":          `endpoint "delete" is none of status, start, analytics`,
		"status=1,status=2": "named twice",
		"status=x":          "whole number",
		"status=-1":         "want 0 to 1000",
		"status=1001":       "want 0 to 1000",
		"status=0":          "calls nothing",
	} {
		if _, err := ParseMix(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOnlyLeavesTheOthersOut(t *testing.T) {
	for _, c := range []struct {
		of   Mix
		only string
		want Mix
	}{
		{Mix{}, "status", Mix{Status: 3}},
		{Mix{}, "status start", Mix{Status: 3, Start: 1}},
		{Mix{Start: 7}, "start analytics", Mix{Start: 7, Analytics: 1}},
	} {
		if got, err := c.of.Only(strings.Fields(c.only)...); err != nil || got != c.want {
			t.Errorf("%+v only %s: %+v, %v", c.of, c.only, got, err)
		}
	}
	if _, err := UsualMix().Only(); err == nil {
		t.Error("only nothing is accepted")
	}
	if _, err := UsualMix().Only("x"); err == nil {
		t.Error("only x is accepted")
	}
}

func TestEveryRoundHasEachCallAsOftenAsItsWeight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Mix{rapid.IntRange(0, 9).Draw(t, "status"), rapid.IntRange(0, 9).Draw(t, "start"), rapid.IntRange(1, 9).Draw(t, "analytics")}
		d := newDeck(m, rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
		for range 3 {
			var n [calls]int
			for range m.Status + m.Start + m.Analytics {
				n[d.deal()]++
			}
			if n != [calls]int{m.Status, m.Start, m.Analytics} {
				t.Fatalf("a round of %+v has %v", m, n)
			}
		}
	})
}
