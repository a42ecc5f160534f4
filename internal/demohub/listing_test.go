package demohub_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"ema/internal/demohub"
	"ema/internal/model"
)

func TestTreesArePaged(t *testing.T) {
	var parts []demohub.Part
	want := map[string]bool{}
	for i := range 5000 {
		e := demohub.File(fmt.Sprintf("dir%d/f-%04d.bin", i%10, i), 5)
		parts = append(parts, e)
		want[e.Path] = true
	}
	hub := demohub.New(demohub.Repo("acme/many", parts...))
	base := serveHub(t, hub)
	type entry struct{ Type, Path, OID string }
	next := base + "/api/models/acme/many/tree/main?recursive=true&expand=false"
	pages, folders := 0, 0
	for next != "" {
		var page []entry
		header := getJSON(t, next, &page)
		pages++
		if len(page) > 1000 {
			t.Fatalf("%d entries in a page", len(page))
		}
		if pages == 1 { // a branch that moves while it is listed must not mix into the listing
			if _, err := hub.Commit("acme/many", "main", demohub.File("new.bin", 1)); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range page {
			if e.Type == "directory" {
				folders++
				continue
			}
			if !want[e.Path] || len(e.OID) != 40 {
				t.Fatalf("%+v was not expected, or twice", e)
			}
			delete(want, e.Path)
		}
		next = ""
		if link := header.Get("Link"); link != "" {
			target, rel, _ := strings.Cut(link, ">; ")
			if next = strings.TrimPrefix(target, "<"); rel != `rel="next"` || !strings.HasPrefix(next, base+"/api/models/acme/many/tree/") {
				t.Fatalf("Link: %s", link)
			}
		}
	}
	if len(want) != 0 || pages != 6 || folders != 10 {
		t.Errorf("%d files missing after %d pages with %d folders", len(want), pages, folders)
	}

	hub.Set(demohub.Repo("acme/few", demohub.Bytes("a", nil), demohub.Bytes("b/c", nil), demohub.Bytes("b/d/e", nil)))
	for query, paths := range map[string]string{
		"":                         "a b",
		"/b":                       "b/c b/d",
		"/b?recursive=true":        "b/c b/d b/d/e",
		"?recursive=True":          "a b b/c b/d b/d/e",
		"?limit=1&recursive=false": "a",
	} {
		var page []entry
		getJSON(t, base+"/api/models/acme/few/tree/main"+query, &page)
		var got []string
		for _, e := range page {
			got = append(got, e.Path)
		}
		if strings.Join(got, " ") != paths {
			t.Errorf("tree%s lists %v, want %s", query, got, paths)
		}
	}
	hub.Set(demohub.MaxSiblings(2))
	var info struct{ Siblings []any }
	if getJSON(t, base+"/api/models/acme/few", &info); len(info.Siblings) != 2 {
		t.Errorf("%d siblings, want 2", len(info.Siblings))
	}
	if res := ask(t, "GET", base+"/api/models/acme/few/tree/main?cursor=nonsense"); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a foreign cursor: %s", res.Status)
	}
}

func TestRevisionsAndMoves(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny",
		demohub.Bytes("f", []byte("one")),
		demohub.Branch("refs/pr/1", demohub.Bytes("f", []byte("pr"))),
		demohub.Branch("feature/x", demohub.Bytes("f", []byte("x"))),
		demohub.Branch("refs/convert/parquet"), demohub.Tag("v1.0")),
		demohub.Renamed("tiny", "acme/tiny"), demohub.Renamed("old/tiny", "acme/tiny"))
	base := serveHub(t, hub)
	first := hub.Head("acme/tiny", "main")
	second, err := hub.Commit("acme/tiny", "main", demohub.Bytes("f", []byte("two")))
	if err != nil {
		t.Fatal(err)
	}
	for rev, want := range map[string]string{
		"main": "two", "v1.0": "one", first: "one", second: "two", "refs/pr/1": "pr", "refs%2Fpr%2F1": "pr", "feature%2Fx": "x",
		"refs%2Fheads%2Fmain": "two", "refs%2Ftags%2Fv1.0": "one",
	} {
		if res := ask(t, "GET", base+"/acme/tiny/resolve/"+rev+"/f"); res.body != want {
			t.Errorf("at %s: %s %q, want %q", rev, res.Status, res.body, want)
		}
	}
	if err := hub.Move("acme/tiny", "main", first); err != nil {
		t.Fatal(err)
	}
	if res := ask(t, "GET", base+"/acme/tiny/resolve/main/f"); res.body != "one" || res.Header.Get("X-Repo-Commit") != first {
		t.Errorf("after the move: %q at %s", res.body, res.Header.Get("X-Repo-Commit"))
	}
	var refs map[string][]struct{ Name, Ref, TargetCommit string }
	getJSON(t, base+"/api/models/acme/tiny/refs", &refs)
	if fmt.Sprint(refs["tags"]) != "[{v1.0 refs/tags/v1.0 "+first+"}]" || len(refs["branches"]) != 2 || refs["branches"][1].TargetCommit != first ||
		len(refs["converts"]) != 1 || refs["converts"][0].Name != "parquet" || len(refs["pullRequests"]) != 1 {
		t.Errorf("refs are %v", refs)
	}
	for from, to := range map[string]string{
		"/tiny/resolve/main/f?download=true":                  "/acme/tiny/resolve/main/f?download=true",
		"/old/tiny/resolve/refs%2Fpr%2F1/f":                   "/acme/tiny/resolve/refs%2Fpr%2F1/f",
		"/api/models/old/tiny":                                "/api/models/acme/tiny",
		"/api/models/tiny/tree/main?recursive=true&limit=100": "/api/models/acme/tiny/tree/main?recursive=true&limit=100",
	} {
		if res := ask(t, "GET", base+from); res.StatusCode != http.StatusTemporaryRedirect || res.Header.Get("Location") != to || res.Header.Get("X-Repo-Commit") != "" {
			t.Errorf("%s: %s to %s", from, res.Status, res.Header.Get("Location"))
		}
	}
	if _, err := hub.Commit("acme/none", "main"); err == nil {
		t.Error("a commit in no repository")
	}
	if err := hub.Move("acme/tiny", "main", "0000000000000000000000000000000000000000"); err == nil {
		t.Error("a move to no commit")
	}
}

