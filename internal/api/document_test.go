package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"ema/internal/api/trust"
)

var update = flag.Bool("update", false, "write comments.json anew")

// document is the document of a server with everything.
func document(t testing.TB) []byte {
	t.Helper()
	s, _, _ := whole(t)
	res := ask(t, s.Handler(), trust.None, "GET", "/openapi.json", "")
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", res.Status, err)
	}
	return raw
}

// operations are those of the document, with the schemas of their answers.
func operations(t testing.TB) []*documented {
	t.Helper()
	raw := document(t)
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("document", parsed); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]*documented `json:"paths"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D")
	var all []*documented
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.path, op.method = path, strings.ToUpper(method)
			op.at = "document#/paths/" + escape.Replace(path) + "/" + method
			op.compiler = c
			all = append(all, op)
		}
	}
	slices.SortFunc(all, func(a, b *documented) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// A documented operation is one as strangers read of it.
type documented struct {
	ID         string   `json:"operationId"`
	Summary    string   `json:"summary"`
	Tags       []string `json:"tags"`
	Parameters []struct {
		Name        string         `json:"name"`
		In          string         `json:"in"`
		Description string         `json:"description"`
		Schema      map[string]any `json:"schema"`
	} `json:"parameters"`
	Body *struct {
		Content map[string]content `json:"content"`
	} `json:"requestBody"`
	Responses map[string]struct {
		Description string             `json:"description"`
		Content     map[string]content `json:"content"`
		Headers     map[string]any     `json:"headers"`
	} `json:"responses"`
	Security []map[string][]string `json:"security"`

	method, path, at string
	compiler         *jsonschema.Compiler
}

type content struct {
	Schema   map[string]any                 `json:"schema"`
	Example  any                            `json:"example"`
	Examples map[string]struct{ Value any } `json:"examples"`
}

// schema is that of an answer with that status; nil when it has none.
func (d *documented) schema(t testing.TB, status string) *jsonschema.Schema {
	t.Helper()
	if _, ok := d.Responses[status]; !ok {
		status = "default"
	}
	if d.Responses[status].Content["application/json"].Schema == nil {
		return nil
	}
	s, err := d.compiler.Compile(d.at + "/responses/" + status + "/content/application~1json/schema")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheDocumentIsSoundInTheEyesOfOthers(t *testing.T) {
	judge := exec.CommandContext(t.Context(), "node", "judge.js")
	judge.Dir = "pages"
	judge.Stdin = bytes.NewReader(document(t))
	out, err := judge.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("OpenAPI 3.1")) {
		t.Fatalf("the validator (it needs node and \"make assets\") says: %v\n%s", err, out)
	}
}

func TestTheDocumentIsTheSameInBothForms(t *testing.T) {
	s, _, _ := whole(t)
	res := ask(t, s.Handler(), trust.None, "GET", "/openapi.yaml", "")
	raw, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !bytes.Contains(raw, []byte("operationId: "+opManage)) {
		t.Errorf("%s, %v", res.Status, err)
	}
	if res := ask(t, s.Handler(), trust.None, "GET", "/openapi.yaml", "", "If-None-Match", res.Header.Get("Etag")); res.StatusCode != http.StatusNotModified {
		t.Errorf("who has it already gets %s", res.Status)
	}
}

func TestEveryOperationIsDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, op := range operations(t) {
		if op.ID == "" || seen[op.ID] || op.Summary == "" || len(op.Tags) != 1 {
			t.Errorf("%s %s: %+v", op.method, op.path, op)
		}
		seen[op.ID] = true
		for _, p := range op.Parameters {
			if p.Description == "" {
				t.Errorf("%s: the parameter %s is not described", op.ID, p.Name)
			}
		}
		if _, ok := op.Responses["default"]; !ok {
			t.Errorf("%s: how it says no is not described", op.ID)
		}
		for status, r := range op.Responses {
			if r.Headers["X-Request-Id"] == nil || r.Description == "" {
				t.Errorf("%s: the answer %s lacks X-Request-Id or a description", op.ID, status)
			}
		}
	}
	if len(seen) < 20 {
		t.Fatalf("only %d operations are described", len(seen))
	}
	for _, id := range []string{opEvents, opRun} {
		if seen[id] {
			t.Errorf("%s is for the daemon's socket and not for the document", id)
		}
	}
}

func TestEveryFieldIsDescribed(t *testing.T) {
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Description string
				Properties  map[string]struct{ Description string }
			}
		}
	}
	if err := json.Unmarshal(document(t), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Components.Schemas) == 0 || doc.Components.Schemas["ErrorModel"].Properties != nil {
		t.Fatal("the schemas are not ours")
	}
	described := 0
	for _, s := range doc.Components.Schemas {
		for _, p := range s.Properties {
			if p.Description != "" {
				described++
			}
		}
	}
	// Where a name says it all, as model_id does, the wire types have no comment.
	if described < 100 {
		t.Errorf("only %d fields are described", described)
	}
}

func TestExamplesAreWhatTheyAreExamplesOf(t *testing.T) {
	seen := 0
	for _, op := range operations(t) {
		for status, r := range op.Responses {
			if c := r.Content["application/json"]; c.Example != nil {
				seen++
				if err := op.schema(t, status).Validate(c.Example); err != nil {
					t.Errorf("%s, %s: %v", op.ID, status, err)
				}
			}
		}
		if op.Body == nil {
			continue
		}
		s, err := op.compiler.Compile(op.at + "/requestBody/content/application~1json/schema")
		if err != nil {
			t.Fatal(err)
		}
		for name, e := range op.Body.Content["application/json"].Examples {
			seen++
			if err := s.Validate(e.Value); err != nil {
				t.Errorf("%s, %s: %v", op.ID, name, err)
			}
		}
	}
	if seen < 10 {
		t.Errorf("there are only %d examples", seen)
	}
}

func TestWhatThisDaemonCannotDoIsNotDocumented(t *testing.T) {
	s := &Server{Log: slog.New(slog.DiscardHandler)}
	var doc struct{ Paths map[string]any }
	read(t, ask(t, s.Handler(), trust.None, "GET", "/openapi.json", ""), &doc)
	for path := range doc.Paths {
		if !slices.Contains([]string{"/healthz", Base + "/admin/version", "/debug/pprof/", "/debug/pprof/{profile}", Base + "/admin/profile/cpu", Base + "/admin/profile/heap"}, path) {
			t.Errorf("%s is documented", path)
		}
	}
	for _, path := range []string{Base + "/models/download/active", Base + "/models/storage", Base + "/config/current", "/readyz", "/ws", Base + "/admin/audit"} {
		if res := ask(t, s.Handler(), trust.Admin, "GET", path, ""); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

func TestThePagesLoadNothingFromElsewhere(t *testing.T) {
	s, _, _ := whole(t)
	h := s.Handler()
	link := regexp.MustCompile(`(?:src|href|spec-url)="([^"]*)"`)
	for _, page := range []string{"/docs", "/redoc"} {
		res := ask(t, h, trust.None, "GET", page, "")
		raw, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%s: %s, %v; run \"make assets\"", page, res.Status, err)
		}
		for rule := range strings.SplitSeq(res.Header.Get("Content-Security-Policy"), ";") {
			for source := range strings.FieldsSeq(rule) {
				if strings.Contains(source, "//") || strings.Contains(source, "*") || source == "https:" || source == "'unsafe-eval'" {
					t.Errorf("%s may load from %s", page, source)
				}
			}
		}
		if !strings.Contains(res.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s may load anything", page)
		}
		links := link.FindAllSubmatch(raw, -1)
		for _, l := range links {
			if to := string(l[1]); to != "data:," {
				if strings.Contains(to, ":") || strings.HasPrefix(to, "/") {
					t.Errorf("%s refers to %s", page, to)
				}
				if res := ask(t, h, trust.None, "GET", "/"+to, ""); res.StatusCode != http.StatusOK {
					t.Errorf("%s refers to %s, which is %s", page, to, res.Status)
				}
			}
		}
		if len(links) < 3 || bytes.Contains(raw, []byte("://")) {
			t.Errorf("%s: %s", page, raw)
		}
	}
}

