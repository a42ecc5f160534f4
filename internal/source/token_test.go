package source

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"ema/internal/model"
)

const token = "hf_s3cretToken"

func withToken(s *Settings) { s.Token = token }

func TestTokenStaysAtTheEndpoint(t *testing.T) {
	seg := model.Segment{Start: 1, End: 9}
	t.Run("and is sent there on every request", func(t *testing.T) {
		r, s, m := opened(t, withToken)
		for range 2 {
			if _, err := readSegment(t, s, m, big, seg); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.bearers["hub"]; len(got) != 2 || got[0] != "Bearer "+token {
			t.Errorf("the hub saw %q", got)
		}
		if got := r.bearers["storage"]; got != nil {
			t.Errorf("the storage host saw %q", got)
		}
	})
	t.Run("through redirects on the same host", func(t *testing.T) {
		r, s, m := opened(t, withToken)
		hops := 0
		r.resolve = func(w http.ResponseWriter, _ *http.Request) bool {
			hops++
			if hops > 2 {
				return false
			}
			w.Header().Set("Location", fmt.Sprintf("/acme/tiny/resolve/%s/small.json?hop=%d", commit1, hops))
			w.WriteHeader(307)
			return true
		}
		if got, err := readSegment(t, s, m, "small.json", model.Segment{End: 7}); err != nil || string(got) != `{"a":1}` {
			t.Fatalf("%q, %v", got, err)
		}
		if got := r.bearers["hub"]; len(got) != 4 {
			t.Errorf("the hub saw %d tokens in 4 requests", len(got))
		}
	})
	t.Run("also when the storage host sends us back", func(t *testing.T) {
		r, s, m := opened(t, withToken)
		r.bulk = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Location", r.hub.URL+"/acme/tiny/resolve/"+commit1+"/small.json")
			w.WriteHeader(302)
			return true
		}
		f := fileOf(t, m, "small.json")
		r.resolve = func(w http.ResponseWriter, req *http.Request) bool {
			if r.count("bulk") > 0 {
				return false
			}
			http.Redirect(w, req, r.storage.URL+"/x", http.StatusFound)
			return true
		}
		for range 2 { // by the redirects, and straight
			b, err := s.Open(t.Context(), m, f, model.Segment{End: f.Size})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, b)
			_ = b.Close()
		}
		if got := r.bearers["hub"]; len(got) != 2 { // the resolve of the model and the first hop
			t.Errorf("the hub saw the token %d times, want 2: not after a detour", len(got))
		}
	})
	t.Run("and out of metadata redirects", func(t *testing.T) {
		r := newRehearsal(t, nil)
		r.api = func(w http.ResponseWriter, req *http.Request) bool {
			http.Redirect(w, req, r.storage.URL+"/api", http.StatusTemporaryRedirect)
			return true
		}
		r.bulk = answers(200, `{"sha":"`+commit1+`","siblings":[{"rfilename":"a","size":1,"blobId":"`+commit2+`"}]}`, "Content-Type", "application/json")
		resolved(t, r.sources(withToken), tiny, "")
		if got := r.bearers["storage"]; got != nil {
			t.Errorf("the other host saw %q", got)
		}
	})
	t.Run("not on its subdomains, and no user of a redirect is used", func(t *testing.T) {
		var mu sync.Mutex
		seen := map[string]string{}
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			seen[req.Host] = req.Header.Get("Authorization") + req.Header.Get("Cookie")
			mu.Unlock()
			if req.Host == "hub.test" {
				w.Header().Set("Set-Cookie", "session=1; Domain=hub.test")
				w.Header().Set("Location", "http://user:word@cdn.hub.test/x?sig=s3cret")
				w.WriteHeader(302)
				return
			}
			w.WriteHeader(503)
		}))
		defer proxy.Close()
		u, _ := url.Parse(proxy.URL)
		s, err := New(Settings{Endpoint: "http://hub.test", Token: token, Proxy: http.ProxyURL(u)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Open(t.Context(), &model.Manifest{ID: tiny, Commit: commit1}, model.File{Path: "a", Size: 5}, model.Segment{End: 5})
		classIs(t, err, model.ServerError)
		mentions(t, err, "http://cdn.hub.test/x")
		if seen["hub.test"] != "Bearer "+token || seen["cdn.hub.test"] != "" {
			t.Errorf("seen: %q", seen)
		}
	})
	t.Run("and out of the errors of settings", func(t *testing.T) {
		for _, s := range []Settings{{Token: "hf_s3cret\nX-Evil: 1"}, {Token: "hf_s3cret\x00"}, {Token: "hf s3cret"}, {Endpoint: "https://s3cret@hub.test"}, {Endpoint: "https://hub.test?s3cret"}} {
			_, err := New(s)
			classIs(t, err, model.Usage)
		}
	})
}
