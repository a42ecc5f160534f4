package demohub_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

func serveHub(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// withCDN serves a hub and its second host.
func withCDN(t *testing.T, hub *demohub.Hub) string {
	t.Helper()
	hub.Set(demohub.ViaCDN(serveHub(t, hub.CDN())))
	return serveHub(t, hub)
}

type reply struct {
	*http.Response
	body string
}

// ask makes one request, follows no redirect, and reads all of the answer that can be read.
func ask(t *testing.T, method, url string, headers ...string) reply {
	t.Helper()
	res, body, err := try(t, method, url, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res, body}
}

func try(t *testing.T, method, url string, headers ...string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(res.Body)
	if closeErr := res.Body.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return res, string(body), err
}

func getJSON(t *testing.T, url string, v any) http.Header {
	t.Helper()
	res := ask(t, "GET", url)
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		t.Fatalf("%s: %s %s", url, res.Status, res.body)
	}
	if err := json.Unmarshal([]byte(res.body), v); err != nil {
		t.Fatal(err)
	}
	return res.Header
}

func wantHeaders(t *testing.T, res reply, want ...string) {
	t.Helper()
	for i := 0; i < len(want); i += 2 {
		if got := res.Header.Get(want[i]); got != want[i+1] {
			t.Errorf("%s: %s is %q, want %q", res.Request.URL.Path, want[i], got, want[i+1])
		}
	}
}

