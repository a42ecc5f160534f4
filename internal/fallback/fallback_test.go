package fallback_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/fallback"
	"ema/internal/model"
)

func id(name string) model.ID { return model.ID{Name: name} }

func TestTheNearestModelComesFirst(t *testing.T) {
	asked := fallback.Facts{
		Model: id("acme/llama-3-8b-instruct"), Task: "text-generation", Library: "transformers", License: "llama3", Architectures: []string{"LlamaForCausalLM"},
		Bases: []model.ID{id("acme/llama-3-8b")}, Parameters: 8e9, Bits: 16,
	}
	quantised := asked
	quantised.Model, quantised.Bases, quantised.Bits, quantised.Available = id("other/llama-3-8b-instruct-gguf"), []model.ID{asked.Model}, 4.5, true
	small := asked
	small.Model, small.Bases, small.Parameters, small.Available = id("acme/llama-3-1b-instruct"), nil, 1e9, true
	painter := fallback.Facts{Model: id("acme/llama-painter"), Task: "text-to-image", Available: true}
	away := quantised
	away.Model, away.Available, away.Wait = id("acme/llama-3-8b-away"), false, new(time.Minute)
	stranger := fallback.Facts{Model: id("x/y"), Available: true}
	all := []fallback.Facts{small, painter, away, asked, quantised, stranger}

	got := fallback.Suggest(asked, all, 10, false)
	if len(got) != 2 || got[0].Model != quantised.Model || got[1].Model != small.Model || got[0].Score <= got[1].Score || got[0].Score > 1 {
		t.Errorf("%+v", got)
	}
	if said := strings.Join(got[0].Reasons, "; "); !strings.Contains(said, "made from the other") || !strings.Contains(said, "LlamaForCausalLM") {
		t.Errorf("reasons: %s", said)
	}
	if got := fallback.Suggest(asked, all, 10, true); len(got) != 3 || got[2].Model != away.Model {
		t.Errorf("with those that are on their way: %+v", got)
	}
	late := asked
	late.Wait = new(time.Second)
	if got := fallback.Suggest(late, all, 10, true); len(got) != 2 {
		t.Errorf("what comes later than the model itself: %+v", got)
	}
	if got := fallback.Suggest(asked, all, 1, false); len(got) != 1 {
		t.Errorf("one: %+v", got)
	}
}

func TestNamesTellWhatElseNobodyKnows(t *testing.T) {
	for name, want := range map[string]fallback.Facts{
		"acme/model-7b":                {Parameters: 7e9},
		"acme/TinyLlama-1.1B-Chat":     {Parameters: 1.1e9},
		"acme/SmolLM-135M-int8":        {Parameters: 135e6, Bits: 8},
		"acme/model-7b-Q4_K_M":         {Parameters: 7e9, Bits: 4},
		"acme/model-7b.Q4_K_M":         {Parameters: 7e9, Bits: 4},
		"acme/model-bf16":              {Bits: 16},
		"acme/inf-b":                   {},
		"acme/nanb":                    {},
		"acme/web":                     {},
		"acme/1e300b":                  {},
		"acme/0b":                      {},
		"https://host/folder/model.7b": {Parameters: 7e9},
	} {
		f := fallback.Facts{Model: id(name)}.FromName()
		if f.Parameters != want.Parameters || f.Bits != want.Bits {
			t.Errorf("%s: %v parameters of %v bits", name, f.Parameters, f.Bits)
		}
	}
	if f := (fallback.Facts{Model: id("a/b-7b"), Parameters: 3, Bits: 2}).FromName(); f.Parameters != 3 || f.Bits != 2 {
		t.Error("a name is believed more than the files")
	}
}

