package config

import (
	"reflect"
	"slices"
)

// Changes are the keys whose values differ between two configurations, in the order of the sections:
// those that act at once, and those that act after a restart.
func Changes(from, to *Effective) (acting, restart []string) {
	values := map[string]any{}
	from.walk(func(path string, k *key, v reflect.Value) {
		if !k.isSection() {
			values[path] = v.Interface()
		}
	})
	note := func(path string, k *key) {
		if k.restart {
			restart = append(restart, path)
		} else {
			acting = append(acting, path)
		}
	}
	to.walk(func(path string, k *key, v reflect.Value) {
		if k.isSection() {
			return
		}
		was, there := values[path]
		delete(values, path)
		if !there || !reflect.DeepEqual(was, v.Interface()) {
			note(path, k)
		}
	})
	from.walk(func(path string, k *key, _ reflect.Value) { // of named sections that are gone
		if _, gone := values[path]; gone && !k.isSection() {
			note(path, k)
		}
	})
	return slices.Compact(acting), slices.Compact(restart)
}
