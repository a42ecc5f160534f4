package trust

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/rs/cors"
)

// An origin is a scheme and a host with its port, in lower case and without the scheme's own port.
type origin struct{ scheme, host string }

// String is the origin as browsers write it.
func (o origin) String() string { return o.scheme + "://" + o.host }

// parseOrigin reads SCHEME://HOST[:PORT] of a web page.
func parseOrigin(text string) (origin, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme+"://"+u.Host != u.Scheme+text[min(len(u.Scheme), len(text)):] {
		return origin{}, fmt.Errorf("the origin %q is not http://HOST[:PORT] or https://HOST[:PORT]", text)
	}
	return originOf(u)
}

// originOf is the origin of what u points to.
func originOf(u *url.URL) (origin, error) {
	name, port, ok := splitHost(u.Host)
	if !ok || u.Scheme != "http" && u.Scheme != "https" {
		return origin{}, fmt.Errorf("the origin of scheme %q is not http://HOST[:PORT] or https://HOST[:PORT]", u.Scheme)
	}
	return originAt(u.Scheme, name, port), nil
}

func originAt(scheme, name, port string) origin {
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if port != "" && port != map[string]string{"http": "80", "https": "443"}[scheme] {
		name += ":" + port
	}
	return origin{scheme, name}
}

// ours reports whether o is the origin that req was sent to. In front of us a proxy may speak TLS, so that https is
// ours too where we speak none.
func (o origin) ours(req *http.Request) bool {
	name, port, ok := splitHost(req.Host)
	return ok && o == originAt(o.scheme, name, port) && (req.TLS == nil || o.scheme == "https")
}

// originAllowed reports whether no page, or one that may, sent a request. Browsers tell in Sec-Fetch-Site (only to
// loopback and over TLS), in Origin (not for images and the like) and in Referer (unless the page hides it); pages
// cannot set any of them. What sends none of them is no browser, or only reads what the page does not get to see.
func (r *rules) originAllowed(req *http.Request) bool {
	sent := req.Header.Values("Origin")
	if len(sent) > 1 {
		return false
	}
	if len(sent) == 1 {
		if o, err := parseOrigin(sent[0]); err == nil && r.origins[o.String()] {
			return true
		}
	}
	site := req.Header.Values("Sec-Fetch-Site")
	if len(site) > 1 {
		return false
	}
	switch {
	case len(site) == 1 && site[0] == "same-origin":
		return true
	case len(site) == 1 && site[0] != "none":
		// A link to the dashboard is no attack: the page that has it does not see where it leads.
		return len(sent) == 0 && reads(req) && r.open(req.URL.Path) &&
			req.Header.Get("Sec-Fetch-Mode") == "navigate" && req.Header.Get("Sec-Fetch-Dest") == "document"
	case len(sent) == 1:
		o, err := parseOrigin(sent[0])
		return err == nil && o.ours(req)
	case len(site) == 0 && req.Referer() != "":
		from, err := url.Parse(req.Referer())
		if err != nil {
			return false
		}
		o, err := originOf(from)
		return err == nil && (o.ours(req) || r.origins[o.String()]) || reads(req) && r.open(req.URL.Path)
	}
	return true
}

func reads(req *http.Request) bool {
	return req.Method == http.MethodGet || req.Method == http.MethodHead
}

// crossOrigin tells browsers that pages of the origins may send requests and read the answers. Cookies are not for
// them: a page shows its key.
func crossOrigin(origins []string) *cors.Cors {
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
		AllowedHeaders: []string{"Authorization", "Content-Type", "If-None-Match", "X-Request-Id"},
		ExposedHeaders: []string{"ETag", "Retry-After", "X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"},
		MaxAge:         600, // seconds
	})
}
