package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"time"

	"ema/internal/config"
	"ema/internal/model"
	"ema/internal/source"
)

// A call is one request to the hub, taken apart: how far it got, and what came back. It exists for doctor, which must
// name the layer that fails; models are fetched by internal/source.
type call struct {
	endpoint string
	layer    string // the one that was being used last: DNS, TCP, TLS, HTTP
	proxied  string // the proxy that the request goes through; empty for none
	err      error
	reached  bool // there was an answer of a hub
	status   int
	took     time.Duration
	skew     time.Duration // how far the hub's clock is ahead of ours
	dated    bool          // the hub said what time it is
	who      struct {
		Name string `json:"name"`
		Auth struct {
			AccessToken struct {
				Role string `json:"role"`
			} `json:"accessToken"`
		} `json:"auth"`
	}
}

// call asks the hub who the token belongs to.
func (a *app) call(ctx context.Context, c config.Config, token string) *call {
	k := &call{endpoint: strings.TrimRight(c.Sources.HuggingFace.Endpoint, "/"), layer: "configuration"}
	transport, err := transport(source.CertFilesFromEnv(a.getenv), c.ConnectionSettings.ConnectionTimeoutSeconds.Duration())
	if err != nil {
		k.err = err
		return k
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { k.layer = "DNS" },
		ConnectStart:      func(string, string) { k.layer = "TCP" },
		TLSHandshakeStart: func() { k.layer = "TLS" },
		GotConn:           func(httptrace.GotConnInfo) { k.layer = "HTTP" },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.endpoint+"/api/whoami-v2", nil)
	if err != nil {
		k.err = err
		return k
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if proxy, err := http.ProxyFromEnvironment(req); err == nil && proxy != nil {
		k.proxied = proxy.Host
	}
	begun := time.Now()
	res, err := (&http.Client{Transport: transport, CheckRedirect: sameHost}).Do(req)
	if err != nil {
		k.err = err
		if e, ok := errors.AsType[*url.Error](err); ok {
			k.err = e.Err // it repeats the address
		}
		return k
	}
	defer res.Body.Close() // read as far as needed
	k.took, k.status = time.Since(begun), res.StatusCode
	if at, err := http.ParseTime(res.Header.Get("Date")); err == nil {
		k.skew, k.dated = at.Sub(begun.Add(k.took/2)), true
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) //nolint:errcheck // none is no web page
	switch {
	case err != nil:
		k.err = err
	case media == "text/html":
		k.err = source.ErrCaptivePortal
	case res.StatusCode >= 500:
		k.err = errors.New("the hub answers " + res.Status)
	case res.StatusCode == http.StatusOK && json.Unmarshal(body, &k.who) != nil:
		k.err = errors.New("the answer is not one of a hub")
	default:
		k.reached = true
	}
	return k
}

// sameHost follows redirects inside of one host only: the token is for no other.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) >= 5 || req.URL.Host != via[0].URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// transport makes connections of its own, which trust what the environment says.
func transport(certFiles []string, patience time.Duration) (*http.Transport, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, err
	}
	for _, file := range certFiles {
		pem, err := os.ReadFile(file)
		if err != nil {
			continue // a folder, which the system's pool has read
		}
		roots.AppendCertsFromPEM(pem)
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: patience}).DialContext,
		TLSHandshakeTimeout: patience,
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}, nil
}

// hub says whether the hub can be reached, and if not, which layer fails.
func (k *call) hub() finding {
	at := model.Redact(k.endpoint)
	if k.proxied != "" {
		at += " through the proxy " + k.proxied
	}
	if k.reached {
		return finding{Check: "hub", Status: good, Found: fmt.Sprintf("%s answered in %d ms", at, k.took.Milliseconds())}
	}
	fixes := map[string]string{
		"DNS":  "check the hub's name and this machine's name servers",
		"TCP":  "check address, port and firewall; behind a proxy set HTTPS_PROXY",
		"TLS":  "if a proxy or a private hub signs its own certificates, name its authority by SSL_CERT_FILE",
		"HTTP": "try again later, or name a mirror with --endpoint or HF_ENDPOINT",
	}
	fix := fixes[k.layer]
	if errors.Is(k.err, source.ErrCaptivePortal) {
		fix = "log in to this network in a browser, or check the endpoint"
	}
	return finding{"hub", fail, fmt.Sprintf("%s: %s fails: %v", at, k.layer, k.err), fix}
}

// token says whose it is and what it may do.
func (k *call) token(token string) finding {
	switch {
	case token == "":
		return finding{Check: "token", Status: good, Found: "none: public models only, with a lower rate limit"}
	case k.status == http.StatusOK && k.who.Name != "":
		found := "valid, of " + k.who.Name
		if role := k.who.Auth.AccessToken.Role; role != "" {
			found += ", role " + role
		}
		return finding{Check: "token", Status: good, Found: found}
	case k.status == http.StatusUnauthorized:
		return finding{"token", fail, "the hub does not accept it", "make a new one, or unset HF_TOKEN for public models"}
	}
	return finding{"token", warn, fmt.Sprintf("the hub does not say whose it is (status %d)", k.status), ""}
}

// clock compares ours with the hub's: signed links live for minutes only.
func (k *call) clock() finding {
	const tolerable, harmful = 30 * time.Second, 5 * time.Minute
	skew := k.skew.Abs().Round(time.Second)
	switch {
	case !k.dated:
		return finding{"clock", warn, "the hub does not say what time it is", ""}
	case skew <= tolerable:
		return finding{Check: "clock", Status: good, Found: "agrees with the hub's"}
	}
	side := "behind"
	if k.skew < 0 {
		side = "ahead of"
	}
	f := finding{"clock", warn, fmt.Sprintf("%v %s the hub's", skew, side), "set it, e.g. by timedatectl set-ntp true"}
	if skew > harmful {
		f.Status = fail
	}
	return f
}
