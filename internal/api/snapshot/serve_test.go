package snapshot

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"ema/client"
	"ema/internal/model"
)

func TestAnAnswerBearsWhatCachesNeed(t *testing.T) {
	w := many(t, 2)
	m := w.naive()
	for name, serve := range map[string]http.HandlerFunc{
		"all": m.ServeStatus, "storage": m.ServeStorage,
		"one": func(rw http.ResponseWriter, r *http.Request) { m.ServeModel(rw, r, hub("some-org/some-model-0001")) },
	} {
		t.Run(name, func(t *testing.T) {
			got := answered(serve)
			h := got.Header()
			tag := h.Get("Etag")
			if got.Code != http.StatusOK || !single(tag) || h.Get("Cache-Control") != "no-cache" || h.Get("Content-Type") != "application/json" || h.Get("Content-Length") != fmt.Sprint(got.Body.Len()) {
				t.Errorf("answered %d with %v", got.Code, h)
			}
			head := httptest.NewRecorder()
			serve(head, httptest.NewRequest(http.MethodHead, "/", http.NoBody))
			if head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") != h.Get("Content-Length") || head.Header().Get("Etag") != tag {
				t.Errorf("HEAD is answered %d with %v and %d bytes", head.Code, head.Header(), head.Body.Len())
			}
			for condition, want := range map[string]int{
				tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, "*": 304, `"other"`: 200, `W/"other"`: 200, `"a", "b"`: 200, "": 200, "nonsense": 200, `"`: 200,
			} {
				again := answered(serve, "If-None-Match", condition)
				if again.Code != want || (want == 200) != (again.Body.Len() == got.Body.Len()) || again.Header().Get("Etag") != tag {
					t.Errorf("If-None-Match: %s is answered %d with %d bytes and %v, want %d", condition, again.Code, again.Body.Len(), again.Header(), want)
				}
			}
			if again := answered(serve, "If-None-Match", `"other"`, "If-None-Match", tag); again.Code != http.StatusNotModified {
				t.Errorf("two conditions are answered %d, want 304", again.Code)
			}
		})
	}
}

func TestOneModelIsToldAsAmongAll(t *testing.T) {
	m := many(t, 3).naive()
	id := hub("some-org/some-model-0001")
	one := ask[client.ModelStatus](t, func(w http.ResponseWriter, r *http.Request) { m.ServeModel(w, r, id) })
	if all := ask[client.Statuses](t, m.ServeStatus); fmt.Sprint(one.SizeMB, one.Path) != fmt.Sprint(all.Models[id.Public()].SizeMB, all.Models[id.Public()].Path) || one.Model != id.Name {
		t.Errorf("alone it is %+v", one)
	}
}

func TestAModelThatNobodyKnowsIsNotFound(t *testing.T) {
	set := many(t, 1).settings(0)
	var refused error
	set.Refuse = func(_ http.ResponseWriter, _ *http.Request, err error) { refused = err }
	m := New(set)
	answered(func(w http.ResponseWriter, r *http.Request) { m.ServeModel(w, r, hub("org/unknown")) })
	if model.ClassOf(refused) != model.NotFound {
		t.Errorf("refused with %v, want NotFound", refused)
	}
}
