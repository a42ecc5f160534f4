package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestThePageNamesEveryCommandAndFlag(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{} // by the command of their heading
	for part := range strings.SplitSeq(string(raw), "\n## ") {
		heading, text, _ := strings.Cut(part, "\n")
		sections[strings.Trim(heading, "`")] = text
	}
	flagIn := func(text, flag string) bool {
		return regexp.MustCompile("--" + regexp.QuoteMeta(flag) + `\b`).MatchString(text)
	}
	root := rootCommand(&app{})
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !flagIn(sections["Flags of every command"], f.Name) {
			t.Errorf("--%s is in no list", f.Name)
		}
	})
	var visit func(*cobra.Command, string)
	visit = func(c *cobra.Command, text string) {
		if own, ok := sections[c.CommandPath()]; ok {
			text = own
		} else if !strings.Contains(text, "`"+c.CommandPath()) {
			t.Errorf("%s has no section", c.CommandPath())
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && f.Name != "version" && f.Name != "no-descriptions" && !flagIn(text, f.Name) {
				t.Errorf("%s --%s is not in its section", c.CommandPath(), f.Name)
			}
		})
		for _, inner := range c.Commands() {
			visit(inner, text)
		}
	}
	for _, c := range root.Commands() {
		visit(c, "")
	}
	for _, code := range []string{"| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |", "| 5 |", "| 6 |", "| 130 |"} {
		if !strings.Contains(string(raw), code) {
			t.Errorf("the page lacks exit code %s", code)
		}
	}
}
