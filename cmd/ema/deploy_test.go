package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// deployed is a file of deploy/.
func deployed(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// directive is the value of a line NAME=VALUE of a unit.
func directive(unit, name string) string {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `=(.*)$`).FindStringSubmatch(unit)
	if m == nil {
		return ""
	}
	return m[1]
}

func TestTheUnitStartsWhatThisProgramIs(t *testing.T) {
	unit := deployed(t, "ema.service")
	words := strings.Fields(directive(unit, "ExecStart"))
	if len(words) < 2 || filepath.Base(words[0]) != "ema" {
		t.Fatalf("it starts %q", words)
	}
	cmd, rest, err := rootCommand(&app{}).Find(words[1:])
	if err != nil || cmd.Name() != "serve" || cmd.ParseFlags(rest) != nil {
		t.Errorf("%q is no daemon: %v", words, err)
	}
	for name, want := range map[string]string{
		"Type": "notify", "ExecReload": "/bin/kill -HUP $MAINPID", "User": "ema", "NoNewPrivileges": "yes", "ProtectSystem": "strict",
	} {
		if got := directive(unit, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if directive(unit, "WatchdogSec") != "" {
		t.Error("nobody feeds that watchdog")
	}
}

func TestSystemdUnderstandsTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no systemd-analyze on this machine; .ci/run installs it")
		}
		t.Skip("there is no systemd-analyze on this machine")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "ema.service")
	// It looks for the program, which is not installed here.
	text := strings.ReplaceAll(deployed(t, "ema.service"), "/usr/local/bin/ema", self)
	if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.CommandContext(t.Context(), analyze, "verify", unit).CombinedOutput()
	if err != nil || strings.Contains(string(said), "ema.service") {
		t.Errorf("%v: %s", err, said)
	}
}

func TestTheContainerIsTheBinaryAndAUserWithoutRights(t *testing.T) {
	recipe := deployed(t, "Containerfile")
	_, last, found := strings.Cut(recipe, "\nFROM scratch\n")
	if !found {
		t.Fatal("it is more than a binary")
	}
	for _, want := range []string{"\nUSER 65532:65532\n", "\nVOLUME /models\n", "\nENTRYPOINT [\"/usr/local/bin/ema\"]\n", "\nCMD [\"serve\"]\n", "HF_HUB_CACHE=/models/hub"} {
		if !strings.Contains(last, want) {
			t.Errorf("the container lacks %q", want)
		}
	}
	build := regexp.MustCompile(`go build .*(\./cmd/\S+)`).FindStringSubmatch(recipe)
	if build == nil || !strings.Contains(recipe, "CGO_ENABLED=0 go build") {
		t.Fatalf("it is built by %q", build)
	}
	if _, err := os.Stat(filepath.Join("..", "..", build[1])); err != nil {
		t.Error(err)
	}
	version, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	// The image's Go must be able to build the module.
	wanted := regexp.MustCompile(`(?m)^go (1\.\d+)`).FindStringSubmatch(string(version))
	if wanted == nil || !strings.Contains(recipe, "\nFROM golang:"+wanted[1]) {
		t.Errorf("it builds with another Go than %v", wanted)
	}
}
