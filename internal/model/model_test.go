package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestIDsAreReadAndWritten(t *testing.T) {
	for in, want := range map[string]ID{
		"org/name":                      {Hub, "org/name"},
		"gpt2":                          {Hub, "gpt2"},
		"Org_1/a.b-c_d":                 {Hub, "Org_1/a.b-c_d"},
		"https://host:8/d/m.bin?x=1#no": {HTTPS, "https://host:8/d/m.bin?x=1"},
		"http://127.0.0.1/m.bin":        {HTTPS, "http://127.0.0.1/m.bin"},
		"file:///models/../models/a%20": {Folder, "/models/a "},
	} {
		id, err := ParseID(in)
		if err != nil || id != want {
			t.Errorf("ParseID(%q) = %v, %v; want %v", in, id, err, want)
			continue
		}
		if again, err := ParseID(id.String()); err != nil || again != id {
			t.Errorf("%q does not read back what it prints: %v, %v", in, again, err)
		}
	}
}

func TestIDsThatNoHubHasAreRefused(t *testing.T) {
	for _, in := range []string{
		"", "/", "a/", "/b", "a/b/c", "a--b/c", "a/b..c", "-a/b", "a/b-", ".a/b", "a/b.", "a/b.git", "a b/c", "ä/b", "a/../b", "a\x00/b", strings.Repeat("x", 97),
		"https://", "https://host", "https://host/", "https://user:secret@host/f", "ftp://host/f", "file://host/dir", "file:dir", "s3://bucket/x", "https://%zz/f",
	} {
		if id, err := ParseID(in); err == nil {
			t.Errorf("ParseID(%q) = %v, want an error", in, id)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestAReferenceIsAModelAndARevision(t *testing.T) {
	for in, want := range map[string][2]string{
		"org/name":           {"org/name", ""},
		"org/name@v1.0":      {"org/name", "v1.0"},
		"org/name@refs/pr/1": {"org/name", "refs/pr/1"},
		"https://h/a@b.bin":  {"https://h/a@b.bin", ""},
	} {
		id, rev, err := ParseRef(in)
		if err != nil || id.Name != want[0] || rev != want[1] {
			t.Errorf("ParseRef(%q) = %v, %q, %v", in, id, rev, err)
		}
	}
	for _, in := range []string{"org/name@", "org/name@../x", "org/name@a b", "org/name@/etc", "org/name@x.lock", "org/name@a@{1}~"} {
		if _, rev, err := ParseRef(in); err == nil {
			t.Errorf("ParseRef(%q) accepted revision %q", in, rev)
		}
	}
}

func TestFolderNamesAreReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.StringMatching(`[a-z0-9_]{1,8}(/[A-Za-z0-9_.]{0,6}[a-z0-9])?`)
		name := names.Filter(func(s string) bool { return checkHubName(s) == nil }).Draw(t, "name") // not ".." and ".git"
		id, err := ParseID(name)
		if err != nil {
			t.Fatal(err)
		}
		if back, ok := IDOfDir(id.DirName()); !ok || back != id {
			t.Fatalf("%q -> %q -> %v", name, id.DirName(), back)
		}
	})
	a, b := ID{HTTPS, "https://a/m.bin"}, ID{HTTPS, "https://b/m.bin"}
	if a.DirName() == b.DirName() || CheckPath(a.DirName()) != nil || !strings.HasPrefix(a.DirName(), "models--url--m.bin-") {
		t.Errorf("folders of URLs: %q, %q", a.DirName(), b.DirName())
	}
}

func TestUnsafePathsAreRefused(t *testing.T) {
	for _, p := range []string{"", "/a", "../a", "a/../b", "a/..", ".", "a//b", "a/", "a\\b", "C:x", "a\x00b", "a\nb", "\xff", strings.Repeat("x", 256), strings.Repeat("x/", 3000) + "x"} {
		if err := CheckPath(p); !errors.Is(err, ErrUnsafePath) {
			t.Errorf("CheckPath(%q) = %v", p, err)
		}
	}
	for _, p := range []string{"a", "a/b.c", "v1..2.bin", "...", "a b/ü#?%+&'\".bin", ".gitattributes", strings.Repeat("x", 255)} {
		if err := CheckPath(p); err != nil {
			t.Errorf("CheckPath(%q) = %v", p, err)
		}
	}
}

func FuzzCheckPath(f *testing.F) {
	for _, s := range []string{"a/b", "../x", "C:\\x", "a/./b", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if CheckPath(p) == nil && (p == "" || p[0] == '/' || strings.Contains("/"+p+"/", "/../") || strings.Contains(p, "\x00")) {
			t.Fatalf("%q passes", p)
		}
	})
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"org/name", "https://h/p", "file:///a", "a--b", "x@y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, rev, err := ParseRef(s); err == nil {
			if CheckPath(id.DirName()) != nil || strings.Contains(id.DirName(), "/") {
				t.Fatalf("%q has the folder %q", s, id.DirName())
			}
			if rev != "" && CheckPath(rev) != nil {
				t.Fatalf("%q has the revision %q", s, rev)
			}
		}
	})
}

