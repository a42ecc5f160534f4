package main

import (
	"strings"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

// fourRevisions has one of main, a tag, a branch, and a bare commit that is pinned.
func fourRevisions() store.Model {
	commit := func(c string) string { return strings.Repeat(c, 40) }
	return store.Model{ID: model.ID{Name: "org/name"}, Revisions: []store.Revision{
		{Commit: commit("a"), Refs: []string{"ema-pin-aaaaaaaaaaaa"}},
		{Commit: commit("b"), Refs: []string{"v1.0"}},
		{Commit: commit("c"), Refs: []string{"alpha", "main"}},
		{Commit: "b1" + commit("d")[2:], Refs: []string{"dev"}},
	}}
}

func TestRevisionsAreListedAsPeopleLookForThem(t *testing.T) {
	if got, want := revisionNames(fourRevisions()), "main, aaaaaaaaaaaa, dev, v1.0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestARevisionIsFoundByWhatPeopleType(t *testing.T) {
	for typed, want := range map[string]string{
		"": "main", "main": "main", "alpha": "main", "v1.0": "v1.0", "dev": "dev",
		strings.Repeat("a", 40): "aaaaaaaaaaaa", "aaaaaaa": "aaaaaaaaaaaa", "b1ddddd": "dev",
		"aaaaaa": "", "bbb": "", "nope": "", // too short to be a commit, or unknown
	} {
		r, err := revision("info", fourRevisions(), typed)
		if want == "" {
			if model.ClassOf(err) != model.NotFound || !strings.Contains(err.Error(), "here are: main, aaaaaaaaaaaa, dev, v1.0") {
				t.Errorf("%q: %v", typed, err)
			}
			continue
		}
		if err != nil || revisionName(r) != want {
			t.Errorf("%q is %s, want %s (%v)", typed, revisionName(r), want, err)
		}
	}
	m := fourRevisions()
	m.Revisions = m.Revisions[:2]
	if _, err := revision("path", m, ""); err == nil || !strings.Contains(err.Error(), "2 revisions are here, and none is called main; name one: aaaaaaaaaaaa, v1.0") {
		t.Errorf("no main: %v", err)
	}
	m.Revisions = m.Revisions[:1]
	if r, err := revision("path", m, ""); err != nil || r.Commit != m.Revisions[0].Commit {
		t.Errorf("the only one: %v", err)
	}
}
