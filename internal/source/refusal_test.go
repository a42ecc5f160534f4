package source

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"ema/internal/model"
)

// The rows are those of the table of errors that hubs share, plus what mirrors make of it.
func TestHubRefusals(t *testing.T) {
	const token = "hf_s3cretToken"
	for promise, c := range map[string]struct {
		status        int
		code, message string
		body          string
		token         string
		file          bool // the request is for a file
		is            error
		class         model.Class
		says          string
	}{
		"file missing":                      {404, "EntryNotFound", "Entry not found", "Entry not found", "", true, ErrEntryNotFound, model.NotFound, "a.bin"},
		"folder missing":                    {404, "EntryNotFound", "", `{"error":"gone"}`, "", false, ErrEntryNotFound, model.NotFound, ""},
		"revision missing":                  {404, "RevisionNotFound", "Invalid rev id: xyz", `{"error":"Invalid rev id: xyz"}`, "", false, ErrRevisionNotFound, model.NotFound, "branches and tags"},
		"revision missing, file":            {404, "RevisionNotFound", "", "", "", true, ErrRevisionNotFound, model.NotFound, ""},
		"repo missing or private, token":    {404, "RepoNotFound", "Repository not found", `{"error":"Repository not found"}`, token, false, ErrRepoNotFound, model.NotFound, "who may see it"},
		"repo missing or private, nobody":   {401, "", "Invalid username or password.", `{"error":"Invalid username or password."}`, "", false, ErrNoToken, model.Auth, "HF_TOKEN"},
		"repo missing, mirror, nobody":      {401, "RepoNotFound", "Repository not found", "", "", false, ErrRepoNotFound, model.NotFound, "HF_TOKEN"},
		"repo missing, mirror without code": {404, "", "", "404 page not found", "", false, ErrRepoNotFound, model.NotFound, "spelling"},
		"file missing, mirror without code": {404, "", "", "404 page not found", "", true, ErrEntryNotFound, model.NotFound, ""},
		"bad or expired token":              {401, "", "Invalid credentials in Authorization header", "", token, false, ErrBadToken, model.Auth, "expired"},
		"bad token by other words":          {401, "", "Invalid username or password.", "", token, true, ErrBadToken, model.Auth, "expired"},
		"gated, nobody":                     {401, "GatedRepo", "Access to model acme/tiny is restricted. Please log in.", "", "", true, ErrGated, model.Auth, "HF_TOKEN"},
		"gated, not accepted":               {403, "GatedRepo", "you are not in the authorized list. Visit x to ask for access.", "", token, true, ErrGated, model.Auth, "ask for access at http"},
		"gated, awaiting review":            {403, "GatedRepo", "your request is awaiting a review from the repo authors.", "", token, true, ErrGated, model.Auth, "awaits a review"},
		"disabled":                          {403, "", "Access to this resource is disabled.", "", token, false, ErrDisabled, model.Auth, "/acme/tiny"},
		"disabled, words in the body":       {403, "", "", `{"error":"Access to this resource is disabled."}`, "", false, ErrDisabled, model.Auth, ""},
		"token without permission":          {403, "", "", `{"error":"Forbidden: token needs repo.content.read"}`, token, true, ErrNotPermitted, model.Auth, "repo.content.read"},
		"forbidden, nobody":                 {403, "", "", "", "", true, ErrNotPermitted, model.Auth, "HF_TOKEN"},
		"too many requests":                 {429, "", "", `{"error":"slow down"}`, "", false, nil, model.RateLimited, "rate limit"},
		"bad argument":                      {400, "", "", `{"error":["one","two"]}`, "", false, nil, model.Usage, "one; two"},
		"range beyond the end":              {416, "", "", "", "", true, nil, model.RangeRefused, "range"},
		"hub trouble 500":                   {500, "", "", "<html>oops</html>", "", false, nil, model.ServerError, "500"},
		"hub trouble 502":                   {502, "", "", "", "", true, nil, model.ServerError, "502"},
		"hub trouble 503":                   {503, "", "", `{"errors":[{"message":"back soon"}]}`, "", false, nil, model.ServerError, "back soon"},
		"hub trouble 504":                   {504, "", "", "", "", true, nil, model.ServerError, "504"},
		"request timeout":                   {408, "", "", "", "", true, nil, model.ServerError, "408"},
		"something else":                    {418, "", "", "teapot", "", false, nil, model.Other, "teapot"},
		"an echo of the token":              {503, "", "you sent " + token, "", token, false, nil, model.ServerError, "you sent …"},
		"a message of many lines":           {503, "", "", "a\r\nb\x1b[31m\xff", "", false, nil, model.ServerError, "a  b [31m?"},
		"a redirect to nowhere":             {302, "", "", "", "", false, nil, model.ServerError, "without a target"},
	} {
		t.Run(promise, func(t *testing.T) {
			r := newRehearsal(t, map[string][]byte{"a.bin": []byte("abc")})
			step := func(w http.ResponseWriter, req *http.Request) bool {
				for k, v := range map[string]string{"X-Error-Code": c.code, "X-Error-Message": c.message} {
					if v != "" {
						w.Header().Set(k, v)
					}
				}
				w.Header().Set("Retry-After", "7")
				if !strings.HasPrefix(c.body, "<") {
					w.Header().Set("Content-Type", "text/plain")
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
				return true
			}
			s := r.sources(func(s *Settings) { s.Token = c.token })
			var err error
			if c.file {
				m := resolved(t, s, tiny, "")
				r.resolve = step
				_, err = s.Open(t.Context(), m, m.Files[0], model.Segment{End: 3})
			} else {
				r.api = step
				_, err = s.Resolve(t.Context(), tiny, "main")
			}
			e := classIs(t, err, c.class)
			mentions(t, err, "acme/tiny", c.says)
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			if c.status != 302 && e.After != 7*time.Second {
				t.Errorf("After = %v, want the server's 7 s", e.After)
			}
			if strings.ContainsAny(err.Error(), "\r\n\x1b<") {
				t.Errorf("the error is not one plain sentence: %q", err)
			}
		})
	}
}
