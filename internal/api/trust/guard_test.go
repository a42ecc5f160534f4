package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hash is what the configuration has of a key.
func hash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// keyed are settings with a key for each role; the key of a role is its name, twice.
func keyed() Settings {
	s := Settings{Loopback: true}
	for r := User; r <= Admin; r++ {
		s.Keys = append(s.Keys, Key{Name: "the " + r.String(), SHA256: hash(r.String() + r.String()), Role: r})
	}
	return s
}

// A house is a guard with a handler behind it, which remembers who came.
type house struct {
	guard *Guard
	http.Handler
	came atomic.Int64
	who  Identity
	last *http.Request
}

func guarded(t testing.TB, s Settings) *house {
	t.Helper()
	g, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{guard: g}
	h.Handler = g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.came.Add(1)
		h.who, h.last = From(r.Context()), r
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			if _, large := errors.AsType[*http.MaxBytesError](err); large {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			}
		}
	}))
	return h
}

// ask sends a request: "METHOD http://HOST/PATH", then header lines. "From: ADDRESS:PORT" is where it comes from.
func (h *house) ask(request string, headers ...string) *httptest.ResponseRecorder {
	method, target, _ := strings.Cut(request, " ")
	r := httptest.NewRequest(method, target, http.NoBody)
	r.RemoteAddr = "127.0.0.1:40000"
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "From":
			r.RemoteAddr = value
		case "Host":
			r.Host = value
		default:
			r.Header.Add(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const here = "GET http://127.0.0.1:8000/api/v1/models"

func TestOnLoopbackOnlyItsOwnNamesAndListedOnesAreAnswered(t *testing.T) {
	h := guarded(t, Settings{Loopback: true, AllowedHosts: []string{"ema.example", "*.lab.example:8443", "gpu-*.example"}})
	for host, want := range map[string]int{
		"127.0.0.1:8000": 200, "127.0.0.1": 200, "127.8.9.1:1": 200, "[::1]:8000": 200, "[::1]": 200, "[::ffff:127.0.0.1]:80": 200,
		"localhost": 200, "LocalHost:8000": 200, "localhost.:8000": 200, "app.localhost:8000": 200,
		"ema.example": 200, "EMA.example:99": 200, "a.lab.example:8443": 200, "gpu-7.example": 200,
		"a.lab.example": 403, "a.lab.example:80": 403, "a.b.lab.example:8443": 403, "lab.example:8443": 403, "gpu-7.evil.example": 403,
		"evil.example:8000": 403, "ema.example.evil.example": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example": 403, "evillocalhost": 403,
		"0.0.0.0:8000": 403, "[::]:8000": 403, "192.168.1.7:8000": 403, "[fe80::1]:8000": 403, "127.1:8000": 403, "2130706433": 403, "0x7f.0.0.1": 403,
		"": 403, ":8000": 403, "localhost:": 403, "localhost:99999": 403, "localhost:80:80": 403, "[127.0.0.1]": 403, "[::1": 403, "[::1]x": 403, "a@localhost": 403, "localhost/..": 403,
	} {
		if got := h.ask(here, "Host: "+host).Code; got != want {
			t.Errorf("Host: %q is answered %d, want %d", host, got, want)
		}
	}
	if guarded(t, Settings{Loopback: true, AllowedHosts: []string{"*"}}).ask(here, "Host: any.example").Code != 200 {
		t.Error("* is not every host")
	}
}

func TestOnOtherAddressesANameThatPagesCanTakeNeedsToBeListedWhereStrangersAreLetIn(t *testing.T) {
	open := Settings{Insecure: true}
	half := keyed()
	half.Loopback, half.DefaultRole = false, User
	closed := keyed()
	closed.Loopback = false
	listed := closed
	listed.AllowedHosts = []string{"ema.example"}
	for _, c := range []struct {
		what     string
		settings Settings
		host     string
		want     int
	}{
		{"insecure", open, "192.168.1.7:8000", 200},
		{"insecure", open, "bigbox:8000", 200},
		{"insecure", open, "evil.example:8000", 403},
		{"default role", half, "evil.example:8000", 403},
		{"keys", closed, "evil.example:8000", 200},
		{"keys and hosts", listed, "ema.example", 200},
		{"keys and hosts", listed, "10.0.0.1", 200},
		{"keys and hosts", listed, "evil.example", 403},
	} {
		h := guarded(t, c.settings)
		if got := h.ask(here, "From: 10.1.1.1:5", "Authorization: Bearer adminadmin", "Host: "+c.host).Code; got != c.want {
			t.Errorf("%s, Host: %s is answered %d, want %d", c.what, c.host, got, c.want)
		}
	}
}

func TestAPageOfAnotherOriginCanNeitherReadNorDrive(t *testing.T) {
	h := guarded(t, Settings{Loopback: true, Open: []string{"/", "/assets/"}})
	for _, c := range []struct {
		what    string
		request string
		headers []string
		want    int
	}{
		{"a program", here, nil, 200},
		{"the address bar", here, []string{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"}, 200},
		{"our own page", here, []string{"Sec-Fetch-Site: same-origin", "Referer: http://127.0.0.1:8000/"}, 200},
		{"our own page, posting", "POST http://localhost:8000/x", []string{"Sec-Fetch-Site: same-origin", "Origin: http://localhost:8000"}, 200},
		{"our own page in a browser without Sec-Fetch", "POST http://localhost:8000/x", []string{"Origin: http://localhost:8000"}, 200},
		{"our own page behind a proxy with TLS", "POST http://localhost/x", []string{"Origin: https://localhost"}, 200},
		{"our own page over TLS", "POST https://localhost/x", []string{"Origin: https://localhost"}, 200},
		{"a page of our host without TLS", "POST https://localhost/x", []string{"Origin: http://localhost:443"}, 403},
		{"a page of our host without TLS, its port ours", "POST https://localhost:8000/x", []string{"Origin: http://localhost:8000"}, 403},
		{"fetch", here, []string{"Origin: http://evil.example"}, 403},
		{"fetch from our name, another port", here, []string{"Origin: http://127.0.0.1:8001", "Sec-Fetch-Site: same-site"}, 403},
		{"the same in a browser without Sec-Fetch", here, []string{"Origin: http://127.0.0.1:8001"}, 403},
		{"a sandboxed frame", "POST http://127.0.0.1:8000/x", []string{"Origin: null", "Sec-Fetch-Site: cross-site"}, 403},
		{"a file", here, []string{"Origin: null"}, 403},
		{"an extension", here, []string{"Origin: chrome-extension://abcdef", "Sec-Fetch-Site: none"}, 403},
		{"an image", here, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 403},
		{"an image in a browser without Sec-Fetch", here, []string{"Referer: http://evil.example/page"}, 403},
		{"a form", "POST http://127.0.0.1:8000/x", []string{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 403},
		{"a form of a page that hides", "POST http://127.0.0.1:8000/", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 403},
		{"a WebSocket", "GET http://127.0.0.1:8000/ws", []string{"Origin: http://evil.example", "Connection: Upgrade", "Upgrade: websocket"}, 403},
		{"a preflight", "OPTIONS http://127.0.0.1:8000/x", []string{"Origin: http://evil.example", "Access-Control-Request-Method: POST"}, 403},
		{"a link into the API", here, []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 403},
		{"a link to the dashboard", "GET http://127.0.0.1:8000/", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 200},
		{"the dashboard in a frame", "GET http://127.0.0.1:8000/", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
		{"two origins", here, []string{"Origin: http://127.0.0.1:8000", "Origin: http://evil.example"}, 403},
		{"two sites", here, []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, 403},
		{"a word of the future", here, []string{"Sec-Fetch-Site: other"}, 403},
	} {
		before := h.came.Load()
		w := h.ask(c.request, c.headers...)
		if w.Code != c.want || (h.came.Load() > before) != (c.want == 200) {
			t.Errorf("%s is answered %d, want %d", c.what, w.Code, c.want)
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: no origin is listed, and the answer has %s", c.what, name)
			}
		}
		if w.Header().Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: the answer may be shown in a frame", c.what)
		}
	}
}

func TestAListedOriginMayUseTheAPIAndReadsRefusalsToo(t *testing.T) {
	s := keyed()
	s.AllowedOrigins = []string{"https://Board.example:443", "http://127.0.0.1:3000"}
	h := guarded(t, s)
	for _, o := range []string{"https://board.example", "http://127.0.0.1:3000"} {
		from := []string{"Origin: " + o, "Sec-Fetch-Site: cross-site"}
		w := h.ask("OPTIONS http://127.0.0.1:8000/x", append(from, "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization,content-type")...)
		if w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Origin") != o || w.Header().Get("Access-Control-Allow-Methods") != "PUT" || h.came.Load() != 0 {
			t.Errorf("%s: the preflight is answered %d %v", o, w.Code, w.Header())
		}
		w = h.ask(here, from...)
		if w.Code != 401 || w.Header().Get("Access-Control-Allow-Origin") != o {
			t.Errorf("%s: without a key it is answered %d %v", o, w.Code, w.Header())
		}
		w = h.ask(here, append(from, "Authorization: Bearer useruser")...)
		if w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != o || w.Header().Get("Access-Control-Allow-Credentials") != "" || !strings.Contains(w.Header().Get("Vary"), "Origin") {
			t.Errorf("%s: with a key it is answered %d %v", o, w.Code, w.Header())
		}
		h.came.Store(0)
	}
	for _, o := range []string{"http://board.example", "https://board.example:8443", "https://board.example.evil.example", "null"} {
		if w := h.ask(here, "Origin: "+o); w.Code != 403 || w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is answered %d %v", o, w.Code, w.Header())
		}
	}
}

func TestWithoutKeysEverybodyOnThisMachineIsAdmin(t *testing.T) {
	h := guarded(t, Settings{Loopback: true, DefaultRole: User})
	if w := h.ask(here, "Authorization: Bearer whatever"); w.Code != 200 || h.who != (Identity{Role: Admin, Local: true}) {
		t.Errorf("answered %d to %+v", w.Code, h.who)
	}
	if _, err := New(Settings{}); err == nil || !strings.Contains(err.Error(), "auth.api_keys") {
		t.Errorf("everybody from everywhere may everything: %v", err)
	}
	h = guarded(t, Settings{Insecure: true})
	if w := h.ask(here, "From: 10.0.0.1:1"); w.Code != 200 || h.who != (Identity{Role: Admin}) {
		t.Errorf("insecure: answered %d to %+v", w.Code, h.who)
	}
	h = guarded(t, Settings{Insecure: true, DefaultRole: User})
	if w := h.ask(here, "From: 10.0.0.1:1"); w.Code != 200 || h.who != (Identity{Role: User}) {
		t.Errorf("insecure with a default role: answered %d to %+v", w.Code, h.who)
	}
}

func TestAKeyMakesItsOwnerKnownAndNobodyElse(t *testing.T) {
	h := guarded(t, keyed())
	for r := User; r <= Admin; r++ {
		for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
			h.who = Identity{}
			if w := h.ask(here, "Authorization: "+scheme+r.String()+r.String()); w.Code != 200 || h.who != (Identity{"the " + r.String(), r, true}) {
				t.Errorf("%s: answered %d to %+v", r, w.Code, h.who)
			}
		}
	}
	h.came.Store(0)
	for i, headers := range [][]string{
		{},
		{"Authorization: "},
		{"Authorization: Bearer"},
		{"Authorization: Bearer "},
		{"Authorization: Bearer wrong"},
		{"Authorization: Bearer " + hash("adminadmin")},
		{"Authorization: Bearer adminadmin "},
		{"Authorization: Basic YWRtaW5hZG1pbg=="},
		{"Authorization: Basic adminadmin"},
		{"Authorization: adminadmin"},
		{"Authorization: Bearer adminadmin", "Authorization: Bearer adminadmin"},
		{"Authorization: Bearer wrong", "Sec-WebSocket-Protocol: bearer.adminadmin", "Upgrade: websocket"},
		{"Sec-WebSocket-Protocol: bearer.adminadmin"}, // no WebSocket
		{"X-Api-Key: adminadmin"},
		{"Cookie: key=adminadmin"},
	} {
		w := h.ask("POST http://127.0.0.1:8000/x?key=adminadmin&access_token=adminadmin", append(headers, fmt.Sprintf("From: 10.0.0.%d:1", i))...)
		if w.Code != 401 || w.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%q is answered %d %v", headers, w.Code, w.Header())
		}
	}
	if h.came.Load() > 0 {
		t.Error("some came through")
	}
}

