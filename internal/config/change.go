package config

import (
	"reflect"
	"slices"
)

// A Difference is a key whose value differs between two configurations.
type Difference struct {
	Key string
	// From and To are its values, as Values has them, without secrets; nil on the side where its named section isn't there.
	From, To any
	Restart  bool // it acts after a restart
}

// Differences are what differs between two configurations, in the order of the sections; what is of named sections that are gone
// comes last.
func Differences(from, to *Effective) (all []Difference) {
	type value struct{ raw, shown any }
	values := map[string]value{}
	from.walk(func(path string, k *key, v reflect.Value) {
		if !k.isSection() {
			values[path] = value{v.Interface(), k.shown(v)}
		}
	})
	to.walk(func(path string, k *key, v reflect.Value) {
		if k.isSection() {
			return
		}
		was, there := values[path]
		delete(values, path)
		if !there || !reflect.DeepEqual(was.raw, v.Interface()) {
			all = append(all, Difference{Key: path, From: was.shown, To: k.shown(v), Restart: k.restart})
		}
	})
	from.walk(func(path string, k *key, _ reflect.Value) {
		if was, gone := values[path]; gone && !k.isSection() {
			all = append(all, Difference{Key: path, From: was.shown, Restart: k.restart})
		}
	})
	return all
}

// Changes are the keys whose values differ between two configurations, in the order of the sections:
// those that act at once, and those that act after a restart.
func Changes(from, to *Effective) (acting, restart []string) {
	for _, d := range Differences(from, to) {
		if d.Restart {
			restart = append(restart, d.Key)
		} else {
			acting = append(acting, d.Key)
		}
	}
	return slices.Compact(acting), slices.Compact(restart)
}
