package trust

import (
	"io"
	"log/slog"
	"net/http"
	"time"
)

// Patience is how long a server waits for its clients. A zero field is the usual value.
type Patience struct {
	Header time.Duration // for the whole head of a request, and a TLS handshake; 5 s
	Body   time.Duration // for the whole body of a request; 30 s
	Answer time.Duration // from the head of a request to the end of its answer; 1 min
	Idle   time.Duration // between two requests of a connection; 2 min
}

// mostHeader is the largest head of a request, in bytes; net/http answers a larger one with 431.
const mostHeader = 64 << 10

// HTTPServer is a server of h that no client can make wait or fill up. Who answers in pieces, or later than
// Patience.Answer, must move the deadline for each piece with http.ResponseController.SetWriteDeadline; hijacked
// connections have no deadline. It speaks HTTP/1.1 alone: there a deadline is one of the connection and cannot cut a
// stream that is merely quiet, and the bound of connections is one of requests too.
func HTTPServer(h http.Handler, p Patience, log *slog.Logger) *http.Server {
	body := usually(p.Body, 30*time.Second)
	s := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, bodyWithin(body, w, r)) }),
		ReadHeaderTimeout: usually(p.Header, 5*time.Second),
		WriteTimeout:      usually(p.Answer, time.Minute),
		IdleTimeout:       usually(p.Idle, 2*time.Minute),
		MaxHeaderBytes:    mostHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	return s
}

func usually(d, usual time.Duration) time.Duration {
	if d == 0 {
		return usual
	}
	return d
}

// bodyWithin is r, whose body must have come when that time is over. http.Server.ReadTimeout would not do: it lasts
// beyond the body and ends the context of answers that take longer.
func bodyWithin(patience time.Duration, w http.ResponseWriter, r *http.Request) *http.Request {
	if r.Body == nil || r.Body == http.NoBody {
		return r
	}
	control := http.NewResponseController(w)
	// Without deadlines there is no connection either, but a test's recorder.
	if control.SetReadDeadline(time.Now().Add(patience)) != nil {
		return r
	}
	r = r.WithContext(r.Context()) // a copy
	r.Body = &hurried{r.Body, control}
	return r
}

// A hurried body has a deadline until it has come to its end. If nobody reads it to the end it keeps the deadline,
// within which the server then looks for the next request.
type hurried struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read reads on.
func (b *hurried) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF { //nolint:errorlint // readers promise io.EOF itself
		// When it fails the connection is broken, which the next to use it is told.
		_ = b.control.SetReadDeadline(time.Time{}) //nolint:errcheck // see above
	}
	return n, err
}
