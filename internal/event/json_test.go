package event

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"ema/internal/model"
)

func TestEveryEventReadsBackFromJSONAsItWas(t *testing.T) {
	at := time.Date(2026, 3, 29, 1, 59, 59, 5000, time.UTC)
	id := model.ID{Name: "org/name"}
	for form, e := range map[string]Event{
		`{"seq":1,"at":"2026-03-29T01:59:59.000005Z","kind":"progress","download":"dl_1","model":"org/name","data":{"state":"downloading","done_bytes":5,"total_bytes":10,"bytes_per_second":2.5,"eta_seconds":2,"connections":3,"note":"slow"}}`: {
			1, at, KindProgress, "dl_1", id,
			Progress{State: model.Downloading, Done: 5, Total: 10, Rate: 2.5, ETA: 2 * time.Second, Connections: 3, Note: "slow"},
		},
		`{"seq":2,"at":"2026-03-29T01:59:59.000005Z","kind":"state","download":"dl_1","model":"org/name","data":{"from":"downloading","to":"retrying","reason":"no answer","next_try":"2026-03-29T01:59:59.000005Z"}}`: {
			2, at, KindState, "dl_1", id, Change{model.Downloading, model.Retrying, "no answer", at},
		},
		`{"seq":3,"at":"2026-03-29T01:59:59.000005Z","kind":"state","data":{"from":"queued","to":"paused"}}`: {
			3, at, KindState, "", model.ID{}, Change{From: model.Queued, To: model.Paused},
		},
		`{"seq":4,"at":"2026-03-29T01:59:59.000005Z","kind":"retry","data":{"host":"h","class":"rate_limited","error":"429","wait_seconds":1.5}}`: {
			4, at, KindRetry, "", model.ID{}, Retry{"h", model.RateLimited, "429", 1500 * time.Millisecond},
		},
		`{"seq":5,"at":"2026-03-29T01:59:59.000005Z","kind":"limit","data":{"bytes_per_second":1048576,"why":"off hours"}}`: {
			5, at, KindLimit, "", model.ID{}, Limit{model.MiB, "off hours"},
		},
		`{"seq":6,"at":"2026-03-29T01:59:59.000005Z","kind":"space","data":{"short_bytes":7,"reason":"7 B are missing"}}`: {
			6, at, KindSpace, "", model.ID{}, Space{7, "7 B are missing"},
		},
		`{"seq":8,"at":"2026-03-29T01:59:59.000005Z","kind":"stored","model":"org/name","data":{"why":"removed"}}`: {
			8, at, KindStored, "", id, Stored{"removed"},
		},
		`{"seq":9,"at":"2026-03-29T01:59:59.000005Z","kind":"move","model":"org/name","data":{"from":"hot","to":"cold","done_bytes":5,"total_bytes":10,"state":"failed","error":"cold is full"}}`: {
			9, at, KindMove, "", id, Move{model.Hot, model.Cold, 5, 10, MoveFailed, "cold is full"},
		},
		`{"seq":10,"at":"2026-03-29T01:59:59.000005Z","kind":"move","model":"org/name","data":{"from":"warm","to":"hot","done_bytes":10,"total_bytes":10,"state":"done"}}`: {
			10, at, KindMove, "", id, Move{From: model.Warm, To: model.Hot, Done: 10, Total: 10, State: MoveDone},
		},
		`{"seq":11,"at":"2026-03-29T01:59:59.000005Z","kind":"tier","data":{"tier":"cold","state":"missing","problem":"mount it"}}`: {
			11, at, KindTier, "", model.ID{}, Tier{model.Cold, "missing", "mount it"},
		},
		`{"seq":12,"at":"2026-03-29T01:59:59.000005Z","kind":"bench","data":{"id":"bm_1","state":"running","suite":"api","step":"api: /x","part":0.5,"elapsed_seconds":2,"left_seconds":1.5}}`: {
			12, at, KindBench, "", model.ID{}, Benchmark{ID: "bm_1", State: BenchmarkRunning, Suite: "api", Step: "api: /x", Part: 0.5, Took: 2 * time.Second, Left: 1500 * time.Millisecond},
		},
		`{"seq":7,"at":"2026-03-29T01:59:59.000005Z","kind":"newer","data":{"a":1}}`: {
			7, at, "newer", "", model.ID{}, json.RawMessage(`{"a":1}`),
		},
	} {
		b, err := json.Marshal(e)
		if err != nil || string(b) != form {
			t.Errorf("event %d is\n%s, want\n%s (%v)", e.Seq, b, form, err)
		}
		var back Event
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, e) {
			t.Errorf("event %d came back as %+v (%v), want %+v", e.Seq, back, err, e)
		}
	}
}

func TestEveryClassOfErrorSurvivesTheWire(t *testing.T) {
	for c := model.Other; c <= model.Offline; c++ {
		if got := parseClass(c.String()); got != c {
			t.Errorf("%v came back as %v", c, got)
		}
	}
	if got := parseClass("of a newer version"); got != model.Other {
		t.Errorf("an unknown class came back as %v", got)
	}
}

func TestTheSecretOfASignedLinkStaysOutOfJSON(t *testing.T) {
	e := Event{Kind: KindState, Model: model.ID{Scheme: model.HTTPS, Name: "https://host.example/f?sig=secret"}, Data: Change{}}
	b, err := json.Marshal(e)
	if err != nil || strings.Contains(string(b), "secret") {
		t.Errorf("%s (%v)", b, err)
	}
}

func TestBrokenEventsAreRefusedAndChangeNothing(t *testing.T) {
	e := Event{Seq: 9}
	for _, broken := range []string{`{`, `[]`, `{"seq":-1}`, `{"seq":1,"kind":"limit","data":"fast"}`, `{"seq":1,"model":"a b c"}`} {
		if err := json.Unmarshal([]byte(broken), &e); err == nil || e.Seq != 9 {
			t.Errorf("%s: %v, event is now %+v", broken, err, e)
		}
	}
}
