package demohub

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// plan is the honest answer of the hub's own host.
func (h *Hub) plan(r *http.Request) *answer {
	at := parseRoute(r.URL.EscapedPath())
	if at.verb == "file" {
		return h.planFile(r, at.path)
	}
	kind := API
	if at.verb == "resolve" || at.verb == "raw" || at.verb == "cache" || at.verb == "" {
		kind = Resolve
	}
	a := h.planRoute(r, at, kind)
	a.path = at.path

	h.mu.Lock()
	defer h.mu.Unlock()
	q := &h.api
	if kind == Resolve {
		q = &h.resolver
	}
	if q.most > 0 {
		left, reset := q.take(time.Now())
		if left < 0 {
			a = refusal(kind, http.StatusTooManyRequests, "", "You have reached the rate limit of this hub.")
			a.path, left = at.path, 0
			h.meter.limited()
		}
		rateLimitHeaders(a.header, q.bucket, left, reset, q.most, q.window)
	}
	return a
}

// planRoute applies the hub's order of checks (reference/hub-protocol, section 12.1): token, repository,
// disabled, gate, revision, entry.
func (h *Hub) planRoute(r *http.Request, at route, kind Kind) *answer {
	if r.Method != http.MethodGet && r.Method != http.MethodHead && (at.verb != "paths-info" || r.Method != http.MethodPost) {
		return refusal(kind, http.StatusMethodNotAllowed, "", "This hub is read-only.")
	}
	token, user, valid := h.caller(r)
	switch {
	case at.verb == "" || at.verb == "api":
		return refusal(kind, http.StatusNotFound, "", "Sorry, there is no page at this address.")
	case !valid:
		return refusal(kind, http.StatusUnauthorized, "", "Invalid credentials in Authorization header")
	case at.verb == "whoami":
		if token == "" {
			return refusal(kind, http.StatusUnauthorized, "", "Invalid username or password.")
		}
		return jsonAnswer(kind, http.StatusOK, whoami(user))
	}

	repo, c, settled := h.find(r, at, kind, token)
	if settled != nil {
		return settled
	}
	locked := repo.gated && !repo.allowed[token]
	var a *answer
	var err error
	switch at.verb { // without the lock: a hash may have to be computed
	case "info":
		a, err = h.info(repo, c, strings.EqualFold(r.URL.Query().Get("blobs"), "true"), locked)
		a = conditional(r, a, err)
	case "tree":
		a, err = h.tree(r, repo, c, at.path, locked)
		a = conditional(r, a, err)
	case "paths-info":
		a, err = pathsInfo(r, c, locked)
	case "raw":
		a, err = h.raw(r, repo, c, at)
	default:
		a, err = h.resolve(r, repo, c, at)
	}
	if err != nil {
		return refusal(kind, http.StatusInternalServerError, "", err.Error())
	}
	return a
}

// find looks up repository and commit, or settles the request. A commit never changes; of a repository
// only the maps of heads and commits do.
func (h *Hub) find(r *http.Request, at route, kind Kind, token string) (*repo, *commit, *answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if id, ok := h.renamed[at.repo]; ok {
		return nil, nil, redirect(kind, http.StatusTemporaryRedirect, renamedLocation(at, kind, id, r.URL.RawQuery))
	}
	repo := h.repos[at.repo]
	switch {
	case repo == nil || repo.private && !repo.allowed[token]:
		if token != "" {
			return nil, nil, refusal(kind, http.StatusNotFound, "RepoNotFound", "Repository not found")
		}
		a := refusal(kind, http.StatusUnauthorized, "", "Invalid username or password.")
		a.header.Set("WWW-Authenticate", `Bearer realm="Authentication required", charset="UTF-8"`)
		return nil, nil, a
	case repo.disabled:
		return nil, nil, refusal(kind, http.StatusForbidden, "", "Access to this resource is disabled.")
	case repo.gated && !repo.allowed[token] && kind == Resolve:
		return nil, nil, gate(repo, r, token)
	case at.verb == "refs":
		return nil, nil, jsonAnswer(kind, http.StatusOK, repo.refs())
	}
	c := repo.at(cmp.Or(at.rev, "main"))
	switch {
	case c == nil:
		return nil, nil, refusal(kind, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+printable(at.rev))
	case c.err != nil:
		return nil, nil, refusal(kind, http.StatusInternalServerError, "", c.err.Error())
	}
	return repo, c, nil
}

