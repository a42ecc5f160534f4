package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// install brings the packages of package.json here, unless they are. Their install scripts are not
// run: one of them would fetch what only some graphics cards need.
func install(t testing.TB) {
	t.Helper()
	// npm writes this file last.
	if _, err := os.Stat(filepath.Join("node_modules", ".package-lock.json")); err == nil {
		return
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts").CombinedOutput()
	if err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// node runs a script of this folder and decodes what it prints.
func node(t testing.TB, answer any, script string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "node", append([]string{script}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			stderr = string(e.Stderr)
		}
		t.Fatalf("node %s: %v\n%s", script, err, stderr)
	}
	if err := json.Unmarshal(out, answer); err != nil {
		t.Fatalf("node %s printed %s: %v", script, out, err)
	}
}
