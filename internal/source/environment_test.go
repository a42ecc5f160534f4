package source

import (
	"io/fs"
	"slices"
	"testing"
)

func env(pairs ...string) func(string) string {
	return func(k string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == k {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestEnvironment(t *testing.T) {
	t.Run("cache folder", func(t *testing.T) {
		for _, c := range []struct {
			env       func(string) string
			dir, from string
		}{
			{env("HOME", "/h"), "/h/.cache/huggingface/hub", ""},
			{env("HOME", "/h", "XDG_CACHE_HOME", "/x"), "/x/huggingface/hub", "XDG_CACHE_HOME"},
			{env("HOME", "/h", "XDG_CACHE_HOME", "/x", "HF_HOME", "/hf"), "/hf/hub", "HF_HOME"},
			{env("HF_HOME", "/hf", "HUGGINGFACE_HUB_CACHE", "/old"), "/old", "HUGGINGFACE_HUB_CACHE"},
			{env("HF_HOME", "/hf", "HUGGINGFACE_HUB_CACHE", "/old", "HF_HUB_CACHE", "/new"), "/new", "HF_HUB_CACHE"},
			{env("HOME", "/h", "HF_HUB_CACHE", "~/models"), "/h/models", "HF_HUB_CACHE"},
			{env(), "", ""},
		} {
			if dir, from := CacheDirFromEnv(c.env); dir != c.dir || from != c.from {
				t.Errorf("%q by %q, want %q by %q", dir, from, c.dir, c.from)
			}
		}
	})
	t.Run("token", func(t *testing.T) {
		files := map[string]string{"/hf/token": " from-home\n", "/h/.cache/huggingface/token": "from-default", "/my": "from-path\r\n", "/h/t": "from-tilde"}
		read := func(p string) ([]byte, error) {
			if p == "/locked/token" {
				return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrPermission}
			}
			if c, ok := files[p]; ok {
				return []byte(c), nil
			}
			return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		}
		for _, c := range []struct {
			env  func(string) string
			want string
		}{
			{env("HF_TOKEN", " a\n", "HUGGING_FACE_HUB_TOKEN", "b", "HF_HOME", "/hf"), "a"},
			{env("HF_TOKEN", "  ", "HUGGING_FACE_HUB_TOKEN", "b"), "b"},
			{env("HF_TOKEN_PATH", "/my", "HF_HOME", "/hf"), "from-path"},
			{env("HF_TOKEN_PATH", "~/t", "HOME", "/h"), "from-tilde"},
			{env("HF_HOME", "/hf", "HOME", "/h"), "from-home"},
			{env("HOME", "/h"), "from-default"},
			{env("HF_HOME", "/nothing", "HOME", "/h"), ""},
			{env("HF_TOKEN", "a", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes"), ""},
			{env("HF_TOKEN", "a", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "0"), "a"},
			{env(), ""},
		} {
			if got, err := TokenFromEnv(c.env, read); got != c.want || err != nil {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		}
		if _, err := TokenFromEnv(env("HF_HOME", "/locked"), read); err == nil {
			t.Error("a token that cannot be read counts as none")
		}
	})
	t.Run("endpoint", func(t *testing.T) {
		for v, want := range map[string]string{"": DefaultEndpoint, "https://hub.test/": "https://hub.test", " http://h:1/sub// ": "http://h:1/sub"} {
			if got, from := EndpointFromEnv(env("HF_ENDPOINT", v)); got != want || (from == "") != (v == "") {
				t.Errorf("%q = %q by %q", v, got, from)
			}
		}
	})
	t.Run("offline", func(t *testing.T) {
		for v, want := range map[string]bool{"1": true, "on": true, "Yes": true, "TRUE": true, "0": false, "": false, "false": false, "2": false} {
			if OfflineFromEnv(env("HF_HUB_OFFLINE", v)) != want || OfflineFromEnv(env("TRANSFORMERS_OFFLINE", v)) != want {
				t.Errorf("%q is not %v", v, want)
			}
		}
	})
	t.Run("certificates", func(t *testing.T) {
		got := CertFilesFromEnv(env("CURL_CA_BUNDLE", "/c", "SSL_CERT_FILE", "/a"))
		if !slices.Equal(got, []string{"/a", "/c"}) {
			t.Errorf("%q", got)
		}
	})
}
