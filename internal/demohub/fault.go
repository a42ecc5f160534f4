package demohub

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// A Fault bends one answer, on the wire. The zero Fault bends nothing. Those that speak of body bytes
// count them from the first byte of the answer, not of the file, and leave shorter answers as they are.
type Fault struct {
	name string
	bend func(*answer, *http.Request)
}

// String names the fault as ParseFault reads it; it is what the log shows.
func (f Fault) String() string { return f.name }

// Pass lets an answer through unbent: a place in the order of Hub.Next.
func Pass() Fault { return Fault{name: "pass"} }

// ResetEarly breaks the connection (RST on TCP) before any header is sent.
func ResetEarly() Fault {
	return Fault{"reset-early", func(a *answer, _ *http.Request) { a.early = true }}
}

// ResetAfter breaks the connection (RST on TCP) after n body bytes, which the client can read.
func ResetAfter(n model.Bytes) Fault { return stopAfter("reset-after", n, resetting) }

// CutAfter closes the connection in an orderly way after n body bytes; Content-Length promised all.
func CutAfter(n model.Bytes) Fault { return stopAfter("cut-after", n, closing) }

func stopAfter(name string, n model.Bytes, how ending) Fault {
	return Fault{fmt.Sprintf("%s=%d", name, n), func(a *answer, _ *http.Request) { a.stop, a.ending = int64(n), how }}
}

// StallAfter sends n body bytes, then nothing for d (0: until the client goes), then the rest.
func StallAfter(n model.Bytes, d time.Duration) Fault {
	return Fault{fmt.Sprintf("stall-after=%d,%s", n, d), func(a *answer, _ *http.Request) {
		a.stop, a.ending, a.pause = int64(n), stalling, d
	}}
}

// Silence answers after d (0: never, until the client goes); until then not even headers come.
func Silence(d time.Duration) Fault {
	return Fault{fmt.Sprintf("silence=%s", d), func(a *answer, _ *http.Request) { a.silence = forever(d) }}
}

// Trickle sends the body at this many bytes per second.
func Trickle(perSecond model.Bytes) Fault {
	return Fault{fmt.Sprintf("trickle=%d", perSecond), func(a *answer, _ *http.Request) { a.trickle = perSecond }}
}

// Status answers with an error status and a JSON body; 429 without a word about when to come back.
func Status(code int) Fault {
	return Fault{fmt.Sprintf("status=%d", code), func(a *answer, _ *http.Request) { a.refuse(code) }}
}

// RetryAfter answers with an error status and Retry-After in whole seconds.
func RetryAfter(code int, d time.Duration) Fault {
	return Fault{fmt.Sprintf("retry-after=%d,%s", code, d), func(a *answer, _ *http.Request) {
		a.refuse(code)
		a.header.Set("Retry-After", strconv.FormatInt(seconds(d), 10))
	}}
}

// RetryAt answers with an error status and Retry-After as an HTTP date, d from now.
func RetryAt(code int, d time.Duration) Fault {
	return Fault{fmt.Sprintf("retry-at=%d,%s", code, d), func(a *answer, _ *http.Request) {
		a.refuse(code)
		a.header.Set("Retry-After", time.Now().Add(d+time.Second-1).UTC().Format(http.TimeFormat))
	}}
}

// RateLimited answers 429 with the hub's RateLimit headers: nothing left, reset in d.
func RateLimited(d time.Duration) Fault {
	return Fault{fmt.Sprintf("rate-limited=%s", d), func(a *answer, _ *http.Request) {
		bucket := "resolvers"
		if a.kind == API {
			bucket = "api"
		}
		a.refuse(http.StatusTooManyRequests)
		rateLimitHeaders(a.header, bucket, 0, d, 3000, 5*time.Minute)
	}}
}

// NoRanges answers a range with everything: 200.
func NoRanges() Fault {
	return Fault{"no-ranges", func(a *answer, _ *http.Request) { a.ignoreRange() }}
}

// ShiftRange answers a range with the one that begins and ends by bytes later (negative: earlier), as far
// as there is one; Content-Range admits it.
func ShiftRange(by int64) Fault {
	return Fault{fmt.Sprintf("shift-range=%d", by), func(a *answer, _ *http.Request) {
		size := a.size()
		start, end := max(0, a.span.Start+by), min(size, a.span.End+by)
		if a.status != http.StatusPartialContent || start >= end {
			return
		}
		a.span = model.Segment{Start: start, End: end}
		a.length = a.span.Len()
		a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, size))
	}}
}

// WrongTotal adds by to the total size that Content-Range tells.
func WrongTotal(by int64) Fault {
	return Fault{fmt.Sprintf("wrong-total=%d", by), func(a *answer, _ *http.Request) {
		if a.status == http.StatusPartialContent {
			a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.span.Start, a.span.End-1, a.size()+by))
		}
	}}
}

