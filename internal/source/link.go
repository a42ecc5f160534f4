package source

import "strings"

// nextLink finds the target of the first `<target>; rel="next"` in Link headers (RFC 8288); empty
// when there is none. Commas and semicolons inside of <> and of quotes are data.
func nextLink(headers []string) string {
	for _, h := range headers {
		for h != "" {
			var target, params string
			target, params, h = cutLink(h)
			if target != "" && hasRelation(params, "next") {
				return target
			}
		}
	}
	return ""
}

// cutLink splits the first link off a header: its target, its parameters and the rest.
func cutLink(h string) (target, params, rest string) {
	_, h, found := strings.Cut(h, "<")
	if !found {
		return "", "", ""
	}
	target, h, found = strings.Cut(h, ">")
	if !found {
		return "", "", ""
	}
	end := indexUnquoted(h, ',')
	return strings.TrimSpace(target), h[:end], h[min(end+1, len(h)):]
}

// hasRelation looks for name in the rel parameter, which may hold several separated by blanks.
func hasRelation(params, name string) bool {
	for params != "" {
		end := indexUnquoted(params, ';')
		key, value, _ := strings.Cut(params[:end], "=")
		params = params[min(end+1, len(params)):]
		if !strings.EqualFold(strings.TrimSpace(key), "rel") {
			continue
		}
		for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(rel, name) {
				return true
			}
		}
		return false // only the first rel counts
	}
	return false
}

// indexUnquoted is the index of c outside of double quotes, or the length of s.
func indexUnquoted(s string, c byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == c && !quoted:
			return i
		}
	}
	return len(s)
}
