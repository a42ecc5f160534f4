package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// A schema is the part of JSON Schema (draft 2020-12) that settings need.
type schema struct {
	Schema               string             `json:"$schema,omitempty"`
	Title                string             `json:"title,omitempty"`
	Type                 any                `json:"type,omitempty"` // a word, or several
	Description          string             `json:"description,omitempty"`
	Default              any                `json:"default,omitempty"`
	Deprecated           bool               `json:"deprecated,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Minimum              *float64           `json:"minimum,omitempty"`
	Maximum              *float64           `json:"maximum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	MinLength            int                `json:"minLength,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	PropertyNames        *schema            `json:"propertyNames,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"` // false, or a schema
}

// Schema is a JSON Schema of the configuration file, made from the same types that the loader reads. Editors complete
// and check with it.
func Schema() ([]byte, error) {
	root, err := tree()
	if err != nil {
		return nil, err
	}
	if err := root.describe(); err != nil {
		return nil, err
	}
	s := root.schema(reflect.ValueOf(Default()), false)
	s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", "ema"
	for _, a := range aliases() {
		s.add(a.name, a.schema(root))
	}
	doc, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema: %w", err)
	}
	return append(doc, '\n'), nil
}

// schema describes k, whose default is v; inside lists nothing has a default, and what is required must be there.
func (k *key) schema(v reflect.Value, inList bool) *schema {
	s := &schema{Description: k.doc}
	switch k.typ.Kind() {
	case reflect.Struct:
		s.section()
		if inList {
			s.Type = "object"
		}
		for _, c := range k.children {
			child := c.schema(v.Field(c.index), inList)
			s.Properties[c.name] = child
			if inList && c.required {
				s.Required = append(s.Required, c.name)
			}
		}
		return s
	case reflect.Map:
		s.section()
		s.PropertyNames = &schema{Pattern: "^[A-Za-z0-9_-]+$"}
		s.AdditionalProperties = k.children[0].schema(reflect.Zero(k.typ.Elem()), false)
		return s
	case reflect.Slice:
		s.Type = "array"
		s.Items = k.children[0].schema(reflect.Zero(k.typ.Elem()), true)
		s.Items.Description = ""
	case reflect.Bool:
		s.Type = "boolean"
	case reflect.String:
		s.Type, s.Enum = "string", k.enum
		if k.pattern != nil {
			s.Pattern = k.pattern.String()
			if !k.required {
				s.Pattern = "^$|" + s.Pattern
			}
		} else if k.required {
			s.MinLength = 1
		}
	default:
		s.Type, s.Minimum, s.Maximum = "number", k.min, k.max
		if isWhole(k.typ) {
			s.Type = "integer"
		}
	}
	if !inList && !v.IsZero() {
		s.Default = v.Interface()
	}
	s.Description = strings.TrimSpace(s.Description + k.remarks())
	return s
}

// section makes s an object that knows all its keys; null is a section without any.
func (s *schema) section() {
	s.Type, s.AdditionalProperties, s.Properties = []string{"object", "null"}, false, make(map[string]*schema)
}

// add puts a schema at a path, making sections on the way.
func (s *schema) add(path string, leaf *schema) {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		s.Properties[name] = leaf
		return
	}
	if s.Properties[name] == nil {
		s.Properties[name] = &schema{Description: "Settings in the words of a profile."}
		s.Properties[name].section()
	}
	s.Properties[name].add(rest, leaf)
}

// schema describes an alias by the rules of its key.
func (a alias) schema(root *key) *schema {
	rules := a.rules(root)
	s := rules.schema(reflect.Zero(rules.typ), false)
	s.Description = "Another name for " + strings.Join(a.keys, " and ") + "."
	s.Deprecated = true
	return s
}

// remarks are what is to know about a key besides its description.
func (k *key) remarks() string {
	var s string
	if k.restart {
		s += " A change needs a restart."
	}
	if !k.active {
		s += " Not active yet."
	}
	return s
}
