package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"

	"ema/internal/model"
)

// An Overlay is the settings that were changed by the API or by "ema config set": a layer above the configuration file,
// which they leave alone, and below environment and flags. The zero Overlay has none. It does not change; Merge makes a
// new one.
type Overlay struct {
	file string // where they are kept
	doc  *node
}

// fixed are the keys that say where changes are kept, by themselves or together with others.
func fixed() []string { return []string{"store.path", "store.state_dir", "storage_tiers.hot.path"} }

// ParseOverlay reads what Encode wrote; file is where it lies, for messages. A mistake in it is a *model.Error of class Usage
// around Errors.
func ParseOverlay(file string, content []byte) (Overlay, error) {
	c := Overlay{file: file}
	doc, errs := parse(file, content)
	if doc != nil {
		root, err := tree()
		if err != nil {
			return c, err
		}
		_, wrong := judge(root, doc, nil)
		errs = append(errs, wrong...)
	}
	if len(errs) > 0 {
		return c, &model.Error{
			Op: "read the changed settings", Class: model.Usage, Err: errs, // which name the file
			Hint: "mend that, or remove the file: then the configuration file alone counts",
		}
	}
	c.doc = doc
	return c, nil
}

// Merge merges a JSON merge patch (RFC 7396) into c: what it says is set, and null takes a change back, so that the
// configuration file or the default counts again. All mistakes in the patch are reported at once, as Errors; whether the
// result holds together is for Load to say. c stays as it is.
func (c Overlay) Merge(patch []byte) (Overlay, error) { return c.MergeOver(nil, patch) }

// MergeOver is Merge for who has seen now: a secret as it is shown there, and the place of the store that holds, are left
// as they are. So what was shown can be sent back with a change in it.
func (c Overlay) MergeOver(now *Effective, patch []byte) (Overlay, error) {
	root, err := tree()
	if err != nil {
		return c, err
	}
	doc, errs := parse("patch.json", patch)
	if doc == nil {
		return c, nowhere(errs)
	}
	doc.locate("")
	meant, wrong := judge(root, doc, now.echoes())
	if errs = append(errs, wrong...); len(errs) > 0 {
		return c, nowhere(errs)
	}
	merged := &node{shape: table}
	if c.doc != nil {
		merged.merge(c.doc)
	}
	for _, n := range meant {
		merged.merge(n)
	}
	merged.place("")
	merged.locate(c.file)
	next := Overlay{file: c.file, doc: merged}
	content, err := next.Encode()
	if err == nil && len(content) > maxFileBytes { // nobody could start with it
		err = Errors{{Problem: "all changed settings together would be larger than 1 MiB", Want: "fewer of them; take some back"}}
	}
	if err != nil {
		return c, err
	}
	return next, nil
}

// echoes are the texts that are no change of the keys they are given to. A nil e has none.
func (e *Effective) echoes() map[string][]string {
	if e == nil {
		return nil
	}
	all := map[string][]string{
		"store.path":             {e.Store.Path},
		"store.state_dir":        {e.Store.StateDir},
		"storage_tiers.hot.path": {e.StorageTiers.Hot.Path, e.Store.Path}, // which are one folder
	}
	e.walk(func(path string, k *key, v reflect.Value) {
		if k.secret == "" || k.typ.Kind() != reflect.String {
			return
		}
		if shown := hide(k.secret, v.String()); shown != v.String() {
			all[path] = []string{shown}
		}
	})
	return all
}

// Empty reports whether c changes nothing.
func (c Overlay) Empty() bool { return c.doc == nil || len(c.doc.fields) == 0 }

// Encode is c as JSON, the same for the same changes.
func (c Overlay) Encode() ([]byte, error) {
	var v any = map[string]any{}
	if c.doc != nil {
		v = c.doc.plain()
	}
	content, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the changed settings: %w", err)
	}
	return append(content, '\n'), nil
}

// Set is the patch for Merge that gives a key a value, which is written as in a variable of the environment. A key that
// does not exist is an *Error.
func Set(path, value string) (json.RawMessage, error) {
	return patch(path, func(k *key) *node { return k.read(value) })
}

// Unset is the patch for Merge that takes back what was changed of a key or of a section.
func Unset(path string) (json.RawMessage, error) {
	return patch(path, func(*key) *node { return &node{} })
}

