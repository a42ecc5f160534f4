package demohub

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// mask stands in the place of hashes that the caller may not see.
var mask = strings.Repeat("*", 64)

// hubTime is how the hub writes instants.
const hubTime = "2006-01-02T15:04:05.000Z"

type lfsInfo struct {
	OID         string `json:"oid,omitempty"`    // in trees
	SHA256      string `json:"sha256,omitempty"` // in repository info
	Size        int64  `json:"size"`
	PointerSize int    `json:"pointerSize"`
}

type sibling struct {
	Name   string   `json:"rfilename"`
	Size   *int64   `json:"size,omitempty"`
	BlobID string   `json:"blobId,omitempty"`
	LFS    *lfsInfo `json:"lfs,omitempty"`
}

// node is an entry of a tree listing.
type node struct {
	Type    string   `json:"type"`
	OID     string   `json:"oid"`
	Size    int64    `json:"size"`
	Path    string   `json:"path"`
	LFS     *lfsInfo `json:"lfs,omitempty"`
	XetHash string   `json:"xetHash,omitempty"`
}

// node lists e as a tree does. The oid of an LFS file is that of its pointer.
func (e Entry) node(locked bool) (node, error) {
	sum, err := e.listedSum()
	n := node{Type: "file", OID: sum, Size: e.listedSize(), Path: e.Path, XetHash: e.xet}
	if e.lfs {
		text := e.pointer(sum)
		n.OID = model.SumGitBlob(text).Hex()
		if locked || e.masked {
			sum, n.XetHash = mask, mask
		}
		n.LFS = &lfsInfo{OID: sum, Size: n.Size, PointerSize: len(text)}
	}
	return n, err
}

// info is repository info at a commit (reference/hub-protocol, section 4).
func (h *Hub) info(r *repo, c *commit, blobs, locked bool) (*answer, error) {
	most := h.current().maxSiblings
	siblings := make([]sibling, 0, len(c.entries))
	for _, e := range c.entries {
		if most > 0 && len(siblings) == most {
			break
		}
		s := sibling{Name: e.Path}
		if blobs {
			n, err := e.node(locked)
			if err != nil {
				return nil, err
			}
			s.Size, s.BlobID = &n.Size, n.OID
			if n.LFS != nil {
				s.LFS = &lfsInfo{SHA256: n.LFS.OID, Size: n.Size, PointerSize: n.LFS.PointerSize}
			}
		}
		siblings = append(siblings, s)
	}
	author, _, _ := strings.Cut(r.id, "/")
	var gated any = false
	if r.gated {
		gated = "manual"
	}
	about := map[string]any{
		"_id": model.SumSHA256([]byte(r.id)).Hex()[:24], "id": r.id, "modelId": r.id, "author": author, "sha": c.id,
		"lastModified": c.when.Format(hubTime), "createdAt": firstCommit.Format(hubTime),
		"private": r.private, "gated": gated, "disabled": r.disabled, "downloads": 1234, "likes": 7,
		"tags": append([]string{"demo"}, r.labels...), "cardData": nil, "spaces": []string{}, "siblings": siblings,
	}
	for field, value := range map[string]string{"pipeline_tag": r.task, "library_name": r.library} {
		if value != "" { // else the field is not there
			about[field] = value
		}
	}
	return jsonAnswer(API, http.StatusOK, about), nil
}

