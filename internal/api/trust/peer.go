package trust

import (
	"net/http"
	"net/netip"
)

// A peer is where a connection comes from.
type peer struct {
	address  string // without port; of IPv6 its network, because one machine has all addresses of a /64
	loopback bool
}

// peerOf never believes a header: whoever sets it could choose his own limit.
func peerOf(r *http.Request) peer {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return peer{address: r.RemoteAddr}
	}
	address := at.Addr().Unmap().WithZone("")
	p := peer{address.String(), address.IsLoopback()}
	if address.Is6() {
		if network, err := address.Prefix(64); err == nil {
			p.address = network.String()
		}
	}
	return p
}

// Remote is the address a request comes from, without its port; "" for the daemon's socket. A proxy's clients have the
// proxy's.
func Remote(r *http.Request) string {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return at.Addr().Unmap().String()
}
