package source

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"ema/internal/model"
)

func TestHubResolvesAndOpens(t *testing.T) {
	strange := "sub dir/50%+ä#?&=;.bin"
	files := map[string][]byte{"config.json": []byte("{}\n"), "model.safetensors": noise(100_000), strange: noise(5000), "empty": {}}
	r := newRehearsal(t, files)
	s := r.sources()
	m := resolved(t, s, tiny, "")
	if n := r.count("revision") + r.count("tree"); n != 1 {
		t.Errorf("Resolve took %d calls, want 1", n)
	}
	if m.Commit != commit1 || m.Revision != "main" || !m.Canonical.IsZero() || len(m.Files) != 4 || m.Resolved.IsZero() {
		t.Fatalf("manifest = %+v", m)
	}
	for p, content := range files {
		f := fileOf(t, m, p)
		want, pointer := model.SumGitBlob(content), ""
		if isLFS(content) {
			want, pointer = model.SumSHA256(content), model.SumGitBlob(content).Hex()
		}
		if f.Size != int64(len(content)) || f.Digest != want || f.PointerID != pointer {
			t.Errorf("%s = %+v, want %d bytes, %v, pointer %q", p, f, len(content), want, pointer)
		}
		got, err := readSegment(t, s, m, p, model.Segment{End: f.Size})
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: read %d bytes, %v; want all %d", p, len(got), err, len(content))
		}
	}
	for _, seg := range []model.Segment{{Start: 0, End: 1}, {Start: 1, End: 2}, {Start: 99_999, End: 100_000}, {Start: 777, End: 55_555}} {
		got, err := readSegment(t, s, m, "model.safetensors", seg)
		if err != nil || !bytes.Equal(got, files["model.safetensors"][seg.Start:seg.End]) {
			t.Errorf("segment %v: read %d bytes, %v", seg, len(got), err)
		}
	}
	if n := r.count("resolve"); n != 3 {
		t.Errorf("%d resolve calls for 3 files with content, want one each", n)
	}
}

func TestHubListsTheTreeWhen(t *testing.T) {
	files := map[string][]byte{"a.json": []byte("{}"), "onnx/model.onnx": noise(3000), "z.txt": []byte("z")}
	for promise, info := range map[string]string{
		"siblings are missing":           `{"id":"acme/tiny","sha":"` + commit1 + `"}`,
		"siblings are null":              `{"id":"acme/tiny","sha":"` + commit1 + `","siblings":null}`,
		"siblings are empty":             `{"id":"acme/tiny","sha":"` + commit1 + `","siblings":[]}`,
		"siblings have no sizes":         `{"id":"acme/tiny","sha":"` + commit1 + `","siblings":[{"rfilename":"a.json"},{"rfilename":"onnx/model.onnx"}]}`,
		"one sibling has no hash":        `{"siblings":[{"rfilename":"a.json","size":2}],"id":"acme/tiny","sha":"` + commit1 + `"}`,
		"the mirror leaves out even ids": `{"sha":"` + commit1 + `","siblings":[{"rfilename":"a.json"}],"gated":false,"cardData":{"x":[1,{"y":null}]}}`,
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, files)
			r.pageSize = 2
			r.api = func(w http.ResponseWriter, req *http.Request) bool {
				if strings.Contains(req.URL.Path, "/tree/") {
					if !strings.Contains(req.URL.Path, "/tree/"+commit1) {
						t.Errorf("lists %s, want it by commit", req.URL.Path)
					}
					return false
				}
				return answers(200, info, "Content-Type", "application/json")(w, req)
			}
			m := resolved(t, r.sources(), tiny, "main")
			if len(m.Files) != 3 || r.count("tree") != 2 {
				t.Fatalf("%d files in %d pages, want 3 in 2", len(m.Files), r.count("tree"))
			}
			if f := fileOf(t, m, "onnx/model.onnx"); f.Digest != model.SumSHA256(files["onnx/model.onnx"]) {
				t.Errorf("LFS file = %+v", f)
			}
		})
	}
}

