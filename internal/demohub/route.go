package demohub

import (
	"net/url"
	"strings"

	"ema/internal/model"
)

// route is what a request path names. A path that names nothing has no verb.
type route struct {
	verb string // info, tree, paths-info, refs, whoami, resolve, cache, raw, file, api
	repo string
	rev  string
	path string
	tail []string // escaped segments after the repository id, for the Location of a rename
}

// parseRoute reads an escaped URL path (reference/hub-protocol, section 2): it is split before it is
// unescaped, so that the revision refs%2Fpr%2F1 stays one segment; refs/pr/1 in clear is understood, too.
func parseRoute(escaped string) route {
	segs := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	switch {
	case segs[0] == "api" && len(segs) > 1:
		return apiRoute(segs[1:])
	case segs[0] == "files" && len(segs) > 1:
		return route{verb: "file", path: joined(segs[1:])}
	}
	for _, n := range []int{2, 1} { // ids of two parts first
		if len(segs) > n+2 && (segs[n] == "resolve" || segs[n] == "raw") {
			rev, rest := cutRevision(segs[n+1:])
			if len(rest) == 0 {
				return route{}
			}
			return route{verb: segs[n], repo: joined(segs[:n]), rev: rev, path: joined(rest), tail: segs[n:]}
		}
	}
	return route{}
}

func apiRoute(segs []string) route {
	switch {
	case segs[0] == "whoami-v2" && len(segs) == 1:
		return route{verb: "whoami"}
	case segs[0] == "resolve-cache" && len(segs) > 4 && segs[1] == "models":
		for _, n := range []int{2, 1} {
			if rest := segs[2:]; len(rest) > n+1 && model.IsCommit(rest[n]) {
				return route{verb: "cache", repo: joined(rest[:n]), rev: rest[n], path: joined(rest[n+1:])}
			}
		}
	case segs[0] == "models" && len(segs) > 1:
		segs = segs[1:]
		for _, n := range []int{2, 1} {
			if len(segs) <= n {
				continue
			}
			r := route{repo: joined(segs[:n]), tail: segs[n:]}
			rev, rest := cutRevision(segs[n+1:])
			r.rev, r.path = rev, joined(rest)
			switch {
			case segs[n] == "revision" && rev != "" && len(rest) == 0:
				r.verb = "info"
			case segs[n] == "tree" && rev != "":
				r.verb = "tree"
			case segs[n] == "paths-info" && rev != "" && len(rest) == 0:
				r.verb = "paths-info"
			case segs[n] == "refs" && rev == "":
				r.verb = "refs"
			default:
				continue
			}
			return r
		}
		if len(segs) <= 2 {
			return route{verb: "info", repo: joined(segs)}
		}
	}
	return route{verb: "api"}
}

// cutRevision takes the revision off the front: one segment, or three when it is refs/pr/N or
// refs/convert/NAME in clear.
func cutRevision(segs []string) (string, []string) {
	if len(segs) == 0 {
		return "", nil
	}
	if len(segs) >= 3 && segs[0] == "refs" && (segs[1] == "pr" || segs[1] == "convert") {
		return joined(segs[:3]), segs[3:]
	}
	return unescaped(segs[0]), segs[1:]
}

func joined(segs []string) string {
	plain := make([]string, len(segs))
	for i, s := range segs {
		plain[i] = unescaped(s)
	}
	return strings.Join(plain, "/")
}

func unescaped(seg string) string {
	if plain, err := url.PathUnescape(seg); err == nil {
		return plain
	}
	return seg
}

// escaped percent-encodes each segment of a path for a URL.
func escaped(path string) string {
	segs := strings.Split(path, "/")
	for i, s := range segs {
		segs[i] = url.PathEscape(s)
	}
	return strings.Join(segs, "/")
}
