package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ema/client"
	"ema/internal/api/trust"
	"ema/internal/event"
	"ema/internal/model"
)

// stock has one model, acme/here.
type stock struct{ s *Server }

func (k stock) ServeStatus(w http.ResponseWriter, _ *http.Request) {
	k.s.answer(w, http.StatusOK, exampleStatuses())
}

func (k stock) ServeModel(w http.ResponseWriter, r *http.Request, id model.ID) {
	if id != hub("acme/here") {
		k.s.Refuse(w, r, &model.Error{Op: "look at", Class: model.NotFound, Model: id, Err: errors.New("it is neither here nor on its way")})
		return
	}
	one := exampleStatus()
	one.Model = id.Name
	k.s.answer(w, http.StatusOK, one)
}

func (k stock) ServeStorage(w http.ResponseWriter, _ *http.Request) {
	k.s.answer(w, http.StatusOK, exampleStorage())
}

// twoMistakes is what a settings file with two mistakes gives.
type twoMistakes struct{}

func (twoMistakes) Error() string { return "2 mistakes" }

func (twoMistakes) Fields() []FieldError {
	return []FieldError{
		{Path: "download.a", Value: "-1", Problem: "it is too small", Want: "1 or more"},
		{Path: "download.bb", Problem: "there is no such key", Nearest: "download.b"},
	}
}

// board has settings of which download.wrong may not be set.
type board struct{}

func (board) Current(context.Context) (any, error) {
	return client.Settings{
		Config: map[string]any{"download": map[string]any{"a": 1}}, Origins: map[string]string{"download.a": "file"},
		Warnings: []client.SettingWarning{}, Inactive: []string{},
	}, nil
}

func (b board) Update(ctx context.Context, patch json.RawMessage) (Reloaded, error) {
	if _, err := b.Validate(ctx, patch); err != nil {
		return Reloaded{}, err
	}
	return Reloaded{Success: true, Updated: []string{"download.a", "log.level"}, RestartRequired: true, RestartKeys: []string{"log.level"}}, nil
}

func (board) Profiles(context.Context) (client.Profiles, error) {
	return client.Profiles{Profiles: []client.Profile{{
		Name: "low_latency", Changes: []client.SettingChange{{Key: "api.cache_ttl_seconds", Now: 30, Then: 60}}, Warnings: []client.SettingWarning{},
	}}}, nil
}

func (board) Schema() (json.RawMessage, error) {
	return json.RawMessage(`{"type":"object"}`), nil
}

func (board) Validate(_ context.Context, doc json.RawMessage) (client.Validated, error) {
	if strings.Contains(string(doc), "wrong") {
		return client.Validated{}, twoMistakes{}
	}
	return client.Validated{Valid: true, Updated: []string{"download.a"}}, nil
}

// diary is an audit trail in memory.
type diary struct {
	mu      sync.Mutex
	entries []model.AuditEntry
}

func (d *diary) Record(_ context.Context, e model.AuditEntry) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, e)
	return nil
}

func (d *diary) Audit(_ context.Context, limit, offset int) ([]model.AuditEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.entries)
	slices.Reverse(all)
	return all[min(offset, len(all)):min(offset+limit, len(all))], nil
}

// newest is the last entry.
func (d *diary) newest(t *testing.T) model.AuditEntry {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.entries) == 0 {
		t.Fatal("nothing was recorded")
	}
	return d.entries[len(d.entries)-1]
}

