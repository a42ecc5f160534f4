package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"pgregory.net/rapid"

	"ema/internal/demohub"
	"ema/internal/event"
	"ema/internal/model"
)

// A house is a hub behind an HTTP server. In a synctest bubble it is reached over pipes, which hold nothing: a client that does
// not read stops the writer at once.
type house struct {
	*Hub
	bus    *event.Bus
	dialer *websocket.DialOptions
	url    string
	stop   func() // ends Run and waits for it
}

// build makes a house, in a bubble, for as long as cleanup, t.Cleanup or the like, lets it.
func build(cleanup func(func()), s Settings) *house {
	h := &house{bus: event.New(0), url: "ws://ema/ws"}
	h.Hub = New(h.bus, s)
	l := demohub.NewPipeListener()
	transport := &http.Transport{DialContext: l.Dial}
	h.dialer = &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = srv.Serve(l) })
	ctx, cancel := context.WithCancel(context.Background())
	running.Go(func() { _ = h.Run(ctx) })
	h.stop = sync.OnceFunc(func() {
		cancel()
		transport.CloseIdleConnections()
		_ = srv.Shutdown(context.Background())
		running.Wait()
	})
	cleanup(h.stop)
	synctest.Wait() // the hub listens now
	return h
}

// A fatal is a test that can be ended.
type fatal interface {
	Helper()
	Fatalf(string, ...any)
}

// A reader is a client.
type reader struct {
	t    fatal
	conn *websocket.Conn
	last uint64
	over func()
}

func (h *house) connect(t fatal, query string) *reader {
	t.Helper()
	conn, res, err := websocket.Dial(context.Background(), h.url+"?"+query, h.dialer)
	if err != nil {
		t.Fatalf("connect with %q: %v (%v)", query, err, res)
	}
	conn.SetReadLimit(-1)
	return &reader{t: t, conn: conn, over: func() { _ = conn.CloseNow() }}
}

func (h *house) client(t *testing.T, query string) *reader {
	t.Helper()
	r := h.connect(t, query)
	t.Cleanup(r.over)
	return r
}