func TestTheDocumentSaysWhatTheCommentsOfTheWireTypesSay(t *testing.T) {
	said := map[string]map[string]string{}
	files, err := filepath.Glob(filepath.Join("..", "..", "client", "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			comment(t, name, said)
		}
	}
	want, err := json.MarshalIndent(said, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("comments.json", want, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(want, comments) {
		t.Error("comments.json is not what package client says; run go test ./internal/api -run Comments -update")
	}
}

// comment collects what a file says of its wire types.
func comment(t *testing.T, name string, said map[string]map[string]string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	line := func(groups ...*ast.CommentGroup) string {
		for _, g := range groups {
			if text := strings.Join(strings.Fields(g.Text()), " "); text != "" {
				return text
			}
		}
		return ""
	}
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range decl.Specs {
			spec, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			structure, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			fields := map[string]string{}
			for _, f := range structure.Fields.List {
				if f.Tag == nil {
					continue
				}
				tag, err := strconv.Unquote(f.Tag.Value)
				if err != nil {
					t.Fatal(err)
				}
				key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
				if text := line(f.Doc, f.Comment); key != "" && text != "" {
					fields[key] = sentence(text)
				}
			}
			if len(fields) > 0 {
				fields[""] = sentence(line(spec.Doc, decl.Doc))
				said[spec.Name.Name] = fields
			}
		}
	}
}

// sentence is a comment as a sentence.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

func TestTheBodyOfManageHasTheFieldsOfManage(t *testing.T) {
	ours, theirs := reflect.TypeFor[manageBody](), reflect.TypeFor[Manage]()
	for i := range ours.NumField() {
		if a, b := ours.Field(i).Tag.Get("json"), theirs.Field(i).Tag.Get("json"); a != b {
			t.Errorf("%s is %s here and %s there", ours.Field(i).Name, a, b)
		}
	}
	enum := fmt.Sprintf("%v", ours.Field(1).Tag.Get("enum"))
	if enum != strings.Join(actions(), ",") {
		t.Errorf("the actions are %s, and documented are %s", actions(), enum)
	}
}

var _ huma.Adapter = (*router)(nil)
