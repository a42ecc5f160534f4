package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ema/client"
	"ema/internal/event"
	"ema/internal/model"
	"ema/internal/queue"
)

// A slate is a scheduler that runs nothing: downloads stay as they are put.
type slate struct {
	mu   sync.Mutex
	list []model.Download
	over []model.Download
	fail error // what Add answers
}

func (s *slate) Add(_ context.Context, d model.Download) (model.Download, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return d, false, s.fail
	}
	for _, there := range s.list {
		if there.Model == d.Model {
			return there, true, nil
		}
	}
	d.ID, d.State, d.Order = fmt.Sprintf("dl_%d", len(s.list)), model.Queued, int64(len(s.list))
	s.list = append(s.list, d)
	return d, false, nil
}

func (s *slate) change(ids []string, to func(*model.Download)) ([]model.Download, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var changed []model.Download
	for i := range s.list {
		if slices.Contains(ids, s.list[i].ID) {
			to(&s.list[i])
			changed = append(changed, s.list[i])
		}
	}
	return changed, nil
}

func (s *slate) Pause(_ context.Context, ids ...string) ([]model.Download, error) {
	return s.change(ids, func(d *model.Download) { d.State, d.Pause = model.Paused, model.ByUser })
}

func (s *slate) Resume(_ context.Context, ids ...string) ([]model.Download, error) {
	return s.change(ids, func(d *model.Download) { d.State, d.Pause = model.Queued, "" })
}

func (s *slate) Cancel(_ context.Context, ids ...string) ([]model.Download, error) {
	return s.change(ids, func(d *model.Download) { d.State = model.Stopped })
}

func (s *slate) Prioritize(_ context.Context, p model.Priority, ids ...string) ([]model.Download, error) {
	return s.change(ids, func(d *model.Download) { d.Priority = p })
}

func (s *slate) Limit(_ context.Context, perSecond model.Bytes, ids ...string) ([]model.Download, error) {
	return s.change(ids, func(d *model.Download) { d.Limit = perSecond })
}

func (s *slate) List() []model.Download {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func (s *slate) Download(_ context.Context, id string) (model.Download, error) {
	if i := slices.IndexFunc(s.over, func(d model.Download) bool { return d.ID == id }); i >= 0 {
		return s.over[i], nil
	}
	return model.Download{}, &model.Error{Op: "read ledger", Class: model.NotFound}
}

func (s *slate) History(_ context.Context, limit, offset int) ([]model.Download, error) {
	return s.over[min(offset, len(s.over)):min(offset+limit, len(s.over))], nil
}

// serves starts a server on a socket in a folder, and returns its client.
func serves(t *testing.T, dir string, queue *slate, change func(*Server)) *client.Client {
	t.Helper()
	s := &Server{
		Queue: queue, History: queue, Events: event.New(0),
		Figures: func(string) *Figures { return nil },
		Limit:   func() (model.Bytes, string) { return 0, "" },
		Reload:  func(context.Context) (Reloaded, error) { return Reloaded{}, nil },
		Execute: func(context.Context, Command, io.Writer, io.Writer) int { return 0 },
		Version: Version{Version: "v1"},
		Log:     slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(s)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ends with %v", err)
		}
		if _, err := os.Stat(client.Socket(dir)); err == nil {
			t.Error("the socket stays behind")
		}
	})
	return client.Local(dir)
}

func hub(name string) model.ID { return model.ID{Scheme: model.Hub, Name: name} }

func TestADaemonIsFoundThroughItsFolderHoweverLongThePathIs(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("long/", 40))} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		daemon := serves(t, dir, &slate{}, nil)
		if v, err := daemon.Version(t.Context()); err != nil || v.Version != "v1" {
			t.Errorf("%d bytes: %+v, %v", len(dir), v, err)
		}
		info, err := os.Stat(client.Socket(dir))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket is %v (%v), want it for one user only", info.Mode(), err)
		}
	}
}

