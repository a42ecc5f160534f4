package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"ema/internal/model"
)

// A Level says how a key got its value; a higher one wins over a lower one.
type Level uint8

// The levels, weakest first.
const (
	ByDefault     Level = iota // nobody set it
	ByAmbient                  // what users have set for all tools around models, e.g. HF_HUB_CACHE
	ByProfile                  // optimization_profile
	ByFile                     // the configuration file
	ByOverlay                  // what was changed while the daemon ran, or by "ema config set"
	ByEnvironment              // EMA_SECTION__KEY
	ByFlag                     // the command line
)

// An Origin is where the value of a key came from. The zero Origin is the default.
type Origin struct {
	Level Level
	Where string // FILE:LINE, the name of a variable, a flag or a profile; empty for a default
}

// String is Where, or "default".
func (o Origin) String() string {
	if o.Level == ByDefault {
		return "default"
	}
	return o.Where
}

// Said reports whether a person set the key for ema, rather than a profile or another tool's settings.
func (o Origin) Said() bool { return o.Level >= ByFile }

// A Setting is one key with its value as text: lists as JSON or separated by commas, sections as JSON.
type Setting struct {
	Key   string
	Value string
	Where string // "--store", "HF_HUB_CACHE"
}

// A Request says where settings are looked for.
type Request struct {
	// File is the configuration file; empty = EMA_CONFIG, then the usual places, then none.
	File string
	// Environ is the environment as os.Environ gives it.
	Environ []string
	// Flags win over everything.
	Flags []Setting
	// Ambient settings are what the user has set for other tools; they win over defaults only, because a file was
	// written for ema: the daemon and a shell with other variables must find the same store.
	Ambient []Setting
	// Overlay wins over the file.
	Overlay Overlay
	// Facts of this machine, for warnings.
	Facts Facts
}

// Effective is a configuration as it holds, with where each value came from. It is read-only once loaded.
type Effective struct {
	Config
	// File that was read; empty when there is none.
	File string
	// Warnings about settings that are allowed and will disappoint.
	Warnings []Warning

	origins map[string]Origin
	root    *key
	facts   Facts
}

// Origin tells where the value of a key came from.
func (e *Effective) Origin(key string) Origin { return e.origins[key] }

// Inactive lists the keys that somebody set and that do not act yet, in the order of the sections.
func (e *Effective) Inactive() []string {
	var keys []string
	e.walk(func(path string, k *key, _ reflect.Value) {
		if !k.isSection() && !k.active && e.origins[path].Said() {
			keys = append(keys, path)
		}
	})
	return keys
}

// Load finds, reads, merges and checks all settings. A configuration with mistakes gives a *model.Error of class Usage
// around Errors, which has all of them. No file at all is no mistake.
func Load(r Request) (*Effective, error) {
	root, err := tree()
	if err != nil {
		return nil, err
	}
	env := environment(r.Environ)
	file, others, err := r.find(env)
	if err != nil {
		return nil, err
	}
	e := &Effective{Config: Default(), File: file, root: root, origins: make(map[string]Origin), facts: r.Facts}
	d := &decoder{root: root, origins: e.origins}

	d.settings(&e.Config, ByFlag, r.Flags)
	e.Warnings = d.environment(&e.Config, env)
	if r.Overlay.doc != nil {
		d.layer(&e.Config, ByOverlay, r.Overlay.doc.copy())
	}
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, unreadable(file, err)
		}
		doc, errs := parse(file, content)
		d.errs = append(d.errs, errs...)
		if doc != nil {
			d.layer(&e.Config, ByFile, doc)
		}
	}
	if name := e.OptimizationProfile; name != "" {
		doc, err := profile(name)
		if err != nil {
			return nil, err
		}
		d.layer(&e.Config, ByProfile, doc)
	}
	d.settings(&e.Config, ByAmbient, r.Ambient)
	if len(d.errs) == 0 { // what depends on several keys is judged when each is right by itself
		e.unite()
		errs, warnings := check(e)
		d.errs = errs
		e.Warnings = append(e.Warnings, warnings...)
	}
	if len(d.errs) > 0 {
		return nil, &model.Error{Op: "configuration", Class: model.Usage, Err: d.errs}
	}
	for _, other := range others {
		e.Warnings = append(e.Warnings, Warning{Key: other, Text: "not read, because " + file + " comes first"})
	}
	return e, nil
}