// NoContentRange leaves Content-Range out of a 206.
func NoContentRange() Fault {
	return Fault{"no-content-range", func(a *answer, _ *http.Request) { a.header.Del("Content-Range") }}
}

// NewETag answers with another ETag (and X-Linked-ETag, if there is one) of the same shape: always the
// same other one.
func NewETag() Fault {
	return Fault{"new-etag", func(a *answer, _ *http.Request) {
		for _, key := range []string{"ETag", "X-Linked-ETag"} {
			if old := strings.Trim(a.header.Get(key), `"`); old != "" {
				sum := model.SumSHA256([]byte(old)).Hex()
				a.header.Set(key, strconv.Quote(sum[:min(len(sum), len(old))]))
			}
		}
	}}
}

// FlipByte inverts the byte at this offset in the file, if the answer contains it.
func FlipByte(offset int64) Fault {
	return Fault{fmt.Sprintf("flip-byte=%d", offset), func(a *answer, _ *http.Request) { a.flip = offset }}
}

// WrongLength adds by to Content-Length. The body ends where it really ends (by > 0, so that the client
// waits in vain and sees the connection close) or where Content-Length says (by < 0).
func WrongLength(by int64) Fault {
	return Fault{fmt.Sprintf("wrong-length=%d", by), func(a *answer, _ *http.Request) {
		if a.body != nil && a.length >= 0 {
			a.length = max(0, a.length+by)
		}
	}}
}

// Expired answers as a CDN does when a signed URL is no longer good: 403, XML, no X-Error-Code.
func Expired() Fault {
	return Fault{"expired", func(a *answer, _ *http.Request) { a.become(forbidden("ExpiredToken", a.path)) }}
}

// Gzip answers with everything, gzip-encoded, chunked, under a weak ETag, whatever was asked.
func Gzip() Fault {
	return Fault{"gzip", func(a *answer, _ *http.Request) {
		if a.body == nil {
			return
		}
		a.ignoreRange()
		a.gzip, a.length = true, -1
		a.header.Set("Content-Encoding", "gzip")
		if etag := a.header.Get("ETag"); etag != "" {
			a.header.Set("ETag", "W/"+etag)
		}
	}}
}

// Portal answers 200 with a page of HTML, as captive portals and proxies do.
func Portal() Fault {
	return Fault{"portal", func(a *answer, _ *http.Request) {
		a.become(newAnswer(a.kind, http.StatusOK).text("text/html; charset=utf-8", "<!doctype html><title>Welcome</title><p>Please sign in to use this network.\n"))
	}}
}

// Chunked sends the body in chunks, without Content-Length.
func Chunked() Fault {
	return Fault{"chunked", func(a *answer, _ *http.Request) { a.length = -1 }}
}

// RedirectLoop redirects to the very URL that was asked for.
func RedirectLoop() Fault {
	return Fault{"redirect-loop", func(a *answer, r *http.Request) {
		a.become(redirect(a.kind, http.StatusFound, r.URL.RequestURI()))
	}}
}

// RedirectTo redirects to a location, of any scheme.
func RedirectTo(location string) Fault {
	return Fault{"redirect-to=" + location, func(a *answer, _ *http.Request) {
		a.become(redirect(a.kind, http.StatusFound, location))
	}}
}

// Header sets a header of the answer; an empty value removes it.
func Header(key, value string) Fault {
	return Fault{fmt.Sprintf("header=%s,%s", key, value), func(a *answer, _ *http.Request) {
		if value == "" {
			a.header.Del(key)
			return
		}
		a.header.Set(key, value)
	}}
}

// become makes a another answer to the same request.
func (a *answer) become(other *answer) {
	other.kind, other.path = a.kind, a.path
	*a = *other
}

func (a *answer) refuse(status int) {
	a.become(refusal(a.kind, status, "", http.StatusText(status)))
}

func (a *answer) ignoreRange() {
	if a.status != http.StatusPartialContent {
		return
	}
	a.status = http.StatusOK
	a.span = model.Segment{End: a.size()}
	a.length = a.span.Len()
	a.header.Del("Content-Range")
	a.header.Del("Accept-Ranges")
}

func (a *answer) size() int64 {
	if a.body == nil {
		return 0
	}
	return a.body.size()
}

// A Match chooses requests; the zero Match chooses all.
type Match struct {
	Kind   Kind
	Method string
	// Path is a pattern for the file's path in its repository, or for the path of the URL: * stands for any
	// characters, slashes included. Empty matches all.
	Path string
}

func (m Match) has(r *http.Request, a *answer) bool {
	return (m.Kind == "" || m.Kind == a.kind) &&
		(m.Method == "" || m.Method == r.Method) &&
		(m.Path == "" || like(m.Path, a.path) || like(m.Path, r.URL.Path))
}

