package pipeline_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/pipeline"
)

func selects(t interface{ Fatal(...any) }, s pipeline.Selection, path string) bool {
	got, err := s.Of([]model.File{{Path: path}})
	if err != nil {
		t.Fatal(err)
	}
	return len(got) == 1
}

// The table of the hub's own client.
func TestAPatternSelects(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{"*.json", []string{"a.json", "d/e.json", ".json"}, []string{"a.jsonl", "a.JSON", "json"}},
		{"data/*", []string{"data/x/y.bin", "data/"}, []string{"x/data/y", "data"}},
		{"onnx/", []string{"onnx/model.onnx", "onnx/a/b"}, []string{"sub/onnx/m.onnx", "onnx"}},
		{"model-?????-of-*.safetensors", []string{"model-00001-of-00002.safetensors"}, []string{"model.safetensors", "model-1-of-2.safetensors"}},
		{"**/x", []string{"a/x", "a/b/x"}, []string{"x"}},
		{"a?b", []string{"a/b", "axb", "aüb", "a模b"}, []string{"ab", "axxb"}},
		{"[ab].bin", []string{"a.bin", "b.bin"}, []string{"c.bin", "[ab].bin"}},
		{"[!ab].bin", []string{"c.bin", "!.bin"}, []string{"a.bin", "b.bin"}},
		{"[^ab].bin", []string{"a.bin", "^.bin"}, []string{"c.bin"}},
		{"[]x].bin", []string{"].bin", "x.bin"}, []string{"a.bin"}},
		{"[!]x].bin", []string{"a.bin"}, []string{"].bin", "x.bin"}},
		{"[a-c].bin", []string{"b.bin"}, []string{"d.bin", "-.bin"}},
		{"[c-a].bin", nil, []string{"a.bin", "b.bin", "c.bin", "-.bin"}},
		{"[a-].bin", []string{"a.bin", "-.bin"}, []string{"b.bin"}},
		{"[-a].bin", []string{"a.bin", "-.bin"}, []string{"b.bin"}},
		{"[*].bin", []string{"*.bin"}, []string{"a.bin"}},
		{"[a.bin", []string{"[a.bin"}, []string{"a.bin"}},
		{"a[", []string{"a["}, []string{"a"}},
		{"[!", []string{"[!"}, []string{"x"}},
		{"{a,b}.bin", []string{"{a,b}.bin"}, []string{"a.bin"}},
		{`onnx\*.bin`, []string{"onnx/x.bin"}, []string{"onnx*.bin"}},
		{"a+(b)|c$.^", []string{"a+(b)|c$.^"}, []string{"c", "aab"}},
		{"*", []string{"a", "a/b", "ü", "a\nb"}, nil},
		{"", nil, []string{"a"}},
	} {
		for _, path := range c.yes {
			if !selects(t, pipeline.Selection{Include: []string{c.pattern}}, path) {
				t.Errorf("%q does not include %q", c.pattern, path)
			}
			if selects(t, pipeline.Selection{Exclude: []string{c.pattern}}, path) {
				t.Errorf("%q does not exclude %q", c.pattern, path)
			}
		}
		for _, path := range c.not {
			if selects(t, pipeline.Selection{Include: []string{c.pattern}}, path) {
				t.Errorf("%q includes %q", c.pattern, path)
			}
		}
	}
}

func TestExcludeWins(t *testing.T) {
	s := pipeline.Selection{Include: []string{"*.bin", "*.json"}, Exclude: []string{"big*", "*/x.json"}}
	var all []model.File
	for _, p := range []string{"a.bin", "a.txt", "b/x.json", "big.bin", "c.json"} {
		all = append(all, model.File{Path: p})
	}
	got, err := s.Of(all)
	if err != nil || len(got) != 2 || got[0].Path != "a.bin" || got[1].Path != "c.json" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := (pipeline.Selection{}).Of(all); err != nil || len(got) != len(all) {
		t.Errorf("no pattern selects %v, %v", got, err)
	}
}

// model of fnmatch, as simple and slow as can be: it tries everything.
func fnmatch(pattern, path []rune) bool {
	if len(pattern) == 0 {
		return len(path) == 0
	}
	if pattern[0] == '*' {
		return fnmatch(pattern[1:], path) || len(path) > 0 && fnmatch(pattern, path[1:])
	}
	if len(path) == 0 {
		return false
	}
	if pattern[0] == '[' {
		// The first ] that is not the first member closes the class.
		at := 1
		if at < len(pattern) && pattern[at] == '!' {
			at++
		}
		if end := slices.Index(pattern[min(at+1, len(pattern)):], ']'); end >= 0 {
			end += at + 1
			members, negated := pattern[at:end], at == 2
			return in(members, path[0]) != negated && fnmatch(pattern[end+1:], path[1:])
		}
	}
	return (pattern[0] == '?' || pattern[0] == path[0]) && fnmatch(pattern[1:], path[1:])
}

func in(members []rune, r rune) bool {
	for i := 0; i < len(members); i++ {
		if i+2 < len(members) && members[i+1] == '-' {
			if members[i] <= r && r <= members[i+2] {
				return true
			}
			i += 2
		} else if members[i] == r {
			return true
		}
	}
	return false
}

func TestPatternsMatchAsTheirModelDoes(t *testing.T) {
	letters := rapid.SampledFrom([]rune(`ab/.-^!]ü$&~|`))
	rapid.Check(t, func(t *rapid.T) {
		pattern := string(rapid.SliceOfN(rapid.OneOf(letters, rapid.SampledFrom([]rune(`**?[[]!-`))), 0, 9).Draw(t, "pattern"))
		path := string(rapid.SliceOfN(letters, 1, 7).Draw(t, "path"))
		full := pattern
		if strings.HasSuffix(full, "/") {
			full += "*"
		}
		if got, want := selects(t, pipeline.Selection{Include: []string{pattern}}, path), fnmatch([]rune(full), []rune(path)); got != want {
			t.Fatalf("%q on %q: %v, the model says %v", pattern, path, got, want)
		}
	})
}