func TestErrorsAreThoseOfTheHub(t *testing.T) {
	file := demohub.File("model.bin", 2*model.MiB)
	hub := demohub.New(
		demohub.Account("hf_member", "ann"), demohub.Account("hf_waiting", "bob"), demohub.Account("hf_other", "eve"),
		demohub.Repo("acme/open", file),
		demohub.Repo("acme/private", file, demohub.Private("hf_member")),
		demohub.Repo("acme/gated", file, demohub.Gated("hf_member"), demohub.Pending("hf_waiting")),
		demohub.Repo("acme/disabled", file, demohub.Disabled()),
		demohub.Repo("acme/broken", demohub.Disk("model.bin", filepath.Join(t.TempDir(), "none"))),
	)
	base := serveHub(t, hub)
	head := hub.Head("acme/open", "main")
	const anyone = "Invalid username or password."
	for promise, c := range map[string]struct {
		path, token string
		status      int
		code        string
		message     string
		json        bool
	}{
		"a missing entry names the commit":     {"/acme/open/resolve/main/none.bin", "", 404, "EntryNotFound", "Entry not found", false},
		"a missing folder":                     {"/api/models/acme/open/tree/main/none", "", 404, "EntryNotFound", "none does not exist on " + head, true},
		"a missing revision of a file":         {"/acme/open/resolve/none/model.bin", "", 404, "RevisionNotFound", "Invalid rev id: none", true},
		"a missing revision of a repository":   {"/api/models/acme/open/revision/none", "", 404, "RevisionNotFound", "Invalid rev id: none", true},
		"a missing repository, stranger":       {"/api/models/acme/none", "", 401, "", anyone, true},
		"a missing repository, user":           {"/api/models/acme/none", "hf_other", 404, "RepoNotFound", "Repository not found", true},
		"a private repository, stranger":       {"/acme/private/resolve/main/model.bin", "", 401, "", anyone, true},
		"a private repository, other user":     {"/acme/private/resolve/main/model.bin", "hf_other", 404, "RepoNotFound", "Repository not found", true},
		"a private repository, member":         {"/acme/private/resolve/main/model.bin", "hf_member", 200, "", "", false},
		"a bad token":                          {"/acme/open/resolve/main/model.bin", "hf_bad", 401, "", "Invalid credentials in Authorization header", true},
		"a gated file, stranger":               {"/acme/gated/resolve/main/model.bin", "", 401, "GatedRepo", "Access to model acme/gated is restricted. You must have access to it and be authenticated to access it. Please log in.", true},
		"a gated file, other user":             {"/acme/gated/resolve/main/model.bin", "hf_other", 403, "GatedRepo", "Access to model acme/gated is restricted and you are not in the authorized list. Visit " + base + "/acme/gated to ask for access.", true},
		"a gated file, waiting user":           {"/acme/gated/resolve/main/model.bin", "hf_waiting", 403, "GatedRepo", "Your request to access model acme/gated is awaiting a review from the repo authors.", true},
		"a gated file, member":                 {"/acme/gated/resolve/main/model.bin", "hf_member", 200, "", "", false},
		"the gate comes before a missing file": {"/acme/gated/resolve/main/none.bin", "hf_other", 403, "GatedRepo", "Access to model acme/gated is restricted and you are not in the authorized list. Visit " + base + "/acme/gated to ask for access.", true},
		"the info of a gated repository":       {"/api/models/acme/gated", "", 200, "", "", true},
		"a disabled repository":                {"/acme/disabled/resolve/main/model.bin", "hf_member", 403, "", "Access to this resource is disabled.", true},
		"an entry that cannot be read":         {"/api/models/acme/broken", "", 500, "", "stat", true},
		"an unknown address":                   {"/api/nothing", "", 404, "", "Sorry, there is no page at this address.", true},
		"whoami, stranger":                     {"/api/whoami-v2", "", 401, "", anyone, true},
		"whoami, user":                         {"/api/whoami-v2", "hf_member", 200, "", "", true},
	} {
		t.Run(promise, func(t *testing.T) {
			var headers []string
			if c.token != "" {
				headers = []string{"Authorization", "Bearer " + c.token}
			}
			res := ask(t, "GET", base+c.path, headers...)
			if res.StatusCode != c.status {
				t.Fatalf("%s: %s", res.Status, res.body)
			}
			if c.status == http.StatusOK {
				return
			}
			wantHeaders(t, res, "X-Error-Code", c.code)
			if got := res.Header.Get("X-Error-Message"); !strings.HasPrefix(got, c.message) {
				t.Errorf("message %q, want %q", got, c.message)
			}
			var body struct{ Error string }
			if err := json.Unmarshal([]byte(res.body), &body); c.json && (err != nil || !strings.HasPrefix(body.Error, c.message)) {
				t.Errorf("body %s", res.body)
			}
			if !c.json && res.body != c.message {
				t.Errorf("body %q, want %q", res.body, c.message)
			}
		})
	}
	wantHeaders(t, ask(t, "HEAD", base+"/acme/open/resolve/main/none.bin"), "X-Repo-Commit", head, "X-Error-Code", "EntryNotFound", "Content-Length", "15")
	wantHeaders(t, ask(t, "GET", base+"/acme/none/resolve/main/x"), "Www-Authenticate", `Bearer realm="Authentication required", charset="UTF-8"`)
	if res := ask(t, "PUT", base+"/api/models/acme/open"); res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT is answered %s", res.Status)
	}
}

func TestSmallFilesDirectlyOrThroughARedirect(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.Bytes("sub dir/config.json", []byte("{}\n"))))
	base := serveHub(t, hub)
	commit := hub.Head("acme/tiny", "main")
	direct := []string{
		"ETag", `"0967ef424bce6791893e9a57bb952f80fd536e93"`, "X-Repo-Commit", commit, "Content-Length", "3", "Accept-Ranges", "bytes",
		"Content-Disposition", `inline; filename*=UTF-8''config.json; filename="config.json";`, "X-Linked-Etag", "", "X-Linked-Size", "",
	}
	const path = "/acme/tiny/resolve/main/sub%20dir/config.json"
	wantHeaders(t, ask(t, "HEAD", base+path), direct...)
	if res := ask(t, "GET", base+path); res.body != "{}\n" {
		t.Errorf("%s %q", res.Status, res.body)
	}
	if res := ask(t, "GET", base+path, "If-None-Match", `W/"0967ef424bce6791893e9a57bb952f80fd536e93"`); res.StatusCode != http.StatusNotModified {
		t.Errorf("a file that did not change is answered %s", res.Status)
	}

	hub.Set(demohub.SmallViaRedirect())
	hop := ask(t, "GET", base+path)
	location := hop.Header.Get("Location")
	want := "/api/resolve-cache/models/acme/tiny/" + commit + "/sub%20dir%2Fconfig.json?%2Facme%2Ftiny%2Fresolve%2Fmain%2Fsub+dir%2Fconfig.json=&etag=%220967ef424bce6791893e9a57bb952f80fd536e93%22"
	if hop.StatusCode != http.StatusTemporaryRedirect || location != want {
		t.Fatalf("%s to %s, want %s", hop.Status, location, want)
	}
	wantHeaders(t, hop, "X-Repo-Commit", commit, "Accept-Ranges", "bytes")
	target := ask(t, "GET", base+location)
	wantHeaders(t, target, direct...)
	if target.body != "{}\n" {
		t.Errorf("%s %q", target.Status, target.body)
	}
}