func TestListingsAreLeftOutForWhoeverHasThem(t *testing.T) {
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.Bytes("config.json", []byte("{}\n"))))
	base := serveHub(t, hub) + "/api/models/acme/tiny"
	for _, path := range []string{"/revision/main?blobs=true", "/tree/main?recursive=true"} {
		first := ask(t, "GET", base+path)
		etag := first.Header.Get("ETag")
		again := ask(t, "GET", base+path, "If-None-Match", etag)
		if !strings.HasPrefix(etag, `W/"`) || again.StatusCode != http.StatusNotModified || again.body != "" || again.Header.Get("ETag") != etag {
			t.Errorf("%s: ETag %s, then %s with %d bytes", path, etag, again.Status, len(again.body))
		}
	}
	etag := ask(t, "GET", base+"/revision/main?blobs=true").Header.Get("ETag")
	if _, err := hub.Commit("acme/tiny", "main", demohub.Bytes("config.json", []byte("{} \n"))); err != nil {
		t.Fatal(err)
	}
	if res := ask(t, "GET", base+"/revision/main?blobs=true", "If-None-Match", etag); res.StatusCode != http.StatusOK || res.Header.Get("ETag") == etag {
		t.Errorf("after the branch has moved: %s", res.Status)
	}
}

func TestMasksAndLies(t *testing.T) {
	file := demohub.File("model.bin", 2*model.MiB)
	other := strings.Repeat("0f", 32)
	hub := demohub.New(
		demohub.Repo("acme/gated", file, demohub.Gated("hf_member")),
		demohub.Repo("acme/liar", file.Sum(other).Claim(5), demohub.File("masked.bin", 5).LFS().Masked()))
	base := serveHub(t, hub)
	type entry struct {
		Path string
		Size int64
		LFS  struct{ OID string }
	}
	var page []entry
	getJSON(t, base+"/api/models/acme/gated/tree/main", &page)
	if page[0].LFS.OID != strings.Repeat("*", 64) {
		t.Errorf("a stranger sees %s", page[0].LFS.OID)
	}
	res := ask(t, "GET", base+"/api/models/acme/gated/tree/main", "Authorization", "Bearer hf_member")
	if sum, err := file.Digest(); err != nil || !strings.Contains(res.body, sum.Hex()) {
		t.Errorf("a member sees %s", res.body)
	}
	getJSON(t, base+"/api/models/acme/liar/tree/main", &page)
	if page[0].LFS.OID != strings.Repeat("*", 64) || page[1].LFS.OID != other || page[1].Size != 5 {
		t.Errorf("the tree is %+v", page)
	}
	wantHeaders(t, ask(t, "HEAD", base+"/acme/liar/resolve/main/model.bin"), "X-Linked-Etag", `"`+other+`"`, "X-Linked-Size", "5", "Content-Length", "2097152")
}

func TestHostileNamesAreListedAsTheyAre(t *testing.T) {
	for what, entries := range demohub.HostileNames() {
		parts := make([]demohub.Part, len(entries))
		for i, e := range entries {
			parts[i] = e
		}
		base := serveHub(t, demohub.New(demohub.Repo("acme/bad", parts...)))
		var page []struct{ Type, Path string }
		getJSON(t, base+"/api/models/acme/bad/tree/main?recursive=true", &page)
		var info struct {
			Siblings []struct {
				Name string `json:"rfilename"`
			}
		}
		getJSON(t, base+"/api/models/acme/bad/revision/main?blobs=true", &info)
		bad := what == "is listed twice" || what == "is both a file and a folder" || what == "differs from another by case alone" || what == "looks like a symbolic link"
		for i, e := range entries {
			if info.Siblings[i].Name != e.Path {
				t.Errorf("a name that %s: info says %q", what, info.Siblings[i].Name)
			}
			found := 0
			for _, n := range page {
				if n.Type == "file" && n.Path == e.Path {
					found++
				}
			}
			if found == 0 || what == "is listed twice" && found != 2 {
				t.Errorf("a name that %s: %q is in the tree %d times", what, e.Path, found)
			}
			bad = bad || model.CheckPath(e.Path) != nil
		}
		if !bad {
			t.Errorf("what %s is harmless", what)
		}
	}
}

func TestPathsInfo(t *testing.T) {
	base := serveHub(t, demohub.New(demohub.Repo("acme/tiny", demohub.Bytes("a b.json", nil), demohub.File("sub/model.bin", 2*model.MiB))))
	for kind, body := range map[string]string{
		"application/x-www-form-urlencoded": "paths=a+b.json&paths=sub&paths=none&expand=false",
		"application/json":                  `{"paths": ["a b.json", "sub", "none"], "expand": true}`,
	} {
		res, err := http.Post(base+"/api/models/acme/tiny/paths-info/main", kind, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var nodes []struct{ Type, Path string }
		err = json.NewDecoder(res.Body).Decode(&nodes)
		if closeErr := res.Body.Close(); err != nil || closeErr != nil {
			t.Fatal(err, closeErr)
		}
		if fmt.Sprint(nodes) != "[{file a b.json} {directory sub}]" {
			t.Errorf("%s: %v", kind, nodes)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
