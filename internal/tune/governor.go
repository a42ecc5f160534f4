package tune

import (
	"fmt"
	"slices"
	"strings"
)

const performance = "performance"

// governors judges how fast processors run. Those that are governed alike are one setting.
func (f Facts) governors() []Setting {
	base := Setting{
		Area: Governor, Name: "scaling_governor",
		Why:  "hashing and TLS come in bursts, at whose start a processor that saves power is slow",
		Risk: "more power, heat and noise; ondemand and schedutil are a balance",
	}
	if len(f.CPUs) == 0 {
		base.unknown("the speed of the processors cannot be governed here, as in most virtual machines")
		return []Setting{base}
	}
	var all []Setting
	alike := map[string]int{} // where in all the group lies
	for _, c := range f.CPUs {
		s := base
		s.Current = c.Governor.value()
		offered := strings.Fields(c.Available.Text)
		switch {
		case c.Governor.Err != nil:
			s.unknown("%s", c.Governor.trouble())
		case s.Current == performance:
			s.fine()
		case f.Battery:
			s.fine()
			s.Note = "this machine has a battery, which the fastest governor would empty sooner"
		case c.Available.Err != nil || !slices.Contains(offered, performance):
			s.unknown("no governor named performance is offered")
		case c.Governor.ReadOnly:
			s.unknown("it cannot be changed here")
		default:
			s.Status, s.Advised = Advised, performance
			file := fmt.Sprintf("sys/devices/system/cpu/%s/cpufreq/scaling_governor", c.Name)
			s.values = []value{{path: file, text: performance}}
			s.lines = []line{{File: tmpfilesFile, Key: file, Text: fmt.Sprintf("w /%s - - - - %s", file, performance)}}
		}
		group := strings.Join([]string{string(s.Status), s.Current, s.Note}, "\x00")
		i, known := alike[group]
		if !known {
			alike[group] = len(all)
			s.Name = c.Name
			all = append(all, s)
			continue
		}
		all[i].Name += " " + c.Name
		all[i].values = append(all[i].values, s.values...)
		all[i].lines = append(all[i].lines, s.lines...)
	}
	for i := range all {
		names := strings.Fields(all[i].Name)
		all[i].Name = names[0] + " scaling_governor"
		if n := len(names) - 1; n > 0 {
			all[i].Name = fmt.Sprintf("%s and %d more scaling_governor", names[0], n)
		}
	}
	return all
}