func TestHubLists5000FilesInPages(t *testing.T) {
	files := make(map[string][]byte, 5000)
	for i := range 5000 {
		files[fmt.Sprintf("d%d/f%04d.txt", i%7, i)] = fmt.Appendf(nil, "content %d", i)
	}
	r := newRehearsal(t, files)
	m := resolved(t, r.sources(), tiny, commit1)
	if len(m.Files) != 5000 || r.count("tree") != 5 || r.count("revision") != 1 {
		t.Fatalf("%d files in %d pages after %d calls, want 5000 in 5 after 1", len(m.Files), r.count("tree"), r.count("revision"))
	}
	for i := 1; i < len(m.Files); i++ {
		if m.Files[i-1].Path >= m.Files[i].Path {
			t.Fatalf("%q comes before %q", m.Files[i-1].Path, m.Files[i].Path)
		}
	}
}

func TestHubRefusesPagesThat(t *testing.T) {
	for promise, link := range map[string]string{
		"go round in a circle":   `</api/models/acme/tiny/tree/` + commit1 + `?recursive=true&expand=false>; rel="next"`,
		"go on at another host":  `<https://evil.test/api/models/acme/tiny/tree/x>; rel="next"`,
		"go on at another port":  `<http://127.0.0.1:1/>; rel="next"`,
		"go on by another way":   `<file:///etc/passwd>; rel="next"`,
		"lead to no URL at all":  `<http://[::1:bad/>; rel="next"`,
		"circle by another form": `<HTTP://HOST/api/models/acme/tiny/tree/` + commit1 + `?recursive=true&expand=false>; rel="next"`,
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, map[string][]byte{"a": []byte("a")})
			link := strings.Replace(link, "HTTP://HOST", r.hub.URL, 1)
			r.api = func(w http.ResponseWriter, req *http.Request) bool {
				if strings.Contains(req.URL.Path, "/tree/") {
					// No files, so that only the link can be wrong.
					return answers(200, `[]`, "Content-Type", "application/json", "Link", link)(w, req)
				}
				return answers(200, `{"sha":"`+commit1+`"}`, "Content-Type", "application/json")(w, req)
			}
			_, err := r.sources().Resolve(t.Context(), tiny, "")
			classIs(t, err, model.Integrity)
			if n := r.count("tree"); n != 1 {
				t.Errorf("asked for %d pages, want 1", n)
			}
		})
	}
}

func TestHubRefusesListings(t *testing.T) {
	git, sha, stars := strings.Repeat("a", 40), strings.Repeat("b", 64), strings.Repeat("*", 64)
	good := `{"rfilename":"good","size":1,"blobId":"` + git + `"}`
	for promise, c := range map[string]struct {
		sibling string
		class   model.Class
		says    string
	}{
		"with a path above the folder":   {`{"rfilename":"../x","size":1,"blobId":"` + git + `"}`, model.Integrity, `"../x"`},
		"with an absolute path":          {`{"rfilename":"/etc/passwd","size":1,"blobId":"` + git + `"}`, model.Integrity, "/etc/passwd"},
		"with a NUL in a name":           {`{"rfilename":"a\u0000b","size":1,"blobId":"` + git + `"}`, model.Integrity, "control character"},
		"with an overlong name":          {`{"rfilename":"` + strings.Repeat("n", 300) + `","size":1,"blobId":"` + git + `"}`, model.Integrity, "255"},
		"with one path twice":            {good, model.Integrity, "good: the source lists it twice"},
		"where a file is a folder, too":  {`{"rfilename":"good/x","size":1,"blobId":"` + git + `"}`, model.Integrity, "good: it is a file"},
		"with a negative size":           {`{"rfilename":"neg","size":-1,"blobId":"` + git + `"}`, model.Integrity, "neg: a size of -1"},
		"with an absurd size":            {`{"rfilename":"big","size":2000000000000000,"blobId":"` + git + `"}`, model.Integrity, "big: a size"},
		"with two sizes for one file":    {`{"rfilename":"two","size":5,"blobId":"` + git + `","lfs":{"sha256":"` + sha + `","size":6}}`, model.Integrity, "two: the hub gives two sizes"},
		"with masked hashes":             {`{"rfilename":"gated","size":5,"blobId":"` + git + `","lfs":{"sha256":"` + stars + `","size":5}}`, model.Auth, "/acme/tiny"},
		"with a size that is no number":  {`{"rfilename":"odd","size":"5","blobId":"` + git + `"}`, model.ServerError, "JSON"},
		"with a size beyond all numbers": {`{"rfilename":"odd","size":99999999999999999999,"blobId":"` + git + `"}`, model.ServerError, "JSON"},
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, nil)
			r.api = answers(200, `{"id":"acme/tiny","sha":"`+commit1+`","siblings":[`+good+`,`+c.sibling+`]}`, "Content-Type", "application/json")
			m, err := r.sources().Resolve(t.Context(), tiny, "")
			classIs(t, err, c.class)
			mentions(t, err, c.says)
			if m != nil {
				t.Error("a part of the listing came out")
			}
			if errors.Is(err, ErrGated) != (c.class == model.Auth) {
				t.Errorf("ErrGated in %v", err)
			}
		})
	}
	t.Run("that give a folder's place to a file in a tree", func(t *testing.T) {
		r := newRehearsal(t, nil)
		r.api = func(w http.ResponseWriter, req *http.Request) bool {
			if strings.Contains(req.URL.Path, "/tree/") {
				return answers(200, `[{"type":"file","path":"x","size":null}]`, "Content-Type", "application/json")(w, req)
			}
			return answers(200, `{"sha":"`+commit1+`"}`, "Content-Type", "application/json")(w, req)
		}
		_, err := r.sources().Resolve(t.Context(), tiny, "")
		classIs(t, err, model.Integrity)
		mentions(t, err, "x: the hub gives no size")
	})
}