// caller is who asks; the token is empty for a stranger.
func (h *Hub) caller(r *http.Request) (token, user string, valid bool) {
	auth := r.Header.Get("Authorization")
	if auth == "" {
		return "", "", true
	}
	token, ok := strings.CutPrefix(auth, "Bearer ")
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.accounts) == 0 {
		return token, "demo", ok && token != ""
	}
	user, known := h.accounts[token]
	return token, user, ok && known
}

func gate(repo *repo, r *http.Request, token string) *answer {
	restricted := "Access to model " + repo.id + " is restricted"
	switch {
	case token == "":
		return refusal(Resolve, http.StatusUnauthorized, "GatedRepo", restricted+". You must have access to it and be authenticated to access it. Please log in.")
	case repo.pending[token]:
		return refusal(Resolve, http.StatusForbidden, "GatedRepo", "Your request to access model "+repo.id+" is awaiting a review from the repo authors.")
	}
	return refusal(Resolve, http.StatusForbidden, "GatedRepo", restricted+" and you are not in the authorized list. Visit "+origin(r)+"/"+repo.id+" to ask for access.")
}

func renamedLocation(at route, kind Kind, id, query string) string {
	location := "/" + id
	if kind == API {
		location = "/api/models/" + id
	}
	if len(at.tail) > 0 {
		location += "/" + strings.Join(at.tail, "/")
	}
	if query != "" {
		location += "?" + query
	}
	return location
}

// origin is the URL by which the caller reaches this hub.
func origin(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// resolve answers for the content of a file (reference/hub-protocol, section 8).
func (h *Hub) resolve(r *http.Request, repo *repo, c *commit, at route) (*answer, error) {
	e, ok := c.find(at.path)
	if !ok {
		a := newAnswer(Resolve, http.StatusNotFound).text("text/plain; charset=utf-8", "Entry not found")
		a.header.Set("X-Error-Code", "EntryNotFound")
		a.header.Set("X-Error-Message", "Entry not found")
		a.header.Set("X-Repo-Commit", c.id)
		return a, nil
	}
	sum, err := e.listedSum()
	if err != nil {
		return nil, err
	}
	set := h.current()
	var a *answer
	switch {
	case e.lfs && set.cdn != "" && at.verb == "resolve":
		a = redirect(Resolve, http.StatusFound, set.cdn+h.sign(repo.id, c, e, set.life))
	case !e.lfs && set.smallHop && at.verb == "resolve":
		a = redirect(Resolve, http.StatusTemporaryRedirect, cacheLocation(r, repo.id, c.id, e.Path, sum))
	default:
		a = fileAnswer(r, e.Path, e.blob, sum, time.Time{})
	}
	a.header.Set("Accept-Ranges", "bytes")
	a.header.Set("X-Repo-Commit", c.id)
	if e.lfs {
		a.header.Set("X-Linked-Size", strconv.FormatInt(e.listedSize(), 10))
		a.header.Set("X-Linked-ETag", strconv.Quote(sum))
	}
	if e.xet != "" {
		a.header.Set("X-Xet-Hash", e.xet)
	}
	return a, nil
}

// cacheLocation is where a small file's content is, spelt as the hub spells it: relative, the path in one
// segment, and the original path as a query key.
func cacheLocation(r *http.Request, id, commit, path, sum string) string {
	return fmt.Sprintf("/api/resolve-cache/models/%s/%s/%s?%s=&etag=%s",
		escaped(id), commit, url.PathEscape(path), url.QueryEscape(r.URL.Path), url.QueryEscape(strconv.Quote(sum)))
}

// raw answers with the bytes that git holds: of an LFS file, its pointer.
func (h *Hub) raw(r *http.Request, repo *repo, c *commit, at route) (*answer, error) {
	e, ok := c.find(at.path)
	if !ok || !e.lfs {
		return h.resolve(r, repo, c, route{verb: "cache", path: at.path})
	}
	sum, err := e.listedSum()
	if err != nil {
		return nil, err
	}
	text := e.pointer(sum)
	a := fileAnswer(r, e.Path, memory(text), model.SumGitBlob(text).Hex(), time.Time{})
	a.header.Set("X-Repo-Commit", c.id)
	return a, nil
}

// planFile is the answer of the plain web server at /files/.
func (h *Hub) planFile(r *http.Request, name string) *answer {
	h.mu.Lock()
	e, ok := h.files[name]
	h.mu.Unlock()
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return newAnswer(Bulk, http.StatusMethodNotAllowed).text("text/plain; charset=utf-8", "405 method not allowed\n")
	case !ok:
		a := newAnswer(Bulk, http.StatusNotFound).text("text/plain; charset=utf-8", "404 page not found\n")
		a.path = name
		return a
	case e.err != nil:
		return newAnswer(Bulk, http.StatusInternalServerError).text("text/plain; charset=utf-8", e.err.Error())
	}
	modified := firstCommit
	if d, onDisk := e.blob.content.(disk); onDisk {
		modified = d.mod
	}
	return fileAnswer(r, name, e.blob, e.opaque(), modified)
}

