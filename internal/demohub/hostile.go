package demohub

import "strings"

// HostileNames are listings that no client may follow blindly, by what is wrong with them. Names that
// differ only in case are no crime, but a trap on some file systems.
func HostileNames() map[string][]Entry {
	one := func(paths ...string) []Entry {
		var entries []Entry
		for i, p := range paths {
			entries = append(entries, Bytes(p, []byte{byte('a' + i), '\n'}))
		}
		return entries
	}
	return map[string][]Entry{
		"climbs out of its folder":           one("../outside.bin"),
		"climbs out from further in":         one("sub/../../outside.bin"),
		"is absolute":                        one("/etc/outside.bin"),
		"contains NUL":                       one("model\x00.bin"),
		"contains a line feed":               one("model\n.bin"),
		"contains a backslash":               one(`..\outside.bin`),
		"begins with a drive letter":         one("C:outside.bin"),
		"has an empty segment":               one("sub//model.bin"),
		"has a dot segment":                  one("sub/./model.bin"),
		"is a dot":                           one("."),
		"is empty":                           one(""),
		"has a segment of 300 bytes":         one(strings.Repeat("n", 300) + ".bin"),
		"has 5000 bytes":                     one(strings.Repeat(strings.Repeat("d", 249)+"/", 20) + "model.bin"),
		"is listed twice":                    one("model.bin", "model.bin"),
		"is both a file and a folder":        one("model", "model/weights.bin"),
		"differs from another by case alone": one("Model.bin", "model.bin"),
		"looks like a symbolic link":         one("model.bin -> ..", "model.bin -> ../outside.bin"),
	}
}
