package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/api/trust"
	"ema/internal/model"
)

func TestWhoHasAnAnswerAlreadyIsNotSentItAgain(t *testing.T) {
	s, list, _ := whole(t)
	h := s.Handler()
	for _, path := range []string{"/models/download/active", "/models/download/history", "/models/download/progress/acme/going", "/config/current", "/config/schema", "/admin/version"} {
		first := ask(t, h, trust.Admin, "GET", Base+path, "")
		tag := first.Header.Get("Etag")
		if first.StatusCode != http.StatusOK || tag == "" {
			t.Errorf("%s: %s without an ETag", path, first.Status)
			continue
		}
		again := ask(t, h, trust.Admin, "GET", Base+path, "", "If-None-Match", tag)
		if body, err := io.ReadAll(again.Body); err != nil || again.StatusCode != http.StatusNotModified || len(body) > 0 || again.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: %s, %q", path, again.Status, body)
		}
	}
	tag := ask(t, h, trust.User, "GET", Base+"/models/download/active", "").Header.Get("Etag")
	list.list = list.list[:1]
	if res := ask(t, h, trust.User, "GET", Base+"/models/download/active", "", "If-None-Match", tag); res.StatusCode != http.StatusOK {
		t.Errorf("what has changed is answered with %s", res.Status)
	}
}

func TestTheHistoryIsSortedAsAsked(t *testing.T) {
	s, list, _ := whole(t)
	list.over = nil
	for i, name := range []string{"b", "c", "a"} {
		list.over = append(list.over, model.Download{
			ID: "dl_" + name, Model: hub("acme/" + name), State: model.Completed, Size: model.Bytes(i),
			Created: exampleTime().Add(time.Duration(-i) * time.Second), Started: exampleTime(), Ended: exampleTime(),
		})
	}
	for query, want := range map[string]string{
		"":                                 "b c a",
		"sort=model_id&order=asc":          "a b c",
		"sort=model_id":                    "c b a",
		"sort=total_mb&order=asc":          "b c a",
		"sort=created_at&order=asc":        "a c b",
		"sort=started_at&order=asc":        "a b c", // all at once: by id
		"sort=ended_at&order=asc":          "a b c",
		"sort=model_id&limit=2&page=2":     "a",
		"sort=model_id&limit=2&page=99999": "",
	} {
		var h History
		read(t, ask(t, s.Handler(), trust.User, "GET", Base+"/models/download/history?"+query, ""), &h)
		var names []string
		for _, d := range h.Downloads {
			names = append(names, strings.TrimPrefix(d.Model, "acme/"))
		}
		if strings.Join(names, " ") != want || h.Downloads == nil {
			t.Errorf("%q: %v, want %s", query, names, want)
		}
	}
}

func TestWhereThereIsAnotherMethodItIsNamed(t *testing.T) {
	s, _, _ := whole(t)
	for request, want := range map[string]string{
		"GET /models/download/manage":       "POST",
		"POST /models/download/active":      "GET, HEAD",
		"PUT /models/status/detailed/a/b":   "GET, HEAD",
		"POST /models/acme/here":            "DELETE",
		"DELETE /models/storage":            "GET, HEAD", // that is no model
		"DELETE /models/download/active":    "GET, HEAD",
		"OPTIONS /config/update":            "PUT",
		"DELETE /models/status/detailed/a":  "GET, HEAD",
		"DELETE /models/download/manage":    "POST",
		"PATCH /models/download/progress/x": "GET, HEAD",
	} {
		method, path, _ := strings.Cut(request, " ")
		res := ask(t, s.Handler(), trust.Admin, method, Base+path, "")
		if e := no(t, res); res.StatusCode != http.StatusMethodNotAllowed || e.Code != WrongMethod || withoutDelete(res.Header.Get("Allow"), method, want) != want {
			t.Errorf("%s: %s, Allow is %q, want %q", request, res.Status, res.Header.Get("Allow"), want)
		}
	}
}

// withoutDelete is allow without DELETE where that is not meant: a path below /models is that of a model to be deleted too.
func withoutDelete(allow, method, want string) string {
	if method == "DELETE" || want == "DELETE" {
		return allow
	}
	return strings.TrimSuffix(allow, ", DELETE")
}

func TestAModelThatIsCalledLikeAPlaceOfOursIsDeletedByItsEscapedName(t *testing.T) {
	s, _, book := whole(t)
	res := ask(t, s.Handler(), trust.Admin, "DELETE", Base+"/models/download%2Factive", "")
	if e := no(t, res); e.Code != ModelNotFound || book.newest(t).Target != "download/active" {
		t.Errorf("%s, %+v", res.Status, e)
	}
}

func TestNoRequestIsSentElsewhere(t *testing.T) {
	s, _, _ := whole(t)
	for _, path := range []string{"//healthz", "/api/v1//models/storage", "/api/v1/models/download/progress", "/debug/pprof", "/docs/", "/api/v1/models/storage/", "/x/../healthz", "/api/v1/models/./storage"} {
		res := ask(t, s.Handler(), trust.Admin, "GET", path, "")
		if e := no(t, res); res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s, %+v", path, res.Status, e)
		}
	}
}