func TestWithADefaultRoleNoKeyIsEnoughAndAWrongOneIsStillWrong(t *testing.T) {
	s := keyed()
	s.DefaultRole = User
	h := guarded(t, s)
	if w := h.ask(here); w.Code != 200 || h.who != (Identity{Role: User, Local: true}) {
		t.Errorf("without a key: answered %d to %+v", w.Code, h.who)
	}
	if w := h.ask(here, "Authorization: Bearer wrong"); w.Code != 401 {
		t.Errorf("with a wrong key: answered %d", w.Code)
	}
}

func TestOnlyOpenPathsNeedNoKeyAndThereNobodyIsAnything(t *testing.T) {
	s := keyed()
	s.Open = []string{"/", "/assets/"}
	h := guarded(t, s)
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/": 200, "/assets/app.js": 200,
		"/healthz/": 401, "/healthzz": 401, "/Healthz": 401, "/assets": 401, "/api/v1/models": 401, "//healthz": 401,
		"/assets/../api/v1/models": 400, "/assets/..%2fapi/v1/models": 400, "/assets/%2e%2e/api": 400, "/healthz/..": 400, `/assets/..%5capi`: 400,
		"/a%00b": 400, "/a%0d%0ab": 400,
	} {
		h.who = Identity{Name: "nobody came"}
		w := h.ask("GET http://127.0.0.1:8000" + path)
		if w.Code != want {
			t.Errorf("%s is answered %d, want %d", path, w.Code, want)
		}
		if w.Code == 200 && h.who != (Identity{Local: true}) {
			t.Errorf("%s was reached by %+v", path, h.who)
		}
	}
	if w := h.ask("GET http://127.0.0.1:8000/healthz", "Authorization: Bearer of-yesterday"); w.Code != 200 || h.who != (Identity{Local: true}) {
		t.Errorf("/healthz with a wrong key is answered %d", w.Code)
	}
	if w := h.ask("GET http://127.0.0.1:8000/api/v1/models/org%2Fname/a..b", "Authorization: Bearer useruser"); w.Code != 200 {
		t.Errorf("a model's id is answered %d", w.Code)
	}
}

