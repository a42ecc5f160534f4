package source

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"ema/internal/model"
)

// classify sorts a failure of the network. cause is why the request's context ended, nil while it
// lives: the transport reports its own words for that, and ours are better.
func classify(err, cause error) (model.Class, error) {
	switch {
	case errors.Is(cause, errStalled):
		return model.Timeout, cause
	case cause != nil:
		return model.Cancelled, cause
	case errors.Is(err, context.Canceled):
		// A dial that was shared with a request that was cancelled; ours lives.
		return model.Reset, errors.New("the connection was given up while it was being made")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return model.Other, err
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return model.Other, err
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return model.Timeout, err
	}
	if errors.Is(err, io.EOF) {
		return model.Reset, errors.New("the server closed the connection without an answer")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return model.Truncated, errors.New("the answer ended early")
	}
	// Refused, reset, unreachable, unknown host, malformed HTTP: another try may do better.
	return model.Reset, err
}

// hintFor says what to do about a failure of the network, where there is something to do.
func hintFor(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "if a proxy or a private hub signs its own certificates, name its authority by SSL_CERT_FILE"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the server does not speak TLS here; use http:// or another port"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return "check the name and the network"
	}
	return ""
}
