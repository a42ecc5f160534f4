package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"ema/internal/store"
)

func TestAnExportIsPlainFilesAndKeepsEqualOnes(t *testing.T) {
	s := tiny()
	dir := t.TempDir()
	w := pulled(t, store.Settings{Path: filepath.Join(dir, "hub")}, s)
	to := filepath.Join(dir, "out", "model")
	put(t, filepath.Join(to, "config.json"), "{}\n")
	put(t, filepath.Join(to, "model.safetensors"), "an old version")
	how, err := w.Export(t.Context(), s.m.ID, commit1, s.m.Files, to)
	if err != nil {
		t.Fatal(err)
	}
	if how.Kept != 1 || how.Cloned+how.Linked+how.Copied != 4 {
		t.Errorf("how = %+v", how)
	}
	if err := checkSnapshot(to, s); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(filepath.Join(to, "sub", "same.json")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("not a plain file: %v, %v", info, err)
	}
	if how, err = w.Export(t.Context(), s.m.ID, commit1, s.m.Files, to); err != nil || how != (store.ExportCounts{Kept: 5}) {
		t.Errorf("the second time: %+v, %v", how, err)
	}
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) != 4 {
		t.Errorf("%d entries, want 4: something temporary is left (%v)", len(entries), err)
	}
}

func TestAnExportCopiesToAnotherFileSystem(t *testing.T) {
	s := tiny()
	w := pulled(t, store.Settings{Path: filepath.Join(t.TempDir(), "hub")}, s)
	to := memoryDir(t)
	how, err := w.Export(t.Context(), s.m.ID, commit1, s.m.Files, to)
	if err != nil || how.Cloned+how.Linked+how.Copied != 5 {
		t.Fatalf("how = %+v, %v", how, err)
	}
	if err := checkSnapshot(to, s); err != nil {
		t.Error(err)
	}
}

func TestAnExportNeverWritesThroughALink(t *testing.T) {
	s := tiny()
	dir := t.TempDir()
	w := pulled(t, store.Settings{Path: filepath.Join(dir, "hub")}, s)
	put(t, filepath.Join(dir, "victim", "file"), "precious")
	to := filepath.Join(dir, "out")
	link(t, "../victim/file", filepath.Join(to, "config.json"))
	if _, err := w.Export(t.Context(), s.m.ID, commit1, s.m.Files[:1], to); err != nil {
		t.Errorf("a link in a file's place is to be replaced: %v", err)
	}
	link(t, "../victim", filepath.Join(to, "sub"))
	if _, err := w.Export(t.Context(), s.m.ID, commit1, s.m.Files, to); err == nil {
		t.Error("a link in a folder's place was accepted")
	}
	entries, err := os.ReadDir(filepath.Join(dir, "victim"))
	b, readErr := os.ReadFile(filepath.Join(dir, "victim", "file"))
	if err = errors.Join(err, readErr); err != nil || len(entries) != 1 || string(b) != "precious" {
		t.Errorf("the export wrote outside of its folder: %v, %q, %v", entries, b, err)
	}
}