// To have more in common never makes a candidate worse, and the order does not depend on that of the candidates.
func TestMoreInCommonIsNeverWorse(t *testing.T) {
	word := rapid.SampledFrom([]string{"", "a", "b"})
	facts := rapid.Custom(func(t *rapid.T) fallback.Facts {
		f := fallback.Facts{
			Model: id("org/" + rapid.StringMatching(`[a-c]{3}(-[a-c]{1,2}){0,3}`).Draw(t, "name")), Library: word.Draw(t, "library"), License: word.Draw(t, "licence"), Available: true,
			Parameters: rapid.Float64Range(0, 1e10).Draw(t, "parameters"), Bits: rapid.Float64Range(0, 32).Draw(t, "bits"),
		}
		if a := word.Draw(t, "architecture"); a != "" {
			f.Architectures = []string{a}
		}
		return f
	})
	rapid.Check(t, func(t *rapid.T) {
		asked := facts.Draw(t, "asked")
		all := rapid.SliceOfN(facts, 1, 6).Draw(t, "all")
		got := fallback.Suggest(asked, all, 100, false)
		for i := range got {
			if got[i].Score <= 0 || got[i].Score > 1 || i > 0 && got[i].Score > got[i-1].Score || len(got[i].Reasons) == 0 {
				t.Fatalf("%+v", got)
			}
		}
		turned := slices.Clone(all)
		slices.Reverse(turned)
		for i, s := range fallback.Suggest(asked, turned, 100, false) {
			if s.Score != got[i].Score || s.Model != got[i].Model {
				t.Fatalf("%+v, then %+v", got[i], s)
			}
		}
		one := all[0]
		one.Model = id("org/zzz")
		before := 0.0
		if s := fallback.Suggest(asked, []fallback.Facts{one}, 1, false); len(s) == 1 {
			before = s[0].Score
		}
		nearer := one
		switch rapid.IntRange(0, 4).Draw(t, "what") {
		case 0:
			nearer.Parameters = asked.Parameters
		case 1:
			nearer.Bits = asked.Bits
		case 2:
			nearer.Architectures = append(slices.Clone(nearer.Architectures), asked.Architectures...)
		case 3:
			nearer.Library, nearer.License = asked.Library, asked.License
		case 4:
			nearer.Bases = []model.ID{asked.Model}
		}
		after := 0.0
		if s := fallback.Suggest(asked, []fallback.Facts{nearer}, 1, false); len(s) == 1 {
			after = s[0].Score
		}
		if asked.Parameters > 0 && asked.Bits > 0 && after < before-1e-12 {
			t.Fatalf("%v, then %v", before, after)
		}
	})
}

func TestFilesTellWhatAModelIs(t *testing.T) {
	f := fallback.Facts{}.
		FromConfig([]byte(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","quantization_config":{"bits":4}}`)).
		FromCard([]byte("---\npipeline_tag: text-generation\nlibrary_name: transformers\nlicense: mit\nbase_model:\n- acme/base\n- acme/other\n---\n# Model\n")).
		FromSource(model.Card{Task: "another", Bases: []model.ID{id("acme/base"), id("acme/third")}})
	if f.Task != "text-generation" || f.Library != "transformers" || f.License != "mit" || len(f.Bases) != 3 || f.Bits != 4 || !slices.Equal(f.Architectures, []string{"LlamaForCausalLM", "llama"}) {
		t.Errorf("%+v", f)
	}
	if f = f.FromTensors(1000, 2000, "llama"); f.Parameters != 1000 || f.Bits != 16 || len(f.Architectures) != 2 {
		t.Errorf("%+v", f)
	}
	if one := (fallback.Facts{}).FromCard([]byte("---\r\nbase_model: acme/base\r\nlicense: [a]\r\n---\r\n")); len(one.Bases) != 1 || one.License != "" {
		t.Errorf("%+v", one)
	}
}

func FuzzFacts(f *testing.F) {
	f.Add([]byte(`{"architectures":["A"],"quantization_config":{"bits":1e400}}`), "acme/model-7b-q4_k_m")
	f.Add([]byte("---\nbase_model: [a/b, {x: y}]\n---\n"), "https://h/x")
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		facts := fallback.Facts{Model: id(name)}.FromConfig(raw).FromCard(raw).FromName()
		if facts.Parameters < 0 || facts.Bits < 0 || facts.Bits > 64 || len(facts.Architectures) > 20 {
			t.Errorf("%+v", facts)
		}
		other := fallback.Facts{Model: id("acme/other"), Available: true}.FromConfig(raw)
		for _, s := range fallback.Suggest(facts, []fallback.Facts{other}, 1, false) {
			if !(s.Score > 0 && s.Score <= 1) {
				t.Errorf("score %v", s.Score)
			}
		}
	})
}
