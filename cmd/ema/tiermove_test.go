package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"ema/client"
	"ema/internal/api"
	"ema/internal/api/trust"
	"ema/internal/event"
	"ema/internal/model"
)

// A carrier is the part of a daemon that moves models. What becomes of a move, its test tells on the bus.
type carrier struct {
	bus      *event.Bus
	refuses  error
	existing bool              // moves are under way already
	began    func(id model.ID) // told when a move has begun
	stopped  model.ID
	pinned   map[model.ID]bool
}

func (c *carrier) Move(_ context.Context, id model.ID, to model.Tier) (client.ModelMove, bool, error) {
	if c.refuses != nil {
		return client.ModelMove{}, false, c.refuses
	}
	if c.began != nil {
		c.began(id)
	}
	return client.ModelMove{Model: id.Public(), From: "hot", To: string(to), State: client.MoveWaiting, TotalBytes: 4}, c.existing, nil
}

func (c *carrier) StopMove(_ context.Context, id model.ID) (client.ModelMove, error) {
	c.stopped = id
	return client.ModelMove{Model: id.Public(), State: client.MoveCancelled}, nil
}

func (c *carrier) Pin(_ context.Context, id model.ID, pinned bool) error {
	c.pinned[id] = pinned
	return nil
}

// tell tells how far a move is.
func (c *carrier) tell(id model.ID, state string, done model.Bytes, why string) {
	c.bus.Tell(event.Event{Kind: event.KindMove, Model: id, Data: event.Move{From: model.Hot, To: model.Cold, Done: done, Total: 4, State: state, Error: why}})
}

// carries starts a server that only moves models.
func carries(t *testing.T, c *carrier, wrap func(http.Handler) http.Handler) (url string) {
	t.Helper()
	c.bus, c.pinned = event.New(0), map[model.ID]bool{}
	s := &api.Server{Tiers: c, Events: c.bus, Version: api.Version{Version: "v1"}, Log: slog.New(slog.DiscardHandler)}
	h := trust.Local(s.Handler())
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return srv.URL
}

// tiered is ema with a daemon at url, or with none.
func tiered(ctx context.Context, t *testing.T, url string, stderr io.Writer, args ...string) (code int, stdout string) {
	t.Helper()
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: stderr, server: url, environ: []string{"HOME=" + t.TempDir()}}
	return execute(ctx, a, rootCommand(a), append([]string{"--server", url, "tier"}, args...)), out.String()
}

func TestAMoveOfTheDaemonIsWatchedToItsEnd(t *testing.T) {
	for promise, c := range map[string]struct {
		tell   func(c *carrier, id model.ID)
		code   int
		stdout string
		stderr string
	}{
		"it is done": {
			func(c *carrier, id model.ID) {
				c.tell(id, event.MoveMoving, 2, "")
				c.tell(id, event.MoveDone, 4, "")
			}, 0, "acme/tiny: moved to the cold tier, 4 B in ", "",
		},
		"it fails": {
			func(c *carrier, id model.ID) { c.tell(id, event.MoveFailed, 2, "the disk is gone") }, 1, "",
			"ema: move acme/tiny: the disk is gone; what was moved stays moved, and the model can be used as before\n",
		},
		"somebody gives it up": {
			func(c *carrier, id model.ID) { c.tell(id, event.MoveCancelled, 2, "") }, 1, "",
			"ema: move acme/tiny: somebody has given it up; what was moved stays moved",
		},
	} {
		t.Run(promise, func(t *testing.T) {
			mover := &carrier{}
			mover.began = func(id model.ID) {
				mover.tell(id, event.MoveWaiting, 0, "")
				mover.tell(model.ID{Name: "acme/other"}, event.MoveFailed, 0, "that is another one")
				c.tell(mover, id)
			}
			var stderr bytes.Buffer
			code, stdout := tiered(t.Context(), t, carries(t, mover, nil), &stderr, "move", "acme/tiny", "cold")
			if code != c.code || !strings.HasPrefix(stdout, c.stdout) || (stdout == "") != (c.stdout == "") || !strings.Contains(stderr.String(), c.stderr) {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr.String())
			}
		})
	}
}

func TestAMoveThatTheDaemonRefusesExitsAsItWouldHere(t *testing.T) {
	id := model.ID{Name: "acme/tiny"}
	for class, code := range map[model.Class]int{model.Usage: 2, model.NotFound: 3, model.DiskFull: 5, model.Busy: 1} {
		mover := &carrier{refuses: &model.Error{Op: "move", Class: class, Model: id, Err: errors.New("so it is")}}
		var stderr bytes.Buffer
		got, stdout := tiered(t.Context(), t, carries(t, mover, nil), &stderr, "move", "acme/tiny", "cold")
		if got != code || stdout != "" || !strings.Contains(stderr.String(), "move acme/tiny: so it is") {
			t.Errorf("%v: exit code %d, want %d; %q", class, got, code, stderr.String())
		}
	}
}

// A trigger does something as soon as something is written.
type trigger struct {
	bytes.Buffer
	pull func()
}

func (t *trigger) Write(p []byte) (int, error) {
	defer t.pull()
	return t.Buffer.Write(p)
}

func TestWhoStopsWatchingAMoveDoesNotStopIt(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	mover := &carrier{existing: true}
	stderr := &trigger{pull: stop} // what is written first is that the move is under way already
	code, _ := tiered(ctx, t, carries(t, mover, nil), stderr, "move", "acme/tiny", "cold")
	said := stderr.String()
	want := `it goes on moving in the daemon; see it with "ema tier", cancel it with "ema tier move acme/tiny --cancel"`
	if code != 130 || !strings.HasPrefix(said, "acme/tiny: is on its way to the cold tier already\n") || !strings.Contains(said, want) || !mover.stopped.IsZero() {
		t.Errorf("exit code %d, stderr %q, stopped %v", code, said, mover.stopped)
	}
}