// layer applies one document: its keys first, then its aliases, since a real key says it more clearly.
func (d *decoder) layer(c *Config, level Level, doc *node) {
	d.level = level
	aliased := d.takeAliases(doc)
	d.set(reflect.ValueOf(c).Elem(), d.root, "", doc)
	for _, n := range aliased {
		d.set(reflect.ValueOf(c).Elem(), d.root, "", n)
	}
}

// settings applies keys given one by one.
func (d *decoder) settings(c *Config, level Level, all []Setting) {
	for _, s := range all {
		k := d.root.find(s.Key)
		if alias := aliasNamed(s.Key); k == nil && alias != nil {
			k = alias.rules(d.root)
		}
		n := &node{shape: text, text: s.Value}
		if k != nil {
			n = k.read(s.Value)
		}
		n.name = last(s.Key)
		n.place(s.Key)
		n.locate(s.Where)
		if k == nil {
			d.unknown(n, d.root.nearestSection(s.Key))
			continue
		}
		d.layer(c, level, nest(s.Key, n))
	}
}

// locate says of n and all below it that they were written there.
func (n *node) locate(where string) {
	n.where = where
	for _, f := range n.fields {
		f.locate(where)
	}
	for _, item := range n.items {
		item.locate(where)
	}
}

// unite lets the store's path and the hot tier's path be one: a tier that is named gives the store its folder, unless a
// person named that too. Then check compares them.
func (e *Effective) unite() {
	const store, hot = "store.path", "storage_tiers.hot.path"
	if e.StorageTiers.Hot.Path != "" && !e.origins[store].Said() {
		e.Store.Path = e.StorageTiers.Hot.Path
		e.origins[store] = e.origins[hot]
	}
}

// find is the file to read, and further files that would have been read without it.
func (r Request) find(env map[string]string) (file string, others []string, err error) {
	if r.File != "" {
		return r.File, nil, nil
	}
	if file := env["EMA_CONFIG"]; file != "" {
		return file, nil, nil
	}
	for _, dir := range folders(env) {
		var here []string
		for _, ending := range []string{".json", ".yaml", ".yml"} {
			name := filepath.Join(dir, "ema"+ending)
			switch _, err := os.Stat(name); {
			case err == nil:
				here = append(here, name)
			case !errors.Is(err, fs.ErrNotExist) && !isNotDir(err):
				return "", nil, unreadable(name, err)
			}
		}
		if len(here) > 0 {
			return here[0], here[1:], nil
		}
	}
	return "", nil, nil
}

// folders are the places of configuration files, nearest first.
func folders(env map[string]string) []string {
	all := []string{"."}
	switch {
	case filepath.IsAbs(env["XDG_CONFIG_HOME"]): // relative ones are to be ignored, says the XDG base directory specification
		all = append(all, filepath.Join(env["XDG_CONFIG_HOME"], "ema"))
	case env["HOME"] != "":
		all = append(all, filepath.Join(env["HOME"], ".config", "ema"))
	}
	return append(all, "/etc/ema")
}

// unreadable is the error for a file that can't be read.
func unreadable(name string, err error) error {
	hint := "check --config and EMA_CONFIG"
	if errors.Is(err, fs.ErrPermission) {
		hint = "make it readable for this user"
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	return &model.Error{Op: "configuration", Class: model.Usage, File: name, Err: err, Hint: hint}
}

// environment is the environment as a table; the last of repeated variables counts, as for the C library's users.
func environment(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, pair := range environ {
		if name, value, ok := strings.Cut(pair, "="); ok {
			env[name] = value
		}
	}
	return env
}
