package source

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// A host that says how many requests it still takes never has to refuse one: at the end of what it takes,
// all wait until it begins anew.
func TestNobodyAsksForMoreThanAHostSaysItTakes(t *testing.T) {
	const callers, files, quota, window = 8, 200, 20, time.Minute
	var parts []demohub.Part
	for i := range files {
		parts = append(parts, demohub.File(fmt.Sprintf("%03d.bin", i), 10))
	}
	onStage(t, Settings{MaxConnsPerHost: callers}, func(t *testing.T, s *stage) {
		m, err := s.source.Resolve(t.Context(), model.ID{Scheme: model.Hub, Name: "acme/many"}, "main")
		if err != nil {
			t.Fatal(err)
		}
		var done sync.WaitGroup
		for i := range callers {
			done.Go(func() {
				for k := i; k < files; k += callers {
					body, err := s.source.Open(t.Context(), m, m.Files[k], model.Segment{End: 10})
					if err != nil {
						t.Errorf("open %s: %v", m.Files[k].Path, err)
						return
					}
					body.Close()
				}
			})
		}
		done.Wait()
		if stats := s.hub.Stats(); stats.Limited != 0 {
			t.Errorf("%d requests were refused", stats.Limited)
		}
	}, demohub.Repo("acme/many", parts...), demohub.ResolveQuota(quota, window))
}

func TestAQuotaHoldsBackWhatWouldBeRefused(t *testing.T) {
	now := time.Unix(1e9, 0)
	says := func(h string) http.Header { return http.Header{"Ratelimit": {h}} }
	for promise, c := range map[string]struct {
		quota  quota
		answer string
		want   time.Duration
	}{
		"nothing known, nothing held":           {quota{}, "", 0},
		"some left":                             {quota{asked: 2}, `"resolvers";r=3;t=60`, 0},
		"those on their way count":              {quota{asked: 3}, `"resolvers";r=3;t=60`, 61 * time.Second},
		"none left":                             {quota{}, `"resolvers";r=0;t=60`, 61 * time.Second},
		"the tightest of several":               {quota{}, `"api";r=9;t=5, "resolvers";r=0;t=60`, 61 * time.Second},
		"a late answer of this window":          {quota{left: 0, until: now.Add(60 * time.Second)}, `"resolvers";r=4;t=60`, 61 * time.Second},
		"a new window":                          {quota{left: 0, until: now.Add(time.Second)}, `"resolvers";r=4;t=60`, 0},
		"longer than anybody is held, is asked": {quota{}, `"resolvers";r=0;t=3600`, 0},
		"what makes no sense says nothing":      {quota{}, `"resolvers";r=-1;t=x`, 0},
	} {
		q := c.quota
		q.heard(says(c.answer), now)
		if got := q.spent(now); got != c.want {
			t.Errorf("%s: held for %v, want %v", promise, got, c.want)
		}
	}
}

func FuzzRateLimit(f *testing.F) {
	for _, h := range []string{`"api";r=3;t=214`, `"a";r=0;t=1,"b";r=2;t=3`, ";;=,r=", `r=99999999999999999999;t=1`} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, h string) {
		left, reset, ok := rateLimit(h)
		if left < 0 || reset < 0 || reset > maxAfter+time.Second || !ok && (left != 0 || reset != 0) {
			t.Errorf("%q: %d left for %v, %v", h, left, reset, ok)
		}
		q := quota{asked: rand.Int64N(3)}
		q.heard(http.Header{"Ratelimit": {h}}, time.Unix(1e9, 0))
		if wait := q.spent(time.Unix(1e9, 0)); wait < 0 || wait > maxHold {
			t.Errorf("%q holds for %v", h, wait)
		}
	})
}
