package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	profiles "runtime/pprof"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/pprof/profile"

	"ema/client"
	"ema/internal/api/trust"
	"ema/internal/model"
)

// profiled is a server whose requests end with ctx, and which waits for answers no longer than that.
func profiled(ctx context.Context, t *testing.T, patience time.Duration) *httptest.Server {
	t.Helper()
	s, _, _ := whole(t)
	s.Memory = func() (model.Bytes, model.Bytes, error) { return 3 * model.MiB, 5 * model.MiB, nil }
	srv := httptest.NewUnstartedServer(trust.Local(s.Handler()))
	srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	srv.Config.WriteTimeout = patience
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

// free reports whether nobody takes a profile of the processors.
func free() bool {
	if profiles.StartCPUProfile(io.Discard) != nil {
		return false
	}
	profiles.StopCPUProfile()
	return true
}

// slot waits until the profile of the processors is free, or is not.
func slot(t *testing.T, want bool) {
	t.Helper()
	giveUp, tick := time.After(time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for free() != want {
		select {
		case <-tick.C:
		case <-giveUp:
			t.Fatalf("whether a profile can be taken never becomes %v", want)
		}
	}
}

// begin asks for a profile of five minutes, and returns when it is being taken.
func begin(ctx context.Context, t *testing.T, url string) (ended <-chan error, taken *bytes.Buffer) {
	t.Helper()
	done := make(chan error, 1)
	taken = new(bytes.Buffer)
	c, err := client.New(url, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	go func() {
		for {
			_, err := c.Profile(ctx, client.ProfileCPU, mostProfile*time.Second, taken)
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != http.StatusConflict { // free has had it just then
				done <- err
				return
			}
		}
	}()
	slot(t, false)
	return done, taken
}

func TestASecondProfileOfTheProcessorsIsRefused(t *testing.T) {
	s, _, _ := whole(t)
	if err := profiles.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	defer profiles.StopCPUProfile()
	for _, c := range []struct{ method, path string }{{"POST", Base + "/admin/profile/cpu?seconds=1"}, {"GET", "/debug/pprof/profile?seconds=1"}} {
		res := ask(t, s.Handler(), trust.Admin, c.method, c.path, "")
		if e := no(t, res); res.StatusCode != http.StatusConflict || e.Code != ProfileTaken {
			t.Errorf("%s: %s, %+v", c.path, res.Status, e)
		}
	}
}

func TestAProfileEndsWithWhoAskedForIt(t *testing.T) {
	srv := profiled(t.Context(), t, time.Minute)
	ctx, leave := context.WithCancel(t.Context())
	ended, _ := begin(ctx, t, srv.URL)
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	slot(t, true)
}

func TestAProfileOfADaemonThatStopsIsAnsweredAsFarAsItCame(t *testing.T) {
	daemon, stop := context.WithCancel(t.Context())
	srv := profiled(daemon, t, time.Minute)
	ended, taken := begin(t.Context(), t, srv.URL)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if p, err := profile.Parse(taken); err != nil || p.CheckValid() != nil || time.Duration(p.DurationNanos) > time.Minute {
		t.Errorf("%v, %v", p, err)
	}
}

func TestAProfileMayTakeLongerThanServerAndClientWaitForAnswers(t *testing.T) {
	srv := profiled(t.Context(), t, 100*time.Millisecond)
	c, err := client.New(srv.URL, client.Options{Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for kind, sample := range map[string]string{client.ProfileCPU: "cpu", client.ProfileHeap: "inuse_space"} {
		var taken bytes.Buffer
		told, err := c.Profile(t.Context(), kind, time.Second, &taken)
		if err != nil || told.MemoryBytes != int64(3*model.MiB) || told.MemoryPeakBytes != int64(5*model.MiB) {
			t.Errorf("%s: %+v, %v", kind, told, err)
			continue
		}
		if _, err := gzip.NewReader(bytes.NewReader(taken.Bytes())); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		p, err := profile.Parse(&taken)
		if err != nil || p.CheckValid() != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if _, err := p.SampleIndexByName(sample); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if d := time.Duration(p.DurationNanos); kind == client.ProfileCPU && (d < time.Second || d > time.Minute) {
			t.Errorf("a profile of one second is of %v", d)
		}
	}
}

func TestAProfileOfNoLengthIsRefused(t *testing.T) {
	s, _, _ := whole(t)
	for _, seconds := range []string{"0", "-1", "301", "1.5", "x"} {
		res := ask(t, s.Handler(), trust.Admin, "POST", Base+"/admin/profile/cpu?seconds="+seconds, "")
		if e := no(t, res); res.StatusCode != http.StatusUnprocessableEntity || len(e.Details.Fields) != 1 || e.Details.Fields[0].Path != "query.seconds" {
			t.Errorf("%s: %s, %+v", seconds, res.Status, e)
		}
	}
	for _, path := range []string{"trace?seconds=31", "heap?seconds=0", "heap?debug=3", "heap?gc=2"} {
		if res := ask(t, s.Handler(), trust.Admin, "GET", "/debug/pprof/"+path, ""); res.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

func TestAProfileIsAnsweredAlsoWhereTheMemoryCannotBeRead(t *testing.T) {
	s, _, _ := whole(t)
	s.Memory = func() (model.Bytes, model.Bytes, error) { return 0, 0, errors.New("no /proc") }
	res := ask(t, s.Handler(), trust.Admin, "POST", Base+"/admin/profile/heap", "")
	if raw, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || len(raw) == 0 || res.Header.Get(client.MemoryNow) != "" {
		t.Errorf("%s, %v", res.Status, err)
	}
}

func TestTheFlightRecorderIsReadWhenItRuns(t *testing.T) {
	for promise, c := range map[string]struct {
		recorded func(io.Writer) error
		status   int
		code     Code
	}{
		"it runs":          {func(w io.Writer) error { _, err := io.WriteString(w, "a trace"); return err }, http.StatusOK, ""},
		"it does not run":  {func(io.Writer) error { return ErrNotRecording }, http.StatusConflict, NotRecording},
		"it fails halfway": {func(w io.Writer) error { _, _ = io.WriteString(w, "a tr"); return errors.New("no") }, http.StatusInternalServerError, Internal},
	} {
		s, _, _ := whole(t)
		s.Recorded = c.recorded
		res := ask(t, s.Handler(), trust.Admin, "POST", Base+"/admin/profile/trace", "")
		if res.StatusCode != c.status {
			t.Errorf("%s: %s", promise, res.Status)
		} else if c.code != "" && no(t, res).Code != c.code {
			t.Errorf("%s: another code than %s", promise, c.code)
		}
	}
}

func TestOnlyAnswersThatShouldBeQuickAreCalledSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow []string
		s, _, _ := whole(t)
		s.Slow = func(operation string, took time.Duration) { slow = append(slow, fmt.Sprint(operation, " ", took)) }
		wait := time.Second
		s.Reload = func(context.Context) (Reloaded, error) { time.Sleep(wait); return Reloaded{}, nil }
		s.Execute = func(context.Context, Command, io.Writer, io.Writer) int { time.Sleep(wait); return 0 }
		h := s.Handler()
		for range 2 {
			ask(t, h, trust.Admin, "POST", Base+"/admin/reload", "")
			ask(t, h, trust.Admin, "POST", Base+"/admin/run", `{"args":["gc"]}`)
			wait = 1500 * time.Millisecond
		}
		if want := []string{"reload-config 1.5s"}; !slices.Equal(slow, want) {
			t.Errorf("slow: %v, want %v", slow, want)
		}
	})
}
