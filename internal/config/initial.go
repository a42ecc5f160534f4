package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Initial is a fresh configuration file in YAML: every key with its description and default, commented out, so that the
// file changes nothing and later versions may choose better defaults.
func Initial() ([]byte, error) {
	root, err := tree()
	if err != nil {
		return nil, err
	}
	if err := root.describe(); err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("# Settings of ema. Take the # off a key to set it; \"ema config validate\" checks the file.\n" +
		"# Units: _kb, _mb and _gb count in KiB, MiB and GiB; _mbps in MiB per second.\n")
	root.write(&b, reflect.ValueOf(Default()), "")
	return []byte(b.String()), nil
}

// write prints what is in a section.
func (k *key) write(b *strings.Builder, v reflect.Value, indent string) {
	for _, c := range k.children {
		if indent == "" || c.isSection() {
			b.WriteString("\n")
		}
		comment(b, indent, c.doc)
		switch c.typ.Kind() {
		case reflect.Struct:
			b.WriteString(indent + c.name + ":\n")
			c.write(b, v.Field(c.index), indent+"  ")
			continue
		case reflect.Map:
			b.WriteString(indent + c.name + ":\n")
			comment(b, indent+"  ", "For example:")
			b.WriteString(indent + "  # business_hours: {start: \"09:00\", end: \"17:00\", days: [mon, tue, wed, thu, fri], limit_mbps: 50}\n")
			b.WriteString(indent + "  # off_hours: {limit_mbps: 0}\n")
			continue
		}
		comment(b, indent, upperFirst(c.allowed())+"."+c.remarks())
		fmt.Fprintf(b, "%s# %s: %s\n", indent, c.name, encode(v.Field(c.index)))
	}
}

// comment prints a text in lines of a width that is pleasant to read.
func comment(b *strings.Builder, indent, s string) {
	const width = 100
	line := indent + "#"
	for word := range strings.FieldsSeq(s) {
		if len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	if line != indent+"#" {
		b.WriteString(line + "\n")
	}
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
