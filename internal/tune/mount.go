package tune

import (
	"path"
	"slices"
	"strings"
)

// mountPoints are the mounts on which those folders lie, each once.
func mountPoints(from files, folders []string) []MountPoint {
	text, _, err := from.read("proc/self/mountinfo")
	all := parseMountinfo(text)
	if err != nil {
		text, _, _ = from.read("proc/mounts")
		all = parseMounts(text)
	}
	var some []MountPoint
	for _, folder := range folders {
		best := -1
		for i, m := range all { // of equal ones the later lies above
			if within(folder, m.Point) && (best < 0 || len(m.Point) >= len(all[best].Point)) {
				best = i
			}
		}
		if best >= 0 && !slices.ContainsFunc(some, func(m MountPoint) bool { return m.Point == all[best].Point }) {
			some = append(some, all[best])
		}
	}
	return some
}

// within reports whether a folder is another one or lies below it.
func within(folder, other string) bool {
	folder, other = path.Clean(folder), path.Clean(other)
	return folder == other || other == "/" || strings.HasPrefix(folder, other+"/")
}

// parseMountinfo reads mounts as /proc/self/mountinfo lists them. Lines of another form are passed over.
func parseMountinfo(text string) []MountPoint {
	var all []MountPoint
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash < 6 || len(fields) < dash+4 {
			continue
		}
		m := MountPoint{Point: unescape(fields[4]), Type: fields[dash+1], Device: unescape(fields[dash+2])}
		m.Options = append(strings.Split(fields[5], ","), strings.Split(fields[dash+3], ",")...)
		all = append(all, m)
	}
	return all
}

// parseMounts reads mounts as /proc/mounts and fstab list them.
func parseMounts(text string) []MountPoint {
	var all []MountPoint
	for line := range strings.Lines(text) {
		if m, ok := parseMount(line); ok {
			all = append(all, m)
		}
	}
	return all
}

func parseMount(line string) (MountPoint, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || strings.HasPrefix(fields[0], "#") {
		return MountPoint{}, false
	}
	return MountPoint{Point: unescape(fields[1]), Type: fields[2], Device: unescape(fields[0]), Options: strings.Split(fields[3], ",")}, true
}

// unescape reads \040 and its like, which stand for space in these files.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if d := s[i+1 : i+4]; d[0] >= '0' && d[0] <= '3' && d[1] >= '0' && d[1] <= '7' && d[2] >= '0' && d[2] <= '7' {
				b.WriteByte((d[0]-'0')<<6 | (d[1]-'0')<<3 | (d[2] - '0'))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mounts judges the file systems on which models lie.
func (f Facts) mounts() []Setting {
	if len(f.Mounts) == 0 {
		s := Setting{Area: Mount, Name: "noatime", Why: "the file system of the models"}
		s.unknown("on which file system the models lie cannot be told")
		return []Setting{s}
	}
	var all []Setting
	for _, m := range f.Mounts {
		all = append(all, f.noatime(m), m.fileSystem())
		if s, ok := m.journal(); ok {
			all = append(all, s)
		}
		if s, ok := f.trimmed(m); ok {
			all = append(all, s)
		}
	}
	return all
}

// local are the file systems that keep files on a disk of this machine and know noatime.
func local() []string { return []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "bcachefs"} }

// noatime is the setting by which reading a file writes nothing.
func (f Facts) noatime(m MountPoint) Setting {
	s := Setting{
		Area: Mount, Name: m.Point + " noatime", Current: "atime",
		Why:  "reading a model writes nothing then; relatime still writes once a day for each file",
		Risk: "programs that go by the time of the last reading, like some mail readers, miss it; ema does not",
	}
	for _, o := range []string{"relatime", "strictatime", "noatime"} {
		if slices.Contains(m.Options, o) {
			s.Current = o
		}
	}
	switch {
	case s.Current == "noatime":
		s.fine()
		return s
	case !slices.Contains(local(), m.Type):
		s.unknown("%s is no file system of a disk of this machine", m.Type)
		return s
	}
	s.Status, s.Advised = ByHand, "noatime"
	s.Command = "mount -o remount,noatime " + quoted(m.Point)
	if f.Fstab.Err != nil {
		s.Note = "it lasts until the next start: /etc/fstab: " + f.Fstab.trouble()
		return s
	}
	switch _, err := withNoatime(f.Fstab.Text, m.Point); {
	case err == nil:
		s.mount = m.Point
		s.Note = "apply --edit-fstab makes it last"
	case err == errHasNoatime: //nolint:errorlint // it is never wrapped
		s.Note = "/etc/fstab says so already: it holds from the next mount on"
	default:
		s.Note = "it lasts until the next start: /etc/fstab: " + err.Error()
	}
	return s
}

