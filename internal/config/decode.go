package config

import (
	"fmt"
	"math"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A decoder fills a Config from several layers, the strongest first: a key that is set stays as it is, so what is said
// by a flag wins over a file. Weaker values are checked all the same.
type decoder struct {
	root    *key
	level   Level
	origins map[string]Origin
	errs    Errors
}

// set puts n into v, which is the value of k at path (k.path with the names that users chose).
func (d *decoder) set(v reflect.Value, k *key, path string, n *node) {
	if !k.isSection() {
		if fresh := reflect.New(k.typ).Elem(); d.value(fresh, k, n) {
			if _, taken := d.origins[path]; !taken {
				v.Set(fresh)
				d.origins[path] = Origin{Level: d.level, Where: n.where}
			}
		}
		return
	}
	if n.shape == null { // all keys of the section are commented out
		return
	}
	if n.shape != table {
		d.wrong(n, k, "wrong type")
		return
	}
	for _, f := range n.fields {
		c := k.child(f.name)
		switch {
		case c == nil:
			d.unknown(f, k)
		case k.typ.Kind() == reflect.Struct:
			d.set(v.Field(c.index), c, join(path, c.name), f)
		case !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(f.name):
			d.wrong(f, c, "not a name; use letters, digits, - and _")
		default:
			d.entry(v, c, join(path, f.name), f)
		}
	}
}

// entry sets one named entry of a table; entries of a Go map can't be changed in place.
func (d *decoder) entry(v reflect.Value, c *key, path string, f *node) {
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	name := reflect.ValueOf(f.name)
	e := reflect.New(c.typ).Elem()
	if old := v.MapIndex(name); old.IsValid() {
		e.Set(old)
	}
	d.set(e, c, path, f)
	v.SetMapIndex(name, e)
}

// value decodes a scalar or a list, and reports whether it is right.
func (d *decoder) value(v reflect.Value, k *key, n *node) bool {
	switch v.Kind() {
	case reflect.Slice:
		return d.list(v, k, n)
	case reflect.Bool:
		if n.shape != boolean {
			return d.wrong(n, k, "wrong type")
		}
		v.SetBool(n.text == "true")
	case reflect.String:
		if n.shape != text {
			return d.wrong(n, k, "wrong type")
		}
		if problem := k.judgeText(n.text); problem != "" {
			return d.wrong(n, k, problem)
		}
		v.SetString(n.text)
	default:
		if n.shape != number {
			return d.wrong(n, k, "wrong type")
		}
		f, err := strconv.ParseFloat(n.text, 64)
		if err != nil && !math.IsInf(f, 0) || math.IsNaN(f) {
			return d.wrong(n, k, "not a number")
		}
		if k.min != nil && (f < *k.min || f > *k.max) {
			return d.wrong(n, k, "out of range")
		}
		if !isWhole(v.Type()) {
			v.SetFloat(f)
			return true
		}
		if f != math.Trunc(f) {
			return d.wrong(n, k, "not a whole number")
		}
		v.SetInt(int64(f))
	}
	return true
}

// judgeText says what is wrong with a text, or nothing.
func (k *key) judgeText(s string) string {
	switch {
	case len(k.enum) > 0:
		if !slices.Contains(k.enum, s) {
			return "not one of the words allowed"
		}
	case s == "":
		if k.required {
			return "empty"
		}
	case k.pattern != nil && !k.pattern.MatchString(s):
		return "not of the right shape"
	}
	return ""
}

// list decodes all elements, so that all their mistakes are reported.
func (d *decoder) list(v reflect.Value, k *key, n *node) bool {
	if n.shape != list {
		return d.wrong(n, k, "wrong type")
	}
	e := k.children[0]
	good := true
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		if e.isSection() {
			good = d.element(v.Index(i), e, item) && good
		} else {
			good = d.value(v.Index(i), e, item) && good
		}
	}
	return good
}

// element decodes a section in a list. It has no layers: all of it stands in one place, so what it needs must be there.
func (d *decoder) element(v reflect.Value, e *key, n *node) bool {
	inner := &decoder{root: d.root, level: d.level, origins: make(map[string]Origin)}
	inner.set(v, e, "", n)
	for _, c := range e.children {
		if c.required && n.child(c.name) == nil {
			inner.errs = append(inner.errs, &Error{Key: join(n.key, c.name), Where: n.where, Problem: "missing", Want: c.allowed()})
		}
	}
	d.errs = append(d.errs, inner.errs...)
	return len(inner.errs) == 0
}

// wrong reports a value that k can't have. It returns false, as a judgement of the value.
func (d *decoder) wrong(n *node, k *key, problem string) bool {
	if problem == "wrong type" {
		problem += ": " + n.shape.String()
	}
	value := n.literal()
	if k.secret != "" && n.shape != null && n.shape != table {
		value = "(hidden)"
		if n.shape == text && !k.mayLeak(n.text) {
			value = strconv.Quote(hide(k.secret, n.text))
		}
	}
	d.errs = append(d.errs, &Error{Key: n.key, Value: value, Where: n.where, Problem: problem, Want: k.allowed()})
	return false
}

// unknown reports a key that section k doesn't have.
func (d *decoder) unknown(n *node, k *key) {
	words := append(d.root.paths(), aliasNames()...)
	prefix := strings.TrimSuffix(n.key, n.name)
	for _, c := range k.children { // by the names that the user chose, which the general paths don't have
		words = append(words, prefix+c.name)
	}
	e := &Error{Key: n.key, Value: n.literal(), Where: n.where, Problem: "unknown key", Want: "one of " + k.names(), Nearest: Nearest(n.key, words)}
	near := d.root.find(e.Nearest)
	if mayBeSecret(n.key) || near != nil && near.secret != "" {
		e.Value = "(hidden)"
	}
	d.errs = append(d.errs, e)
}

// mayBeSecret guesses from the name of a key that ema doesn't know.
func mayBeSecret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"token", "password", "passwd", "secret", "api_key", "apikey", "credential"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// mayLeak reports that s has a secret in a place where hide does not look, because s is not the URL that it should be.
func (k *key) mayLeak(s string) bool {
	u, err := url.Parse(s)
	return err != nil || u.Host == "" && (k.secret == "path" || strings.ContainsAny(s, "@?"))
}

// hide removes from a URL what nobody should read: "url" all but user name, host and path; "path" all behind the host.
func hide(kind, raw string) string {
	if raw == "" {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "(hidden)"
	}
	if kind == "path" {
		return fmt.Sprintf("%s://%s/(hidden)", u.Scheme, u.Host)
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), "hidden")
	}
	query := u.Query()
	for name := range query {
		if mayBeSecret(name) {
			query.Set(name, "hidden")
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}