func TestLargeFilesComeFromASecondHost(t *testing.T) {
	file := demohub.File("model.bin", 2*model.MiB).Xet(strings.Repeat("ab", 32))
	hub := demohub.New(demohub.Repo("acme/tiny", file))
	base := withCDN(t, hub)
	sum, err := file.Digest()
	if err != nil {
		t.Fatal(err)
	}
	url := base + "/acme/tiny/resolve/main/model.bin"
	hop := ask(t, "HEAD", url, "Authorization", "Bearer hf_secret")
	if hop.StatusCode != http.StatusFound || strings.HasPrefix(hop.Header.Get("Location"), base) || !strings.Contains(hop.Header.Get("Location"), "Expires=") {
		t.Fatalf("%s to %s", hop.Status, hop.Header.Get("Location"))
	}
	wantHeaders(t, hop, "X-Repo-Commit", hub.Head("acme/tiny", "main"), "X-Linked-Size", "2097152", "X-Linked-Etag", `"`+sum.Hex()+`"`,
		"X-Xet-Hash", strings.Repeat("ab", 32), "Accept-Ranges", "bytes", "Content-Type", "text/plain; charset=utf-8")
	if hop.ContentLength > 1000 {
		t.Errorf("the redirect's length is %d", hop.ContentLength)
	}
	want := string(content(t, file))
	part := ask(t, "GET", hop.Header.Get("Location"), "Range", "bytes=1000-1999", "Accept-Encoding", "identity")
	if part.StatusCode != http.StatusPartialContent || part.body != want[1000:2000] {
		t.Errorf("%s, %d bytes", part.Status, len(part.body))
	}
	wantHeaders(t, part, "Content-Range", "bytes 1000-1999/2097152", "Content-Length", "1000", "Accept-Ranges", "bytes")
	etag := part.Header.Get("ETag")
	if etag == "" || strings.Contains(etag, sum.Hex()) || strings.HasPrefix(etag, "W/") {
		t.Errorf("the CDN's ETag is %s", etag)
	}
	if same := ask(t, "GET", hop.Header.Get("Location"), "Range", "bytes=0-9", "If-Range", etag); same.StatusCode != http.StatusPartialContent {
		t.Errorf("If-Range with its own ETag: %s", same.Status)
	}
	if other := ask(t, "GET", hop.Header.Get("Location"), "Range", "bytes=0-9", "If-Range", `"`+sum.Hex()+`"`); other.StatusCode != http.StatusOK || other.body != want {
		t.Errorf("If-Range with the hub's ETag: %s, %d bytes", other.Status, len(other.body))
	}
	beyond := ask(t, "GET", hop.Header.Get("Location"), "Range", "bytes=2097152-")
	if beyond.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("a range beyond the end: %s", beyond.Status)
	}
	wantHeaders(t, beyond, "Content-Range", "bytes */2097152")

	stats := hub.Stats()
	if stats.Hub.Authorization != 1 || stats.CDN.Authorization != 0 {
		t.Errorf("Authorization was seen %d times by the hub, %d by the CDN", stats.Hub.Authorization, stats.CDN.Authorization)
	}
	hub.Set(demohub.ViaCDN(""))
	if res := ask(t, "GET", url); res.StatusCode != http.StatusOK || res.body != want {
		t.Errorf("served directly: %s, %d bytes", res.Status, len(res.body))
	} else {
		wantHeaders(t, res, "ETag", `"`+sum.Hex()+`"`)
	}
	if raw := ask(t, "GET", base+"/acme/tiny/raw/main/model.bin"); !strings.HasPrefix(raw.body, "version ") || !strings.Contains(raw.body, sum.Hex()) {
		t.Errorf("raw is %q", raw.body)
	}
}

