package api

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// web has what pages are told of the API.
const web = "../../web"

// inWeb prepares one of the tools that npm has put into the folder web.
func inWeb(t *testing.T, tool string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(web, "node_modules", ".bin", tool))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%v; run \"make web-modules\", which needs npm", err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = web
	return cmd
}

func TestTheTypeScriptTypesAreThoseOfTheDocument(t *testing.T) {
	maker := inWeb(t, "openapi-typescript")
	maker.Stdin = bytes.NewReader(document(t))
	var complaints bytes.Buffer
	maker.Stderr = &complaints
	want, err := maker.Output()
	if err != nil || !bytes.Contains(want, []byte("export interface paths {")) {
		t.Fatalf("openapi-typescript: %v\n%s%s", err, complaints.Bytes(), want)
	}
	name := filepath.Join(web, "src", "api.d.ts")
	if *update {
		if err := os.WriteFile(name, want, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have, err := os.ReadFile(name); err != nil || !bytes.Equal(have, want) {
		t.Errorf("web/src/api.d.ts is not what the document of the API says (%v); run \"make types\"", err)
	}
}

func TestTheTypeScriptTypesAreOfUse(t *testing.T) {
	// What tsc reads is read here too: a cached result would else survive a change.
	sources := 0
	err := filepath.WalkDir(filepath.Join(web, "src"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		sources++
		_, err = os.ReadFile(path)
		return err
	})
	if err != nil || sources < 2 {
		t.Fatalf("%d files, %v", sources, err)
	}
	for _, name := range []string{"tsconfig.json", "package.json", "package-lock.json"} {
		if _, err := os.ReadFile(filepath.Join(web, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := inWeb(t, "tsc", "--noEmit").CombinedOutput(); err != nil {
		t.Errorf("tsc: %v\n%s", err, out)
	}
}