func TestBrowsersShowTheKeyOfAWebSocketAsASubprotocol(t *testing.T) {
	h := guarded(t, keyed())
	for _, offered := range [][]string{
		{"Sec-WebSocket-Protocol: ema, bearer.useruser"},
		{"Sec-WebSocket-Protocol: bearer.useruser,ema"},
		{"Sec-WebSocket-Protocol: ema", "Sec-WebSocket-Protocol: bearer.useruser"},
	} {
		w := h.ask("GET http://127.0.0.1:8000/ws", append(offered, "Upgrade: websocket", "Connection: Upgrade")...)
		if w.Code != 200 || h.who.Role != User || h.last.Header.Get("Sec-WebSocket-Protocol") != "ema" {
			t.Errorf("%q: answered %d to %+v who offers %q", offered, w.Code, h.who, h.last.Header.Values("Sec-WebSocket-Protocol"))
		}
	}
	w := h.ask("GET http://127.0.0.1:8000/ws", "Authorization: Bearer useruser", "Sec-WebSocket-Protocol: bearer.adminadmin", "Upgrade: websocket")
	if w.Code != 200 || h.who.Role != User || h.last.Header.Get("Sec-WebSocket-Protocol") != "" {
		t.Errorf("with Authorization too: answered %d to %+v", w.Code, h.who)
	}
	w = h.ask("GET http://127.0.0.1:8000/ws", "Sec-WebSocket-Protocol: bearer.useruser, bearer.adminadmin", "Upgrade: websocket")
	if w.Code != 401 {
		t.Errorf("two keys are answered %d", w.Code)
	}
}