func TestHubAcceptsListings(t *testing.T) {
	git, sha := strings.Repeat("a", 40), strings.Repeat("b", 64)
	tree := `[{"type":"submodule","path":"../skipped","oid":"` + git + `"},
		{"type":"file","path":"A.txt","size":1,"oid":"` + git + `"},
		{"type":"file","path":"a.txt","size":1,"oid":"` + git + `"},
		{"type":"file","path":"nohash","size":1},
		{"type":"file","path":"odd","size":1,"oid":"` + git + `","lfs":{"oid":"S3-etag-2"}},
		{"type":"file","path":"v1..2.bin","size":7,"oid":"` + git + `","lfs":{"oid":"` + sha + `","size":7},"xetHash":"` + sha + `"}]`
	r := newRehearsal(t, nil)
	r.api = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/tree/") {
			return answers(200, tree, "Content-Type", "application/json")(w, req)
		}
		return answers(200, `{"sha":"`+commit1+`"}`, "Content-Type", "text/plain")(w, req)
	}
	m := resolved(t, r.sources(), tiny, "v1.0")
	if len(m.Files) != 5 || m.Revision != "v1.0" {
		t.Fatalf("manifest = %+v, want 5 files: unknown types skipped, names that differ by case kept", m)
	}
	if f := fileOf(t, m, "nohash"); !f.Digest.IsZero() {
		t.Errorf("a file without a hash has the digest %v", f.Digest)
	}
	if f := fileOf(t, m, "odd"); !f.Digest.IsZero() || f.PointerID != git {
		t.Errorf("an LFS file without a usable sha256 = %+v; the pointer's id must not stand for the content", f)
	}
	if f := fileOf(t, m, "v1..2.bin"); f.Digest.Hex() != sha || f.XetHash != sha {
		t.Errorf("LFS file = %+v", f)
	}
}

