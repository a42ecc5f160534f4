package config

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// walk visits every section and value in order, with its path; sections come before what they hold.
func (e *Effective) walk(visit func(path string, k *key, v reflect.Value)) {
	var descend func(path string, k *key, v reflect.Value)
	descend = func(path string, k *key, v reflect.Value) {
		if k.typ.Kind() == reflect.Map {
			for _, name := range sortedKeys(v) {
				visit(join(path, name), k.children[0], v.MapIndex(reflect.ValueOf(name)))
				descend(join(path, name), k.children[0], v.MapIndex(reflect.ValueOf(name)))
			}
			return
		}
		for _, c := range k.children {
			visit(join(path, c.name), c, v.Field(c.index))
			if c.isSection() {
				descend(join(path, c.name), c, v.Field(c.index))
			}
		}
	}
	descend("", e.root, reflect.ValueOf(e.Config))
}

// Values are all settings as nested maps, for JSON. Secrets are hidden.
func (e *Effective) Values() map[string]any {
	values := make(map[string]any)
	sections := map[string]map[string]any{"": values}
	e.walk(func(path string, k *key, v reflect.Value) {
		parent := sections[path[:max(strings.LastIndexByte(path, '.'), 0)]]
		switch {
		case k.isSection():
			sections[path] = make(map[string]any)
			parent[last(path)] = sections[path]
		default:
			parent[last(path)] = k.shown(v)
		}
	})
	return values
}

// shown is a value for JSON, with a secret hidden.
func (k *key) shown(v reflect.Value) any {
	switch {
	case k.secret != "":
		return hide(k.secret, v.String())
	case v.Kind() == reflect.Slice && v.IsNil():
		return []any{}
	}
	return v.Interface()
}

// Origins tells for every key where its value came from.
func (e *Effective) Origins() map[string]string {
	all := make(map[string]string)
	e.walk(func(path string, k *key, _ reflect.Value) {
		if !k.isSection() {
			all[path] = e.origins[path].String()
		}
	})
	return all
}

// WriteYAML prints all values as a file that could be loaded again. With origins each line says where its value came
// from. Secrets are hidden; values that do not act yet are marked where somebody set them.
func (e *Effective) WriteYAML(w io.Writer, origins bool) error {
	var b strings.Builder
	automatic := e.automatic(e.facts)
	e.walk(func(path string, k *key, v reflect.Value) {
		indent := strings.Repeat("  ", strings.Count(path, "."))
		line := indent + last(path) + ":"
		if k.isSection() {
			if v.Kind() == reflect.Map && v.Len() == 0 {
				line += " {}"
			}
			b.WriteString(line + "\n")
			return
		}
		line += " " + k.yaml(v)
		var notes []string
		if origins {
			notes = append(notes, e.origins[path].String())
		}
		if a, ok := automatic[path]; ok {
			notes = append(notes, "automatic: "+a)
		}
		if !k.active && e.origins[path].Said() {
			notes = append(notes, "not active yet")
		}
		if len(notes) > 0 {
			line += "  # " + strings.Join(notes, "; ")
		}
		b.WriteString(line + "\n")
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// yaml is a value in YAML, which JSON is a part of.
func (k *key) yaml(v reflect.Value) string {
	if k.secret != "" {
		v = reflect.ValueOf(hide(k.secret, v.String()))
	}
	return encode(v)
}

func encode(v reflect.Value) string {
	if v.Kind() == reflect.Slice && v.Len() == 0 {
		return "[]"
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v.Interface()); err != nil {
		return fmt.Sprintf("%q", err.Error()) // only numbers that are none can't be encoded, and ranges keep them out
	}
	return strings.TrimSpace(b.String())
}

func sortedKeys(v reflect.Value) []string {
	var names []string
	for _, name := range v.MapKeys() {
		names = append(names, name.String())
	}
	slices.Sort(names)
	return names
}

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