func patch(path string, value func(k *key) *node) (json.RawMessage, error) {
	root, err := tree()
	if err != nil {
		return nil, err
	}
	k := root.find(path)
	if alias := aliasNamed(path); k == nil && alias != nil {
		k = alias.rules(root)
	}
	if k == nil {
		d := &decoder{root: root}
		n := &node{shape: text, name: last(path)}
		n.place(path)
		d.unknown(n, root.nearestSection(path))
		d.errs[0].Value = ""
		return nil, d.errs[0]
	}
	return json.Marshal(nest(path, value(k)).plain())
}

// judge says what a document means, without its aliases and echoes, and what is wrong with it. null means nothing and is
// right wherever there is a key.
func judge(root *key, doc *node, echoes map[string][]string) ([]*node, Errors) {
	scratch := Default()
	d := &decoder{root: root, level: ByOverlay, origins: map[string]Origin{}}
	meant := []*node{doc.copy()}
	meant = slices.Concat(d.takeAliases(meant[0]), meant) // a real key says it more clearly, and counts
	for _, n := range meant {
		for path, same := range echoes {
			if found := n.at(path); found != nil && found.shape == text && slices.Contains(same, found.text) {
				n.take(path)
			}
		}
		d.layer(&scratch, ByOverlay, d.without(n))
		for _, path := range fixed() {
			if found := n.at(path); found != nil {
				d.errs = append(d.errs, &Error{Key: found.key, Value: found.literal(), Where: found.where, Problem: "says where changed settings are kept, and cannot be one of them", Want: "it in the configuration file, in the environment or as a flag"})
			}
		}
	}
	return meant, d.errs
}

// without is a copy of n in which nothing is null. A null must stand where a key or a section is.
func (d *decoder) without(n *node) *node {
	c := *n
	c.fields = nil
	for _, f := range n.fields {
		if f.shape != null {
			c.fields = append(c.fields, d.without(f))
		} else if d.root.find(f.key) == nil && aliasNamed(f.key) == nil {
			d.unknown(f, d.root.nearestSection(f.key))
		}
	}
	return &c
}

// nowhere are errs of a document that lies in no file.
func nowhere(errs Errors) error {
	for _, e := range errs {
		e.Where = ""
	}
	return errs
}

// copy is a deep copy of n.
func (n *node) copy() *node {
	c := *n
	c.fields, c.items = nil, nil
	for _, f := range n.fields {
		c.fields = append(c.fields, f.copy())
	}
	for _, item := range n.items {
		c.items = append(c.items, item.copy())
	}
	return &c
}

// at is what stands at a path, or nil.
func (n *node) at(path string) *node {
	c := n.copy()
	return c.take(path)
}

// merge applies a JSON merge patch to a table.
func (n *node) merge(patch *node) {
	for _, f := range patch.fields {
		old := n.child(f.name)
		switch {
		case f.shape == null:
			n.fields = slices.DeleteFunc(n.fields, func(x *node) bool { return x == old })
			continue
		case f.shape != table:
			n.fields = append(slices.DeleteFunc(n.fields, func(x *node) bool { return x == old }), f.copy())
			continue
		case old == nil || old.shape != table:
			n.fields = slices.DeleteFunc(n.fields, func(x *node) bool { return x == old })
			old = &node{shape: table, name: f.name}
			n.fields = append(n.fields, old)
		}
		old.merge(f)
		if len(old.fields) == 0 { // an empty section says nothing
			n.fields = slices.DeleteFunc(n.fields, func(x *node) bool { return x == old })
		}
	}
}

// plain is n as encoding/json would have it.
func (n *node) plain() any {
	switch n.shape {
	case null:
		return nil
	case boolean:
		return n.text == "true"
	case number:
		if json.Valid([]byte(n.text)) {
			return json.Number(n.text)
		}
		f, err := strconv.ParseFloat(n.text, 64) // a variable may have +1 or .5
		if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
		return n.text
	case text:
		return n.text
	case list:
		all := []any{}
		for _, item := range n.items {
			all = append(all, item.plain())
		}
		return all
	}
	all := map[string]any{}
	for _, f := range n.fields {
		all[f.name] = f.plain()
	}
	return all
}

// Outvoted are the changed keys that do not act because a variable or a flag says otherwise, each with a warning.
func (e *Effective) Outvoted(c Overlay) []Warning {
	if c.doc == nil {
		return nil
	}
	says := map[string]string{}
	e.walk(func(path string, k *key, _ reflect.Value) {
		if o := e.origins[path]; !k.isSection() && o.Level > ByOverlay && c.doc.at(path) != nil {
			says[path] = o.String()
		}
	})
	var all []Warning
	for _, path := range slices.Sorted(maps.Keys(says)) {
		all = append(all, Warning{Key: path, Text: "is stored and does not act, since " + says[path] + " says something else"})
	}
	return all
}
