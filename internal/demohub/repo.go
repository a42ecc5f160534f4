package demohub

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // commit ids are sha1
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"ema/internal/model"
)

// firstCommit is when the history of every repository begins; each commit is a minute after the last.
var firstCommit = time.Date(2026, time.May, 1, 9, 30, 0, 0, time.UTC)

type repo struct {
	id      string
	heads   map[string]string // branch, tag or refs/… to commit
	tags    map[string]bool   // those heads that are tags
	commits map[string]*commit

	private  bool
	gated    bool
	disabled bool
	task     string
	library  string
	labels   []string
	allowed  map[string]bool // tokens that may read, where private or gated
	pending  map[string]bool // tokens whose request for access is not answered yet
}

type commit struct {
	id      string
	when    time.Time
	entries []Entry // in path order
	index   map[string]int
	err     error // an entry that cannot be served
}

// A Part is something that a repository is made of: an Entry is a file of the main branch.
type Part interface{ join(r *repo) }

type part func(*repo)

func (p part) join(r *repo) { p(r) }

// join does nothing: Repo puts all entries into one commit before the other parts refer to it.
func (Entry) join(*repo) {}

// Repo adds the repository id, or replaces it. It has a branch main, with the parts that are entries; id is
// "org/name".
func Repo(id string, parts ...Part) Option {
	return func(h *Hub) {
		r := &repo{
			id: id, heads: map[string]string{}, tags: map[string]bool{}, commits: map[string]*commit{},
			allowed: map[string]bool{}, pending: map[string]bool{},
		}
		var entries []Entry
		for _, p := range parts {
			if e, ok := p.(Entry); ok {
				entries = append(entries, e)
			}
		}
		r.commit("main", entries)
		for _, p := range parts {
			p.join(r)
		}
		h.repos[id] = r
	}
}

// Branch adds a branch with a commit of its own. Names such as "refs/pr/1" are listed as what they are.
func Branch(name string, entries ...Entry) Part {
	return part(func(r *repo) { r.commit(name, entries) })
}

// Tag adds a tag for the newest commit of main.
func Tag(name string) Part {
	return part(func(r *repo) { r.heads[name], r.tags[name] = r.heads["main"], true })
}

// Private hides the repository from all but the callers with these tokens.
func Private(tokens ...string) Part {
	return part(func(r *repo) { r.private = true; allow(r.allowed, tokens) })
}

// Gated keeps the content, not the listing, from all but the callers with these tokens.
func Gated(tokens ...string) Part {
	return part(func(r *repo) { r.gated = true; allow(r.allowed, tokens) })
}

// Pending gates the repository; the callers with these tokens have asked for access and wait.
func Pending(tokens ...string) Part {
	return part(func(r *repo) { r.gated = true; allow(r.pending, tokens) })
}

// Card says what the repository is for, and has these tags: "license:mit", "base_model:org/name".
func Card(task, library string, tags ...string) Part {
	return part(func(r *repo) { r.task, r.library, r.labels = task, library, tags })
}

// Disabled refuses the repository to everybody.
func Disabled() Part { return part(func(r *repo) { r.disabled = true }) }

func allow(to map[string]bool, tokens []string) {
	for _, t := range tokens {
		to[t] = true
	}
}

// Commit adds a commit of exactly these entries to a repository and moves the branch to it.
func (h *Hub) Commit(id, branch string, entries ...Entry) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repos[id]
	if r == nil {
		return "", fmt.Errorf("demohub has no repository %s", id)
	}
	return r.commit(branch, entries), nil
}

// Move lets a branch mean a commit that the repository has already.
func (h *Hub) Move(id, branch, commit string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.repos[id]
	if r == nil || r.commits[commit] == nil {
		return fmt.Errorf("demohub has no commit %s in a repository %s", commit, id)
	}
	r.heads[branch] = commit
	return nil
}

// Head is the commit that a branch, a tag or a commit id means now; empty if there is none.
func (h *Hub) Head(id, rev string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.repos[id]; r != nil {
		if c := r.at(rev); c != nil {
			return c.id
		}
	}
	return ""
}

// Entry finds a file, to compare with what a client made of it.
func (h *Hub) Entry(id, rev, path string) (Entry, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.repos[id]; r != nil {
		if c := r.at(rev); c != nil {
			return c.find(path)
		}
	}
	return Entry{}, false
}

func (r *repo) commit(branch string, entries []Entry) string {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Path, b.Path) })
	c := &commit{entries: entries, index: make(map[string]int, len(entries)), when: firstCommit.Add(time.Duration(len(r.commits)) * time.Minute)}
	sum := sha1.New() //nolint:gosec // see the import
	fmt.Fprintf(sum, "%s %d\n", r.id, len(r.commits))
	for i, e := range entries {
		fmt.Fprintf(sum, "%q %s %t %d %s\n", e.Path, e.blob.key, e.lfs, e.claim, e.sum)
		if _, dup := c.index[e.Path]; !dup {
			c.index[e.Path] = i
		}
		if e.err != nil && c.err == nil {
			c.err = e.err
		}
	}
	c.id = hex.EncodeToString(sum.Sum(nil))
	r.commits[c.id] = c
	r.heads[branch] = c.id
	return c.id
}

// at resolves a revision: a branch or a tag, its full name, or a commit id.
func (r *repo) at(rev string) *commit {
	if id, ok := r.heads[rev]; ok {
		return r.commits[id]
	}
	for _, prefix := range []string{"refs/heads/", "refs/tags/"} {
		if name, ok := strings.CutPrefix(rev, prefix); ok {
			return r.commits[r.heads[name]]
		}
	}
	if model.IsCommit(rev) {
		return r.commits[rev]
	}
	return nil
}

func (c *commit) find(path string) (Entry, bool) {
	i, ok := c.index[path]
	if !ok {
		return Entry{}, false
	}
	return c.entries[i], true
}