func TestAMoveIsGivenUpAndPinsAreSetInTheDaemon(t *testing.T) {
	mover := &carrier{}
	url := carries(t, mover, nil)
	id := model.ID{Name: "acme/tiny"}
	var stderr bytes.Buffer
	if code, stdout := tiered(t.Context(), t, url, &stderr, "move", "acme/tiny", "--cancel"); code != 0 || stdout != "acme/tiny: its move is given up\n" || mover.stopped != id {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr.String())
	}
	for _, verb := range []string{"pin", "unpin"} {
		if code, _ := tiered(t.Context(), t, url, &stderr, verb, "acme/tiny"); code != 0 || mover.pinned[id] != (verb == "pin") {
			t.Errorf("%s: exit code %d, %v, %q", verb, code, mover.pinned, stderr.String())
		}
	}
}

func TestAMoveIsFollowedThoughEventsAreMissed(t *testing.T) {
	for promise, c := range map[string]struct {
		now  client.Storage // what is found after the events were cut off
		code int
		says string
	}{
		"it is done": {client.Storage{Models: []client.ModelStorage{{Model: "acme/tiny", Tier: "cold"}}}, 0, "moved to the cold tier, 4 B"},
		"it has failed": {
			client.Storage{Models: []client.ModelStorage{{Model: "acme/tiny", Tier: "cold", TierBytes: map[string]int64{"hot": 1, "cold": 3}}}}, 1, "has not brought all of the model there",
		},
		"it goes on": {client.Storage{Moves: []client.ModelMove{{Model: "acme/tiny", To: "cold", State: client.MoveMoving, TotalBytes: 4}}}, 0, "moved to the cold tier, 4 B"},
	} {
		t.Run(promise, func(t *testing.T) {
			mover := &carrier{}
			var listeners atomic.Int32
			begun := make(chan struct{})
			mover.began = func(model.ID) { close(begun) }
			url := carries(t, mover, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					switch {
					case strings.HasSuffix(r.URL.Path, "/events") && listeners.Add(1) == 1:
						w.Header().Set("Content-Type", "application/x-ndjson")
						w.(http.Flusher).Flush()
						<-begun // and then it is cut off
					case strings.HasSuffix(r.URL.Path, "/models/storage"):
						w.Header().Set("Content-Type", "application/json")
						if err := json.NewEncoder(w).Encode(c.now); err != nil {
							t.Error(err)
						}
						if promise == "it goes on" {
							mover.tell(model.ID{Name: "acme/tiny"}, event.MoveDone, 4, "")
						}
					default:
						h.ServeHTTP(w, r)
					}
				})
			})
			var stderr bytes.Buffer
			code, stdout := tiered(t.Context(), t, url, &stderr, "move", "acme/tiny", "cold")
			if code != c.code || !strings.Contains(stdout+stderr.String(), c.says) {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr.String())
			}
		})
	}
}

// A fading context ends after it was asked so many times.
type fading struct {
	context.Context
	left *atomic.Int64
	over chan struct{}
	once *sync.Once
}

func fade(ctx context.Context, after int64) fading {
	f := fading{Context: ctx, left: new(atomic.Int64), over: make(chan struct{}), once: new(sync.Once)}
	f.left.Store(after)
	return f
}

func (f fading) Err() error {
	if f.left.Add(-1) < 0 {
		f.once.Do(func() { close(f.over) })
		return context.Canceled
	}
	return nil
}

func (f fading) Done() <-chan struct{} { return f.over }

func TestAMoveHereThatIsInterruptedGoesOnLater(t *testing.T) {
	_, environ := quickHub(t)
	cold := filepath.Join(t.TempDir(), "cold")
	environ = append(environ, "EMA_STORAGE_TIERS__COLD__PATH="+cold)
	ema := func(ctx context.Context, args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		a := &app{stdout: &stdout, stderr: &stderr, environ: environ}
		return execute(ctx, a, rootCommand(a), args), stdout.String(), stderr.String()
	}
	if code, _, stderr := ema(t.Context(), "pull", "acme/slow", "--quiet"); code != 0 {
		t.Fatal(stderr)
	}
	_, path, _ := ema(t.Context(), "path", "acme/slow")
	to, cut := "cold", 0
	for after := int64(0); cut < 8 && after < 400; after++ {
		code, _, stderr := ema(fade(t.Context(), after), "tier", "move", "acme/slow", to)
		switch {
		case code == 0 && to == "cold":
			to = "hot"
		case code == 0:
			to = "cold"
		case code == 130:
			cut++
		default:
			t.Fatalf("after %d questions: exit code %d, %s", after, code, stderr)
		}
		if code == 130 && strings.Contains(stderr, "half way") && !strings.HasSuffix(stderr, "go on with: ema tier move acme/slow "+to+"\n") {
			t.Errorf("it says %q", stderr)
		}
		if code, now, stderr := ema(t.Context(), "path", "acme/slow"); code != 0 || now != path {
			t.Fatalf("after %d questions its path is %q (%s), want %q", after, now, stderr, path)
		}
	}
	if cut < 8 {
		t.Errorf("only %d moves were interrupted", cut)
	}
	if code, _, stderr := ema(t.Context(), "verify", "acme/slow"); code != 0 {
		t.Error(stderr)
	}
	if code, stdout, _ := ema(t.Context(), "tier"); code != 0 || !strings.Contains(stdout, "cold") {
		t.Errorf("%d, %s", code, stdout)
	}
	if _, err := os.Stat(cold); err != nil {
		t.Error(err)
	}
}