func TestAKeyGoesNoFurtherThanTheGuard(t *testing.T) {
	var told strings.Builder
	s := keyed()
	s.Loopback, s.AllowedHosts = false, []string{"ema.example"}
	s.PerMinute, s.Burst = 6, 1
	s.Refuse = func(w http.ResponseWriter, r *http.Request, err error) {
		fmt.Fprintf(&told, "%v %+v %#v %q %v\n", err, r.Header, err, r.URL, r.Header)
		plainly(w, r, err)
	}
	h := guarded(t, s)
	for _, key := range []string{"adminadmin", "wrong-but-close-to-adminadmin"} {
		for _, headers := range [][]string{
			{"Authorization: Bearer " + key},
			{"Authorization: Basic " + key},
			{"Authorization: " + key},
			{"Authorization: Bearer " + key, "Authorization: Bearer " + key},
			{"Sec-WebSocket-Protocol: bearer." + key, "Upgrade: websocket"},
			{"Sec-WebSocket-Protocol: bearer." + key},
			{"Authorization: Bearer " + key, "Origin: http://evil.example"},
			{"Authorization: Bearer " + key, "Host: evil.example"},
		} {
			for i := range 2 * wrongAtOnce { // 401, 403, 429, and those that came through
				h.last = nil
				w := h.ask("GET http://ema.example/x", append(headers, "From: 10.0.0.1:"+strconv.Itoa(1+i))...)
				fmt.Fprintln(&told, w.Code, w.Header(), w.Body)
				if h.last != nil {
					fmt.Fprintf(&told, "%+v %q %v\n", h.last.Header, h.last.URL, h.last.Context())
				}
			}
		}
	}
	fmt.Fprintf(&told, "%v %+v %#v", shown{text: "adminadmin"}, shown{text: "adminadmin"}, shown{text: "adminadmin"})
	for _, status := range []string{"200 map", "401 map", "403 map", "429 map"} {
		if !strings.Contains(told.String(), status) {
			t.Errorf("nothing was answered %s", status)
		}
	}
	for line := range strings.Lines(told.String()) {
		if strings.Contains(line, "adminadmin") {
			t.Fatalf("the key is told: %s", line)
		}
	}
	if _, err := New(Settings{Loopback: true, Keys: []Key{{Name: "jo", SHA256: "adminadmin", Role: Admin}}}); err == nil || strings.Contains(err.Error(), "adminadmin") {
		t.Errorf("the key in the place of its hash is told: %v", err)
	}
}