func TestSignedURLsExpire(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.File("model.bin", 2*model.MiB)), demohub.SignedUses(2))
	base := withCDN(t, hub)
	url := base + "/acme/tiny/resolve/main/model.bin"
	refused := func(why, location string) {
		t.Helper()
		res := ask(t, "GET", location)
		if res.StatusCode != http.StatusForbidden || !strings.HasPrefix(res.body, "<?xml") || res.Header.Get("X-Error-Code") != "" {
			t.Errorf("%s: %s %q, X-Error-Code %q", why, res.Status, res.body, res.Header.Get("X-Error-Code"))
		}
	}
	first := ask(t, "GET", url).Header.Get("Location")
	for range 2 {
		if res := ask(t, "GET", first, "Range", "bytes=0-0"); res.StatusCode != http.StatusPartialContent {
			t.Fatalf("within its uses: %s", res.Status)
		}
	}
	refused("a third use", first)
	fresh := ask(t, "GET", url).Header.Get("Location")
	if fresh == first {
		t.Error("the next redirect leads to the same URL")
	}
	refused("an altered signature", strings.Replace(fresh, "Signature=", "Signature=0", 1))
	refused("another file's signature", strings.Replace(fresh, "model.bin", "other.bin", 1))
	if res := ask(t, "GET", fresh); res.StatusCode != http.StatusOK {
		t.Errorf("a fresh URL: %s", res.Status)
	}
	hub.Set(demohub.SignedFor(-time.Second), demohub.SignedUses(0))
	refused("an old URL", ask(t, "GET", url).Header.Get("Location"))
}

func TestPlainFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "w"), []byte("0123456789"), 0o666); err != nil {
		t.Fatal(err)
	}
	hub := demohub.New(demohub.Files(demohub.Disk("a/w.bin", filepath.Join(dir, "w"))))
	base := serveHub(t, hub)
	res := ask(t, "GET", base+"/files/a/w.bin", "Range", "bytes=2-4")
	if res.StatusCode != http.StatusPartialContent || res.body != "234" || res.Header.Get("ETag") == "" || res.Header.Get("X-Repo-Commit") != "" {
		t.Errorf("%s %q %v", res.Status, res.body, res.Header)
	}
	if _, err := http.ParseTime(res.Header.Get("Last-Modified")); err != nil {
		t.Error(err)
	}
	if res := ask(t, "GET", base+"/files/none"); res.StatusCode != http.StatusNotFound || res.Header.Get("X-Error-Code") != "" {
		t.Errorf("a missing file: %s", res.Status)
	}
	if got := hub.Stats().Paths["a/w.bin"]; got != 3 {
		t.Errorf("%d bytes counted, want 3", got)
	}
}

func TestUnusualNamesAreServed(t *testing.T) {
	for _, name := range []string{"é ü/日本.json", "a%2Fb.bin", "what?.bin", "#1+1&2=3.bin", `q"uote.bin`, "v1..2.bin"} {
		hub := demohub.New(demohub.Repo("acme/odd", demohub.Bytes(name, []byte(name)), demohub.Bytes("large/"+name, []byte(name)).LFS()))
		base := withCDN(t, hub)
		segs := strings.Split(name, "/")
		for i, s := range segs {
			segs[i] = urlEscape(s)
		}
		path := strings.Join(segs, "/")
		if res := ask(t, "GET", base+"/acme/odd/resolve/main/"+path); res.body != name {
			t.Errorf("%q: %s %q", name, res.Status, res.body)
		}
		hop := ask(t, "GET", base+"/acme/odd/resolve/main/large/"+path)
		if res := ask(t, "GET", hop.Header.Get("Location")); res.body != name {
			t.Errorf("%q from the CDN: %s %q", name, res.Status, res.body)
		}
	}
}

func urlEscape(s string) string { return strings.ReplaceAll(url.PathEscape(s), "+", "%2B") }
