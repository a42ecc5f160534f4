package demohub

import (
	"net/url"
	"strings"
	"testing"

	"ema/internal/model"
)

func TestRouteOfEscapedPath(t *testing.T) {
	const commit = "1111111111111111111111111111111111111111"
	for path, want := range map[string]route{
		"/api/models/acme/tiny":                                    {verb: "info", repo: "acme/tiny"},
		"/api/models/gpt2":                                         {verb: "info", repo: "gpt2"},
		"/api/models/acme/tiny/revision/main":                      {verb: "info", repo: "acme/tiny", rev: "main"},
		"/api/models/gpt2/revision/main":                           {verb: "info", repo: "gpt2", rev: "main"},
		"/api/models/acme/tiny/revision/refs%2Fpr%2F1":             {verb: "info", repo: "acme/tiny", rev: "refs/pr/1"},
		"/api/models/acme/tiny/revision/refs/pr/1":                 {verb: "info", repo: "acme/tiny", rev: "refs/pr/1"},
		"/api/models/acme/tiny/tree/main":                          {verb: "tree", repo: "acme/tiny", rev: "main"},
		"/api/models/acme/tiny/tree/refs/pr/1/onnx":                {verb: "tree", repo: "acme/tiny", rev: "refs/pr/1", path: "onnx"},
		"/api/models/acme/tiny/tree/main/a%2Fb":                    {verb: "tree", repo: "acme/tiny", rev: "main", path: "a/b"},
		"/api/models/gpt2/tree/main/a/b":                           {verb: "tree", repo: "gpt2", rev: "main", path: "a/b"},
		"/api/models/acme/tiny/refs":                               {verb: "refs", repo: "acme/tiny"},
		"/api/models/gpt2/refs":                                    {verb: "refs", repo: "gpt2"},
		"/api/models/acme/tiny/paths-info/main":                    {verb: "paths-info", repo: "acme/tiny", rev: "main"},
		"/api/whoami-v2":                                           {verb: "whoami"},
		"/api/datasets/acme/tiny":                                  {verb: "api"},
		"/api/models/acme/tiny/nothing/main":                       {verb: "api"},
		"/acme/tiny/resolve/main/model.bin":                        {verb: "resolve", repo: "acme/tiny", rev: "main", path: "model.bin"},
		"/acme/tiny/resolve/feature%2Fx/model.bin":                 {verb: "resolve", repo: "acme/tiny", rev: "feature/x", path: "model.bin"},
		"/gpt2/resolve/main/a/b%20%23%3F%25.bin":                   {verb: "resolve", repo: "gpt2", rev: "main", path: "a/b #?%.bin"},
		"/acme/tiny/raw/main/model.bin":                            {verb: "raw", repo: "acme/tiny", rev: "main", path: "model.bin"},
		"/acme/tiny/resolve/main":                                  {},
		"/acme/tiny":                                               {},
		"/":                                                        {},
		"/api/resolve-cache/models/acme/tiny/" + commit + "/a%2Fb": {verb: "cache", repo: "acme/tiny", rev: commit, path: "a/b"},
		"/api/resolve-cache/models/gpt2/" + commit + "/a/b":        {verb: "cache", repo: "gpt2", rev: commit, path: "a/b"},
		"/files/a/b%20c":                                           {verb: "file", path: "a/b c"},
	} {
		got := parseRoute(path)
		got.tail = nil
		if got.verb != want.verb || got.repo != want.repo || got.rev != want.rev || got.path != want.path {
			t.Errorf("parseRoute(%s) = %+v, want %+v", path, got, want)
		}
	}
}

// FuzzRoute proves that a file is found under every path that escaped writes for it.
func FuzzRoute(f *testing.F) {
	f.Add("main", "model.bin")
	f.Add("refs/pr/1", "a/b c/%2F#?.bin")
	f.Fuzz(func(t *testing.T, rev, path string) {
		if rev == "" || rev == "refs" { // refs/pr/1 in clear is a revision of three segments
			return
		}
		if got := parseRoute("/acme/tiny/resolve/" + url.PathEscape(rev) + "/" + escaped(path)); got.rev != rev || got.path != path || got.repo != "acme/tiny" {
			t.Fatalf("revision %q and path %q came back as %+v", rev, path, got)
		}
		_ = parseRoute(path) // whatever it is, it is survived
	})
}

func TestRangeOfHeader(t *testing.T) {
	type result struct {
		model.Segment
		verdict
	}
	for header, want := range map[string]result{
		"":                                   {verdict: whole},
		"bytes=0-9":                          {model.Segment{Start: 0, End: 10}, partial},
		"bytes=90-":                          {model.Segment{Start: 90, End: 100}, partial},
		"bytes=90-1000":                      {model.Segment{Start: 90, End: 100}, partial},
		"bytes=-5":                           {model.Segment{Start: 95, End: 100}, partial},
		"bytes=-500":                         {model.Segment{Start: 0, End: 100}, partial},
		"bytes=100-":                         {verdict: unsatisfiable},
		"bytes=-0":                           {verdict: unsatisfiable},
		"bytes=5-4":                          {verdict: whole},
		"bytes=0-1,3-4":                      {verdict: whole},
		"bytes=+1-2":                         {verdict: whole},
		"items=0-9":                          {verdict: whole},
		"bytes=a-b":                          {verdict: whole},
		"bytes=0-" + strings.Repeat("9", 30): {verdict: whole},
		"bytes=0-9223372036854775807":        {model.Segment{Start: 0, End: 100}, partial},
		"bytes=9223372036854775807-":         {verdict: unsatisfiable},
	} {
		seg, v := parseRange(header, 100)
		if (result{seg, v}) != want {
			t.Errorf("parseRange(%q, 100) = %v, %v; want %v", header, seg, v, want)
		}
	}
	if _, v := parseRange("bytes=0-", 0); v != unsatisfiable {
		t.Errorf("a range of an empty file is %v, want unsatisfiable", v)
	}
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=0-9", int64(100))
	f.Add("bytes=-5", int64(3))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		seg, v := parseRange(header, size)
		if v == partial && (seg.Start < 0 || seg.End > size || seg.Len() <= 0) {
			t.Fatalf("parseRange(%q, %d) = %v: not inside the file", header, size, seg)
		}
	})
}

func TestPatternsMatchAnyCharacters(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"*.bin", "a/b.bin", true},
		{"*.bin", "a.bin.txt", false},
		{"a*c*e", "abcde", true},
		{"a*c*e", "abde", false},
		{"model.bin", "model.bin", true},
		{"model.bin", "model.bin2", false},
		{"*", "", true},
		{"a*a", "a", false},
		{"*/tree/*", "/api/models/x/tree/main", true},
	} {
		if got := like(c.pattern, c.s); got != c.want {
			t.Errorf("like(%q, %q) = %t", c.pattern, c.s, got)
		}
	}
}
