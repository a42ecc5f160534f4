package ema

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the house, ground first: each string is a floor, and a room imports only floors below.
// Siblings do not import each other; cmd is the roof and may import all; tests are free.
func floors() []string {
	return []string{
		"model", "event",
		"throttle host source demohub store ledger webhook",
		"fetch verify tier queue metrics health insight fallback",
		"pipeline", "api tune", "bench", "config",
	}
}

// walls says which rooms alone may use a driver.
func walls() map[string][]string {
	return map[string][]string{
		"database/sql":               {"ledger"},
		"github.com/prometheus":      {"metrics"},
		"github.com/coder/websocket": {"api"},
		"github.com/spf13/cobra":     {"cmd"},
		"github.com/vbauerster/mpb":  {"cmd"},
	}
}

func TestRoomsImportOnlyFloorsBelow(t *testing.T) {
	floor := map[string]int{}
	for i, rooms := range floors() {
		for room := range strings.FieldsSeq(rooms) {
			floor[room] = i
		}
	}
	seen := 0
	err := filepath.WalkDir("internal", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		room := strings.Split(filepath.ToSlash(path), "/")[1]
		mine, known := floor[room]
		if !known {
			t.Errorf("%s: the room %q has no floor", path, room)
			return nil
		}
		seen++
		for _, imported := range importsOf(t, path) {
			other, ok := strings.CutPrefix(imported, "ema/internal/")
			if !ok {
				continue
			}
			other, _, _ = strings.Cut(other, "/")
			if other != room && floor[other] >= mine {
				t.Errorf("%s: %s may not import %s, which is not on a floor below", path, room, other)
			}
		}
		return nil
	})
	if err != nil || seen == 0 {
		t.Fatalf("looked at %d files: %v", seen, err)
	}
}

// Other programs use the client too. Of the house it may know the words only.
func TestTheClientImportsNothingOfTheHouseButTheWords(t *testing.T) {
	files, err := filepath.Glob("client/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("looked at %d files: %v", len(files), err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		for _, imported := range importsOf(t, path) {
			if strings.HasPrefix(imported, "ema/") && imported != "ema/internal/model" {
				t.Errorf("%s: the client may not import %s", path, imported)
			}
		}
	}
}

func TestDriversStayBehindTheirWalls(t *testing.T) {
	seen := 0
	for _, top := range []string{"internal", "cmd", "client"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			seen++
			room := top
			if top == "internal" {
				room = strings.Split(filepath.ToSlash(path), "/")[1]
			}
			for _, imported := range importsOf(t, path) {
				for driver, rooms := range walls() {
					if strings.HasPrefix(imported, driver) && !slices.Contains(rooms, room) {
						t.Errorf("%s: %s belongs behind the wall of %v", path, driver, rooms)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen == 0 {
		t.Fatal("looked at no file")
	}
}

func importsOf(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}
