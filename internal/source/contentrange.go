package source

import (
	"fmt"
	"strconv"
	"strings"

	"ema/internal/model"
)

// A contentRange is a satisfied "Content-Range: bytes first-last/total" (RFC 9110, section 14.4).
type contentRange struct {
	covers model.Segment
	total  int64
}

// parseContentRange reads the header strictly: an unknown total ("*"), another unit and anything
// that does not make sense are errors, since a range that cannot be proven must not be written.
func parseContentRange(h string) (contentRange, error) {
	bad := func() (contentRange, error) {
		return contentRange{}, fmt.Errorf("Content-Range %q is not of the form bytes first-last/total", clip(h))
	}
	span, ok := strings.CutPrefix(h, "bytes ")
	span, size, ok2 := strings.Cut(span, "/")
	first, last, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return bad()
	}
	var r contentRange
	for _, n := range []struct {
		digits string
		to     *int64
	}{{first, &r.covers.Start}, {last, &r.covers.End}, {size, &r.total}} {
		v, err := decimal(n.digits)
		if err != nil {
			return bad()
		}
		*n.to = v
	}
	if r.covers.Start > r.covers.End || r.covers.End >= r.total {
		return bad()
	}
	r.covers.End++
	return r, nil
}

// decimal reads digits only: no sign, no blank, no underscore.
func decimal(s string) (int64, error) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, strconv.ErrSyntax
		}
	}
	return strconv.ParseInt(s, 10, 64)
}

// clip shortens foreign text for an error message.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
