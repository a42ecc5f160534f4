package config

import (
	"embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
)

// The sections describe themselves: their source travels with the binary, and its doc comments are what the schema, a
// fresh configuration file and the documentation say about a key. So there is no second place to keep in step.
//
//go:embed config.go network.go transfer.go storage.go machine.go service.go
var sections embed.FS

// describe fills in the descriptions of all keys.
func (k *key) describe() error {
	comments, err := comments()
	if err != nil {
		return err
	}
	k.each(func(c *key) { c.doc = comments[c.owner] })
	return nil
}

// comments reads the doc comments of all fields as "Type.Field".
func comments() (map[string]string, error) {
	files, err := sections.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("read descriptions: %w", err)
	}
	comments := make(map[string]string)
	for _, file := range files {
		source, err := sections.ReadFile(file.Name())
		if err != nil {
			return nil, fmt.Errorf("read descriptions: %w", err)
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), source, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read descriptions: %w", err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if structure, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range structure.Fields.List {
					for _, name := range f.Names {
						comments[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
					}
				}
			}
			return false
		})
	}
	return comments, nil
}