// The examples of the hub's documentation.
func TestDigestsAreTheHubs(t *testing.T) {
	hello := []byte("Hello, World!")
	if got := SumGitBlob(hello).Hex(); got != "b45ef6fec89518d314f546fd6c3025367b721684" {
		t.Errorf("git blob id %s", got)
	}
	if got := SumSHA256(hello).Hex(); got != "dffd6021bb2bd5b0af676290809ec3a53191dd81c7f70a4b28688a362182986f" {
		t.Errorf("sha256 %s", got)
	}
	if got := SumGitBlob(nil).Hex(); got != "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" {
		t.Errorf("git blob id of nothing %s", got)
	}
	for _, d := range []Digest{SumGitBlob(hello), SumSHA256(hello)} {
		if back, err := ParseDigest(d.Hex()); err != nil || back != d {
			t.Errorf("%v reads back as %v, %v", d, back, err)
		}
		h := d.NewHash(int64(len(hello)))
		h.Write(hello)
		if d.Sum(h) != d {
			t.Errorf("%v is computed as %v", d, d.Sum(h))
		}
	}
	for _, s := range []string{"", "abc", strings.Repeat("*", 64), strings.Repeat("g", 40)} {
		if d, err := ParseDigest(s); err == nil {
			t.Errorf("ParseDigest(%q) = %v", s, d)
		}
	}
}

func TestSizesReadWell(t *testing.T) {
	for in, want := range map[Bytes]string{0: "0 B", 1023: "1023 B", KiB: "1.0 KiB", 1536 * KiB: "1.5 MiB", 14*GiB + 200*MiB: "14.2 GiB", 3 * TiB: "3.0 TiB", -2 * MiB: "-2.0 MiB"} {
		if got := in.String(); got != want {
			t.Errorf("%d prints as %q, want %q", int64(in), got, want)
		}
	}
}

func TestAnErrorIsOneSentenceWithoutSecrets(t *testing.T) {
	err := &Error{
		Op: "fetch", Class: Reset, Model: ID{Hub, "org/name"}, File: "a.bin", Err: io.ErrUnexpectedEOF,
		URL: "https://user:pw@cdn/x?Signature=secret#f", Hint: "try again",
	}
	if got, want := err.Error(), "fetch org/name: a.bin: unexpected EOF (https://cdn/x); try again"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || ClassOf(fmt.Errorf("wrapped: %w", err)) != Reset {
		t.Error("cause and class are lost")
	}
	if ClassOf(context.Canceled) != Cancelled || ClassOf(io.EOF) != Other || ClassOf(nil) != Other {
		t.Error("classes of foreign errors")
	}
	for c := Other; c <= Offline; c++ {
		if strings.ContainsAny(c.String(), " -") || c > 0 && c.String() == "other" {
			t.Errorf("class %d is called %q", c, c)
		}
	}
}

func TestACommitIsFortyLowerCaseDigits(t *testing.T) {
	if !IsCommit(strings.Repeat("0a", 20)) || IsCommit(strings.Repeat("0A", 20)) || IsCommit("main") || IsCommit("") {
		t.Error("IsCommit")
	}
}

func TestTiersAreOrderedFromHotToCold(t *testing.T) {
	for i, name := range []string{"hot", "warm", "cold"} {
		tier, err := ParseTier(name)
		if err != nil || tier != Tiers()[i] {
			t.Errorf("ParseTier(%q) = %v, %v", name, tier, err)
		}
	}
	if _, err := ParseTier("lukewarm"); err == nil {
		t.Error("lukewarm is a tier")
	}
	if !Cold.Colder(Warm) || !Warm.Colder(Hot) || Hot.Colder(Hot) || Hot.Colder(Cold) {
		t.Error("not hot, warm, cold")
	}
}

func TestEqualContentHasEqualCommitsInWhateverOrderItIsListed(t *testing.T) {
	a, b := File{Path: "a", Size: 1, Digest: SumGitBlob([]byte("x"))}, File{Path: "b", Size: 2, Digest: SumGitBlob([]byte("yy"))}
	of := func(files ...File) string { return CommitOf(files, func(f File) string { return f.Digest.String() }) }
	if one := of(a, b); one != of(b, a) || !IsCommit(one) {
		t.Errorf("%s, in another order %s", one, of(b, a))
	}
	renamed := b
	renamed.Path = "c"
	if of(a, b) == of(a) || of(a, b) == of(a, renamed) {
		t.Error("other content has the same commit")
	}
}
