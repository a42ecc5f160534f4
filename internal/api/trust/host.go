package trust

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// A hostPattern is one of Settings.AllowedHosts.
type hostPattern struct {
	name string // in lower case, dots as slashes, so that path.Match keeps * between two of them
	port string // "" = any
}

func parseHostPattern(text string) (hostPattern, error) {
	name, port, ok := splitHost(strings.ReplaceAll(text, "*", "x"))
	if !ok {
		return hostPattern{}, fmt.Errorf("the allowed host %q is not HOST or HOST:PORT, with * for any part", text)
	}
	if strings.Contains(text, "*") {
		name, _, _ = strings.Cut(strings.ToLower(text), ":")
	}
	return hostPattern{slashed(name), port}, nil
}

func slashed(name string) string { return strings.ReplaceAll(name, ".", "/") }

func (p hostPattern) matches(name, port string) bool {
	if p.port != "" && p.port != port {
		return false
	}
	if p.name == "*" {
		return true
	}
	ok, err := path.Match(p.name, slashed(name))
	return ok && err == nil
}

// splitHost takes a Host header apart: a name in lower case or an address without brackets, and a port, which may be
// missing. It is false for what no browser sends.
func splitHost(host string) (name, port string, ok bool) {
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		name, rest, closed := strings.Cut(inner, "]")
		address, err := netip.ParseAddr(name)
		if !closed || err != nil || !address.Is6() || rest != "" && rest[0] != ':' {
			return "", "", false
		}
		return address.String(), strings.TrimPrefix(rest, ":"), rest == "" || isPort(rest[1:])
	}
	name, port, hasPort := strings.Cut(strings.ToLower(host), ":")
	name = strings.TrimSuffix(name, ".")
	plain := !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
	})
	return name, port, name != "" && plain && (!hasPort || isPort(port))
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == text
}

// hostAllowed reports whether a request for host is meant for us. A page whose own name was made to point to this
// machine ("DNS rebinding") has the same origin as we have; its name gives it away. Addresses cannot be made to point
// anywhere.
func (r *rules) hostAllowed(host string) bool {
	name, port, ok := splitHost(host)
	if !ok {
		return false
	}
	for _, p := range r.hosts {
		if p.matches(name, port) {
			return true
		}
	}
	if address, err := netip.ParseAddr(name); err == nil {
		return !r.Loopback || address.Unmap().IsLoopback()
	}
	switch {
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		return true
	case r.Loopback || len(r.hosts) > 0:
		return false
	case len(r.keys) > 0 && r.DefaultRole == None:
		return true // that page has no key, and no browser adds it
	}
	return !strings.Contains(name, ".") // strangers are let in; but nobody owns a name without a dot in the public DNS
}