func TestBodiesThatCannotBeReadAreRefused(t *testing.T) {
	s, _, _ := whole(t)
	for promise, c := range map[string]struct {
		body, kind string
		status     int
		code       Code
	}{
		"too large":   {`{"x":"` + strings.Repeat("x", mostBody) + `"}`, "application/json", 413, BodyTooLarge},
		"a form":      {`action=start`, "application/x-www-form-urlencoded", 415, NotJSON},
		"half of one": {`{"action":`, "application/json", 400, Malformed},
		"no type":     {`{"action":"start","model_id":"a/b"}`, "", 200, ""},
		"a charset":   {`{"action":"start","model_id":"a/b"}`, "application/json; charset=utf-8", 200, ""},
	} {
		res := ask(t, s.Handler(), trust.Admin, "POST", Base+"/models/download/manage", c.body, "Content-Type", c.kind)
		if c.kind == "" {
			res = ask(t, s.Handler(), trust.Admin, "POST", Base+"/models/download/manage", c.body)
		}
		if res.StatusCode != c.status || c.status != 200 && no(t, res).Code != c.code {
			t.Errorf("%s: %s", promise, res.Status)
		}
	}
	// A client that promises more than it sends, and one that the guard has bounded more tightly.
	for body, status := range map[io.Reader]int{
		io.MultiReader(strings.NewReader(`{"act`), broken{io.ErrUnexpectedEOF}):            http.StatusBadRequest,
		http.MaxBytesReader(nil, io.NopCloser(strings.NewReader(`{"action":"start"}`)), 5): http.StatusRequestEntityTooLarge,
	} {
		r, err := http.NewRequestWithContext(trust.With(t.Context(), trust.Identity{Role: trust.Admin}), "POST", Base+"/models/download/manage", body)
		if err != nil {
			t.Fatal(err)
		}
		w := &kept{header: http.Header{}}
		s.Handler().ServeHTTP(w, r)
		if w.status != status {
			t.Errorf("%d, want %d: %s", w.status, status, w.body.String())
		}
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(status int)      { k.status = status }
func (k *kept) Write(p []byte) (int, error) { return k.body.Write(p) }

func TestRefusalsSayWhenToComeBackAndWhatIsMissing(t *testing.T) {
	for promise, c := range map[string]struct {
		fail   error
		status int
		code   Code
		after  string
	}{
		"no space":      {&model.Error{Op: "pull", Class: model.DiskFull, Short: 7}, 507, NoSpace, ""},
		"too many":      {&model.Error{Op: "pull", Class: model.RateLimited, After: 1500 * time.Millisecond}, 429, RateLimited, "2"},
		"too many, too": {&model.Error{Op: "pull", Class: model.RateLimited}, 429, RateLimited, "30"},
		"busy":          {&model.Error{Op: "pull", Class: model.Busy}, 503, NotReady, ""},
		"no network":    {&model.Error{Op: "pull", Class: model.Timeout}, 502, Upstream, ""},
	} {
		s, list, _ := whole(t)
		list.fail = c.fail
		res := ask(t, s.Handler(), trust.User, "POST", Base+"/models/download/manage", `{"action":"start","model_id":"a/b"}`)
		e := no(t, res)
		if res.StatusCode != c.status || e.Code != c.code || res.Header.Get("Retry-After") != c.after {
			t.Errorf("%s: %s, %s, %q", promise, res.Status, e.Code, res.Header.Get("Retry-After"))
		}
		if c.status == 507 && e.Details.ShortBytes != 7 {
			t.Errorf("%+v", e)
		}
	}
}

func TestADaemonThatIsNotReadySaysSo(t *testing.T) {
	s, _, _ := whole(t)
	s.Ready = func(context.Context) error { return errors.New("the database does not answer; check its disk") }
	res := ask(t, s.Handler(), trust.None, "GET", "/readyz", "")
	if e := no(t, res); res.StatusCode != http.StatusServiceUnavailable || e.Code != NotReady || !strings.Contains(e.Message, "database") {
		t.Errorf("%s, %+v", res.Status, e)
	}
	if res := ask(t, s.Handler(), trust.None, "GET", "/healthz", ""); res.StatusCode != http.StatusOK {
		t.Errorf("and yet it is alive: %s", res.Status)
	}
}

func TestTheDaemonIsAsWellAsItsWorstPart(t *testing.T) {
	for want, parts := range map[string][]string{
		client.HealthHealthy:   {client.HealthHealthy, client.HealthHealthy},
		client.HealthDegraded:  {client.HealthDegraded, client.HealthHealthy, client.HealthUnknown},
		client.HealthUnhealthy: {client.HealthHealthy, client.HealthUnhealthy, client.HealthDegraded},
		client.HealthUnknown:   {client.HealthUnknown, client.HealthHealthy},
	} {
		s, _, _ := whole(t)
		s.Health = map[string]func(context.Context) client.PartHealth{}
		for i, status := range parts {
			s.Health[[]string{client.PartDownloads, client.PartStorage, client.PartDatabase}[i]] = func(context.Context) client.PartHealth {
				return client.PartHealth{Status: status}
			}
		}
		var h client.AdminHealth
		read(t, ask(t, s.Handler(), trust.Admin, "GET", Base+"/admin/health", ""), &h)
		if h.Status != want || len(h.Parts) != len(parts) {
			t.Errorf("%v: %+v", parts, h)
		}
	}
}

func TestEachAnswerIsMeasuredByItsOperation(t *testing.T) {
	s, _, _ := whole(t)
	type seen struct {
		operation string
		status    int
	}
	var all []seen
	s.Measure = func(operation string, status int, _ time.Duration) { all = append(all, seen{operation, status}) }
	h := s.Handler()
	for _, path := range []string{Base + "/models/status/detailed", Base + "/models/status/detailed/a/b/c", "/nothing/at/all", "/healthz"} {
		ask(t, h, trust.User, "GET", path, "")
	}
	ask(t, h, trust.User, "DELETE", Base+"/models/a/b", "")
	if want := []seen{{opStatuses, 200}, {opStatus, 422}, {"", 404}, {opAlive, 200}, {opDelete, 403}}; !slices.Equal(all, want) {
		t.Errorf("%v, want %v", all, want)
	}
}

func TestThroughAGuardStrangersAndFloodsGetTheSameEnvelope(t *testing.T) {
	s, _, book := whole(t)
	const key = "a key of jo's, which nobody guesses"
	guard, err := trust.New(trust.Settings{Keys: []trust.Key{{Name: "jo", SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(key))), Role: trust.PowerUser}}, Open: Open(), Refuse: s.Refuse, MaxBody: 64, Loopback: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.RunGuarded(ctx, l, guard, trust.Patience{}) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	where := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	send := func(method, path, body, key string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		res, err := where.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	if res := send("GET", Base+"/models/download/active", "", ""); res.StatusCode != http.StatusUnauthorized || no(t, res).Code != Unauthorized {
		t.Error(res.Status)
	}
	for _, path := range []string{"/docs", "/openapi.json", "/healthz", "/readyz"} {
		if res := send("GET", path, "", ""); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	if res := send("POST", Base+"/models/download/manage", `{"model_id":"acme/going","action":"pause"}`, key); res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
	if e := book.newest(t); e.Who != "jo" || e.Role != "power_user" || e.Remote != "127.0.0.1" || e.Target != "pause acme/going" {
		t.Errorf("%+v", e)
	}
	if res := send("POST", Base+"/models/download/manage", strings.Repeat(" ", 65), key); res.StatusCode != http.StatusRequestEntityTooLarge || no(t, res).Code != BodyTooLarge {
		t.Error(res.Status)
	}
	if res := send("GET", Base+"/admin/version", "", key); res.StatusCode != http.StatusForbidden || no(t, res).Code != NotPermitted {
		t.Error(res.Status)
	}
}

func TestDownloadsThatAreNotOverComeInAnyOrderAndPageByPage(t *testing.T) {
	s, list, _ := whole(t)
	list.list = append(list.list, model.Download{
		ID: "dl_c", Model: hub("acme/a-paused"), State: model.Paused, Size: 99 * model.MiB, Order: 2, Created: exampleTime().Add(time.Hour),
	})
	h := s.Handler()
	for query, want := range map[string]string{
		"":                              "acme/going acme/waits acme/a-paused",
		"?order=desc":                   "acme/a-paused acme/waits acme/going",
		"?sort=model_id":                "acme/a-paused acme/going acme/waits",
		"?sort=total_mb&order=desc":     "acme/a-paused acme/going acme/waits",
		"?sort=created_at&order=desc":   "acme/a-paused acme/waits acme/going",
		"?limit=2":                      "acme/going acme/waits",
		"?limit=2&page=2":               "acme/a-paused",
		"?limit=2&page=3":               "",
		"?sort=model_id&limit=1&page=2": "acme/going",
		"?sort=started_at&order=desc":   "acme/going acme/a-paused acme/waits",
	} {
		var a Active
		read(t, ask(t, h, trust.User, "GET", Base+"/models/download/active"+query, ""), &a)
		var got []string
		for _, d := range a.Downloads {
			got = append(got, d.Model)
		}
		if strings.Join(got, " ") != want || a.Total != 3 || a.SpeedMBps != 2 {
			t.Errorf("%q: %q of %d at %v, want %s", query, got, a.Total, a.SpeedMBps, want)
		}
	}
	for _, query := range []string{"?limit=101", "?limit=-1", "?page=0", "?sort=nonsense", "?order=up"} {
		if res := ask(t, h, trust.User, "GET", Base+"/models/download/active"+query, ""); res.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %s", query, res.Status)
		}
	}
}