// like matches s against a pattern in which * stands for any characters.
func like(pattern, s string) bool {
	first, rest, starred := strings.Cut(pattern, "*")
	s, ok := strings.CutPrefix(s, first)
	if !starred {
		return ok && s == ""
	}
	if !ok {
		return false
	}
	for {
		part, more, again := strings.Cut(rest, "*")
		if !again {
			return strings.HasSuffix(s, part)
		}
		at := strings.Index(s, part)
		if at < 0 {
			return false
		}
		s, rest = s[at+len(part):], more
	}
}

type rule struct {
	match Match
	fault Fault
	left  int // negative: for good
}

// Fault bends the next times answers to matching requests (0: all). Of several rules that match a request
// the oldest that is not used up counts; Next comes before all rules.
func (h *Hub) Fault(match Match, fault Fault, times int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if times <= 0 {
		times = -1
	}
	h.rules = append(h.rules, &rule{match, fault, times})
}

// Next bends the answers to the next bulk requests, one fault each, in this order.
func (h *Hub) Next(faults ...Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = append(h.next, faults...)
}

// ClearFaults forgets all rules and what Next still had to do.
func (h *Hub) ClearFaults() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rules, h.next = nil, nil
}

// pick is the fault for a request.
func (h *Hub) pick(r *http.Request, a *answer) Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.kind == Bulk && len(h.next) > 0 {
		f := h.next[0]
		h.next = h.next[1:]
		return f
	}
	for _, one := range h.rules {
		if one.left != 0 && one.match.has(r, a) {
			if one.left > 0 {
				one.left--
			}
			return one.fault
		}
	}
	return Fault{}
}

// ParseFault reads a fault as String writes it: "reset-after=3MiB", "stall-after=1MiB,5s", "status=503",
// "retry-after=429,30s", "no-ranges", and so on. Sizes may have a unit.
func ParseFault(s string) (Fault, error) {
	name, text, _ := strings.Cut(s, "=")
	arg := arguments{text: text}
	var f Fault
	switch name {
	case "pass":
		f = Pass()
	case "reset-early":
		f = ResetEarly()
	case "reset-after":
		f = ResetAfter(arg.size())
	case "cut-after":
		f = CutAfter(arg.size())
	case "stall-after":
		f = StallAfter(arg.size(), arg.duration())
	case "silence":
		f = Silence(arg.duration())
	case "trickle":
		f = Trickle(arg.size())
	case "status":
		f = Status(arg.status())
	case "retry-after":
		f = RetryAfter(arg.status(), arg.duration())
	case "retry-at":
		f = RetryAt(arg.status(), arg.duration())
	case "rate-limited":
		f = RateLimited(arg.duration())
	case "no-ranges":
		f = NoRanges()
	case "shift-range":
		f = ShiftRange(arg.number())
	case "wrong-total":
		f = WrongTotal(arg.number())
	case "no-content-range":
		f = NoContentRange()
	case "new-etag":
		f = NewETag()
	case "flip-byte":
		f = FlipByte(int64(arg.size()))
	case "wrong-length":
		f = WrongLength(arg.number())
	case "expired":
		f = Expired()
	case "gzip":
		f = Gzip()
	case "portal":
		f = Portal()
	case "chunked":
		f = Chunked()
	case "redirect-loop":
		f = RedirectLoop()
	case "redirect-to":
		f = RedirectTo(arg.rest())
	case "header":
		f = Header(arg.word(), arg.rest())
	default:
		return Fault{}, fmt.Errorf("fault %q is not known", name)
	}
	if arg.err == nil && arg.text != "" {
		arg.err = fmt.Errorf("%q is left over", arg.text)
	}
	if arg.err != nil {
		return Fault{}, fmt.Errorf("fault %q: %w", s, arg.err)
	}
	return f, nil
}

// arguments takes comma-separated arguments one by one and remembers the first mistake.
type arguments struct {
	text string
	err  error
}

func (a *arguments) word() string {
	word, rest, _ := strings.Cut(a.text, ",")
	a.text = rest
	return word
}

func (a *arguments) rest() string {
	rest := a.text
	a.text = ""
	return rest
}

func (a *arguments) keep(err error) {
	if a.err == nil {
		a.err = err
	}
}

func (a *arguments) size() model.Bytes {
	n, err := ParseSize(a.word())
	a.keep(err)
	return n
}

func (a *arguments) number() int64 {
	word := a.word()
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		err = fmt.Errorf("%q is not a whole number", word)
	}
	a.keep(err)
	return n
}

func (a *arguments) duration() time.Duration {
	word := a.word()
	d, err := time.ParseDuration(word)
	if err != nil || d < 0 {
		err = fmt.Errorf("%q is not a duration; want one such as 5s or 200ms", word)
	}
	a.keep(err)
	return d
}

func (a *arguments) status() int {
	word := a.word()
	n, err := strconv.Atoi(word)
	if err != nil || n < 400 || n > 599 {
		err = fmt.Errorf("%q is not an error status, 400 to 599", word)
	}
	a.keep(err)
	return n
}
