package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// anyName stands in paths for a name that the user chooses.
const anyName = "NAME"

// A key is one node of the tree of all settings, read from the types of the sections: a section, a list, a table of
// named sections, or a value.
type key struct {
	name  string // its json name; anyName below a table, "" below a list
	path  string // the names from the top, joined by dots
	doc   string // filled by describe
	typ   reflect.Type
	owner string // "Type.Field", where its doc comment stands
	index int    // of the field in its struct

	min, max *float64
	enum     []string
	pattern  *regexp.Regexp
	want     string
	required bool
	secret   string
	active   bool
	restart  bool

	children []*key // fields of a section; the one element of a table or list
}

// tree reads all keys from the types. It fails only when a tag is malformed.
func tree() (*key, error) {
	root := &key{typ: reflect.TypeFor[Config]()}
	if err := root.grow(); err != nil {
		return nil, err
	}
	return root, nil
}

// grow adds what lies below k.
func (k *key) grow() error {
	switch k.typ.Kind() {
	case reflect.Struct:
		for i := range k.typ.NumField() {
			f := k.typ.Field(i)
			c, err := k.field(f, i)
			if err == nil {
				err = c.grow()
			}
			if err != nil {
				return err
			}
			k.children = append(k.children, c)
		}
	case reflect.Map, reflect.Slice:
		e := *k // the rules of a list are those of its elements
		e.typ, e.children, e.name = k.typ.Elem(), nil, ""
		if k.typ.Kind() == reflect.Map {
			e.name, e.path = anyName, k.path+"."+anyName
		}
		if err := e.grow(); err != nil {
			return err
		}
		k.children = []*key{&e}
	}
	return nil
}

// field makes the key of one struct field from its tags.
func (k *key) field(f reflect.StructField, index int) (*key, error) {
	name := f.Tag.Get("json")
	c := &key{
		name: name, path: join(k.path, name), typ: f.Type, index: index, owner: k.typ.Name() + "." + f.Name,
		want: f.Tag.Get("want"), required: f.Tag.Get("required") == "yes", secret: f.Tag.Get("secret"),
		active: k.active, restart: k.restart,
	}
	if t := f.Tag.Get("active"); t != "" {
		c.active = t == "yes"
	}
	if t := f.Tag.Get("restart"); t != "" {
		c.restart = t == "yes"
	}
	if t := f.Tag.Get("enum"); t != "" {
		c.enum = strings.Split(t, ",")
	}
	if t := f.Tag.Get("pattern"); t != "" {
		re, err := regexp.Compile(t)
		if err != nil {
			return nil, fmt.Errorf("pattern of %s: %w", c.owner, err)
		}
		c.pattern = re
	}
	if t := f.Tag.Get("range"); t != "" {
		low, high, _ := strings.Cut(t, "..")
		smallest, err := strconv.ParseFloat(low, 64)
		if err != nil {
			return nil, fmt.Errorf("range of %s: %w", c.owner, err)
		}
		largest, err := strconv.ParseFloat(high, 64)
		if err != nil {
			return nil, fmt.Errorf("range of %s: %w", c.owner, err)
		}
		c.min, c.max = &smallest, &largest
	}
	return c, nil
}

// child is the key of that name directly below k, or nil.
func (k *key) child(name string) *key {
	if k.typ.Kind() == reflect.Map {
		return k.children[0]
	}
	if k.typ.Kind() != reflect.Struct {
		return nil
	}
	for _, c := range k.children {
		if c.name == name {
			return c
		}
	}
	return nil
}

// find is the key at a path, or nil; names that users choose stand for themselves.
func (k *key) find(path string) *key {
	for name := range strings.SplitSeq(path, ".") {
		if k = k.child(name); k == nil {
			return nil
		}
	}
	return k
}

// nearestSection is the deepest section on the way to a path that doesn't exist.
func (k *key) nearestSection(path string) *key {
	for name := range strings.SplitSeq(path, ".") {
		c := k.child(name)
		if c == nil || !c.isSection() {
			break
		}
		k = c
	}
	return k
}

// isSection reports whether k holds other keys: then it has no value of its own.
func (k *key) isSection() bool {
	return k.typ.Kind() == reflect.Struct || k.typ.Kind() == reflect.Map
}

// each calls visit for every key below k, sections before what they hold. Elements of lists are not keys.
func (k *key) each(visit func(*key)) {
	for _, c := range k.children {
		visit(c)
		if c.isSection() {
			c.each(visit)
		}
	}
}

// paths lists the paths of all keys below k, as one may type them.
func (k *key) paths() []string {
	var all []string
	k.each(func(c *key) { all = append(all, c.path) })
	return all
}

// names lists what a section holds.
func (k *key) names() string {
	names := make([]string, len(k.children))
	for i, c := range k.children {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

// allowed says in words what a value of k may be.
func (k *key) allowed() string {
	switch k.typ.Kind() {
	case reflect.Struct:
		return "a section of " + k.names()
	case reflect.Map:
		return "a section of named entries, each " + k.children[0].allowed()
	case reflect.Slice:
		return "a list, each " + k.children[0].allowed()
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		switch {
		case len(k.enum) > 0:
			return "one of " + strings.TrimPrefix(strings.Join(k.enum, ", "), ", ")
		case k.want != "":
			return k.want
		case k.required:
			return "a text that is not empty"
		}
		return "a text"
	}
	number := "a number"
	if isWhole(k.typ) {
		number = "a whole number"
	}
	if k.min == nil {
		return number
	}
	return fmt.Sprintf("%s from %s to %s", number, formatNumber(*k.min), formatNumber(*k.max))
}

func isWhole(t reflect.Type) bool {
	return t.Kind() == reflect.Int || t.Kind() == reflect.Int64
}

func formatNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
