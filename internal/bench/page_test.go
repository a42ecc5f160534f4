package bench_test

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"ema/internal/bench"
)

func TestThePageTellsAllAndNeedsNothing(t *testing.T) {
	evil := `<script src="http://evil.test/x.js"></script>"'&`
	a := bench.Assessment{
		Version: evil, Machine: bench.Machine{CPUs: 2, CPUModel: evil, Kernel: evil}, Recommendations: []string{evil},
		Metrics: map[string]bench.Metric{
			"storage.hot.write_direct": bench.MetricOf([]float64{1, 2, 3, 4, 5, 6, 7}, "MB/s", bench.Higher), "system.sha256": bench.MetricOf([]float64{5, 5, 5, 5, 5, 5}, "MB/s", bench.Higher),
			"downloads." + evil: bench.MetricOf([]float64{5}, "s", bench.Lower),
		},
		Noisy: map[string]string{"storage.hot.write_direct": "the machine is too noisy " + evil}, Unknown: map[string]string{"api": "not asked for " + evil},
	}
	a.Unknown["bench"] = "bench is strange " + evil
	a.Unknown["storage.hot."+evil] = evil
	a.Results = bench.Results{
		API:     map[string]*bench.EndpointResult{"/x" + evil: {Average: 5}},
		Storage: []*bench.StorageResult{{Tier: evil, Path: "/models/" + evil, FileSystem: evil}}, System: &bench.SystemResult{Platform: evil},
	}
	a.Comparison = bench.CompareWith(evil, bench.Assessment{Machine: bench.Machine{CPUModel: "Another CPU"}, Metrics: map[string]bench.Metric{"system.sha256": bench.MetricOf([]float64{9, 9, 9}, "MB/s", bench.Higher)}}, a)
	var page bytes.Buffer
	if err := bench.WritePage(&page, a); err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(bytes.NewReader(page.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	pictures, drawn := 0, 0
	for n := range root.Descendants() {
		switch n.Data {
		case "script", "link", "img", "iframe", "object", "base", "form":
			if n.Type == html.ElementNode {
				t.Errorf("there is a %s", n.Data)
			}
		case "svg":
			pictures++
		case "path":
			drawn++
			for _, attribute := range n.Attr {
				if strings.Contains(attribute.Val, "#-") || strings.Contains(attribute.Val, "NaN") {
					t.Errorf("a path has %s=%q", attribute.Key, attribute.Val)
				}
			}
		case "text":
			if n.Type == html.ElementNode && n.FirstChild == nil {
				t.Error("an axis has an empty label")
			}
		}
		for _, attribute := range n.Attr {
			if name := strings.ToLower(attribute.Key); name == "href" || name == "src" || strings.HasPrefix(name, "on") {
				t.Errorf("%s has %s=%q", n.Data, name, attribute.Val)
			}
		}
	}
	if pictures != 3 || drawn < 30 {
		t.Errorf("%d pictures of 3 metrics, with %d strokes", pictures, drawn)
	}
	wellFormed(t, page.String())
	text := page.String()
	for _, want := range []string{"hot.write_direct", "too noisy", "sha256", "44 % worse: was 9", "1 of 1 figures is worse", "9, now -44 %", "average 5 ms", "Another CPU", "bench is strange", "/models/&lt;script", "not asked for", "± 75.0 %"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	// The only address is the one in what is evil, as text.
	if found := regexp.MustCompile(`(?i)@import|url\(|https?://`).FindAllString(strings.ReplaceAll(text, "http://evil.test/x.js", ""), -1); len(found) > 0 {
		t.Errorf("it asks for %q", found)
	}
}

// wellFormed fails when a tag is not closed where it should be. Browsers would mend that, each in its way.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	var open []string
	for z := html.NewTokenizer(strings.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("never closed: %v", open)
			}
			return
		case html.StartTagToken:
			if name, _ := z.TagName(); !slices.Contains([]string{"meta", "br"}, string(name)) {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				t.Fatalf("%s is closed, and open are %v", name, open)
			}
			open = open[:len(open)-1]
		}
	}
}

func TestAPlotIsOfNumbersAlone(t *testing.T) {
	for _, samples := range [][]float64{{0}, {1e-9, 1e12}, {-1, 1}, {5, 5, 5}} {
		var page bytes.Buffer
		a := bench.Assessment{Metrics: map[string]bench.Metric{"system.x": bench.MetricOf(samples, "s", bench.Lower)}}
		a.Comparison = bench.CompareWith("b", a, a)
		if err := bench.WritePage(&page, a); err != nil || strings.Contains(page.String(), "NaN") || !strings.Contains(page.String(), "<path") {
			t.Errorf("%v: %v", samples, err)
		}
	}
}
