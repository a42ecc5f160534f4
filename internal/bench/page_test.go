package bench_test

import (
	"bytes"
	"regexp"
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
	a.Comparison = bench.CompareWith(evil, bench.Assessment{Metrics: map[string]bench.Metric{"system.sha256": bench.MetricOf([]float64{9, 9, 9}, "MB/s", bench.Higher)}}, a)
	var page bytes.Buffer
	if err := bench.WritePage(&page, a); err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(bytes.NewReader(page.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	pictures := 0
	for n := range root.Descendants() {
		switch n.Data {
		case "script", "link", "img", "iframe", "object", "base", "form":
			if n.Type == html.ElementNode {
				t.Errorf("there is a %s", n.Data)
			}
		case "svg":
			pictures++
		}
		for _, attribute := range n.Attr {
			if name := strings.ToLower(attribute.Key); name == "href" || name == "src" || strings.HasPrefix(name, "on") {
				t.Errorf("%s has %s=%q", n.Data, name, attribute.Val)
			}
		}
	}
	if pictures != 3 {
		t.Errorf("%d pictures of 3 metrics", pictures)
	}
	text := page.String()
	for _, want := range []string{"hot.write_direct", "too noisy", "sha256", "44 % worse: was 9", "1 of 1 figures are worse", "not asked for", "± 75.0 %"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if found := regexp.MustCompile(`(?i)@import|url\(|https?://[^"]*evil\.test[^&]*"\s*>`).FindString(text); found != "" {
		t.Errorf("it asks for %q", found)
	}
}
