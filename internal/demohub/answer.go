package demohub

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// Kind sorts requests. The zero Kind matches all in a Match.
type Kind string

// The kinds of requests.
const (
	API     Kind = "api"     // below /api/, the bodies of resolve-cache excepted
	Resolve Kind = "resolve" // a question about a file: HEAD, or a GET that is answered by a redirect or an error
	Bulk    Kind = "bulk"    // a GET for the bytes of a file, from whichever host
)

// answer is what will be said. A plan makes an honest one, a fault bends it, send sends it.
type answer struct {
	kind   Kind
	path   string // of the file it is about
	status int
	header http.Header
	body   content       // nil: no body
	span   model.Segment // the part of body that is sent
	length int64         // announced length; chunked if negative

	silence time.Duration // before the headers; negative: until the client goes
	early   bool          // reset instead of headers
	flip    int64         // offset in body of a byte to invert; negative: none
	stop    int64         // sent bytes after which the ending comes; negative: never
	ending  ending
	pause   time.Duration // of a stall; 0: until the client goes
	trickle model.Bytes   // bytes per second; 0: as the hub's settings say
	gzip    bool
}

// ending is what happens when stop bytes are sent.
type ending uint8

const (
	closing ending = iota
	resetting
	stalling
)

func newAnswer(kind Kind, status int) *answer {
	return &answer{kind: kind, status: status, header: http.Header{}, flip: -1, stop: -1}
}

// text gives the answer a body of plain text, JSON or whatever contentType says.
func (a *answer) text(contentType, body string) *answer {
	a.header.Set("Content-Type", contentType)
	a.body = memory(body)
	a.span = model.Segment{End: int64(len(body))}
	a.length = int64(len(body))
	return a
}

func jsonAnswer(kind Kind, status int, v any) *answer {
	b, err := json.Marshal(v)
	if err != nil {
		return newAnswer(kind, http.StatusInternalServerError).text("text/plain; charset=utf-8", err.Error())
	}
	return newAnswer(kind, status).text("application/json; charset=utf-8", string(b))
}

// refusal is an error answer (reference/hub-protocol, section 12.1); code may be empty.
func refusal(kind Kind, status int, code, message string) *answer {
	a := jsonAnswer(kind, status, map[string]string{"error": message})
	if code != "" {
		a.header.Set("X-Error-Code", code)
	}
	a.header.Set("X-Error-Message", message)
	return a
}

// redirect is a 302 or 307 with the text that the hub sends along.
func redirect(kind Kind, status int, location string) *answer {
	a := newAnswer(kind, status).text("text/plain; charset=utf-8", http.StatusText(status)+". Redirecting to "+location)
	a.header.Set("Location", location)
	return a
}

// fileAnswer answers with content, or the span of it that r asks for.
func fileAnswer(r *http.Request, name string, b content, etag string, modified time.Time) *answer {
	kind := Bulk
	if r.Method == http.MethodHead {
		kind = Resolve
	}
	a := newAnswer(kind, http.StatusOK)
	a.path = name
	a.header.Set("Accept-Ranges", "bytes")
	a.header.Set("ETag", strconv.Quote(etag))
	if !modified.IsZero() {
		a.header.Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	}
	if has(r.Header.Get("If-None-Match"), strconv.Quote(etag)) {
		a.status = http.StatusNotModified
		return a
	}
	a.header.Set("Content-Type", contentType(name))
	base := path.Base(name)
	a.header.Set("Content-Disposition", fmt.Sprintf(`inline; filename*=UTF-8''%s; filename="%s";`, url.PathEscape(base), printable(base)))
	a.body = b
	a.span = model.Segment{End: b.size()}
	asked := r.Header.Get("Range")
	if cond := r.Header.Get("If-Range"); r.Method != http.MethodGet || cond != "" && cond != strconv.Quote(etag) {
		asked = ""
	}
	seg, verdict := parseRange(asked, b.size())
	switch verdict {
	case partial:
		a.status, a.span = http.StatusPartialContent, seg
		a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", seg.Start, seg.End-1, b.size()))
	case unsatisfiable:
		a.text("text/plain; charset=utf-8", "Range Not Satisfiable")
		a.status = http.StatusRequestedRangeNotSatisfiable
		a.header.Set("Content-Range", fmt.Sprintf("bytes */%d", b.size()))
	}
	a.length = a.span.Len()
	return a
}

// conditional gives the answer to a question of the API a weak ETag made of its body, as the hub does, and leaves the
// body out for whoever has it.
func conditional(r *http.Request, a *answer, err error) *answer {
	if err != nil || a.status != http.StatusOK {
		return a
	}
	body, _ := a.body.(memory)
	etag := strconv.Quote(strconv.Itoa(len(body)) + "-" + model.SumGitBlob(body).Hex())
	if has(r.Header.Get("If-None-Match"), etag) {
		a = newAnswer(a.kind, http.StatusNotModified)
	}
	a.header.Set("ETag", "W/"+etag)
	return a
}

func has(list, etag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == etag || one == "*" {
			return true
		}
	}
	return false
}

type verdict uint8

const (
	whole verdict = iota // no range, several, or not a range: the hub sends everything (RFC 9110, 14.2)
	partial
	unsatisfiable
)

// parseRange reads a Range header of one span of bytes of a content of size bytes.
func parseRange(header string, size int64) (model.Segment, verdict) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return model.Segment{}, whole
	}
	if first == "" { // the last n bytes
		n, err := parseOffset(last)
		switch {
		case err != nil:
			return model.Segment{}, whole
		case n == 0 || size == 0:
			return model.Segment{}, unsatisfiable
		}
		return model.Segment{Start: max(0, size-n), End: size}, partial
	}
	start, err := parseOffset(first)
	end := size
	if last != "" && err == nil {
		var inclusive int64
		inclusive, err = parseOffset(last)
		if err == nil && inclusive < start {
			return model.Segment{}, whole
		}
		if inclusive < size { // also keeps the largest int64 from overflowing
			end = inclusive + 1
		}
	}
	switch {
	case err != nil:
		return model.Segment{}, whole
	case start >= size:
		return model.Segment{}, unsatisfiable
	}
	return model.Segment{Start: start, End: end}, partial
}

// parseOffset reads digits, and nothing else that strconv would take.
func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err
}

func contentType(name string) string {
	switch t := mime.TypeByExtension(path.Ext(name)); {
	case t != "":
		return t
	case strings.HasSuffix(name, ".md"):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// printable makes s fit for a header between double quotes.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}
