// Package fallback finds models that could stand in for one that is not available, by what is known of all of them on this
// machine. It reads nothing itself but what facts.go is given.
//
// A candidate's score is the sum of its points, from 0 to 1. What is not known of either model gives none:
//
//	0.25  descent       one was made from the other, or both from the same; 0.6 of it when only their names have a base in common
//	0.25  architecture  the same: "LlamaForCausalLM", "llama"
//	0.20  parameters    all of it when there are as many, nothing when there are eight times as many or an eighth
//	0.10  precision     bits per parameter, in the same way: a quantised model is nearer to another quantised one
//	0.10  name          the part of the words of both names that they share
//	0.05  library       the same
//	0.05  licence       the same
//
// A model for another task, as far as both are known, is never suggested, and nor is one that would be slower to have.
package fallback

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"ema/internal/model"
)

// Facts are what is known of a model; zero values are what is not.
type Facts struct {
	Model         model.ID
	Task          string // such as "text-generation"
	Library       string
	License       string
	Architectures []string // as configurations and files name them
	Bases         []model.ID
	Parameters    float64 // numbers in its tensors
	Bits          float64 // of each, on average
	Size          model.Bytes
	// Available says that it is here as a whole; else Wait is how long that will take, and nil when nobody can tell.
	Available bool
	Wait      *time.Duration
}

// A Suggestion is a model that could stand in.
type Suggestion struct {
	Facts
	Score   float64
	Reasons []string // in words, what they have in common; what speaks most for it comes first
}

// The points.
const (
	descent      = 0.25
	architecture = 0.25
	parameters   = 0.20
	precision    = 0.10
	naming       = 0.10
	library      = 0.05
	license      = 0.05

	akin = 0.6 // of descent, when only names tell
)

// Suggest are the models that could stand in for one, the best first, at most so many. Those that are not available come only
// when all is set, and after those that are.
func Suggest(asked Facts, all []Facts, most int, alsoAway bool) []Suggestion {
	found := []Suggestion{}
	for _, c := range all {
		if c.Model == asked.Model || asked.Task != "" && c.Task != "" && asked.Task != c.Task || !c.Available && (!alsoAway || !sooner(c, asked)) {
			continue
		}
		if s := score(asked, c); s.Score > 0 {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b Suggestion) int {
		return cmp.Or(cmp.Compare(word(b.Available), word(a.Available)), cmp.Compare(b.Score, a.Score), cmp.Compare(a.Model.Name, b.Model.Name), cmp.Compare(a.Model.Scheme, b.Model.Scheme))
	})
	return found[:min(len(found), most)]
}

func word(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// sooner reports whether a candidate will be here before the model that is asked for.
func sooner(c, asked Facts) bool {
	return c.Wait != nil && (asked.Wait == nil || *c.Wait < *asked.Wait)
}

// score compares two models.
func score(asked, c Facts) Suggestion {
	s := Suggestion{Facts: c, Reasons: []string{}}
	type point struct {
		worth  float64
		reason string
	}
	var points []point
	add := func(weight, part float64, form string, values ...any) {
		if part > 0 {
			points = append(points, point{weight * part, fmt.Sprintf(form, values...)})
		}
	}
	part, why := related(asked, c)
	add(descent, part, "%s", why)
	if same := shared(asked.Architectures, c.Architectures); same != "" {
		add(architecture, 1, "the same architecture, %s", same)
	}
	add(parameters, near(asked.Parameters, c.Parameters), "%s parameters instead of %s", many(c.Parameters), many(asked.Parameters))
	add(precision, near(asked.Bits, c.Bits), "%.1f bits per parameter instead of %.1f", c.Bits, asked.Bits)
	add(naming, likeness(asked.Model.Name, c.Model.Name), "their names have words in common")
	if asked.Library != "" && asked.Library == c.Library {
		add(library, 1, "the same library, %s", c.Library)
	}
	if asked.License != "" && asked.License == c.License {
		add(license, 1, "the same licence, %s", c.License)
	}
	slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(b.worth, a.worth) })
	for _, p := range points {
		s.Score += p.worth
		s.Reasons = append(s.Reasons, p.reason)
	}
	s.Score = min(s.Score, 1)
	return s
}

