// Package tune compares the operating system's settings with what suits a machine that keeps models, and changes them
// so that it can be undone exactly.
//
// Look reads the facts below a root folder, Advise judges them and reads nothing, and a Machine applies advice and takes
// it back. TrendOf says where a figure of this machine is going, and Decide which of the daemon's own settings is to be changed for
// that, measured, and kept or undone. Nothing here acts by itself.
package tune

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ema/internal/model"
)

// An Area is a group of settings that is checked, applied and taken back together.
type Area string

// The areas, in the order in which they are told.
const (
	Sysctl    Area = "sysctl"    // network and virtual memory
	Scheduler Area = "scheduler" // how requests to disks are ordered, and how much is read ahead
	Governor  Area = "governor"  // how fast processors run
	Mount     Area = "mount"     // how the file systems of models are mounted
	Postgres  Area = "postgres"  // the database of the analytics
)

// Areas are all of them, in their order.
func Areas() []Area { return []Area{Sysctl, Scheduler, Governor, Mount, Postgres} }

// ParseAreas reads names that are separated by commas; none at all are all areas.
func ParseAreas(list string) ([]Area, error) {
	if list == "" {
		return Areas(), nil
	}
	var some []Area
	for name := range strings.SplitSeq(list, ",") {
		area := Area(strings.TrimSpace(name))
		if !slices.Contains(Areas(), area) {
			return nil, &model.Error{
				Op: "tune", Class: model.Usage, Err: fmt.Errorf("%q is no area of settings", name),
				Hint: "name some of sysctl, scheduler, governor, mount and postgres, separated by commas",
			}
		}
		some = append(some, area)
	}
	return some, nil
}

// A Status is what is to be done about a setting.
type Status string

// The states of a setting.
const (
	Fine    Status = "ok"      // it is as advised, or better
	Advised Status = "advised" // another value is advised, and apply sets it
	ByHand  Status = "by_hand" // another value is advised, and a person has to set it: Command says how
	Unknown Status = "unknown" // it does not exist on this machine, or cannot be read or changed: Note says why
)

// A Setting is one setting of the operating system: what it is, what it should be, and why.
type Setting struct {
	Area    Area   `json:"area"`
	Name    string `json:"name"`
	Status  Status `json:"status"`
	Current string `json:"current,omitempty"`
	Advised string `json:"advised,omitempty"` // of Fine the same as Current
	Why     string `json:"why"`
	Risk    string `json:"risk"`
	Note    string `json:"note,omitempty"`
	Command string `json:"command,omitempty"` // of ByHand
	Restart bool   `json:"restart,omitempty"` // it acts once PostgreSQL, whose it is, is started again

	values []value // what apply writes for the kernel
	lines  []line  // what apply keeps for the next start
	mount  string  // the mount point whose line in fstab gets noatime; "" = none
	server bool    // it is one of PostgreSQL's, which a Cluster sets to Advised
}

// A value is what a file of the kernel is to hold.
type value struct {
	path string   // below the root
	text string   // without a line feed
	side []string // files of the kernel that change with this one; they are taken back too
}

// A line is one line of a file that is read at the start of the machine.
type line struct {
	File string `json:"file"` // below the root
	Key  string `json:"key"`  // a later line with the same key replaces an earlier one
	Text string `json:"text"` // without a line feed
}

// The files that hold what is to last. Each sorts after those of distributions, and before those by which people
// overrule them.
const (
	sysctlFile   = "etc/sysctl.d/90-ema.conf"
	udevFile     = "etc/udev/rules.d/90-ema.rules"
	tmpfilesFile = "etc/tmpfiles.d/ema.conf"
	fstabFile    = "etc/fstab"
)

// Advise says of each setting of the text what it should be on that machine. It reads nothing.
func Advise(f Facts) []Setting {
	all := f.sysctls()
	all = append(all, f.schedulers()...)
	all = append(all, f.governors()...)
	all = append(all, f.mounts()...)
	return append(all, f.database()...)
}

// Only are the settings of some areas.
func Only(all []Setting, areas []Area) []Setting {
	return slices.DeleteFunc(slices.Clone(all), func(s Setting) bool { return !slices.Contains(areas, s.Area) })
}

// fine says that the setting stays as it is.
func (s *Setting) fine() { s.Status, s.Advised = Fine, s.Current }

// unknown says why nothing can be said about the setting, or done.
func (s *Setting) unknown(form string, values ...any) {
	s.Status, s.Note = Unknown, fmt.Sprintf(form, values...)
}

// errMalformed is wrapped where a file is not of the form that it should have.
var errMalformed = errors.New("it is not of the expected form")