// secret signs the URLs of a hub that has nothing to protect.
const secret = "demohub"

func signature(path, expires, policy string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s\n%s\n%s", path, expires, policy)
	return hex.EncodeToString(mac.Sum(nil))
}

// sign makes the path and query of a file on the CDN. Expires is in whole seconds, as clients expect; the policy
// holds the exact instant and a number that makes every URL another one.
func (h *Hub) sign(id string, c *commit, e Entry, life time.Duration) string {
	until := time.Now().Add(life)
	p := "/repos/" + escaped(id) + "/" + c.id + "/" + escaped(e.Path)
	expires := strconv.FormatInt(until.Add(time.Second-1).Unix(), 10)
	policy := fmt.Sprintf("%d.%d", until.UnixNano(), h.nonce.Add(1))
	q := url.Values{"Expires": {expires}, "Policy": {policy}, "Signature": {signature(p, expires, policy)}, "Key-Pair-Id": {"demohub"}}
	return p + "?" + q.Encode()
}

// planCDN is the honest answer of the second host: it knows nothing of hubs, and asks only whether the
// signature is right and still good.
func (h *Hub) planCDN(r *http.Request) *answer {
	p := r.URL.EscapedPath()
	segs := strings.Split(p, "/")
	if len(segs) < 5 || segs[1] != "repos" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return forbidden("AccessDenied", "")
	}
	n := 4 // "", "repos", two parts of the id, the commit
	if model.IsCommit(segs[3]) {
		n = 3
	}
	id, rev, path := joined(segs[2:n]), segs[n], joined(segs[n+1:])
	q := r.URL.Query()
	policy := q.Get("Policy")
	if !hmac.Equal([]byte(q.Get("Signature")), []byte(signature(p, q.Get("Expires"), policy))) {
		return forbidden("AccessDenied", path)
	}
	nanos, _, _ := strings.Cut(policy, ".")
	until, err := strconv.ParseInt(nanos, 10, 64)
	if err != nil || !time.Now().Before(time.Unix(0, until)) {
		return forbidden("ExpiredToken", path)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if most := h.settings.maxUses; most > 0 {
		if h.uses[policy]++; h.uses[policy] > most {
			return forbidden("ExpiredToken", path)
		}
	}
	if repo := h.repos[id]; repo != nil {
		if c := repo.at(rev); c != nil {
			if e, ok := c.find(path); ok {
				return fileAnswer(r, path, e.blob, e.opaque(), c.when)
			}
		}
	}
	return forbidden("NoSuchKey", path)
}

// forbidden is how signed-URL CDNs refuse: XML, and no X-Error-Code.
func forbidden(code, path string) *answer {
	a := newAnswer(Bulk, http.StatusForbidden).text("application/xml",
		`<?xml version="1.0" encoding="UTF-8"?>`+"\n<Error><Code>"+code+"</Code><Message>Access denied</Message></Error>")
	a.path = path
	return a
}
