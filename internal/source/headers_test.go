package source

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ema/internal/model"
)

func TestParseContentRange(t *testing.T) {
	for h, want := range map[string]contentRange{
		"bytes 0-0/1":                    {model.Segment{Start: 0, End: 1}, 1},
		"bytes 5-9/100":                  {model.Segment{Start: 5, End: 10}, 100},
		"bytes 0-99/100":                 {model.Segment{Start: 0, End: 100}, 100},
		"bytes 0-9/*":                    {},
		"bytes */100":                    {},
		"bytes 9-5/100":                  {},
		"bytes 0-100/100":                {},
		"bytes=0-9/100":                  {},
		"bytes 0-9":                      {},
		"bytes -9/100":                   {},
		"bytes 0-/100":                   {},
		"bytes +1-9/100":                 {},
		"bytes 0-9/1_00":                 {},
		"bytes 0 - 9/100":                {},
		"items 0-9/100":                  {},
		"BYTES 0-9/100":                  {},
		"":                               {},
		"bytes 0-9/100, x":               {},
		"bytes 0-9/99999999999999999999": {},
		"bytes 9223372036854775806-9223372036854775807/9223372036854775807": {},
	} {
		got, err := parseContentRange(h)
		if got != want || (err == nil) != (want.total > 0) {
			t.Errorf("%q = %+v, %v; want %+v", h, got, err, want)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-9/100")
	f.Add("bytes */100")
	f.Fuzz(func(t *testing.T, h string) {
		r, err := parseContentRange(h)
		if err != nil {
			return
		}
		if r.covers.Start < 0 || r.covers.Len() < 1 || r.covers.End > r.total {
			t.Fatalf("%q = %+v", h, r)
		}
		again, err := parseContentRange(fmt.Sprintf("bytes %d-%d/%d", r.covers.Start, r.covers.End-1, r.total))
		if err != nil || again != r {
			t.Fatalf("%q = %+v, but written again %+v, %v", h, r, again, err)
		}
	})
}

func TestNextLink(t *testing.T) {
	for h, want := range map[string]string{
		`<https://hub.test/a?x=1>; rel="next"`:                       "https://hub.test/a?x=1",
		`</a?cursor=b>; rel=next`:                                    "/a?cursor=b",
		`<https://hub.test/a,b;c>; rel="next"`:                       "https://hub.test/a,b;c",
		`<a>; rel="prev", <b>; rel="next"`:                           "b",
		`<a>; title="x, <c>; rel=next"; rel="prev", <b>; rel="next"`: "b",
		`<a>; title="say \"rel=next\""; REL="last Next"`:             "a",
		`<a>;rel="xet-auth",<b>;rel="xet-reconstruction-info"`:       "",
		`<a>; rel="prev"; rel="next"`:                                "",
		`<a; rel="next"`:                                             "",
		`a; rel="next"`:                                              "",
		`<>; rel="next"`:                                             "",
		`<a>`:                                                        "",
		``:                                                           "",
	} {
		if got := nextLink([]string{`<z>; rel="first"`, h}); got != want {
			t.Errorf("%s = %q, want %q", h, got, want)
		}
	}
}

func FuzzNextLink(f *testing.F) {
	f.Add(`<https://hub.test/a?x=1>; rel="next"`, `<a>; title="\"x, <c>"; rel="prev"`)
	f.Fuzz(func(t *testing.T, one, two string) {
		if got := nextLink([]string{one, two}); got != "" && !strings.Contains(one, got) && !strings.Contains(two, got) {
			t.Fatalf("%q came from nowhere", got)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 8, 20, 12, 0, 0, 0, time.UTC)
	for promise, c := range map[string]struct {
		limit, after string
		want         time.Duration
	}{
		"no wish":                               {"", "", 0},
		"the reset of an exhausted quota":       {`"resolvers";r=0;t=214`, "", 215 * time.Second},
		"quota left is no wish":                 {`"resolvers";r=12;t=214`, "", 0},
		"quota left, but Retry-After":           {`"resolvers";r=12;t=214`, "3", 3 * time.Second},
		"the longest of several":                {`"api";r=0;t=5, "resolvers";r=0;t=9, "pages";r=1;t=99`, "", 10 * time.Second},
		"blanks between parameters":             {`"api"; r=0; t=5`, "", 6 * time.Second},
		"seconds":                               {"", "120", 2 * time.Minute},
		"a date":                                {"", "Thu, 20 Aug 2026 12:01:30 GMT", 90 * time.Second},
		"a date in the past":                    {"", "Thu, 20 Aug 2026 11:00:00 GMT", 0},
		"negative seconds":                      {"", "-5", 0},
		"nonsense":                              {`r=0`, "soon", 0},
		"a week is cut to a day":                {"", "604800", 24 * time.Hour},
		"a reset beyond all numbers is no wish": {`"api";r=0;t=99999999999999999999`, "", 0},
		"a far reset is cut to a day":           {`"api";r=0;t=9223372036854775807`, "", 24 * time.Hour},
	} {
		h := http.Header{}
		if c.limit != "" {
			h.Set("RateLimit", c.limit)
		}
		if c.after != "" {
			h.Set("Retry-After", c.after)
		}
		if got := retryAfter(h, now); got != c.want {
			t.Errorf("%s: %v, want %v", promise, got, c.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add(`"resolvers";r=0;t=214`, "120")
	f.Add(`"a";r=0;t=1,"b";r=0`, "Thu, 20 Aug 2026 12:01:30 GMT")
	f.Fuzz(func(t *testing.T, limit, after string) {
		h := http.Header{"Ratelimit": {limit}, "Retry-After": {after}}
		if d := retryAfter(h, time.Unix(0, 0)); d < 0 || d > maxAfter {
			t.Fatalf("a wish of %v", d)
		}
	})
}