func TestSettingsThatCannotBeAreRefusedAndChangeNothing(t *testing.T) {
	h := guarded(t, keyed())
	for what, s := range map[string]Settings{
		"a hash that is none":   {Loopback: true, Keys: []Key{{"jo", "12ab", User}}},
		"a key without a role":  {Loopback: true, Keys: []Key{{"jo", hash("x"), None}}},
		"a key without a name":  {Loopback: true, Keys: []Key{{"", hash("x"), User}}},
		"a host with a scheme":  {Loopback: true, AllowedHosts: []string{"http://x"}},
		"an origin with a path": {Loopback: true, AllowedOrigins: []string{"http://x/y"}},
		"an origin with *":      {Loopback: true, AllowedOrigins: []string{"https://*.example"}},
		"every origin":          {Loopback: true, AllowedOrigins: []string{"*"}},
		"no keys for all":       {},
	} {
		if err := h.guard.Configure(s); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	if w := h.ask(here); w.Code != 401 {
		t.Errorf("and it holds: without a key the answer is %d", w.Code)
	}
}

func TestKeysAndLimitsActAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := keyed()
		s.Loopback, s.PerMinute, s.Burst = false, 60, 2
		h := guarded(t, s)
		admin := []string{"From: 10.0.0.1:1", "Authorization: Bearer adminadmin"}
		for _, want := range []int{200, 200, 429} {
			if got := h.ask(here, admin...).Code; got != want {
				t.Errorf("answered %d, want %d", got, want)
			}
		}
		s.MaxBody = 7
		if err := h.guard.Configure(s); err != nil || h.ask(here, admin...).Code != 429 {
			t.Errorf("a change of something else gave a new allowance: %v", err)
		}
		s.PerMinute = 600
		if err := h.guard.Configure(s); err != nil || h.ask(here, admin...).Code != 200 {
			t.Errorf("the new limit does not hold: %v", err)
		}
		s.Keys = s.Keys[:1]
		if err := h.guard.Configure(s); err != nil || h.ask(here, admin...).Code != 401 {
			t.Errorf("the key that was taken away still lets in: %v", err)
		}
	})
}

