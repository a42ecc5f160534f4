package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"ema/internal/api/trust"
	"ema/internal/model"
)

// requestOf is a path and a body with which an operation can be reached.
func requestOf(r *route) (path, body string) {
	path = strings.NewReplacer("{model_id}", "acme/here", "{profile}", "goroutine", "{optimization_id}", "7").Replace(r.path)
	switch r.id {
	case opProfileCPU:
		path += "?seconds=1"
	case opManage:
		body = `{"model_id":"acme/new","action":"start"}`
	case opUpdate, opValidate:
		body = `{"log":{}}`
	case opProfileSet:
		body = `{"profile":"low_latency"}`
	case opMove:
		body = `{"model_id":"acme/here","tier":"cold"}`
	case opPin:
		body = `{"model_id":"acme/here","pinned":true}`
	case opCleanup:
		body = `{"cleanup_type":"auto"}`
	case opUse:
		body = `{"model_id":"acme/here"}`
	case opBenchmark:
		body = `{}`
	case opRun:
		body = `{"args":["ls"]}`
	}
	return path, body
}

func TestEachOperationLetsInExactlyWhomItMay(t *testing.T) {
	s, _, _ := whole(t)
	s.Events = nil // a stream of events would not end
	declared := roles()
	seen := 0
	for pattern, r := range s.router().routes {
		least, ok := declared[r.id]
		if !ok {
			t.Errorf("%s (%s) has no role in roles", pattern, r.id)
			continue
		}
		seen++
		for as := trust.None; as <= trust.Admin; as++ {
			s, _, _ := whole(t)
			path, body := requestOf(r)
			res := ask(t, s.router(), as, r.method, path, body)
			switch {
			case as >= least:
				if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden || res.StatusCode >= 500 || res.StatusCode == http.StatusNotFound {
					t.Errorf("%s refuses the role %q: %s", pattern, as, res.Status)
				}
			case as == trust.None:
				if e := no(t, res); res.StatusCode != http.StatusUnauthorized || e.Code != Unauthorized || res.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s lets in strangers: %s", pattern, res.Status)
				}
			default:
				if e := no(t, res); res.StatusCode != http.StatusForbidden || e.Code != NotPermitted {
					t.Errorf("%s lets in the role %q: %s", pattern, as, res.Status)
				}
			}
		}
	}
	if seen < 25 {
		t.Errorf("only %d operations were tried", seen)
	}
}

