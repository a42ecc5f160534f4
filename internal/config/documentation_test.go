package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of docs/configuration.md anew")

const documentation = "../../docs/configuration.md"

// tables makes the generated parts of the documentation, by the name between their marks.
func tables(t *testing.T) map[string]string {
	t.Helper()
	root, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	if err := root.describe(); err != nil {
		t.Fatal(err)
	}
	defaults := reflect.ValueOf(Default())
	var keys strings.Builder
	for _, section := range root.children {
		if !section.isSection() {
			continue
		}
		fmt.Fprintf(&keys, "### %s\n\n%s\n\n| key | default | allowed | what it does |\n| --- | --- | --- | --- |\n", section.name, section.doc)
		rows(&keys, section, defaults.Field(section.index))
		keys.WriteString("\n")
	}
	var others strings.Builder
	others.WriteString("| alias | real key | value |\n| --- | --- | --- |\n")
	for _, a := range aliases() {
		value := "the same"
		if a.isSwitch() {
			value = "`true`: " + a.yes
			if a.no != "" {
				value += "; `false`: " + a.no
			}
		}
		if a.note != "" {
			value += "; " + a.note
		}
		fmt.Fprintf(&others, "| `%s` | `%s` | %s |\n", a.name, strings.Join(a.keys, "`, `"), value)
	}
	return map[string]string{"keys": strings.TrimSuffix(keys.String(), "\n"), "aliases": others.String()}
}

func rows(b *strings.Builder, k *key, v reflect.Value) {
	for _, c := range k.children {
		path := c.path[strings.Index(c.path, ".")+1:]
		switch {
		case c.typ.Kind() == reflect.Struct && v.Kind() == reflect.Struct:
			fmt.Fprintf(b, "| **%s** | | | %s |\n", path, c.doc)
			rows(b, c, v.Field(c.index))
		case c.typ.Kind() == reflect.Map:
			fmt.Fprintf(b, "| **%s** | | | %s |\n", path, c.doc)
			rows(b, c.children[0], reflect.Zero(c.children[0].typ))
		case c.typ.Kind() == reflect.Slice && c.children[0].isSection():
			fmt.Fprintf(b, "| **%s** | `[]` | a list | %s |\n", path, c.doc)
			for _, inner := range c.children[0].children {
				fmt.Fprintf(b, "| %s[].%s | | %s | %s |\n", path, inner.name, cell(inner.allowed()), inner.doc)
			}
		default:
			mark := ""
			if !c.active {
				mark = " ○"
			}
			if c.restart {
				mark += " R"
			}
			fmt.Fprintf(b, "| %s%s | `%s` | %s | %s |\n", path, mark, encode(v.Field(c.index)), cell(c.allowed()), c.doc)
		}
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }

func TestTheTablesOfTheDocumentationAreFresh(t *testing.T) {
	raw, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(raw)
	for name, want := range tables(t) {
		begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
		from, to := strings.Index(doc, begin)+len(begin), strings.Index(doc, end)
		if from < len(begin) || to < from {
			t.Fatalf("the marks of %s are missing", name)
		}
		if doc[from:to] != want && !*update {
			t.Errorf("%s is stale in %s; go test ./internal/config -run Documentation -update writes it anew", name, documentation)
		}
		doc = doc[:from] + want + doc[to:]
	}
	if *update {
		if err := os.WriteFile(documentation, []byte(doc), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
