package config

import (
	_ "embed"
	"fmt"
)

// The profiles, in the words of the founding guide: a profile is what its settings say, applied beneath everything that
// a person sets.
//
//go:embed profiles.json
var profiles []byte

// profile is the document of a profile. The name has been checked against the enumeration of its key.
func profile(name string) (*node, error) {
	all, errs := parse("profiles.json", profiles)
	if len(errs) > 0 {
		return nil, errs
	}
	doc := all.child(name)
	if doc == nil {
		return nil, fmt.Errorf("profile %q is not among the profiles of this program", name)
	}
	doc.place("")
	doc.locate("profile " + name)
	return doc, nil
}

// Profiles are the names of all profiles, in the order of the guide.
func Profiles() []string {
	all, _ := parse("profiles.json", profiles) // which the tests have read
	var names []string
	for _, f := range all.fields {
		names = append(names, f.name)
	}
	return names
}
