package api

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ema/internal/api/trust"
	"ema/internal/model"
	"ema/internal/queue"
)

const documentation = "../../docs/api.md"

// listing makes the table of operations, one chapter of the document after the other.
func listing(t *testing.T) string {
	t.Helper()
	// That is what any operation may answer; the page says so once.
	usual := []string{"101", "200", "400", "401", "403", "413", "415", "422", "429", "default"}
	all := operations(t)
	slices.SortFunc(all, func(a, b *documented) int {
		return strings.Compare(a.path+" "+a.method, b.path+" "+b.method)
	})
	var out strings.Builder
	out.WriteString("| request | what it does | role | also answers |\n| --- | --- | --- | --- |\n")
	for _, tag := range []string{tagDownloads, tagModels, tagLive, tagSettings, tagAdmin} {
		fmt.Fprintf(&out, "| **%s** | | | |\n", tag)
		for _, op := range all {
			if op.Tags[0] != tag {
				continue
			}
			var query, others []string
			for _, p := range op.Parameters {
				if p.In == "query" {
					query = append(query, p.Name)
				}
			}
			request := op.path
			if len(query) > 0 {
				request += "?" + strings.Join(query, "&")
			}
			for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
				if !slices.Contains(usual, status) {
					others = append(others, status)
				}
			}
			role := roles()[op.ID].String()
			if role == "" {
				role = "none"
			}
			if op.ID == opManage {
				role = fmt.Sprintf("%s to start, else %s", roleOf(starting), roleOf(queue.Pausing))
			}
			fmt.Fprintf(&out, "| `%s %s` | %s | %s | %s |\n", op.method, request, op.Summary, role, strings.Join(others, ", "))
		}
	}
	return out.String()
}

func TestTheDocumentationListsEveryOperation(t *testing.T) {
	raw, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(raw), "<!-- begin operations -->\n")
	have, after, ended := strings.Cut(rest, "<!-- end operations -->")
	if !begun || !ended {
		t.Fatal("the marks of the operations are missing")
	}
	want := listing(t)
	if *update {
		if err := os.WriteFile(documentation, []byte(before+"<!-- begin operations -->\n"+want+"<!-- end operations -->"+after), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != want {
		t.Error("the operations in docs/api.md are not those of the API; run \"make types\"")
	}
}

func TestTheDocumentationListsEveryCodeWithItsStatuses(t *testing.T) {
	raw, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[Code][]int{}
	row := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([0-9, ]+) \\| .*\\S \\|$")
	for _, found := range row.FindAllStringSubmatch(string(raw), -1) {
		for text := range strings.SplitSeq(found[2], ", ") {
			status, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			documented[Code(found[1])] = append(documented[Code(found[1])], status)
		}
	}
	want := answered(t)
	for _, code := range slices.Sorted(maps.Keys(want)) {
		statuses := slices.Sorted(maps.Keys(want[code]))
		if !slices.Equal(documented[code], statuses) || len(statuses) == 0 {
			t.Errorf("%s is answered with %v, and documented with %v", code, statuses, documented[code])
		}
		delete(documented, code)
	}
	if len(documented) > 0 {
		t.Errorf("documented, and never answered: %v", documented)
	}
}

// answered are the codes that answers may have, with their statuses: what the code itself says.
func answered(t *testing.T) map[Code]map[int]bool {
	t.Helper()
	all := map[Code]map[int]bool{}
	add := func(status int, code Code) {
		if all[code] == nil {
			all[code] = map[int]bool{}
		}
		if status != 0 {
			all[code][status] = true
		}
	}
	named := map[string]Code{}
	for _, pattern := range []string{"../../client/*.go", "*.go"} {
		for _, file := range sources(t, pattern) {
			ast.Inspect(file, func(n ast.Node) bool {
				return declared(n, func(name string, code Code) { named[name] = code; add(0, code) })
			})
		}
	}
	if len(named) < 15 {
		t.Fatalf("only %d codes are declared", len(named))
	}
	for c := model.Other; c <= model.Offline; c++ {
		add(answerOf(c))
	}
	for _, status := range []int{400, 401, 403, 429} { // of a trust.Denied
		add(status, codeOf(status))
	}
	for _, status := range []int{400, 415, 422} { // of Huma, which leaves reading the body to us
		add(status, codeOf(status))
	}
	for _, err := range []error{queue.ErrFull, &queue.StateError{}, &MeasuringError{}, &trust.Denied{Status: http.StatusForbidden}} {
		e := failure(err)
		add(e.Status, e.Code)
	}
	statuses := map[string]int{}
	for status := 400; status < 600; status++ {
		statuses["Status"+strings.ReplaceAll(http.StatusText(status), " ", "")] = status
	}
	literals := 0
	for _, file := range sources(t, "*.go") {
		ast.Inspect(file, func(n ast.Node) bool {
			code, status := literal(n)
			if named[code] != "" && statuses[status] != 0 {
				literals++
				add(statuses[status], named[code])
			}
			return true
		})
	}
	if literals < 8 {
		t.Fatalf("only %d errors are made in place", literals)
	}
	return all
}

// sources are the files of a pattern that are no tests.
func sources(t *testing.T, pattern string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// declared tells found of each Code constant that n declares.
func declared(n ast.Node, found func(name string, code Code)) bool {
	spec, ok := n.(*ast.ValueSpec)
	if !ok || len(spec.Values) != 1 {
		return true
	}
	kind, ok := spec.Type.(*ast.Ident)
	value, isText := spec.Values[0].(*ast.BasicLit)
	if ok && isText && kind.Name == "Code" {
		if text, err := strconv.Unquote(value.Value); err == nil {
			found(spec.Names[0].Name, Code(text))
		}
	}
	return true
}

// literal are the names of the code and of the status of an Error{Code: …, Status: http.…}; empty where n is none.
func literal(n ast.Node) (code, status string) {
	made, ok := n.(*ast.CompositeLit)
	if !ok {
		return "", ""
	}
	for _, e := range made.Elts {
		pair, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return "", ""
		}
		key, ok := pair.Key.(*ast.Ident)
		if !ok {
			return "", ""
		}
		switch value := pair.Value.(type) {
		case *ast.Ident:
			if key.Name == "Code" {
				code = value.Name
			}
		case *ast.SelectorExpr:
			if key.Name == "Status" {
				status = value.Sel.Name
			}
		}
	}
	return code, status
}