func TestWhoCallsTooOftenWaitsAndIsToldHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := keyed()
		s.Loopback, s.DefaultRole, s.PerMinute, s.Burst = false, User, 30, 3
		h := guarded(t, s)
		headers := func(w *httptest.ResponseRecorder) string {
			return fmt.Sprint(w.Code, " ", w.Header().Get("X-RateLimit-Limit"), " ", w.Header().Get("X-RateLimit-Remaining"), " ", w.Header().Get("X-RateLimit-Reset"), " ", w.Header().Get("Retry-After"))
		}
		for _, caller := range [][]string{
			{"From: 10.0.0.1:1"},
			{"From: 10.0.0.2:1"},
			{"From: [2001:db8::1]:1"},
			{"From: 10.0.0.1:1", "Authorization: Bearer useruser"},
			{"From: 10.0.0.1:1", "Authorization: Bearer adminadmin"},
		} {
			for _, want := range []string{"200 30 2 2 ", "200 30 1 4 ", "200 30 0 6 ", "429 30 0 6 2"} {
				if got := headers(h.ask("GET http://10.9.9.9/", caller...)); got != want {
					t.Errorf("%q is answered %q, want %q", caller, got, want)
				}
			}
		}
		if got := h.ask("GET http://10.9.9.9/", "From: [2001:db8::2]:1").Code; got != 429 {
			t.Errorf("another address of the same machine is answered %d", got)
		}
		if got := h.ask("GET http://10.9.9.9/", "From: 10.0.0.9:1", "Authorization: Bearer adminadmin").Code; got != 429 {
			t.Errorf("the same key from another address is answered %d", got)
		}
		if got := h.ask("GET http://10.9.9.9/healthz", "From: 10.0.0.1:1").Code; got != 429 {
			t.Errorf("/healthz may be called without end: %d", got)
		}
		for range 100 {
			if w := h.ask("GET http://10.9.9.9/"); w.Code != 200 || w.Header().Get("X-RateLimit-Limit") != "" {
				t.Fatalf("loopback is limited: %d", w.Code)
			}
		}
		time.Sleep(2 * time.Second)
		if got := headers(h.ask("GET http://10.9.9.9/", "From: 10.0.0.1:2")); got != "200 30 0 6 " {
			t.Errorf("after Retry-After the answer is %q", got)
		}
	})
}

func TestWhoGuessesKeysIsStoppedAndWhoHasOneIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, from := range []string{"From: 10.0.0.1:1", "From: 127.0.0.1:1"} {
			s := keyed()
			s.Loopback = false
			h := guarded(t, s)
			known := []string{from, "Authorization: Bearer useruser"}
			guess := func(key string) int {
				return h.ask("GET http://127.0.0.1/", from, "Authorization: Bearer "+key).Code
			}
			if h.ask("GET http://127.0.0.1/", known...).Code != 200 {
				t.Fatal("the key does not let in")
			}
			for i := range wrongAtOnce {
				if got := guess(strconv.Itoa(i)); got != 401 {
					t.Errorf("guess %d is answered %d", i, got)
				}
			}
			if got := guess("wrong"); got != 429 {
				t.Errorf("one guess more is answered %d", got)
			}
			if got := guess("adminadmin"); got != 429 {
				t.Errorf("a lucky guess after too many is answered %d", got)
			}
			if got := h.ask("GET http://127.0.0.1/", known...).Code; got != 200 {
				t.Errorf("who was there before with the right key is answered %d", got)
			}
			if got := h.ask("GET http://127.0.0.1/", "From: 10.0.0.2:1", "Authorization: Bearer adminadmin").Code; got != 200 {
				t.Errorf("another address is answered %d", got)
			}
			time.Sleep(wrongEvery)
			if got := guess("adminadmin"); got != 200 {
				t.Errorf("after a while the right key is answered %d", got)
			}
		}
	})
}

func TestAFloodFromManyAddressesIsForgottenInBoundedMemory(t *testing.T) {
	s := keyed()
	s.Loopback, s.PerMinute, s.Burst = false, 60, 2
	h := guarded(t, s)
	for i := range mostKnown + 500 {
		from := fmt.Sprintf("From: 10.%d.%d.%d:1", i>>16, i>>8&255, i&255)
		h.ask("GET http://10.9.9.9/", from, "Authorization: Bearer wrong")
		h.ask("GET http://10.9.9.9/", from)
	}
	if a, b := h.guard.suspects.Len(), h.guard.rules.Load().calls.of.Len(); a != mostKnown || b != mostKnown {
		t.Errorf("%d suspects and %d limits are kept", a, b)
	}
}