// whole is a server of which every field is set.
func whole(t testing.TB) (*Server, *slate, *diary) {
	t.Helper()
	list := &slate{
		list: []model.Download{
			{ID: "dl_a", Model: hub("acme/going"), State: model.Downloading, Size: 10 * model.MiB, Created: exampleTime(), Started: exampleTime()},
			{ID: "dl_b", Model: hub("acme/waits"), State: model.Queued, Order: 1, Created: exampleTime()},
		},
		over: []model.Download{
			{ID: "dl_x", Model: hub("acme/done"), State: model.Completed, Size: 5, Done: 5, Created: exampleTime(), Ended: exampleTime()},
			{ID: "dl_y", Model: hub("acme/here"), State: model.Completed, Size: 5, Done: 5, Created: exampleTime(), Ended: exampleTime()},
			{ID: "dl_z", Model: hub("acme/bad"), State: model.Failed, Class: "integrity", Reason: "no", Created: exampleTime(), Ended: exampleTime()},
		},
	}
	book := &diary{}
	s := &Server{
		Queue: list, History: list, Events: event.New(0),
		Figures: func(id string) *Figures {
			if id != "dl_a" {
				return nil
			}
			return &Figures{Stage: "fetching", Done: 4 * model.MiB, Total: 10 * model.MiB, Rate: float64(2 * model.MiB), ETA: 3 * time.Second, Connections: 4, Files: 3, FilesDone: 1}
		},
		Limit: func() (model.Bytes, string) { return 20 * model.MiB, "business hours" },
		Repair: func(_ context.Context, id model.ID) (string, error) {
			if id == hub("acme/none") {
				return "", &model.Error{Op: "repair", Class: model.NotFound, Model: id, Err: errors.New("it is not here")}
			}
			return id.Public() + ": 2 files are fetched again", nil
		},
		Remove: func(_ context.Context, id model.ID) (int64, error) {
			if id != hub("acme/here") {
				return 0, &model.Error{Op: "delete", Class: model.NotFound, Model: id, Err: errors.New("it is not here")}
			}
			return 3 << 29, nil
		},
		Tiers:     &rack{},
		Clean:     sweep,
		Wellbeing: nurse{}, Analyst: sage{}, Updater: herald{}, StandIns: substitutes{}, Observer: dial{}, Assessor: gauger{}, Optimizer: tuner{},
		Use: func(_ context.Context, u model.Use) error {
			if u.Model == hub("acme/none") {
				return &model.Error{Op: "count a use", Class: model.NotFound, Model: u.Model, Err: errors.New("it is not here")}
			}
			return nil
		},
		Live: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUpgradeRequired)
		}),
		Settings: board{},
		Reload:   func(context.Context) (Reloaded, error) { return Reloaded{Success: true}, nil },
		Health:   map[string]func(context.Context) client.PartHealth{},
		Ready:    func(context.Context) error { return nil },
		Resources: func(context.Context) (client.Resources, error) {
			return client.Resources{At: exampleTime(), Process: client.ProcessResources{PID: 7}}, nil
		},
		Recorded: func(w io.Writer) error { _, err := io.WriteString(w, "go 1.26 trace"); return err },
		Trail:    book,
		Execute:  func(context.Context, Command, io.Writer, io.Writer) int { return 0 },
		Version:  Version{Version: "v1", Since: time.Now()},
		Log:      slog.New(slog.DiscardHandler),
	}
	for _, part := range parts() {
		s.Health[part] = func(context.Context) client.PartHealth {
			return client.PartHealth{Status: client.HealthHealthy, Message: part + " is well"}
		}
	}
	s.Models = stock{s}
	return s, list, book
}

// What whole leaves out, neither the document nor the types nor the tests of all operations know of.
func TestTheWholeServerOffersEverything(t *testing.T) {
	s, _, _ := whole(t)
	fields := reflect.ValueOf(s).Elem()
	for i := range fields.NumField() {
		name, kind := fields.Type().Field(i).Name, fields.Field(i).Kind()
		if (kind == reflect.Interface || kind == reflect.Map) && fields.Field(i).IsNil() {
			t.Errorf("whole does not set %s", name)
		}
	}
}

// ask sends one request as somebody of that role, and returns the answer.
func ask(t testing.TB, h http.Handler, as trust.Role, method, path, body string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "http://daemon"+path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if as != trust.None {
		r = r.WithContext(trust.With(r.Context(), trust.Identity{Name: "key of " + as.String(), Role: as}))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// read decodes the body of an answer.
func read(t testing.TB, res *http.Response, into any) {
	t.Helper()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v in %q", res.Status, err, raw)
	}
}

// no is the envelope of an answer that says no.
func no(t testing.TB, res *http.Response) client.Problem {
	t.Helper()
	var e envelope
	read(t, res, &e)
	if e.Error.Code == "" || e.Error.Message == "" || e.Error.Timestamp.IsZero() || e.Error.RequestID != res.Header.Get("X-Request-Id") {
		t.Fatalf("%s: that is no envelope: %+v", res.Status, e)
	}
	return e.Error
}