// related is how far two models are of one descent, and why.
func related(a, b Facts) (float64, string) {
	if slices.Contains(a.Bases, b.Model) {
		return 1, "it is what the other was made from"
	}
	if slices.Contains(b.Bases, a.Model) {
		return 1, "it was made from the other"
	}
	for _, base := range a.Bases {
		if slices.Contains(b.Bases, base) {
			return 1, "both were made from " + base.Public()
		}
	}
	if x, y := family(a.Model.Name), family(b.Model.Name); x != "" && x == y {
		return akin, "by their names they are of one family, " + x
	}
	return 0, ""
}

// near is 1 for equal figures, falling evenly with their ratio to 0 where one is eight times the other; 0 when either is not known.
func near(a, b float64) float64 {
	if a <= 0 || b <= 0 {
		return 0
	}
	return max(0, 1-math.Abs(math.Log2(a/b))/3)
}

// shared is the first word of a that b has too, whatever its case; "" when there is none.
func shared(a, b []string) string {
	for _, x := range a {
		for _, y := range b {
			if strings.EqualFold(x, y) {
				return x
			}
		}
	}
	return ""
}

// many is a number of parameters as people write it.
func many(n float64) string {
	for _, unit := range []struct {
		is   float64
		name string
	}{{1e12, "T"}, {1e9, "B"}, {1e6, "M"}} {
		if n >= unit.is {
			return fmt.Sprintf("%.3g%s", n/unit.is, unit.name)
		}
	}
	return fmt.Sprintf("%.0f", n)
}

// Words are the words of a model's name, without its owner: "tiny", "llama", "1.1b", "chat".
func Words(name string) []string {
	if _, after, ok := strings.Cut(name, "/"); ok {
		name = after
	}
	return strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-_ /", r) })
}

// family is the first word of a name, without a version at its end; "" when that is too short to mean anything.
func family(name string) string {
	all := Words(name)
	if len(all) == 0 {
		return ""
	}
	if f := strings.TrimRight(all[0], "0123456789."); len(f) >= 3 {
		return f
	}
	return ""
}

// likeness is the part of the words of two names that both have.
func likeness(a, b string) float64 {
	x, y := Words(a), Words(b)
	both, all := 0, len(y)
	for _, w := range x {
		if slices.Contains(y, w) {
			both++
		} else {
			all++
		}
	}
	if all == 0 {
		return 0
	}
	return min(float64(both)/float64(all), 1)
}

// FromName adds what a model's name tells of it, where nothing better is known: "7b" are seven billion parameters, "q4_k_m" and
// "int8" are four and eight bits.
func (f Facts) FromName() Facts {
	words := Words(f.Model.Name)
	for _, w := range slices.Concat(words, strings.Split(strings.ReplaceAll(strings.Join(words, "-"), ".", "-"), "-")) {
		if n := sizeOf(w); n > 0 && f.Parameters == 0 {
			f.Parameters = n
		}
		if b := bitsOf(w); b > 0 && f.Bits == 0 {
			f.Bits = b
		}
	}
	return f
}

// sizeOf is a number of parameters such as "7b", "1.1b", "135m"; 0 when a word is none.
func sizeOf(w string) float64 {
	unit := map[byte]float64{'m': 1e6, 'b': 1e9, 't': 1e12}
	if len(w) < 2 || unit[w[len(w)-1]] == 0 {
		return 0
	}
	var n float64
	var rest string
	if k, _ := fmt.Sscanf(w[:len(w)-1], "%f%s", &n, &rest); k != 1 || n <= 0 || n > 1e5 || strings.ContainsAny(w, "einx+p_") { //nolint:errcheck // k says how much was read
		return 0
	}
	return n * unit[w[len(w)-1]]
}

// bitsOf is how many bits a word says that parameters have; 0 when it says nothing.
func bitsOf(w string) float64 {
	switch w {
	case "fp32", "f32", "float32":
		return 32
	case "fp16", "f16", "bf16", "float16":
		return 16
	case "int8", "w8a8", "fp8", "8bit":
		return 8
	case "int4", "w4a16", "4bit", "awq", "gptq", "nf4", "fp4":
		return 4
	}
	if len(w) >= 2 && w[0] == 'q' && w[1] >= '1' && w[1] <= '8' && (len(w) == 2 || w[2] == '_') {
		return float64(w[1] - '0')
	}
	return 0
}