func TestALargerBodyCannotBeRead(t *testing.T) {
	h := guarded(t, Settings{Loopback: true, MaxBody: 10})
	for size, want := range map[int]int{10: 200, 11: 413} {
		r := httptest.NewRequest("POST", "http://localhost/", strings.NewReader(strings.Repeat("x", size)))
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%d bytes are answered %d, want %d", size, w.Code, want)
		}
	}
}

func TestWhoComesThroughTheSocketIsAdmin(t *testing.T) {
	var who Identity
	h := Local(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { who = From(r.Context()) }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if who != (Identity{Role: Admin, Local: true}) {
		t.Errorf("it is %+v", who)
	}
}

func TestTheRemoteAddressIsThatOfTheConnectionAlone(t *testing.T) {
	for remote, want := range map[string]string{"10.0.0.1:80": "10.0.0.1", "[::ffff:10.0.0.1]:80": "10.0.0.1", "[2001:db8::1]:80": "2001:db8::1", "@": "", "": ""} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		if got := Remote(r); got != want || peerOf(r).loopback {
			t.Errorf("%q is %q", remote, got)
		}
	}
}

// FuzzWhatStrangersSend: whatever the headers are, nobody comes in with another host's name, from another origin's
// page or without the key, and nothing of the key comes out.
func FuzzWhatStrangersSend(f *testing.F) {
	f.Add("127.0.0.1:8000", "http://127.0.0.1:8000", "Bearer adminadmin", "ema, bearer.x", "same-origin")
	f.Add("[::1]", "null", "Basic x", "bearer.adminadmin", "cross-site")
	f.Add("evil.example", "http://evil.example", "", "", "")
	f.Add("localhost.", "https://localhost", "bearer  adminadmin", "bearer.", "none")
	f.Add("localhost", "", "Bearer adminadmin", "0bearer.", "")
	s := keyed()
	s.AllowedHosts, s.AllowedOrigins = []string{"*.ema.example"}, []string{"https://board.example"}
	h := guarded(f, s)
	f.Fuzz(func(t *testing.T, host, from, authorization, protocol, site string) {
		h.last, h.who = nil, Identity{}
		h.guard.suspects.Purge() // so that every input is judged for itself
		r := httptest.NewRequest("GET", "http://localhost/ws", nil)
		r.Host, r.RemoteAddr = host, "127.0.0.1:1"
		r.Header = http.Header{"Authorization": {authorization}, "Sec-Websocket-Protocol": {protocol}, "Upgrade": {"websocket"}}
		if from != "" {
			r.Header.Set("Origin", from)
		}
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if h.last == nil {
			if w.Code < 400 || strings.Contains(fmt.Sprint(w.Header(), w.Body), "adminadmin") {
				t.Errorf("refused with %d %v %s", w.Code, w.Header(), w.Body)
			}
			return
		}
		if name, _, ok := splitHost(host); !ok || !strings.HasPrefix(name, "127.") && name != "::1" && !strings.HasPrefix(name, "::ffff:127.") && !strings.HasSuffix(name, "localhost") && !strings.HasSuffix(name, ".ema.example") {
			t.Errorf("the host %q came through", host)
		}
		o, err := parseOrigin(from)
		if from != "" && site != "same-origin" && (err != nil || o.String() != "https://board.example" && !o.ours(r)) {
			t.Errorf("the origin %q came through", from)
		}
		scheme, key, _ := strings.Cut(authorization, " ")
		if !strings.EqualFold(scheme, "bearer") || h.who.Role.String()+h.who.Role.String() != strings.TrimLeft(key, " ") || h.who.Role == None {
			t.Errorf("%q came through as %+v", authorization, h.who)
		}
		_, has := h.last.Header["Authorization"]
		for protocol := range strings.SplitSeq(h.last.Header.Get("Sec-Websocket-Protocol"), ",") {
			has = has || strings.HasPrefix(strings.TrimSpace(protocol), Subprotocol) // "0bearer." is another subprotocol
		}
		if has {
			t.Errorf("the key came through: %v", h.last.Header)
		}
	})
}