// tree is one page of a listing (reference/hub-protocol, section 5). The cursor names the commit, so that
// the pages of a listing never mix two, even when the branch moves in between.
func (h *Hub) tree(r *http.Request, repo *repo, c *commit, folder string, locked bool) (*answer, error) {
	q := r.URL.Query()
	from := 0
	if cursor := q.Get("cursor"); cursor != "" {
		var ok bool
		if c, from, ok = h.cursor(repo, cursor); !ok {
			return refusal(API, http.StatusBadRequest, "", "Invalid cursor"), nil
		}
	}
	files, found := c.list(folder, strings.EqualFold(q.Get("recursive"), "true"))
	if !found {
		return refusal(API, http.StatusNotFound, "EntryNotFound", printable(folder)+" does not exist on "+printable(c.id)), nil
	}
	size := h.current().pageSize
	if limit, err := strconv.Atoi(q.Get("limit")); err == nil && limit > 0 {
		size = min(size, limit)
	}
	from = min(from, len(files))
	to := min(from+size, len(files))
	page := make([]node, 0, to-from)
	for _, l := range files[from:to] {
		n := node{Type: "directory", OID: model.SumGitBlob([]byte(c.id + l.folder)).Hex(), Path: l.folder}
		if l.folder == "" {
			var err error
			if n, err = c.entries[l.entry].node(locked); err != nil {
				return nil, err
			}
		}
		page = append(page, n)
	}
	a := jsonAnswer(API, http.StatusOK, page)
	if to < len(files) {
		q.Set("cursor", base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%s:%d", c.id, to)))
		a.header.Set("Link", "<"+origin(r)+r.URL.EscapedPath()+"?"+q.Encode()+`>; rel="next"`)
	}
	return a, nil
}

func (h *Hub) cursor(r *repo, s string) (*commit, int, bool) {
	plain, err := base64.RawURLEncoding.DecodeString(s)
	id, at, _ := strings.Cut(string(plain), ":")
	n, numErr := strconv.Atoi(at)
	h.mu.Lock()
	defer h.mu.Unlock()
	c := r.commits[id]
	return c, n, err == nil && numErr == nil && c != nil && n >= 0
}

// line is a row of a listing: a folder, or the entry of this index if folder is empty.
type line struct {
	folder string
	entry  int
}

// list gives what is in a folder, or below it, folders included; found is false if there is no such
// folder.
func (c *commit) list(folder string, recursive bool) (lines []line, found bool) {
	prefix := ""
	if folder = strings.Trim(folder, "/"); folder != "" {
		prefix = folder + "/"
	}
	seen := map[string]bool{}
	for i, e := range c.entries {
		rest, ok := strings.CutPrefix(e.Path, prefix)
		if !ok {
			continue
		}
		for at, r := range rest {
			if r != '/' || at == 0 {
				continue
			}
			if dir := prefix + rest[:at]; !seen[dir] {
				seen[dir] = true
				lines = append(lines, line{folder: dir})
			}
			if !recursive {
				break
			}
		}
		if recursive || !strings.Contains(rest, "/") {
			lines = append(lines, line{entry: i})
		}
	}
	return lines, len(lines) > 0 || folder == ""
}

// pathsInfo lists the paths that a form or a JSON body names; those that do not exist are left out.
func pathsInfo(r *http.Request, c *commit, locked bool) (*answer, error) {
	const most = 1 << 20 // bytes of a request
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, most))
	if err != nil {
		return refusal(API, http.StatusBadRequest, "", "The request body is too large."), nil
	}
	var paths []string
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		var asked struct{ Paths []string }
		err = json.Unmarshal(body, &asked)
		paths = asked.Paths
	} else {
		var form url.Values
		form, err = url.ParseQuery(string(body))
		paths = form["paths"]
	}
	if err != nil {
		return refusal(API, http.StatusBadRequest, "", "The request body is neither a form nor JSON."), nil
	}
	nodes := []node{}
	for _, p := range paths {
		if e, ok := c.find(p); ok {
			n, err := e.node(locked)
			if err != nil {
				return nil, err
			}
			nodes = append(nodes, n)
		} else if _, ok := c.list(p, false); ok {
			nodes = append(nodes, node{Type: "directory", OID: model.SumGitBlob([]byte(c.id + p)).Hex(), Path: p})
		}
	}
	return jsonAnswer(API, http.StatusOK, nodes), nil
}

type ref struct {
	Name   string `json:"name"`
	Ref    string `json:"ref"`
	Target string `json:"targetCommit"`
}

// refs lists what names a commit (reference/hub-protocol, section 7.1).
func (r *repo) refs() map[string][]ref {
	all := map[string][]ref{"branches": {}, "tags": {}, "converts": {}, "pullRequests": {}}
	names := make([]string, 0, len(r.heads))
	for name := range r.heads {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		one, kind := ref{Name: name, Ref: "refs/heads/" + name, Target: r.heads[name]}, "branches"
		switch short, isConvert := strings.CutPrefix(name, "refs/convert/"); {
		case r.tags[name]:
			one.Ref, kind = "refs/tags/"+name, "tags"
		case isConvert:
			one.Name, one.Ref, kind = short, name, "converts"
		case strings.HasPrefix(name, "refs/"):
			one.Ref, kind = name, "pullRequests"
		}
		all[kind] = append(all[kind], one)
	}
	return all
}

func whoami(user string) map[string]any {
	return map[string]any{
		"type": "user", "id": model.SumSHA256([]byte(user)).Hex()[:24], "name": user, "fullname": user,
		"email": user + "@localhost", "emailVerified": true, "canPay": false, "periodEnd": nil, "isPro": false, "orgs": []string{},
		"auth": map[string]any{"type": "access_token", "accessToken": map[string]string{
			"displayName": "demo", "role": "read", "createdAt": firstCommit.Format(hubTime),
		}},
	}
}

// quota is a fixed window of requests (reference/hub-protocol, section 13).
type quota struct {
	bucket string
	most   int // 0: no limit
	window time.Duration
	begun  time.Time
	used   int
}

// take counts a request and says how many are left (negative: this one was too many) until when.
func (q *quota) take(now time.Time) (left int, reset time.Duration) {
	if now.Sub(q.begun) >= q.window {
		q.begun, q.used = now, 0
	}
	reset = q.window - now.Sub(q.begun)
	if q.used == q.most {
		return -1, reset
	}
	q.used++
	return q.most - q.used, reset
}

// rateLimitHeaders are the IETF draft's, in whole seconds rounded up: a client that waits t has waited enough.
func rateLimitHeaders(h http.Header, bucket string, left int, reset time.Duration, most int, window time.Duration) {
	h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", bucket, left, seconds(reset)))
	h.Set("RateLimit-Policy", fmt.Sprintf(`"fixed window";%q;q=%d;w=%d`, bucket, most, seconds(window)))
}

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
