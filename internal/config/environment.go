package config

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// notKeys are variables that begin like keys and mean something else.
var notKeys = []string{"EMA_CONFIG", "EMA_SERVER", "EMA_API_KEY", "EMA_MODEL_PATH"}

// environment applies EMA_SECTION__KEY=value. A variable with a double underscore must be a key; any other one only gets
// a warning, since EMA_ may begin the name of something else. Empty variables count as not set.
func (d *decoder) environment(c *Config, env map[string]string) []Warning {
	var settings []Setting
	var warnings []Warning
	for _, name := range slices.Sorted(maps.Keys(env)) {
		rest, ours := strings.CutPrefix(name, "EMA_")
		if !ours || env[name] == "" || slices.Contains(notKeys, name) {
			continue
		}
		path := strings.ReplaceAll(strings.ToLower(rest), "__", ".")
		if !strings.Contains(path, ".") && d.root.child(path) == nil {
			w := Warning{Key: name, Text: "is not a key and is ignored"}
			if near := Nearest(strings.ReplaceAll(path, "_", "."), d.dotted()); near != "" {
				w.Text += "; did you mean " + variable(near) + "?"
			}
			warnings = append(warnings, w)
			continue
		}
		settings = append(settings, Setting{Key: path, Value: env[name], Where: name})
	}
	d.settings(c, ByEnvironment, settings)
	return warnings
}

// dotted are all paths of values.
func (d *decoder) dotted() []string {
	var all []string
	d.root.each(func(k *key) {
		if !k.isSection() {
			all = append(all, k.path)
		}
	})
	return all
}

// variable is the name of the variable that sets a key.
func variable(path string) string {
	return "EMA_" + strings.ToUpper(strings.ReplaceAll(path, ".", "__"))
}

// read makes a node of a text that is meant for k. What doesn't fit stays a text: the decoder says what is wrong.
func (k *key) read(s string) *node {
	trimmed := strings.TrimSpace(s)
	switch k.typ.Kind() {
	case reflect.String:
		return &node{shape: text, text: s}
	case reflect.Bool:
		if b, err := strconv.ParseBool(trimmed); err == nil {
			return &node{shape: boolean, text: strconv.FormatBool(b)}
		}
	case reflect.Slice:
		if !strings.HasPrefix(trimmed, "[") {
			n := &node{shape: list}
			for part := range strings.SplitSeq(trimmed, ",") {
				if part = strings.TrimSpace(part); part != "" {
					n.items = append(n.items, k.children[0].read(part))
				}
			}
			return n
		}
		return readJSON(s)
	case reflect.Struct, reflect.Map:
		return readJSON(s)
	default:
		if _, err := strconv.ParseFloat(trimmed, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			return &node{shape: number, text: trimmed}
		}
	}
	return &node{shape: text, text: s}
}

func readJSON(s string) *node {
	if json.Valid([]byte(s)) {
		if n, errs := parseJSON("", []byte(s)); len(errs) == 0 {
			return n
		}
	}
	return &node{shape: text, text: s}
}

// isNotDir reports that a part of a path is a file: then nothing lies below it.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