func TestWhereNoDaemonRunsTheClientSaysSo(t *testing.T) {
	if _, err := client.Local(t.TempDir()).Version(t.Context()); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("an empty folder gives %v", err)
	}
	if _, err := client.Local(filepath.Join(t.TempDir(), "none")).Version(t.Context()); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("no folder gives %v", err)
	}
}

func TestTheSocketOfAKilledDaemonBlocksNobody(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: client.Socket(dir), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Local(dir).Version(t.Context()); !errors.Is(err, client.ErrNoDaemon) {
		t.Errorf("a dead socket gives %v", err)
	}
	if _, err := serves(t, dir, &slate{}, nil).Version(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartingTwiceIsOneDownload(t *testing.T) {
	client := serves(t, t.TempDir(), &slate{}, nil)
	limit := 2.5
	first, err := client.Manage(t.Context(), Manage{Action: "start", Model: "acme/tiny", Priority: "high", LimitMBps: &limit})
	if err != nil || first.Existing || first.NewStatus != "QUEUED" || first.Downloads[0].Priority != "high" || first.Downloads[0].LimitMBps != 2.5 {
		t.Fatalf("%+v, %v", first, err)
	}
	second, err := client.Manage(t.Context(), Manage{Action: "start", Model: "acme/tiny"})
	if err != nil || !second.Existing || second.DownloadID != first.DownloadID {
		t.Fatalf("%+v, %v", second, err)
	}
}

func TestStartingWhatAPersonHasPausedLetsItGoOn(t *testing.T) {
	client := serves(t, t.TempDir(), &slate{list: []model.Download{{ID: "dl_1", Model: hub("acme/tiny"), State: model.Paused, Pause: model.ByUser}}}, nil)
	done, err := client.Manage(t.Context(), Manage{Action: "start", Model: "acme/tiny"})
	if err != nil || done.NewStatus != "QUEUED" {
		t.Fatalf("%+v, %v", done, err)
	}
}

func TestAllMeansEveryDownloadForWhichItMakesSense(t *testing.T) {
	list := &slate{list: []model.Download{
		{ID: "dl_1", Model: hub("a/running"), State: model.Downloading},
		{ID: "dl_2", Model: hub("a/paused"), State: model.Paused, Pause: model.ByUser},
		{ID: "dl_3", Model: hub("a/queued"), State: model.Queued},
	}}
	client := serves(t, t.TempDir(), list, nil)
	done, err := client.Manage(t.Context(), Manage{Action: "pause", All: true})
	if err != nil || len(done.Downloads) != 2 {
		t.Fatalf("%+v, %v", done, err)
	}
	done, err = client.Manage(t.Context(), Manage{Action: "resume", All: true})
	if err != nil || len(done.Downloads) != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	done, err = client.Manage(t.Context(), Manage{Action: "resume", All: true})
	if err != nil || !done.Success || len(done.Downloads) != 0 || done.Message != "there was nothing to resume" {
		t.Fatalf("%+v, %v", done, err)
	}
}

func TestARevisionPicksOneOfAModelsDownloads(t *testing.T) {
	list := &slate{list: []model.Download{
		{ID: "dl_1", Model: hub("acme/tiny"), State: model.Queued, Order: 1},
		{ID: "dl_2", Model: hub("acme/tiny"), Revision: "v1", State: model.Queued, Order: 2},
	}}
	client := serves(t, t.TempDir(), list, nil)
	for revision, want := range map[string]string{"v1": "dl_2", "main": "dl_1"} {
		done, err := client.Manage(t.Context(), Manage{Action: "pause", Model: "acme/tiny", Revision: revision})
		if err != nil || len(done.Downloads) != 1 || done.DownloadID != want {
			t.Errorf("%s: %+v, %v", revision, done, err)
		}
	}
	if done, err := client.Manage(t.Context(), Manage{Action: "cancel", Model: "acme/tiny"}); err != nil || len(done.Downloads) != 2 {
		t.Errorf("without a revision: %+v, %v", done, err)
	}
}

func TestRefusalsSayWhatAndWhyAndWhatToDo(t *testing.T) {
	list := &slate{over: []model.Download{{ID: "dl_9", Model: hub("acme/done"), State: model.Completed}}}
	client := serves(t, t.TempDir(), list, nil)
	negative := -1.0
	for promise, c := range map[string]struct {
		ask    Manage
		status int
		code   Code
		class  model.Class
		says   string
	}{
		"an unknown model":        {Manage{Action: "pause", Model: "acme/none"}, 404, ModelNotFound, model.NotFound, `pause acme/none: it has no download, neither now nor earlier; see all with "ema ps --all"`},
		"a state that forbids":    {Manage{Action: "pause", Model: "acme/done"}, 409, WrongState, model.Other, "completed"},
		"a model that is none":    {Manage{Action: "start", Model: "a/b/c"}, 422, Invalid, model.Usage, "model_id: "},
		"an action that is none":  {Manage{Action: "stop", Model: "a/b"}, 422, Invalid, model.Usage, `action: expected value to be one of "start, pause, resume, cancel, repair, prioritize, limit", not "stop"`},
		"a priority of none":      {Manage{Action: "prioritize", Model: "a/b", Priority: "urgent"}, 422, Invalid, model.Usage, "priority: "},
		"no priority":             {Manage{Action: "prioritize", Model: "a/b"}, 422, Invalid, model.Usage, "priority: name one"},
		"a negative limit":        {Manage{Action: "start", Model: "a/b", LimitMBps: &negative}, 422, Invalid, model.Usage, "bandwidth_limit_mbps: "},
		"a revision that is none": {Manage{Action: "start", Model: "a/b", Revision: "a b"}, 422, Invalid, model.Usage, "revision: "},
		"all to start":            {Manage{Action: "start", Model: "a/b", All: true}, 422, Invalid, model.Usage, "all: "},
		"all and a model":         {Manage{Action: "pause", Model: "a/b", All: true}, 422, Invalid, model.Usage, "all: "},
	} {
		_, err := client.Manage(t.Context(), c.ask)
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%s: %v", promise, err)
			continue
		}
		if e.Status != c.status || e.Code != c.code || model.ClassOf(err) != c.class || !strings.Contains(e.Message, c.says) || !strings.HasPrefix(e.RequestID, "req_") {
			t.Errorf("%s: %+v", promise, e)
		}
		if c.code == WrongState && (e.State != "COMPLETED" || len(e.Allowed) != 0) {
			t.Errorf("%s: %+v", promise, e)
		}
	}
}

func TestAFailureHasTheSameClassOnBothSides(t *testing.T) {
	for c := model.Other; c <= model.Offline; c++ {
		list := &slate{fail: &model.Error{Op: "pull", Class: c, Model: hub("acme/tiny"), Err: errors.New("because"), After: 3 * time.Second, Short: 7}}
		t.Run(c.String(), func(t *testing.T) {
			_, err := serves(t, t.TempDir(), list, nil).Manage(t.Context(), Manage{Action: "start", Model: "acme/tiny"})
			e, _ := errors.AsType[*Error](err)
			if model.ClassOf(err) != c || err.Error() != list.fail.Error() || e.Model != "acme/tiny" || e.After != 3*time.Second || e.Short != 7 || e.Status < 400 {
				t.Errorf("%#v", err)
			}
		})
	}
	failed := Download{Status: "FAILED", Model: "acme/tiny", ErrorMessage: "pull acme/tiny: no", ErrorClass: "integrity"}
	if err := failed.Err(); model.ClassOf(err) != model.Integrity || err.Error() != "pull acme/tiny: no" {
		t.Errorf("a failed download is %v", err)
	}
	if (Download{Status: "COMPLETED"}).Err() != nil || (Download{Status: "PAUSED"}).Err() != nil {
		t.Error("what did not fail has an error")
	}
}

func TestAFullQueueSaysWhenToComeBack(t *testing.T) {
	list := &slate{fail: fmt.Errorf("start acme/tiny: %w", queue.ErrFull)}
	_, err := serves(t, t.TempDir(), list, nil).Manage(t.Context(), Manage{Action: "start", Model: "acme/tiny"})
	if e, ok := errors.AsType[*Error](err); !ok || e.Status != http.StatusTooManyRequests || e.Code != QueueFull {
		t.Errorf("%v", err)
	}
}

// raw sends a request as a stranger would write it.
func raw(t *testing.T, c *client.Client, method, path, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://daemon"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.HTTP().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

func TestRequestsThatCannotBeUnderstoodAreRefusedWithASentence(t *testing.T) {
	client := serves(t, t.TempDir(), &slate{}, nil)
	manage := Base + "/models/download/manage"
	for promise, c := range map[string]struct {
		method, path, body string
		status             int
		says               string
	}{
		"an unknown field":       {"POST", manage, `{"action":"start","modle_id":"a/b"}`, 422, `there is no field "modle_id"`},
		"a wrong type":           {"POST", manage, `{"action":7}`, 422, "action: expected string, not 7"},
		"no JSON":                {"POST", manage, `action=start`, 400, "the body is no JSON"},
		"nothing":                {"POST", manage, ``, 400, "the body is empty"},
		"two objects":            {"POST", manage, `{"action":"start"}{}`, 400, "after top-level value"},
		"too much":               {"POST", manage, `{"action":"` + strings.Repeat("x", mostBody) + `"}`, 413, "larger than"},
		"an unknown place":       {"GET", Base + "/nothing", ``, 404, "there is nothing at /api/v1/nothing"},
		"a method that is not":   {"GET", manage, ``, 405, "does not take GET; use POST"},
		"a page that is none":    {"GET", Base + "/models/download/history?page=x", ``, 422, "query.page: "},
		"too long a page":        {"GET", Base + "/models/download/history?limit=101", ``, 422, "query.limit: "},
		"an event that is none":  {"GET", Base + "/events?since=x", ``, 422, "since: "},
		"an event of the past":   {"GET", Base + "/events?since=1", ``, 410, "since: "},
		"a model that is none":   {"GET", Base + "/models/download/progress/a/b/c", ``, 422, "more than one slash"},
		"a model without one":    {"GET", Base + "/models/download/progress/acme/none", ``, 404, "it has no download"},
		"a command that is none": {"POST", Base + "/admin/run", `{"args":[]}`, 422, "args: "},
	} {
		res := raw(t, client, c.method, c.path, c.body)
		var answer envelope
		err := json.NewDecoder(res.Body).Decode(&answer)
		e := answer.Error
		if err != nil || res.StatusCode != c.status || !strings.Contains(e.Message, c.says) || e.Code == "" || e.Timestamp.IsZero() || e.RequestID != res.Header.Get("X-Request-Id") {
			t.Errorf("%s: %s, %+v, %v", promise, res.Status, e, err)
		}
		if c.status == 405 && res.Header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow is %q", promise, res.Header.Get("Allow"))
		}
	}
}

func TestProgressHasTheFieldsThatClientsRelyOn(t *testing.T) {
	list := &slate{list: []model.Download{
		{ID: "dl_0", Model: hub("acme/first"), State: model.Queued},
		{ID: "dl_1", Model: hub("acme/tiny"), State: model.Downloading, Size: 10 * model.MiB, Done: model.MiB, Retries: 2, MaxRetries: 5},
		{ID: "dl_2", Model: hub("acme/last"), State: model.Queued, Order: 5},
	}}
	client := serves(t, t.TempDir(), list, func(s *Server) {
		s.Figures = func(id string) *Figures {
			if id != "dl_1" {
				return nil
			}
			return &Figures{Stage: "fetching", Done: 4 * model.MiB, Total: 10 * model.MiB, Rate: float64(2 * model.MiB), ETA: 3 * time.Second, Connections: 4, Files: 3, FilesDone: 1}
		}
		s.Limit = func() (model.Bytes, string) { return 20 * model.MiB, "business hours" }
	})
	for _, path := range []string{"acme/tiny", "acme%2Ftiny", "acme%2Ftiny?download_id=dl_1", "acme/tiny?revision=main"} {
		res := raw(t, client, "GET", Base+"/models/download/progress/"+path, "")
		var got map[string]any
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		for field, want := range map[string]any{
			"model_id": "acme/tiny", "status": "DOWNLOADING", "progress_percent": 40.0, "downloaded_mb": 4.0, "total_mb": 10.0, "speed_mbps": 2.0,
			"eta_seconds": 3.0, "retry_count": 2.0, "max_retries": 5.0, "error_message": "", "can_pause": true, "can_resume": false, "can_cancel": true,
		} {
			if got[field] != want {
				t.Errorf("%s: %s is %v, want %v", path, field, got[field], want)
			}
		}
	}
	active, err := client.Active(t.Context())
	if err != nil || active.Total != 3 || active.SpeedMBps != 2 || active.LimitMBps != 20 || active.LimitWhy != "business hours" {
		t.Fatalf("%+v, %v", active, err)
	}
	if active.Downloads[0].Position != 1 || active.Downloads[1].Position != 0 || active.Downloads[2].Position != 2 {
		t.Errorf("%+v", active.Downloads)
	}
	if active.Downloads[0].ETASeconds != nil {
		t.Error("an unknown time is told as a number")
	}
}

func TestWhatIsOverIsFoundInTheHistory(t *testing.T) {
	list := &slate{}
	for i := range 450 {
		list.over = append(list.over, model.Download{ID: fmt.Sprintf("dl_%d", i), Model: hub(fmt.Sprintf("acme/m%d", i)), State: model.Completed, Size: 5, Done: 5})
	}
	client := serves(t, t.TempDir(), list, nil)
	d, err := client.Progress(t.Context(), "acme/m449", "")
	if err != nil || d.ID != "dl_449" || d.ProgressPercent != 100 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = client.Progress(t.Context(), "acme/m3", "dl_3"); err != nil || d.ID != "dl_3" {
		t.Errorf("%+v, %v", d, err)
	}
	h, err := client.History(t.Context(), 5, 100)
	if err != nil || len(h.Downloads) != 50 || h.Downloads[0].ID != "dl_400" {
		t.Errorf("%d, %v", len(h.Downloads), err)
	}
}

func TestWhoListensHearsAllThatHappensFromThenOn(t *testing.T) {
	var bus *event.Bus
	daemon := serves(t, t.TempDir(), &slate{}, func(s *Server) { bus = s.Events })
	all, err := daemon.Events(t.Context(), client.Interest{})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	one, err := daemon.Events(t.Context(), client.Interest{Download: "dl_2"})
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	tiny, err := daemon.Events(t.Context(), client.Interest{Model: "acme/tiny"})
	if err != nil {
		t.Fatal(err)
	}
	defer tiny.Close()
	bus.Tell(event.Event{Kind: event.KindLimit, Data: event.Limit{Rate: 3 * model.MiB, Why: "night"}})
	bus.Tell(event.Event{Kind: event.KindState, Download: "dl_1", Model: hub("acme/tiny"), Data: event.Change{From: model.Queued, To: model.Resolving}})
	bus.Tell(event.Event{Kind: event.KindProgress, Download: "dl_2", Model: hub("acme/other"), Data: event.Progress{State: model.Downloading, Done: 1, Total: 4, Rate: float64(model.MiB)}})
	bus.Tell(event.Event{Kind: event.KindRetry, Download: "dl_2", Model: hub("acme/other"), Data: event.Retry{Host: "h", Class: model.Timeout, Error: "late", Wait: time.Second}})
	bus.Tell(event.Event{Kind: event.KindSpace, Download: "dl_2", Data: event.Space{Short: 9, Reason: "full"}})
	next := func(e *client.Events) Event {
		t.Helper()
		got, err := e.Next()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	limit := next(all)
	if limit.Limit == nil || limit.Limit.LimitMBps != 3 || limit.Limit.Reason != "night" {
		t.Errorf("%+v", limit)
	}
	if e := next(all); e.Change == nil || e.Change.New != "RESOLVING" || e.Model != "acme/tiny" || e.Seq <= limit.Seq {
		t.Errorf("%+v", e)
	}
	if e := next(one); e.Progress == nil || e.Progress.ProgressPercent != 25 || e.Progress.SpeedMBps != 1 || e.Progress.ETASeconds != nil {
		t.Errorf("%+v", e)
	}
	if e := next(one); e.Retry == nil || e.Retry.Class != "timeout" || e.Retry.WaitSeconds != 1 {
		t.Errorf("%+v", e)
	}
	if e := next(one); e.Space == nil || e.Space.ShortBytes != 9 {
		t.Errorf("%+v", e)
	}
	if e := next(tiny); e.Change == nil {
		t.Errorf("%+v", e)
	}
	later, err := daemon.Events(t.Context(), client.Interest{Since: limit.Seq})
	if err != nil {
		t.Fatal(err)
	}
	defer later.Close()
	if e := next(later); e.Change == nil || e.Change.New != "RESOLVING" {
		t.Errorf("resumed with %+v", e)
	}
}

func TestListenersDoNotKeepADaemonFromStopping(t *testing.T) {
	dir := t.TempDir()
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Events: event.New(0), Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	events, err := client.Local(dir).Events(t.Context(), client.Interest{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	stop()
	if _, err := events.Next(); !errors.Is(err, io.EOF) { // and not cut off in the end
		t.Errorf("the stream ends with %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestACommandRunsAsIfItWereHere(t *testing.T) {
	client := serves(t, t.TempDir(), &slate{}, func(s *Server) {
		s.Execute = func(_ context.Context, c Command, stdout, stderr io.Writer) int {
			fmt.Fprintf(stdout, "%v\n\xff\x00", c.Args)
			fmt.Fprintf(stderr, "careful %d", c.Columns)
			return 4
		}
	})
	var stdout, stderr bytes.Buffer
	code, err := client.Run(t.Context(), Command{Args: []string{"verify", "a/b"}, Columns: 99}, &stdout, &stderr)
	if err != nil || code != 4 || stdout.String() != "[verify a/b]\n\xff\x00" || stderr.String() != "careful 99" {
		t.Errorf("%d, %v, %q, %q", code, err, stdout.String(), stderr.String())
	}
}

func TestACommandIsCancelledWhenTheClientGoes(t *testing.T) {
	begun, cancelled := make(chan struct{}), make(chan struct{})
	client := serves(t, t.TempDir(), &slate{}, func(s *Server) {
		s.Execute = func(ctx context.Context, _ Command, _, _ io.Writer) int {
			close(begun)
			<-ctx.Done()
			close(cancelled)
			return 130
		}
	})
	ctx, stop := context.WithCancel(t.Context())
	go func() { <-begun; stop() }()
	if _, err := client.Run(ctx, Command{Args: []string{"verify"}}, io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("the client gets %v", err)
	}
	<-cancelled
}

func TestAReloadThatIsRefusedSaysAllMistakes(t *testing.T) {
	client := serves(t, t.TempDir(), &slate{}, func(s *Server) {
		s.Reload = func(context.Context) (Reloaded, error) {
			return Reloaded{}, &model.Error{Op: "configuration", Class: model.Usage, Err: errors.New("a: wrong\nb: wrong")}
		}
	})
	if _, err := client.Reload(t.Context()); model.ClassOf(err) != model.Usage || !strings.Contains(err.Error(), "b: wrong") {
		t.Errorf("%v", err)
	}
}

func TestNoSecretOfALinkIsTold(t *testing.T) {
	link := model.ID{Scheme: model.HTTPS, Name: "https://host/file.bin?sig=secret"}
	list := &slate{list: []model.Download{{ID: "dl_1", Model: link, State: model.Queued}}}
	client := serves(t, t.TempDir(), list, nil)
	res := raw(t, client, "GET", Base+"/models/download/active", "")
	body, err := io.ReadAll(res.Body)
	if err != nil || bytes.Contains(body, []byte("secret")) || !bytes.Contains(body, []byte("https://host/file.bin")) {
		t.Errorf("%s, %v", body, err)
	}
	for _, name := range []string{link.Name, "https://host/file.bin"} { // as it was asked for, and as it is shown
		if done, err := client.Manage(t.Context(), Manage{Action: "pause", Model: name}); err != nil || len(done.Downloads) != 1 {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
	}
}