func TestWhatHasNoRoleIsShut(t *testing.T) {
	s, _, _ := whole(t)
	rt := s.router()
	rt.hidden("nobody-thought-of-it", "GET", "/secret", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if res := ask(t, rt, trust.PowerUser, "GET", "/secret", ""); res.StatusCode != http.StatusForbidden {
		t.Error(res.Status)
	}
}

func TestEverythingBelowTheseThreeIsForAdmins(t *testing.T) {
	s, _, _ := whole(t)
	for pattern, r := range s.router().routes {
		for _, place := range []string{Base + "/admin/", Base + "/config/", "/debug/"} {
			if strings.HasPrefix(r.path, place) && r.least != trust.Admin {
				t.Errorf("%s is for %s", pattern, r.least)
			}
		}
	}
}

func TestUsersStartAndPowerUsersManage(t *testing.T) {
	for _, action := range actions() {
		for as, allowed := range map[trust.Role]bool{trust.User: action == "start", trust.PowerUser: true, trust.Admin: true} {
			s, list, _ := whole(t)
			before := list.List()
			res := ask(t, s.Handler(), as, "POST", Base+"/models/download/manage",
				`{"model_id":"acme/going","action":"`+action+`","priority":"low","bandwidth_limit_mbps":3}`)
			refused := res.StatusCode == http.StatusForbidden
			if refused == allowed {
				t.Errorf("%s as %s: %s", action, as, res.Status)
			}
			if !allowed && list.List()[0].State != before[0].State {
				t.Errorf("%s as %s was refused and done", action, as)
			}
		}
	}
}

func TestEachChangeIsRecordedWithWhoAskedForItAndWhatCameOfIt(t *testing.T) {
	for promise, c := range map[string]struct {
		as                 trust.Role
		method, path, body string
		want               model.AuditEntry
	}{
		"a start": {
			trust.User, "POST", Base + "/models/download/manage", `{"model_id":"acme/new","action":"start"}`,
			model.AuditEntry{Action: opManage, Target: "start acme/new", Result: "ok"},
		},
		"a link, without its secret": {
			trust.User, "POST", Base + "/models/download/manage", `{"model_id":"https://h/f.bin?sig=secret","action":"start"}`,
			model.AuditEntry{Action: opManage, Target: "start https://h/f.bin", Result: "ok"},
		},
		"what was not permitted": {
			trust.User, "DELETE", Base + "/models/acme/here", ``,
			model.AuditEntry{Action: opDelete, Result: "NOT_PERMITTED"},
		},
		"an action that was not permitted": {
			trust.User, "POST", Base + "/models/download/manage", `{"all":true,"action":"cancel"}`,
			model.AuditEntry{Action: opManage, Target: "cancel all", Result: "NOT_PERMITTED"},
		},
		"what could not be": {
			trust.PowerUser, "POST", Base + "/models/download/manage", `{"action":"stop"}`,
			model.AuditEntry{Action: opManage, Result: "VALIDATION_FAILED"},
		},
		"what went wrong": {
			trust.PowerUser, "DELETE", Base + "/models/acme%2Fnone", ``,
			model.AuditEntry{Action: opDelete, Target: "acme/none", Result: "MODEL_NOT_FOUND"},
		},
		"a move": {
			trust.PowerUser, "POST", Base + "/models/storage/move", `{"model_id":"acme/here","tier":"cold"}`,
			model.AuditEntry{Action: opMove, Target: "acme/here to cold", Result: "ok"},
		},
		"a move that is given up": {
			trust.PowerUser, "POST", Base + "/models/storage/move", `{"model_id":"acme/here","cancel":true}`,
			model.AuditEntry{Action: opMove, Target: "cancel acme/here", Result: "ok"},
		},
		"a move without room": {
			trust.PowerUser, "POST", Base + "/models/storage/move", `{"model_id":"acme/large","tier":"cold"}`,
			model.AuditEntry{Action: opMove, Target: "acme/large to cold", Result: "NO_SPACE"},
		},
		"a pin": {
			trust.PowerUser, "POST", Base + "/models/storage/pin", `{"model_id":"https://h/f.bin?sig=secret","pinned":false}`,
			model.AuditEntry{Action: opPin, Target: "unpin https://h/f.bin", Result: "ok"},
		},
		"a cleanup": {
			trust.PowerUser, "POST", Base + "/models/cleanup", `{"cleanup_type":"manual","models_to_remove":["acme/here","acme/old"],"dry_run":true}`,
			model.AuditEntry{Action: opCleanup, Target: "manual, dry run acme/here acme/old", Result: "ok"},
		},
		"a use that could not be counted": {
			trust.User, "POST", Base + "/models/usage", `{"model_id":"acme/none"}`,
			model.AuditEntry{Action: opUse, Target: "acme/none", Result: "MODEL_NOT_FOUND"},
		},
		"settings": {
			trust.Admin, "PUT", Base + "/config/update", `{"download":{"a":2}}`,
			model.AuditEntry{Action: opUpdate, Target: "download.a,log.level", Result: "ok"},
		},
		"a command, without what it was given": {
			trust.Admin, "POST", Base + "/admin/run", `{"args":["pull","https://h/f?sig=secret"]}`,
			model.AuditEntry{Action: opRun, Target: "pull", Result: "ok"},
		},
		"a body that is none": {
			trust.Admin, "PUT", Base + "/config/update", `{`,
			model.AuditEntry{Action: opUpdate, Result: "MALFORMED_REQUEST"},
		},
	} {
		s, _, book := whole(t)
		res := ask(t, s.router(), c.as, c.method, c.path, c.body)
		got := book.newest(t)
		if time.Since(got.At) > time.Minute || got.Remote == "" {
			t.Errorf("%s: %+v", promise, got)
		}
		c.want.At, c.want.Remote = got.At, got.Remote
		c.want.Who, c.want.Role, c.want.RequestID = "key of "+c.as.String(), c.as.String(), res.Header.Get("X-Request-Id")
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", promise, got, c.want)
		}
	}
}

func TestWhoOnlyLooksIsNotRecorded(t *testing.T) {
	s, _, book := whole(t)
	for _, path := range []string{Base + "/models/download/active", Base + "/config/current", Base + "/admin/audit"} {
		ask(t, s.Handler(), trust.Admin, "GET", path, "")
	}
	ask(t, s.Handler(), trust.User, "POST", Base+"/models/usage", `{"model_id":"acme/here"}`) // a use is no change of anything
	if len(book.entries) > 0 {
		t.Errorf("%+v", book.entries)
	}
}

func TestTheAuditTrailIsReadPageByPage(t *testing.T) {
	s, _, book := whole(t)
	for _, target := range []string{"one", "two", "three"} {
		book.entries = append(book.entries, model.AuditEntry{At: exampleTime(), Who: "jo", Role: "admin", Action: opDelete, Target: target, Result: "ok", RequestID: "req_1"})
	}
	var page struct {
		Entries []struct{ Who, Target string }
		Page    int
		Limit   int
	}
	read(t, ask(t, s.Handler(), trust.Admin, "GET", Base+"/admin/audit?page=2&limit=2", ""), &page)
	if len(page.Entries) != 1 || page.Entries[0].Target != "one" || page.Entries[0].Who != "jo" || page.Page != 2 || page.Limit != 2 {
		t.Errorf("%+v", page)
	}
}

func TestAHandlerThatPanicsIsAnAnswerAndAnEntry(t *testing.T) {
	s, _, book := whole(t)
	s.Reload = func(context.Context) (Reloaded, error) { panic(errors.New("oh")) }
	res := ask(t, s.Handler(), trust.Admin, "POST", Base+"/admin/reload", "")
	if e := no(t, res); res.StatusCode != http.StatusInternalServerError || e.Code != Internal || strings.Contains(e.Message, "oh") {
		t.Errorf("%s, %+v", res.Status, e)
	}
	if got := book.newest(t); got.Result != string(Internal) {
		t.Errorf("%+v", got)
	}
}
