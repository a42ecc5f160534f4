// Package pages shows the document of the API to people, as two pages that load nothing from elsewhere.
//
// What draws them are npm packages, which "make assets" puts into dist before the compiler embeds it.
package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"sync"
	"time"
)

//go:embed all:dist docs.html docs.js redoc.html
var files embed.FS

// policy lets a page load what we serve, and nothing else. Both packages write styles into the page; redoc searches in a
// worker that it makes from a string.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; " +
	"connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ErrNotBuilt means that the binary was compiled without "make assets".
var ErrNotBuilt = errors.New("the pages are not in this binary; build it with \"make\"")

// All are the pages and what they load, by their path on the server. They expect the document at /openapi.json, and
// refer to each other and to it by relative links, so that a proxy may have them below a path of its own. Without
// "make assets" there are none, and the error is ErrNotBuilt.
func All() (map[string]http.Handler, error) {
	all := map[string]http.Handler{}
	for at, name := range map[string]string{
		"/docs": "docs.html", "/redoc": "redoc.html", "/docs/assets/docs.js": "docs.js",
		"/docs/assets/swagger-ui.js": "dist/swagger-ui.js", "/docs/assets/swagger-ui.css": "dist/swagger-ui.css",
		"/docs/assets/redoc.js": "dist/redoc.js",
	} {
		if _, err := fs.Stat(files, name); err != nil {
			return nil, fmt.Errorf("%w (%s is missing)", ErrNotBuilt, name)
		}
		all[at] = File(kinds()[path.Ext(name)], func() []byte {
			content, _ := files.ReadFile(name) //nolint:errcheck // it is in the binary
			return content
		})
	}
	return all, nil
}

// kinds are the content types by the ends of names; those of package mime depend on the machine.
func kinds() map[string]string {
	return map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	}
}

// File serves content that never changes while the process lives, and is made when it is first asked for. Whoever has it
// already is told so.
func File(kind string, made func() []byte) http.Handler {
	content := sync.OnceValue(made)
	tag := sync.OnceValue(func() string { return Tag(content()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", policy)
		h.Set("Etag", tag())
		h.Set("Cache-Control", "no-cache") // ask again: another version of ema may answer by then
		ServeTagged(w, r, content())
	})
}

// Tag is the ETag of content.
func Tag(content []byte) string {
	sum := sha256.Sum256(content)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// ServeTagged answers with content, or says that the client has it already when the header Etag is what it knows. Other
// conditions and ranges are not looked at, so that this cannot fail.
func ServeTagged(w http.ResponseWriter, r *http.Request, content []byte) {
	bare := &http.Request{Method: r.Method, Header: http.Header{}}
	if known := r.Header["If-None-Match"]; known != nil {
		bare.Header["If-None-Match"] = known
	}
	http.ServeContent(w, bare, "", time.Time{}, bytes.NewReader(content))
}
