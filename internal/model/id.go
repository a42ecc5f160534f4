package model

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// Scheme says which kind of source serves a model.
type Scheme string

// The sources that exist.
const (
	Hub    Scheme = ""      // a Hugging Face hub or a compatible mirror: org/name
	HTTPS  Scheme = "https" // a file or a manifest behind a URL (http on loopback and by configuration)
	Folder Scheme = "file"  // a folder of this machine
)

// An ID names a model at its source. It is comparable; the zero ID names nothing.
type ID struct {
	Scheme Scheme
	// Name is "org/name" or "name" for Hub, the whole URL for HTTPS, an absolute clean path for Folder.
	Name string
}

// ParseID reads a model id as people type it: "org/name", "https://host/path", "file:///dir".
func ParseID(s string) (ID, error) {
	scheme, _, found := strings.Cut(s, "://")
	if !found {
		if err := checkHubName(s); err != nil {
			return ID{}, err
		}
		return ID{Hub, s}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return ID{}, fmt.Errorf("model %q: not a URL that can be read; check its spelling", clip(s))
	}
	switch scheme {
	case "https", "http":
		if u.Host == "" || u.Path == "" || strings.HasSuffix(u.Path, "/") {
			return ID{}, fmt.Errorf("model %q: the URL must name a host and a file", clip(s))
		}
		if u.User != nil {
			return ID{}, fmt.Errorf("model %q: a user and password in a URL end up in logs; remove them", clip(u.Redacted()))
		}
		u.Fragment = ""
		return ID{HTTPS, u.String()}, nil
	case "file":
		if u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path) {
			return ID{}, fmt.Errorf("model %q: want file:///absolute/path", clip(s))
		}
		return ID{Folder, path.Clean(u.Path)}, nil
	}
	return ID{}, fmt.Errorf("model %q: unknown scheme %q; use org/name, https:// or file://", clip(s), scheme)
}

// ParseRef splits "MODEL@REV" as typed on the command line and parses both; without @REV the
// revision is empty, which means the source's default. In URLs an @ belongs to the URL.
func ParseRef(s string) (ID, string, error) {
	name, rev := s, ""
	if !strings.Contains(s, "://") {
		var found bool
		name, rev, found = strings.Cut(s, "@")
		if found {
			if err := CheckRevision(rev); err != nil {
				return ID{}, "", fmt.Errorf("model %q: %w", clip(s), err)
			}
		}
	}
	id, err := ParseID(name)
	return id, rev, err
}

// CheckRevision refuses revisions that could not be the name of a git ref: it becomes a file name
// below refs/ in the store and a part of a URL.
func CheckRevision(rev string) error {
	if err := CheckPath(rev); err != nil {
		return fmt.Errorf("revision %q is not the name of a branch, a tag or a commit", clip(rev))
	}
	if strings.ContainsAny(rev, " ~^:?*[\\") || strings.HasSuffix(rev, ".lock") {
		return fmt.Errorf("revision %q is not the name of a branch, a tag or a commit", clip(rev))
	}
	return nil
}

// String is the form that ParseID reads.
func (id ID) String() string {
	if id.Scheme == Folder {
		return (&url.URL{Scheme: "file", Path: id.Name}).String()
	}
	return id.Name
}

// Public is String without user and query, for output that may end up in logs: people do pass signed links.
func (id ID) Public() string {
	if id.Scheme == HTTPS {
		return Redact(id.Name)
	}
	return id.String()
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id.Name == "" }

// DirName is the model's folder in a Hugging Face cache: "models--org--name". URLs and folders have
// no such name, so they get "models--url--…" and "models--file--…": the readable end of the name,
// and the beginning of its sha256, so that two of them never share a folder.
func (id ID) DirName() string {
	name := id.Name
	if id.Scheme != Hub {
		kind := "file"
		if id.Scheme == HTTPS {
			kind = "url"
			if u, err := url.Parse(name); err == nil {
				name = u.Path
			}
		}
		name = kind + "/" + plainName(path.Base(filepath.ToSlash(name))) + "-" + SumSHA256([]byte(id.Name)).Hex()[:12]
	}
	return "models--" + strings.ReplaceAll(name, "/", "--")
}

// IDOfDir is the reverse of DirName for hub models. Folders of other repository types, and those
// that no id could have made, report false.
func IDOfDir(dir string) (ID, bool) {
	rest, ok := strings.CutPrefix(dir, "models--")
	if !ok {
		return ID{}, false
	}
	id := ID{Hub, strings.ReplaceAll(rest, "--", "/")}
	return id, checkHubName(id.Name) == nil
}

// checkHubName applies the grammar of repository ids that the hub's own client applies
// (reference/hub-protocol, section 1.2), restricted to ASCII as the hub is.
func checkHubName(s string) error {
	bad := func(why string) error {
		return fmt.Errorf("model %q: %s; want org/name", clip(s), why)
	}
	if s == "" {
		return fmt.Errorf("model id is empty; want org/name")
	}
	parts := strings.Split(s, "/")
	if len(parts) > 2 {
		return bad("more than one slash")
	}
	if strings.Contains(s, "--") || strings.Contains(s, "..") {
		return bad(`"--" and ".." are not allowed`)
	}
	if strings.HasSuffix(s, ".git") {
		return bad(`must not end with ".git"`)
	}
	for _, p := range parts {
		if p == "" || len(p) > 96 {
			return bad("each part has 1 to 96 characters")
		}
		for _, r := range p {
			if r > unicode.MaxASCII || !(r == '_' || r == '-' || r == '.' || unicode.IsLetter(r) || unicode.IsDigit(r)) {
				return bad("only letters, digits, '_', '-' and '.' are allowed")
			}
		}
		if strings.ContainsRune("-.", rune(p[0])) || strings.ContainsRune("-.", rune(p[len(p)-1])) {
			return bad("no part begins or ends with '-' or '.'")
		}
	}
	return nil
}

// plainName keeps what is harmless in any file name, at most 40 characters of it.
func plainName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '.' || r == '_') {
			return r
		}
		return '-'
	}, s)
	for strings.Contains(s, "--") {
		s = strings.ReplaceAll(s, "--", "-")
	}
	s = strings.Trim(s, "-.")
	if len(s) > 40 {
		s = strings.Trim(s[:40], "-.")
	}
	if s == "" {
		s = "model"
	}
	return strings.ReplaceAll(s, "..", ".")
}