// quoted is a word as a shell reads it.
func quoted(word string) string {
	harmless := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./", r)
	}
	if !strings.ContainsFunc(word, func(r rune) bool { return !harmless(r) }) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// fileSystem judges the kind of file system.
func (m MountPoint) fileSystem() Setting {
	s := Setting{
		Area: Mount, Name: m.Point + " file system", Current: m.Type,
		Why:  "large files, names that links share and a journal: ext4, or XFS for very large files",
		Risk: "only a new file system changes it: everything on it has to be copied away and back",
	}
	switch m.Type {
	case "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs":
		s.fine()
	case "ext2", "ext3", "vfat", "exfat", "ntfs", "ntfs3", "fuseblk":
		s.Status, s.Advised = ByHand, "ext4 or xfs"
		s.Note = "it is chosen when a disk is set up; nothing here needs it at once"
	default:
		s.unknown("%s: nothing is known about models on it", m.Type)
	}
	return s
}

// journal warns of a mount by which a crash may bring back bytes that were deleted. The founding text advises it for
// disks with moving parts; here it is only advised against.
func (m MountPoint) journal() (Setting, bool) {
	if !slices.Contains(m.Options, "data=writeback") {
		return Setting{}, false
	}
	return Setting{
		Area: Mount, Name: m.Point + " data", Status: ByHand, Current: "writeback", Advised: "ordered",
		Why:  "with data=writeback a file may hold after a crash what another one had there before",
		Risk: "writing many small files can be slower",
		Note: "remove data=writeback from its line in /etc/fstab and mount it anew",
	}, true
}

// trimmed tells how a disk without moving parts learns what is no longer used.
func (f Facts) trimmed(m MountPoint) (Setting, bool) {
	flash := slices.ContainsFunc(f.Disks, func(d Disk) bool {
		rotates, err := d.rotates()
		return err == nil && !rotates && strings.HasPrefix(m.Device, "/dev/"+d.Name)
	})
	if !flash || !slices.Contains(local(), m.Type) {
		return Setting{}, false
	}
	s := Setting{
		Area: Mount, Name: m.Point + " discard",
		Why:  "the disk stays fast when it knows what is free; once a week is enough, while discard costs at each removal",
		Risk: "what was removed cannot be recovered any more",
	}
	switch {
	case slices.ContainsFunc(m.Options, func(o string) bool { return o == "discard" || strings.HasPrefix(o, "discard=") && o != "discard=none" }):
		s.Current = "discard"
		s.fine()
	case f.Trim:
		s.Current = "fstrim.timer"
		s.fine()
	default:
		s.Status, s.Current, s.Advised, s.Command = ByHand, "none", "fstrim.timer", "systemctl enable --now fstrim.timer"
	}
	return s, true
}

// fstabError says why a line of fstab stays as it is.
type fstabError string

func (e fstabError) Error() string { return string(e) }

const (
	errHasNoatime = fstabError("noatime is there already")
	errNoLine     = fstabError("there is no line of it")
	errLines      = fstabError("there is more than one line of it")
	errAtime      = fstabError("its line asks for times of reading")
)

// withNoatime is an fstab whose line for that mount point has noatime too. Every other byte stays.
func withNoatime(text, point string) (string, error) {
	var out strings.Builder
	found := 0
	for line := range strings.Lines(text) {
		m, ok := parseMount(line)
		if !ok || m.Point != point || m.Type == "swap" {
			out.WriteString(line)
			continue
		}
		found++
		if slices.Contains(m.Options, "noatime") {
			return "", errHasNoatime
		}
		if slices.Contains(m.Options, "strictatime") || slices.Contains(m.Options, "atime") {
			return "", errAtime
		}
		end := endOfField(line, 3)
		out.WriteString(line[:end] + ",noatime" + line[end:])
	}
	switch found {
	case 0:
		return "", errNoLine
	case 1:
		return out.String(), nil
	}
	return "", errLines
}

// endOfField is where the field with that number, from 0 on, ends in a line; they are what strings.Fields finds.
func endOfField(line string, number int) int {
	rest, at := line, 0
	for field := range strings.FieldsSeq(line) {
		at += strings.Index(rest, field) + len(field)
		rest = line[at:]
		if number--; number < 0 {
			break
		}
	}
	return at
}
