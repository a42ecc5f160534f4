package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// The functions here read the variables that users of models have set already, by the rules of the
// hub's own client. They get the environment as a function (os.Getenv), and change nothing.

// EndpointFromEnv is HF_ENDPOINT, or DefaultEndpoint; from names the variable, empty for the default.
func EndpointFromEnv(getenv func(string) string) (endpoint, from string) {
	if e := strings.TrimRight(strings.TrimSpace(getenv("HF_ENDPOINT")), "/"); e != "" {
		return e, "HF_ENDPOINT"
	}
	return DefaultEndpoint, ""
}

// CacheDirFromEnv is the folder of the Hugging Face cache: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, or
// hub/ below the home of the hub's client. from names the variable that decided, empty when none
// did. dir is empty when not even HOME is set.
func CacheDirFromEnv(getenv func(string) string) (dir, from string) {
	for _, v := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if d := folderFromEnv(getenv, v); d != "" {
			return d, v
		}
	}
	home, from := hubHome(getenv)
	if home == "" {
		return "", ""
	}
	return filepath.Join(home, "hub"), from
}

// TokenFromEnv is the token to use when nobody gave one: HF_TOKEN, HUGGING_FACE_HUB_TOKEN, or what
// the file HF_TOKEN_PATH holds, by default "token" in the home of the hub's client. It is empty when
// there is none, or when HF_HUB_DISABLE_IMPLICIT_TOKEN is set. A file that is there but cannot be
// read is an error: going on without it would look like a missing permission later.
func TokenFromEnv(getenv func(string) string, readFile func(string) ([]byte, error)) (string, error) {
	if isTrue(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		return "", nil
	}
	for _, v := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if t := strings.TrimSpace(getenv(v)); t != "" {
			return t, nil
		}
	}
	file := folderFromEnv(getenv, "HF_TOKEN_PATH")
	if file == "" {
		home, _ := hubHome(getenv)
		if home == "" {
			return "", nil
		}
		file = filepath.Join(home, "token")
	}
	b, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the hub token cannot be read: %w; make the file readable or set HF_TOKEN", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// OfflineFromEnv reports whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids the network.
func OfflineFromEnv(getenv func(string) string) bool {
	return isTrue(getenv("HF_HUB_OFFLINE")) || isTrue(getenv("TRANSFORMERS_OFFLINE"))
}

// CertFilesFromEnv are the files and folders of certificate authorities that SSL_CERT_FILE,
// REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE name, for Settings.CertFiles.
func CertFilesFromEnv(getenv func(string) string) []string {
	var files []string
	for _, v := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} {
		if f := folderFromEnv(getenv, v); f != "" {
			files = append(files, f)
		}
	}
	return files
}

// hubHome is HF_HOME, else huggingface/ in XDG_CACHE_HOME or ~/.cache; empty without any of them.
func hubHome(getenv func(string) string) (dir, from string) {
	if d := folderFromEnv(getenv, "HF_HOME"); d != "" {
		return d, "HF_HOME"
	}
	if d := folderFromEnv(getenv, "XDG_CACHE_HOME"); d != "" {
		return filepath.Join(d, "huggingface"), "XDG_CACHE_HOME"
	}
	if h := getenv("HOME"); h != "" {
		return filepath.Join(h, ".cache", "huggingface"), ""
	}
	return "", ""
}

// folderFromEnv reads a path, in which a leading ~ stands for HOME as it does for the hub's client.
func folderFromEnv(getenv func(string) string, name string) string {
	v := getenv(name)
	if home := getenv("HOME"); home != "" && (v == "~" || strings.HasPrefix(v, "~/")) {
		return filepath.Join(home, v[1:])
	}
	return v
}

func isTrue(v string) bool {
	switch strings.ToUpper(v) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}