type told struct {
	Type     string    `json:"type"`
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"timestamp"`
	Model    string    `json:"model_id"`
	Download string    `json:"download_id"`
	Old      string    `json:"old_status"`
	New      string    `json:"new_status"`
	Done     int64     `json:"downloaded_bytes"`
	State    string    `json:"state"`
	Bench    string    `json:"benchmark_id"`
	Status   string    `json:"status"`
}

func (m told) String() string {
	switch m.Type {
	case downloadProgress:
		return fmt.Sprintf("%s:%d", m.Download, m.Done)
	case availabilityChange:
		return m.Download + ":" + m.New
	case benchmarkProgress:
		return m.Bench + ":" + m.Status
	case storageMove:
		return m.Model + ":" + m.State
	}
	return m.Type
}

// read is the next batch, or the error of the connection.
func (r *reader) read() ([]told, error) {
	r.t.Helper()
	kind, text, err := r.conn.Read(context.Background())
	if err != nil {
		return nil, err
	}
	var b struct {
		Type     string
		Messages []told
	}
	if err := json.Unmarshal(text, &b); err != nil || kind != websocket.MessageText || b.Type != "batch" || len(b.Messages) == 0 {
		r.t.Fatalf("%v message %s: %v, want a batch", kind, text, err)
	}
	for _, m := range b.Messages {
		if m.Seq <= r.last || m.At.IsZero() {
			r.t.Fatalf("message %d at %v comes after %d", m.Seq, m.At, r.last)
		}
		r.last = m.Seq
	}
	return b.Messages, nil
}

func (r *reader) batch() []told {
	r.t.Helper()
	b, err := r.read()
	if err != nil {
		r.t.Fatalf("read: %v", err)
	}
	return b
}

// wants reads batches of these messages.
func (r *reader) wants(batches ...string) {
	r.t.Helper()
	for i, want := range batches {
		if got := fmt.Sprint(r.batch()); got != "["+want+"]" {
			r.t.Fatalf("batch %d is %s, want [%s]", i, got, want)
		}
	}
}

// rest reads until the end, and returns its code.
func (r *reader) rest() (all []told, code websocket.StatusCode) {
	r.t.Helper()
	for {
		b, err := r.read()
		if err != nil {
			return all, websocket.CloseStatus(err)
		}
		all = append(all, b...)
	}
}

func progress(download string, done model.Bytes) event.Event {
	return event.Event{
		Kind: event.KindProgress, Download: download, Model: model.ID{Name: "org/" + download},
		Data: event.Progress{State: model.Downloading, Done: done, Total: 1000},
	}
}

func change(download string, to model.State) event.Event {
	return event.Event{Kind: event.KindState, Download: download, Model: model.ID{Name: "org/" + download}, Data: event.Change{To: to}}
}

// bubble runs f where time is fake.
func bubble(t *testing.T, s Settings, f func(t *testing.T, h *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, build(t.Cleanup, s))
		synctest.Wait()
	})
}

func TestEveryKindOfEventHasItsMessage(t *testing.T) {
	at := time.Date(2026, 3, 29, 1, 59, 59, 0, time.UTC)
	id := model.ID{Name: "org/name"}
	for want, e := range map[string]event.Event{
		`{"type":"model_download_progress","seq":1,"timestamp":"2026-03-29T01:59:59Z","model_id":"org/name","download_id":"dl_1","status":"VERIFYING","progress_percent":66.6,"speed_mbps":2.5,"eta_seconds":1.5,"downloaded_bytes":2,"total_bytes":3,"connections":4,"note":"n"}`: {
			Kind: event.KindProgress, Model: id, Download: "dl_1",
			Data: event.Progress{State: model.Verifying, Done: 2, Total: 3, Rate: 2.5 * float64(model.MiB), ETA: 1500 * time.Millisecond, Connections: 4, Note: "n"},
		},
		`{"type":"model_download_progress","seq":1,"timestamp":"2026-03-29T01:59:59Z","model_id":"org/name","download_id":"dl_1","status":"RESOLVING","progress_percent":0,"speed_mbps":0,"eta_seconds":null,"downloaded_bytes":0,"total_bytes":0,"connections":0}`: {
			Kind: event.KindProgress, Model: id, Download: "dl_1", Data: event.Progress{State: model.Resolving, Rate: nan()},
		},
		`{"type":"model_availability_change","seq":1,"timestamp":"2026-03-29T01:59:59Z","model_id":"org/name","download_id":"dl_1","old_status":"DOWNLOADING","new_status":"QUEUED","old_download_status":"DOWNLOADING","new_download_status":"RETRYING","reason":"no answer","next_try":"2026-03-29T01:59:59Z"}`: {
			Kind: event.KindState, Model: id, Download: "dl_1", Data: event.Change{From: model.Downloading, To: model.Retrying, Reason: "no answer", NextTry: at},
		},
		`{"type":"model_availability_change","seq":1,"timestamp":"2026-03-29T01:59:59Z","model_id":"https://host.example/f","old_status":"MISSING","new_status":"QUEUED","new_download_status":"QUEUED"}`: {
			Kind: event.KindState, Model: model.ID{Scheme: model.HTTPS, Name: "https://host.example/f?sig=secret"}, Data: event.Change{To: model.Queued},
		},
		`{"type":"storage_alert","seq":1,"timestamp":"2026-03-29T01:59:59Z","alert_type":"space","severity":"critical","message":"7 B are missing","short_bytes":7}`: {
			Kind: event.KindSpace, Data: event.Space{Short: 7, Reason: "7 B are missing"},
		},
		`{"type":"storage_alert","seq":1,"timestamp":"2026-03-29T01:59:59Z","alert_type":"tier_missing","severity":"critical","message":"/cold is not there","short_bytes":0,"tier":"cold"}`: {
			Kind: event.KindTier, Data: event.Tier{Tier: model.Cold, State: "missing", Problem: "/cold is not there"},
		},
		`{"type":"storage_alert","seq":1,"timestamp":"2026-03-29T01:59:59Z","alert_type":"tier_full","severity":"warning","message":"/warm has 1 B left","short_bytes":0,"tier":"warm"}`: {
			Kind: event.KindTier, Data: event.Tier{Tier: model.Warm, State: "full", Problem: "/warm has 1 B left"},
		},
		`{"type":"storage_alert","seq":1,"timestamp":"2026-03-29T01:59:59Z","alert_type":"tier_ready","severity":"info","message":"the cold tier is ready again","short_bytes":0,"tier":"cold"}`: {
			Kind: event.KindTier, Data: event.Tier{Tier: model.Cold, State: "ready"},
		},
		`{"type":"model_storage_move","seq":1,"timestamp":"2026-03-29T01:59:59Z","model_id":"org/name","from":"hot","to":"cold","state":"moving","progress_percent":66.6,"moved_bytes":2,"total_bytes":3}`: {
			Kind: event.KindMove, Model: id, Data: event.Move{From: model.Hot, To: model.Cold, Done: 2, Total: 3, State: event.MoveMoving},
		},
		`{"type":"benchmark_progress","seq":1,"timestamp":"2026-03-29T01:59:59Z","benchmark_id":"bm_1","status":"running","suite":"api","step":"api: /x","progress_percent":66.6,"elapsed_seconds":2,"eta_seconds":1.5}`: {
			Kind: event.KindBench, Data: event.Benchmark{ID: "bm_1", State: event.BenchmarkRunning, Suite: "api", Step: "api: /x", Part: 0.6666, Took: 2 * time.Second, Left: 1500 * time.Millisecond},
		},
		`{"type":"benchmark_progress","seq":1,"timestamp":"2026-03-29T01:59:59Z","benchmark_id":"bm_1","status":"failed","progress_percent":66.6,"elapsed_seconds":2,"eta_seconds":null,"error_message":"no"}`: {
			Kind: event.KindBench, Data: event.Benchmark{ID: "bm_1", State: event.BenchmarkFailed, Part: 0.6666, Took: 2 * time.Second, Error: "no"},
		},
		`{"type":"model_storage_move","seq":1,"timestamp":"2026-03-29T01:59:59Z","model_id":"org/name","from":"cold","to":"hot","state":"failed","progress_percent":0,"moved_bytes":0,"total_bytes":3,"error_message":"the disk is gone"}`: {
			Kind: event.KindMove, Model: id, Data: event.Move{From: model.Cold, To: model.Hot, Total: 3, State: event.MoveFailed, Error: "the disk is gone"},
		},
		`{"type":"download_retry","seq":1,"timestamp":"2026-03-29T01:59:59Z","host":"h","error_class":"rate_limited","error_message":"429","wait_seconds":1.5}`: {
			Kind: event.KindRetry, Data: event.Retry{Host: "h", Class: model.RateLimited, Error: "429", Wait: 1500 * time.Millisecond},
		},
		`{"type":"bandwidth_limit","seq":1,"timestamp":"2026-03-29T01:59:59Z","bandwidth_limit_mbps":0.5,"reason":"night"}`: {
			Kind: event.KindLimit, Data: event.Limit{Rate: model.MiB / 2, Why: "night"},
		},
	} {
		e.Seq, e.At = 1, at
		m, err := encode(e)
		if err != nil || m == nil || string(m.json) != want {
			t.Errorf("%v\nis %s, want\n   %s", err, m.json, want)
			continue
		}
		moving, _ := e.Data.(event.Move)
		measuring, _ := e.Data.(event.Benchmark)
		if !slices.Contains(types(), m.kind) || m.fleeting != (e.Kind == event.KindProgress || moving.State == event.MoveMoving || measuring.State == event.BenchmarkRunning) {
			t.Errorf("%s: fleeting is %t, known are %v", m.kind, m.fleeting, types())
		}
	}
}

func TestProgressOfABenchmarkReplacesItsOwnAndNothingElse(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		c := h.client(t, "types=benchmark_progress,model_download_progress")
		measure := func(state string) {
			h.bus.Tell(event.Event{Kind: event.KindBench, Data: event.Benchmark{ID: "bm_1", State: state}})
		}
		measure(event.BenchmarkRunning)
		h.bus.Tell(progress("", 1)) // of no download, as benchmarks are
		measure(event.BenchmarkRunning)
		measure(event.BenchmarkCompleted)
		c.wants(":1 bm_1:running bm_1:completed")
	})
}

func TestProgressOfAMoveReplacesItsOwnAndNothingElse(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		c := h.client(t, "types=model_storage_move,model_download_progress")
		move := func(name, state string, done model.Bytes) {
			h.bus.Tell(event.Event{Kind: event.KindMove, Model: model.ID{Name: name}, Data: event.Move{From: model.Hot, To: model.Cold, Done: done, Total: 9, State: state}})
		}
		move("org/a", event.MoveWaiting, 0)
		move("org/a", event.MoveMoving, 1)
		move("org/b", event.MoveMoving, 2)
		h.bus.Tell(progress("", 3)) // of no download, as moves are
		move("org/a", event.MoveMoving, 4)
		move("org/a", event.MoveDone, 9)
		c.wants("org/a:waiting org/b:moving :3 org/a:moving org/a:done")
	})
}

func nan() float64 {
	zero := 0.0
	return zero / zero
}

func TestTheStatesOfADownloadAreToldInTheWordsOfAvailability(t *testing.T) {
	for state, want := range map[model.State]string{
		"": "MISSING", model.Queued: "QUEUED", model.Resolving: "DOWNLOADING", model.Downloading: "DOWNLOADING", model.Verifying: "DOWNLOADING",
		model.Retrying: "QUEUED", model.Paused: "PAUSED", model.Completed: "AVAILABLE", model.Failed: "FAILED", model.Stopped: "MISSING",
	} {
		if got := availability(state); got != want {
			t.Errorf("a download that is %q makes its model %s, want %s", state, got, want)
		}
	}
}

func TestMessagesGoOutWhenTheFirstHasWaitedLongEnough(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		begin := time.Now()
		h.bus.Tell(progress("a", 1))
		h.bus.Tell(change("a", model.Queued))
		time.Sleep(60 * time.Millisecond)
		h.bus.Tell(progress("a", 2)) // makes the first worthless before it has left
		h.bus.Tell(change("a", model.Resolving))
		time.AfterFunc(41*time.Millisecond, func() { h.bus.Tell(change("a", model.Paused)) })
		c.wants("a:QUEUED a:2 a:DOWNLOADING")
		if took := time.Since(begin); took != 100*time.Millisecond {
			t.Errorf("the batch came after %v, want 100ms", took)
		}
		c.wants("a:PAUSED")
		if took := time.Since(begin); took != 201*time.Millisecond {
			t.Errorf("the next came after %v, want 201ms", took)
		}
	})
}

func TestMessagesGoOutAtOnceWhenThereAreEnough(t *testing.T) {
	bubble(t, Settings{BatchSize: 3, BatchTimeout: time.Hour}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		begin := time.Now()
		for i := range 7 {
			h.bus.Tell(change(fmt.Sprint(i), model.Queued))
		}
		c.wants("0:QUEUED 1:QUEUED 2:QUEUED", "3:QUEUED 4:QUEUED 5:QUEUED")
		if took := time.Since(begin); took != 0 {
			t.Errorf("full batches came after %v", took)
		}
		c.wants("6:QUEUED")
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("the rest came after %v, want 1h", took)
		}
	})
}

func TestOtherSettingsHoldFromTheNextBatchOn(t *testing.T) {
	bubble(t, Settings{BatchSize: 2, BatchTimeout: time.Hour}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		h.Configure(Settings{BatchSize: 1})
		h.bus.Tell(change("a", model.Queued))
		c.wants("a:QUEUED")
	})
}

func TestAFilterPicksByTypeAndByModel(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		for query, want := range map[string]string{
			"":                      "a:1 a:QUEUED b:QUEUED bandwidth_limit",
			"types=":                "a:1 a:QUEUED b:QUEUED bandwidth_limit",
			"types=bandwidth_limit": "bandwidth_limit",
			"model_id=org/b":        "b:QUEUED",
			"model_id=org%2Fb":      "b:QUEUED",
			"model_id=org/b&model_id=org/a&types=model_download_progress,benchmark_progress": "a:1",
			"types=model_download_progress&types=model_availability_change&model_id=org/a":   "a:1 a:QUEUED",
		} {
			c, other := h.client(t, query), h.client(t, query)
			for _, e := range []event.Event{
				progress("a", 1), change("a", model.Queued), change("b", model.Queued), {Kind: event.KindLimit, Data: event.Limit{}},
			} {
				h.bus.Tell(e)
			}
			c.wants(want)
			other.wants(want)
		}
	})
}

func TestASignedLinkIsFoundByWhatIsPublicOfIt(t *testing.T) {
	f, _, err := parseQuery("model_id=https://host.example/f%3Fsig=secret")
	if err != nil || !f.wants(&message{model: "https://host.example/f"}) || f.wants(&message{model: "https://host.example/g"}) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestEventsOfAKindThatIsUnknownHarmNobody(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		h.bus.Tell(event.Event{Kind: "of a newer version", Data: json.RawMessage(`{"a":1}`)})
		h.bus.Tell(event.Event{Kind: "without data"})
		h.bus.Tell(change("a", model.Queued))
		c.wants("a:QUEUED")
	})
}

func TestProgressOfADownloadNeverWaitsTwice(t *testing.T) {
	bubble(t, Settings{BatchSize: 3, Queue: 5}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		h.bus.Tell(progress("a", 1))
		h.bus.Tell(change("b", model.Queued))
		time.Sleep(time.Second) // the batch is being written to a client that does not read
		for i := range 100 {
			h.bus.Tell(progress("a", model.Bytes(2+i)))
			if i%40 == 0 {
				h.bus.Tell(change("c", model.Queued))
			}
			time.Sleep(110 * time.Millisecond)
		}
		h.bus.Tell(progress("b", 7))
		time.Sleep(time.Second)
		c.wants("a:1 b:QUEUED", "c:QUEUED c:QUEUED c:QUEUED", "a:101 b:7")
		synctest.Wait() // who has sent counts it afterwards
		if s := h.Stats(); s.Dropped != 99 || s.Sent != 7 || s.Clients != 1 || s.ClosedSlow != 0 {
			t.Errorf("the hub counts %+v, want 99 dropped and 7 sent", s)
		}
	})
}

func TestTheProgressOfTooManyDownloadsLeavesTheNewest(t *testing.T) {
	var all []*message
	for i := range 5 {
		all = append(all, &message{seq: uint64(i), subject: fmt.Sprint(i), fleeting: true})
	}
	all = append(all, &message{seq: 5, kind: availabilityChange})
	left, gone := coalesce(all, 2)
	if len(left) != 3 || left[0].seq != 3 || gone != 3 {
		t.Errorf("%d are left from %d on, %d are gone; want 3, from 3 on, and 3", len(left), left[0].seq, gone)
	}
}

func TestAClientThatLeavesTooMuchUnreadIsCutOffAndResumes(t *testing.T) {
	bubble(t, Settings{BatchSize: 2, Queue: 5}, func(t *testing.T, h *house) {
		slow, quick := h.client(t, ""), h.client(t, "")
		var want []string
		for i := range 20 {
			begin := time.Now()
			h.bus.Tell(change(fmt.Sprint(i), model.Queued))
			h.bus.Tell(progress("p", model.Bytes(i)))
			for _, m := range quick.batch() {
				if m.Type == availabilityChange {
					want = append(want, m.String())
				}
			}
			if took := time.Since(begin); took > 100*time.Millisecond {
				t.Fatalf("the quick client waited %v because of the slow one", took)
			}
		}
		got, code := slow.rest()
		if code != websocket.StatusTryAgainLater || len(got) > 7 {
			t.Fatalf("the slow client read %v, then code %d; want 1013 after 6 or so", got, code)
		}
		again := h.client(t, fmt.Sprintf("since=%d", slow.last))
		h.bus.Tell(change("end", model.Queued))
		want = append(want, "end:QUEUED")
		for !slices.ContainsFunc(got, func(m told) bool { return m.Download == "end" }) {
			got = append(got, again.batch()...)
		}
		var changes []string
		for _, m := range got {
			if m.Type == availabilityChange {
				changes = append(changes, m.String())
			}
		}
		if !slices.Equal(changes, want) {
			t.Errorf("the slow client read %v, want %v", changes, want)
		}
		if s := h.Stats(); s.ClosedSlow != 1 || s.Clients != 2 {
			t.Errorf("the hub counts %+v, want one cut off and two here", s)
		}
	})
}

func TestAClientThatIsCutOffHasLittleTimeToSayGoodbye(t *testing.T) {
	bubble(t, Settings{BatchSize: 1, Queue: 1}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		for range 5 {
			h.bus.Tell(change("a", model.Queued))
			synctest.Wait()
		}
		c.wants("a:QUEUED")
		time.Sleep(closePatience)
		synctest.Wait()
		if s := h.Stats(); s.Clients != 0 || s.ClosedSlow != 1 {
			t.Errorf("the hub counts %+v, want nobody left", s)
		}
	})
}

func TestMessagesThatAFilterLeavesOutDoNotMakeAClientSlow(t *testing.T) {
	bubble(t, Settings{BatchSize: 1, Queue: 2}, func(t *testing.T, h *house) {
		c := h.client(t, "model_id=org/a")
		h.bus.Tell(change("a", model.Queued))
		for range 100 {
			h.bus.Tell(change("b", model.Queued))
			synctest.Wait()
		}
		h.bus.Tell(change("a", model.Resolving))
		synctest.Wait()
		c.wants("a:QUEUED", "a:DOWNLOADING")
	})
}

func TestAClientThatTakesNothingIsGivenUp(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		h.client(t, "")
		quick := h.client(t, "")
		go func() { _, _ = quick.rest() }()
		h.bus.Tell(change("a", model.Queued))
		time.Sleep(writePatience)
		if s := h.Stats(); s.Clients != 2 {
			t.Fatalf("%d clients before the patience ends, want 2", s.Clients)
		}
		time.Sleep(time.Second)
		if s := h.Stats(); s.Clients != 1 || s.ClosedSlow != 1 {
			t.Errorf("the hub counts %+v afterwards, want one client, and one cut off", s)
		}
	})
}

func TestADeadPeerIsNoticedAndALivingOneIsNot(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		living := h.client(t, "")
		go func() { _, _ = living.rest() }()
		dialer := *h.dialer // it takes the ping, as the buffers of a network do, and answers nothing
		dialer.OnPingReceived = func(context.Context, []byte) bool { return false }
		mute, _, err := websocket.Dial(t.Context(), h.url, &dialer)
		if err != nil {
			t.Fatal(err)
		}
		gone := mute.CloseRead(context.Background())
		begin := time.Now()
		<-gone.Done()
		if took := time.Since(begin); took != pingEvery+pongPatience {
			t.Errorf("the one that does not answer was given up after %v, want %v", took, pingEvery+pongPatience)
		}
		time.Sleep(10 * time.Minute)
		if s := h.Stats(); s.Clients != 1 {
			t.Errorf("%d clients are left, want the living one", s.Clients)
		}
	})
}

func TestWhatClientsSendIsIgnoredUnlessItIsLarge(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		for range 3 {
			if err := c.conn.Write(t.Context(), websocket.MessageText, []byte(`{"type":"subscribe"}`)); err != nil {
				t.Fatal(err)
			}
		}
		h.bus.Tell(change("a", model.Queued))
		c.wants("a:QUEUED")
		go func() { _ = c.conn.Write(context.Background(), websocket.MessageText, make([]byte, mostRead+1)) }()
		if _, code := c.rest(); code != websocket.StatusMessageTooBig {
			t.Errorf("a large message ends with code %d, want 1009", code)
		}
	})
}

func TestAClientThatSaysGoodbyeIsGone(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		c := h.client(t, "")
		if err := c.conn.Close(websocket.StatusNormalClosure, "enough"); err != nil {
			t.Errorf("close: %v", err)
		}
		synctest.Wait()
		if s := h.Stats(); s.Clients != 0 || s.ClosedSlow != 0 {
			t.Errorf("the hub counts %+v, want nobody", s)
		}
	})
}

func TestTheEndOfTheHubIsAGoodbyeEvenForThoseWhoDoNotListen(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		polite, stuck := h.client(t, ""), h.client(t, "")
		codes := make(chan websocket.StatusCode, 1)
		go func() {
			_, code := polite.rest()
			codes <- code
		}()
		h.bus.Tell(change("a", model.Queued))
		time.Sleep(time.Second) // the stuck one is being written to
		begin := time.Now()
		h.stop()
		if took := time.Since(begin); took != closePatience {
			t.Errorf("the hub took %v to end, want %v", took, closePatience)
		}
		if code := <-codes; code != websocket.StatusGoingAway {
			t.Errorf("the polite client read code %d, want 1001", code)
		}
		if _, code := stuck.rest(); code != -1 {
			t.Errorf("the stuck client read code %d, want none", code)
		}
		if err := h.allows(0); err == nil {
			t.Error("a client could join after the end")
		}
	})
}

func TestTheEndOfTheServerIsAGoodbyeToo(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		l := demohub.NewPipeListener()
		ctx, cancel := context.WithCancel(t.Context())
		srv := &http.Server{Handler: h, BaseContext: func(net.Listener) context.Context { return ctx }, ReadHeaderTimeout: time.Second}
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
		conn, _, err := websocket.Dial(t.Context(), h.url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: l.Dial}}})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, _, err := conn.Read(context.Background()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("read: %v, want code 1001", err)
		}
	})
}

// allows is the error with which a client may not resume after a number, nil when it may.
func (h *house) allows(since uint64) error {
	c := &client{since: since, drop: func() {}}
	err := h.join(c)
	if err == nil {
		h.leave(c)
	}
	return err
}

// refused asks for a WebSocket and returns the refusal that it gets instead.
func refused(t *testing.T, h *Hub, query string, header http.Header) (*Refusal, int) {
	t.Helper()
	var got *Refusal
	s := *h.settings.Load()
	s.Refuse = func(w http.ResponseWriter, _ *http.Request, err error) {
		got, _ = errors.AsType[*Refusal](err)
		w.WriteHeader(got.Status)
	}
	h.Configure(s)
	srv := httptest.NewServer(h)
	defer srv.Close()
	conn, res, err := websocket.Dial(t.Context(), srv.URL+"?"+query, &websocket.DialOptions{HTTPHeader: header})
	if err == nil {
		_ = conn.CloseNow()
		t.Fatalf("%s with %v got a WebSocket", query, header)
	}
	if got == nil {
		t.Fatalf("%s with %v was answered past Refuse: %v", query, header, err)
	}
	return got, res.StatusCode
}

func TestAWrongQueryIsRefusedWithAllThatIsWrong(t *testing.T) {
	h := New(event.New(0), Settings{})
	got, status := refused(t, h, "types=model_download_progress,nonsense&model_id=a+b&since=-1", nil)
	if status != http.StatusUnprocessableEntity || len(got.Fields) != 3 || model.ClassOf(got) != model.Usage {
		t.Fatalf("status %d with %v, want 422 with three fields", status, got)
	}
	for i, name := range []string{"types", "model_id", "since"} {
		if got.Fields[i].Name != name || got.Fields[i].Message == "" {
			t.Errorf("field %d is %+v, want %s", i, got.Fields[i], name)
		}
	}
	many := strings.Builder{}
	for i := range mostModels + 1 {
		fmt.Fprintf(&many, "model_id=org/m%d&", i)
	}
	if _, status := refused(t, h, many.String(), nil); status != http.StatusUnprocessableEntity {
		t.Errorf("too many models: %d, want 422", status)
	}
	if _, status := refused(t, h, "types=%zz", nil); status != http.StatusBadRequest {
		t.Errorf("a query that is none: %d, want 400", status)
	}
}

func TestAPageFromAnotherOriginIsRefused(t *testing.T) {
	h := New(event.New(0), Settings{AllowedOrigins: []string{"https://dash.example", "http://[::1]:3000", "https://*.team.example"}})
	for _, origin := range []string{
		"https://evil.example", "http://dash.example", "https://dash.example:8443", "null", "https://dash.example.evil.example", "http://[::2]:3000", "http://::3000",
	} {
		if got, status := refused(t, h, "", http.Header{"Origin": {origin}}); status != http.StatusForbidden || model.ClassOf(got) != model.Auth {
			t.Errorf("%s: %d, %v; want 403", origin, status, got)
		}
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	for _, origin := range []string{"https://dash.example", "HTTPS://DASH.example", "http://[::1]:3000", "https://a.team.example", srv.URL} {
		conn, _, err := websocket.Dial(t.Context(), srv.URL, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if err != nil {
			t.Errorf("%s: %v", origin, err)
			continue
		}
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}
	h.end() // waits for the last of them
}

func TestARequestForNoWebSocketIsRefusedByTheHouse(t *testing.T) {
	h := New(event.New(0), Settings{Refuse: func(w http.ResponseWriter, _ *http.Request, err error) {
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Status != http.StatusUpgradeRequired {
			t.Errorf("%#v, want 426", err)
		}
		w.WriteHeader(http.StatusTeapot) // as no library would
		_, _ = io.WriteString(w, "the house says: "+err.Error())
	}})
	srv := httptest.NewServer(h)
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusTeapot || res.Header.Get("Upgrade") != "websocket" || !strings.HasPrefix(string(text), "the house says: ") || !strings.Contains(string(text), "Upgrade") {
		t.Errorf("%d %v %s, want what Refuse says", res.StatusCode, res.Header, text)
	}
	h.Configure(Settings{}) // whose own Refuse keeps to the status
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ws", nil))
	if w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "HTTP/1.1") {
		t.Errorf("without a connection to take: %d %s, want 501 with a sentence", w.Code, w.Body)
	}
	if s := h.Stats(); s.Clients != 0 {
		t.Errorf("%d clients are here, want none", s.Clients)
	}
}

func TestResumingAfterWhatIsNoLongerKeptIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := build(t.Cleanup, Settings{})
		var first, second uint64
		h.bus.Tell(change("0", model.Queued))
		first = h.bus.Seq()
		h.bus.Tell(progress("p", 1))
		h.bus.Tell(change("1", model.Queued))
		second = h.bus.Seq()
		for range history {
			h.bus.Tell(change("n", model.Queued))
		}
		time.Sleep(time.Second)
		for since, want := range map[uint64]bool{first: false, first + 1: false, second: true, h.bus.Seq(): true, h.bus.Seq() + 1: false, 1: false} {
			err := h.allows(since)
			if (err == nil) != want {
				t.Errorf("since the %dth: %v, want success: %t", int(since-first), err, want) //nolint:gosec // small
			}
			if r, ok := errors.AsType[*Refusal](err); err != nil && (!ok || r.Status != http.StatusGone || !errors.Is(err, event.ErrGone)) {
				t.Errorf("since the %dth: %#v, want 410 and ErrGone", int(since-first), err) //nolint:gosec // small
			}
		}
		c := h.client(t, fmt.Sprintf("since=%d", second))
		for n := 0; n < history; {
			n += len(c.batch())
		}
		h.hasNothingWaiting(t)
		for range 3 * history { // the list is cut down several times
			h.bus.Tell(change("n", model.Queued))
		}
		last := h.bus.Seq()
		go func() { _, _ = c.rest() }()
		time.Sleep(time.Second)
		if err := h.allows(last - history); err != nil {
			t.Errorf("since the oldest: %v", err)
		}
		if err := h.allows(last - history - 1); err == nil {
			t.Error("since the one before the oldest: no error")
		}
		if n := len(h.kept); n > 2*history {
			t.Errorf("%d messages are kept", n)
		}
	})
}

func TestAClientThatIsAheadOfTheHubIsToldNothingTwice(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		h.bus.Tell(change("a", model.Queued))
		h.bus.Tell(change("b", model.Queued))
		synctest.Wait() // both wait for their batch; somebody has read of them elsewhere
		c := h.client(t, fmt.Sprintf("since=%d", h.bus.Seq()-1))
		c.wants("b:QUEUED")
		h.bus.Tell(change("c", model.Queued))
		c.wants("c:QUEUED")
		h.hasNothingWaiting(t)
	})
}

// hasNothingWaiting fails when messages count as waiting though all clients have read all.
func (h *house) hasNothingWaiting(t *testing.T) {
	t.Helper()
	synctest.Wait()
	for c := range h.here {
		if n := c.waiting.Load(); n != 0 {
			t.Errorf("%d messages count as waiting for a client that has read all", n)
		}
	}
}

func TestEventsToldBeforeTheHubRunsAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := event.New(0)
		h := New(bus, Settings{})
		c := &client{drop: func() {}}
		if err := h.join(c); err != nil {
			t.Fatal(err)
		}
		bus.Tell(change("a", model.Queued))
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = h.Run(ctx) }()
		time.Sleep(time.Second)
		if f := h.take(c, h.settings.Load()); f.count != 1 {
			t.Errorf("the client gets %d messages, want 1", f.count)
		}
		h.leave(c)
		cancel()
	})
}

func TestAHubThatHasMissedEventsCutsOffEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := event.New(3)
		h := New(bus, Settings{})
		srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}
		l := demohub.NewPipeListener()
		go func() { _ = srv.Serve(l) }()
		defer srv.Close()
		hs := &house{Hub: h, url: "ws://ema/", dialer: &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DialContext: l.Dial}}}}
		c := hs.client(t, "")
		begin := bus.Seq()
		for range 5 {
			bus.Tell(change("a", model.Queued))
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = h.Run(ctx) }()
		if all, code := c.rest(); code != websocket.StatusTryAgainLater || len(all) != 0 {
			t.Errorf("read %v, then code %d; want 1013 at once", all, code)
		}
		if err := hs.allows(begin); !errors.Is(err, event.ErrGone) {
			t.Errorf("resume: %v, want ErrGone", err)
		}
		again := hs.client(t, "")
		bus.Tell(change("b", model.Queued))
		again.wants("b:QUEUED")
	})
}

func TestClientsOfTheSameWishShareTheirBytes(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		var all []*client
		for _, f := range []filter{{}, {}, {types: map[string]bool{availabilityChange: true}, key: "k"}, {types: map[string]bool{availabilityChange: true}, key: "k"}} {
			c := &client{filter: f, drop: func() {}}
			if err := h.join(c); err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		h.bus.Tell(progress("a", 1))
		h.bus.Tell(change("a", model.Queued))
		time.Sleep(time.Second)
		var frames []frame
		for _, c := range all {
			frames = append(frames, h.take(c, h.settings.Load()))
			h.leave(c)
		}
		if &frames[0].text[0] != &frames[1].text[0] || &frames[2].text[0] != &frames[3].text[0] || frames[0].count != 2 || frames[2].count != 1 {
			t.Error("two clients with the same filter at the same place have bytes of their own")
		}
	})
}

// TestWhateverHappensAClientSeesEveryChangeOnceAndInOrder tells, reads, hangs up and resumes at random, against a plain list of
// all that was told.
func TestWhateverHappensAClientSeesEveryChangeOnceAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ *testing.T }{t}, func(t *rapid.T) {
			s := Settings{
				BatchSize: rapid.IntRange(1, 6).Draw(t, "size"), Queue: rapid.IntRange(1, 20).Draw(t, "queue"),
				BatchTimeout: time.Duration(rapid.IntRange(1, 200).Draw(t, "timeout")) * time.Millisecond,
			}
			filtered := rapid.Bool().Draw(t, "filtered")
			query := "x=1"
			if filtered {
				query = "model_id=org/even&types=model_availability_change,model_download_progress"
			}
			h := build(func(func()) {}, s)
			defer h.stop()
			c := h.connect(t, query)
			defer func() { c.over() }()
			var want, got []uint64
			newest := map[string]int64{}
			count := 0
			take := func(all []told) {
				for _, m := range all {
					if m.Type == availabilityChange {
						got = append(got, m.Seq)
					} else if m.Done < newest[m.Download] {
						t.Fatalf("progress %d of %s after %d", m.Done, m.Download, newest[m.Download])
					} else {
						newest[m.Download] = m.Done
					}
				}
			}
			// read takes a batch, of which there must be one within the timeout; it resumes when it was cut off.
			read := func() {
				all, err := c.read()
				if err == nil {
					take(all)
					return
				}
				if websocket.CloseStatus(err) != websocket.StatusTryAgainLater {
					t.Fatalf("read: %v", err)
				}
				last := c.last
				c = h.connect(t, fmt.Sprintf("%s&since=%d", query, last))
				c.last = last
			}
			name := func() string { return []string{"even", "odd"}[count%2] }
			begun := false
			t.Repeat(map[string]func(*rapid.T){
				"change": func(t *rapid.T) {
					for range rapid.IntRange(1, 30).Draw(t, "times") {
						h.bus.Tell(change(name(), model.Queued))
						if !filtered || name() == "even" {
							want = append(want, h.bus.Seq())
							begun = true
						}
						count++
					}
				},
				"progress": func(t *rapid.T) {
					for range rapid.IntRange(1, 10).Draw(t, "times") {
						count++
						h.bus.Tell(progress(name(), model.Bytes(count)))
					}
				},
				"wait": func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 300).Draw(t, "ms")) * time.Millisecond) },
				"read": func(*rapid.T) {
					if len(got) < len(want) {
						read()
					}
				},
				"hang up": func(*rapid.T) {
					if c.last == 0 { // it has no number to resume with, and what it has missed is not promised
						return
					}
					c.over()
					synctest.Wait()
					last := c.last
					c = h.connect(t, fmt.Sprintf("%s&since=%d", query, last))
					c.last = last
				},
			})
			for begun && len(got) < len(want) {
				read()
			}
			if !slices.Equal(got, want) {
				t.Fatalf("saw %v of %v", got, want)
			}
		})
	})
}

// TestManyClientsOverSocketsLoseNothing is the real thing in small: sockets, many tellers and readers, and some who do not read.
func TestManyClientsOverSocketsLoseNothing(t *testing.T) {
	const clients, tellers, each = 30, 4, 250
	bus := event.New(0)
	h := New(bus, Settings{BatchTimeout: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var running, reading, telling sync.WaitGroup
	running.Go(func() { _ = h.Run(ctx) })
	srv := httptest.NewServer(h)
	defer srv.Close()
	hs := &house{Hub: h, url: srv.URL}
	for i := range clients {
		c := hs.client(t, []string{"", "types=model_availability_change,model_download_progress"}[i%2])
		if i%10 == 9 {
			continue // it never reads
		}
		reading.Go(func() {
			for changes := 0; changes < tellers*each; {
				b, err := c.read()
				if err != nil {
					t.Errorf("after %d changes: %v", changes, err)
					return
				}
				for _, m := range b {
					if m.Type == availabilityChange {
						changes++
					}
				}
			}
		})
	}
	for i := range tellers {
		telling.Go(func() {
			for j := range each {
				bus.Tell(progress(fmt.Sprint(i), model.Bytes(j)))
				bus.Tell(change(fmt.Sprint(i), model.Queued))
			}
		})
	}
	telling.Wait()
	reading.Wait()
	cancel()
	running.Wait()
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"", "types=model_download_progress,storage_alert&since=5", "model_id=org/name&model_id=https://h/f?sig=1", "types=,,&since=", "since=18446744073709551616",
		"model_id=%00&types=\xff", "%zz", "a=b;c=d",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		picks, since, err := parseQuery(raw)
		if err != nil {
			r, ok := errors.AsType[*Refusal](err)
			if !ok || r.Status != http.StatusBadRequest && r.Status != http.StatusUnprocessableEntity || r.Error() == "" || !picks.all() || since != 0 {
				t.Fatalf("%q: %#v with %+v and %d", raw, err, picks, since)
			}
			return
		}
		if picks.all() != (picks.key == "") || len(picks.models) > mostModels {
			t.Fatalf("%q: %+v", raw, picks)
		}
		for kind := range picks.types {
			if !slices.Contains(types(), kind) {
				t.Fatalf("%q: type %q passes", raw, kind)
			}
		}
		for name := range picks.models {
			if !picks.wants(&message{kind: types()[0], model: name}) && picks.types == nil {
				t.Fatalf("%q: %q is not wanted", raw, name)
			}
		}
	})
}

func TestABrowserGetsTheSubprotocolThatItOffers(t *testing.T) {
	bubble(t, Settings{}, func(t *testing.T, h *house) {
		for _, offered := range [][]string{nil, {Subprotocol}, {"other"}} {
			dialer := *h.dialer
			dialer.Subprotocols = offered
			conn, _, err := websocket.Dial(t.Context(), h.url, &dialer)
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.Subprotocol(); (got == Subprotocol) != slices.Contains(offered, Subprotocol) {
				t.Errorf("of %q it takes %q", offered, got)
			}
			_ = conn.CloseNow() //nolint:errcheck // nobody reads on
		}
	})
}
