package tune

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A choice is one word of several, as the kernel offers them: "none [mq-deadline] kyber".
type choice struct {
	selected string
	offered  []string
}

// parseChoice reads what the kernel offers, with what is chosen in brackets. A word alone is chosen.
func parseChoice(text string) (choice, error) {
	var c choice
	for word := range strings.FieldsSeq(text) {
		inner, ok := strings.CutPrefix(word, "[")
		if ok {
			inner, ok = strings.CutSuffix(inner, "]")
			if !ok || c.selected != "" {
				return choice{}, fmt.Errorf("%w: %q", errMalformed, text)
			}
			c.selected, word = inner, inner
		}
		if word == "" || strings.ContainsAny(word, "[]\"\\") {
			return choice{}, fmt.Errorf("%w: %q", errMalformed, text)
		}
		c.offered = append(c.offered, word)
	}
	if c.selected == "" && len(c.offered) == 1 {
		c.selected = c.offered[0]
	}
	if c.selected == "" {
		return choice{}, fmt.Errorf("%w: %q", errMalformed, text)
	}
	return c, nil
}

// first is the first of some words that is offered; empty when none is.
func (c choice) first(words ...string) string {
	for _, w := range words {
		if slices.Contains(c.offered, w) {
			return w
		}
	}
	return ""
}

// What is read ahead at least, in KiB.
const (
	readAheadFlash = 512
	readAheadDisk  = 1024
)

// schedulers judges the order of requests to each disk, and how much is read ahead.
func (f Facts) schedulers() []Setting {
	if len(f.Disks) == 0 {
		s := Setting{Area: Scheduler, Name: "scheduler", Why: "the order of requests to a disk"}
		s.unknown("this machine shows no disks")
		return []Setting{s}
	}
	var all []Setting
	for _, d := range f.Disks {
		all = append(all, d.scheduler(), d.readAhead())
	}
	return all
}

func (d Disk) queue(name string) string { return "sys/block/" + d.Name + "/queue/" + name }

// rule is the line for udev that sets an attribute of the disk. Names may change from start to start, so that it says the
// kind of disk too: a disk of the other kind is never given what is not for it.
func (d Disk) rule(attribute, text string) line {
	return line{
		File: udevFile, Key: d.Name + " " + attribute,
		Text: fmt.Sprintf(`ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", KERNEL=="%s", ATTR{queue/rotational}=="%s", ATTR{queue/%s}="%s"`,
			d.Name, d.Rotational.value(), attribute, text),
	}
}

// rotates reports whether the disk has parts that move.
func (d Disk) rotates() (bool, error) {
	if d.Rotational.Err != nil {
		return false, d.Rotational.Err
	}
	switch d.Rotational.value() {
	case "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, fmt.Errorf("%w: %q", errMalformed, d.Rotational.Text)
}

// virtual reports whether the disk is one that the machine outside makes: what it is made of cannot be seen from here, and
// most say that they rotate.
func (d Disk) virtual() bool {
	return strings.HasPrefix(d.Name, "vd") || strings.HasPrefix(d.Name, "xvd")
}

func (d Disk) scheduler() Setting {
	s := Setting{
		Area: Scheduler, Name: d.Name + " scheduler",
		Why:  "a disk without moving parts needs no order, and orders by itself",
		Risk: "without a scheduler storage_tiers.*.io_priority does not act on that disk",
	}
	rotates, err := d.rotates()
	if d.virtual() {
		rotates, err = false, nil
		s.Why = "the machine outside orders what a virtual disk is asked for once more"
	}
	if err == nil && rotates {
		s.Why = "a disk with moving parts is faster in order, and a deadline keeps readers from waiting behind long writes"
		s.Risk = "bfq shares a disk more evenly between programs that read at once"
	}
	if d.Scheduler.Err != nil {
		s.unknown("%s", d.Scheduler.trouble())
		return s
	}
	c, malformed := parseChoice(d.Scheduler.Text)
	if malformed != nil {
		s.unknown("%v", malformed)
		return s
	}
	s.Current = c.selected
	if err != nil {
		s.unknown("whether the disk rotates cannot be told: %v", err)
		return s
	}
	good, wanted := []string{"none", "noop", "mq-deadline", "kyber"}, c.first("none", "noop")
	if strings.HasPrefix(d.Name, "nvme") {
		good = []string{"none", "noop"}
	}
	if rotates {
		good, wanted = []string{"mq-deadline", "deadline"}, c.first("mq-deadline", "deadline")
	}
	switch {
	case slices.Contains(good, c.selected):
		s.fine()
	case wanted == "":
		s.unknown("this kernel offers only %s", strings.Join(c.offered, ", "))
	case d.Scheduler.ReadOnly:
		s.unknown("it cannot be changed here")
		s.Advised = wanted
	default:
		s.Status, s.Advised = Advised, wanted
		s.values = []value{{path: d.queue("scheduler"), text: wanted, side: d.tunables}}
		s.lines = []line{d.rule("scheduler", wanted)}
	}
	return s
}

func (d Disk) readAhead() Setting {
	s := Setting{
		Area: Scheduler, Name: d.Name + " read_ahead_kb",
		Why:  "models are read from front to back, mostly through memory maps, where each miss fetches at most this much",
		Risk: "programs that read here and there, like databases, read more than they need",
	}
	if d.ReadAhead.Err != nil {
		s.unknown("%s", d.ReadAhead.trouble())
		return s
	}
	s.Current = d.ReadAhead.value()
	rotates, err := d.rotates()
	if d.virtual() {
		rotates, err = false, nil
	}
	if err != nil {
		s.unknown("whether the disk rotates cannot be told: %v", err)
		return s
	}
	least := int64(readAheadFlash)
	if rotates {
		least = readAheadDisk
	}
	is, err := counts(s.Current, 1)
	switch {
	case err != nil:
		s.unknown("%v", err)
	case is[0] >= least:
		s.fine()
	case d.ReadAhead.ReadOnly:
		s.unknown("it cannot be changed here")
	default:
		s.Status, s.Advised = Advised, strconv.FormatInt(least, 10)
		s.values = []value{{path: d.queue("read_ahead_kb"), text: s.Advised}}
		s.lines = []line{d.rule("read_ahead_kb", s.Advised)}
	}
	return s
}