func TestHubIdentity(t *testing.T) {
	info := func(id, sha string) func(http.ResponseWriter, *http.Request) bool {
		return answers(200, `{"id":"`+id+`","sha":"`+sha+`","siblings":[{"rfilename":"a","size":1,"blobId":"`+commit2+`"}]}`, "Content-Type", "application/json")
	}
	t.Run("follows a rename and tells the new name", func(t *testing.T) {
		r := newRehearsal(t, nil)
		var queries []string
		r.api = func(w http.ResponseWriter, req *http.Request) bool {
			queries = append(queries, req.URL.RawQuery)
			if strings.Contains(req.URL.Path, "/acme/tiny/") {
				w.Header().Set("Location", "/api/models/new-owner/Tiny/revision/main?"+req.URL.RawQuery)
				w.WriteHeader(http.StatusTemporaryRedirect)
				return true
			}
			return info("new-owner/Tiny", commit1)(w, req)
		}
		m := resolved(t, r.sources(), tiny, "")
		if m.ID != tiny || m.Canonical.Name != "new-owner/Tiny" {
			t.Errorf("id %v, canonical %v", m.ID, m.Canonical)
		}
		if len(queries) != 2 || queries[1] != "blobs=true" {
			t.Errorf("queries %q, want blobs=true kept", queries)
		}
	})
	t.Run("asks for ids of one part and encodes the revision", func(t *testing.T) {
		r := newRehearsal(t, nil)
		asked := make(chan string, 1)
		hub := r.hub.Config.Handler
		r.hub.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.RequestURI, "/gpt2/") {
				asked <- req.RequestURI
				info("openai-community/gpt2", commit1)(w, req)
				return
			}
			hub.ServeHTTP(w, req)
		})
		m := resolved(t, r.sources(), model.ID{Name: "gpt2"}, "refs/pr/1")
		if got := <-asked; got != "/api/models/gpt2/revision/refs%2Fpr%2F1?blobs=true" {
			t.Errorf("asked for %s", got)
		}
		if m.Canonical.Name != "openai-community/gpt2" || m.Revision != "refs/pr/1" {
			t.Errorf("manifest = %+v", m)
		}
	})
	for promise, c := range map[string]struct{ id, sha, rev, says string }{
		"refuses another commit than the asked one": {"acme/tiny", commit1, commit2, "answers with commit " + commit1},
		"refuses a commit that is none":             {"acme/tiny", "main", "", `commit "main"`},
		"refuses a missing commit":                  {"acme/tiny", "", "", "commit"},
		"refuses an id that is none":                {"../../etc", commit1, "", "../../etc"},
		"refuses an id that is a URL":               {"https://evil.test/x", commit1, "", "evil.test"},
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, nil)
			r.api = info(c.id, c.sha)
			_, err := r.sources().Resolve(t.Context(), tiny, c.rev)
			classIs(t, err, model.Integrity)
			mentions(t, err, c.says)
		})
	}
	t.Run("refuses a revision that could not be a ref, without asking", func(t *testing.T) {
		r := newRehearsal(t, nil)
		_, err := r.sources().Resolve(t.Context(), tiny, "../main")
		classIs(t, err, model.Usage)
		if r.count("revision") != 0 {
			t.Error("the hub was asked")
		}
	})
}

func TestHubAnswersThatAreNone(t *testing.T) {
	for promise, c := range map[string]struct {
		contentType, body string
		class             model.Class
		is                error
		says              string
	}{
		"a captive portal is named":    {"text/html; charset=utf-8", "<html>log in</html>", model.Other, ErrCaptivePortal, "login page"},
		"broken JSON is named":         {"application/json", `{"sha": x}`, model.ServerError, nil, "not the JSON of a hub"},
		"half a document is named":     {"application/json", `{"sha":"` + commit1 + `","siblings":[{"rfile`, model.ServerError, nil, "ends too early"},
		"an empty answer is named":     {"application/json", ``, model.ServerError, nil, "ends too early"},
		"two documents are refused":    {"application/json", `{"sha":"` + commit1 + `"}{}`, model.ServerError, nil, "follows its end"},
		"a doubled field is refused":   {"application/json", `{"sha":"` + commit1 + `","sha":"` + commit2 + `"}`, model.ServerError, nil, `"sha" is there twice`},
		"a list instead of an object":  {"application/json", `["` + commit1 + `"]`, model.ServerError, nil, "expected"},
		"siblings that are an object":  {"application/json", `{"sha":"` + commit1 + `","siblings":{}}`, model.ServerError, nil, "list"},
		"a commit that is a number":    {"application/json", `{"sha":17}`, model.ServerError, nil, "JSON"},
		"deep nonsense where skipped":  {"application/json", `{"x":` + strings.Repeat("[", 20_000) + `}`, model.ServerError, nil, "JSON"},
		"text that begins like a page": {"", "<!doctype html>", model.Other, ErrCaptivePortal, "login page"},
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, nil)
			r.api = func(w http.ResponseWriter, req *http.Request) bool {
				if c.contentType == "" {
					return answers(200, c.body)(w, req) // the server guesses the type
				}
				return answers(200, c.body, "Content-Type", c.contentType)(w, req)
			}
			_, err := r.sources().Resolve(t.Context(), tiny, "")
			classIs(t, err, c.class)
			mentions(t, err, c.says)
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
		})
	}
}
