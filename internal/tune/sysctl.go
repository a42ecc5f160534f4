package tune

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ema/internal/model"
)

const (
	textSocketBuffer = 128 * model.MiB // what the founding text gives a connection at most
	leastBuffer      = 16 * model.MiB
)

// socketBuffer is the most memory that one connection should take on a machine with that much: a sixty-fourth, since
// several connections run at once and the kernel gives all of them together less than a tenth.
func socketBuffer(memory model.Bytes) int64 {
	most := leastBuffer
	for most < textSocketBuffer && 2*most <= memory/64 {
		most *= 2
	}
	return int64(most)
}

// A sysctl is what is advised about one of the kernel's variables.
type sysctl struct {
	name, why, risk string
	// judge is what the value should be, given what it is; the same where it is fine.
	judge func(f Facts, now string) (advised, note string, err error)
	side  []string
}

const (
	moreMemory  = "a connection that uses it all takes that much memory from the machine"
	leftOut     = "it is left as it is"
	congestion  = "net.ipv4.tcp_congestion_control"
	allowed     = "net.ipv4.tcp_allowed_congestion_control"
	available   = "net.ipv4.tcp_available_congestion_control"
	dirtyRatio  = "vm.dirty_ratio"
	dirtyBytes  = "vm.dirty_bytes"
	backRatio   = "vm.dirty_background_ratio"
	backBytes   = "vm.dirty_background_bytes"
	receiveMost = "net.core.rmem_max"
	sendMost    = "net.core.wmem_max"
)

// advisedSysctls are the variables that the founding text names, and the queue that goes with BBR.
func advisedSysctls() []sysctl {
	buffer := func(f Facts, now string) (string, string, error) {
		return atLeast(now, socketBuffer(f.Memory))
	}
	return []sysctl{
		{
			name: receiveMost, judge: buffer, risk: moreMemory,
			why: "the most that a program may ask for; ema asks for none and lets the kernel choose, unless socket_buffer_size is set",
		},
		{name: sendMost, judge: buffer, risk: moreMemory, why: "the same for sending, which matters when models are served to other machines"},
		{
			name: "net.ipv4.tcp_rmem", risk: moreMemory,
			why: "its last number bounds what a connection may have on its way, and so the speed: size / round trip",
			judge: func(f Facts, now string) (string, string, error) {
				return atLeastEach(now, 4096, 87380, socketBuffer(f.Memory))
			},
		},
		{
			name: "net.ipv4.tcp_wmem", risk: moreMemory, why: "the same for sending",
			judge: func(f Facts, now string) (string, string, error) {
				return atLeastEach(now, 4096, 65536, socketBuffer(f.Memory))
			},
		},
		{
			name: "net.core.netdev_max_backlog",
			why:  "packets that wait for a processor when they come in bursts; more than fit are lost and sent again",
			risk: "none that is known; a longer queue can add delay on an overloaded machine",
			judge: func(_ Facts, now string) (string, string, error) {
				return atLeast(now, 5000)
			},
		},
		{
			name: "net.core.default_qdisc",
			why:  "fq sends evenly what BBR wants sent evenly, and shares a link fairly between connections",
			risk: "holds for interfaces that come up later; those that are up keep their queue until they are made anew",
			judge: func(f Facts, now string) (string, string, error) {
				cc := f.Sysctl[congestion].value()
				switch {
				case slices.Contains([]string{"fq", "fq_codel", "cake"}, now):
					return now, "", nil
				case !strings.HasPrefix(cc, "bbr") && !f.canBBR():
					return now, "it goes with BBR, which is not to be had here", nil
				case f.hasModule("sch_fq"):
					return "fq", "", nil
				case f.Modules == "":
					return "", "whether this kernel has fq cannot be told, since its modules are not listed; " + leftOut, nil
				}
				return "", "this kernel does not have fq", nil
			},
		},
		{
			name: congestion, side: []string{sysctlPath(allowed)},
			why:  "BBR goes by the measured rate of the link, so that a few lost packets do not slow a long transfer down",
			risk: "can take more than its share from connections that use cubic; a module that it needs stays loaded after a rollback",
			judge: func(f Facts, now string) (string, string, error) {
				switch {
				case strings.HasPrefix(now, "bbr"):
					return now, "", nil
				case !f.canBBR():
					return "", "this kernel offers " + strings.Join(strings.Fields(f.Sysctl[available].Text), ", ") + " and no module tcp_bbr", nil
				case f.Sysctl[allowed].Err == nil && f.Sysctl[allowed].ReadOnly && !slices.Contains(strings.Fields(f.Sysctl[allowed].Text), "bbr"):
					return "", "only the machine outside of this container can allow BBR", nil
				}
				return "bbr", "", nil
			},
		},
		{
			name: "vm.vfs_cache_pressure",
			why:  "keeps names and attributes of files in memory for longer, so that a store with many models is listed without the disk",
			risk: "memory that is held by names is not there for contents",
			judge: func(_ Facts, now string) (string, string, error) {
				return atMost(now, 50)
			},
		},
		{
			name: dirtyRatio,
			why:  "a program that writes has to wait for the disk from this share of memory on: lower keeps a pull from filling memory with what is yet to be written",
			risk: "writers in bursts wait earlier for the disk",
			judge: func(f Facts, now string) (string, string, error) {
				if set(f.Sysctl[dirtyBytes]) {
					return now, dirtyBytes + " is set in its place; " + leftOut, nil
				}
				return atMost(now, 15)
			},
		},
		{
			name: backRatio,
			why:  "from this share of memory on the kernel writes on its own: earlier makes it even",
			risk: "short-lived files reach the disk more often",
			judge: func(f Facts, now string) (string, string, error) {
				if set(f.Sysctl[backBytes]) {
					return now, backBytes + " is set in its place; " + leftOut, nil
				}
				most := int64(5)
				if ratio, err := counts(f.Sysctl[dirtyRatio].Text, 1); err == nil && ratio[0] > 0 {
					most = max(1, min(most, ratio[0]/2)) // at or above it, the kernel would take half of it all the same
				}
				return atMost(now, most)
			},
		},
	}
}

// sysctlNames are all that is to be read for the advice.
func sysctlNames() []string {
	names := []string{allowed, available, dirtyBytes, backBytes}
	for _, s := range advisedSysctls() {
		names = append(names, s.name)
	}
	return names
}

// set reports whether one of the kernel's limits in bytes holds.
func set(r Reading) bool { return r.Err == nil && r.value() != "" && r.value() != "0" }

// canBBR reports whether the kernel has BBR or could load it.
func (f Facts) canBBR() bool {
	return slices.Contains(strings.Fields(f.Sysctl[available].Text), "bbr") || f.hasModule("tcp_bbr")
}

// atLeast raises a count, and never lowers it.
func atLeast(now string, least int64) (string, string, error) { return atLeastEach(now, least) }

// atLeastEach raises counts, and never lowers one.
func atLeastEach(now string, least ...int64) (string, string, error) {
	is, err := counts(now, len(least))
	if err != nil {
		return "", "", err
	}
	words := make([]string, len(is))
	for i := range is {
		words[i] = strconv.FormatInt(max(is[i], least[i]), 10)
	}
	return strings.Join(words, " "), "", nil
}

// atMost lowers a count, and never raises it.
func atMost(now string, most int64) (string, string, error) {
	is, err := counts(now, 1)
	if err != nil {
		return "", "", err
	}
	return strconv.FormatInt(min(is[0], most), 10), "", nil
}

// sysctls judges the kernel's variables.
func (f Facts) sysctls() []Setting {
	var all []Setting
	for _, v := range advisedSysctls() {
		s := Setting{Area: Sysctl, Name: v.name, Why: v.why, Risk: v.risk}
		now := f.Sysctl[v.name]
		if now.Err != nil {
			s.unknown("%s", now.trouble())
			all = append(all, s)
			continue
		}
		s.Current = strings.Join(strings.Fields(now.Text), " ")
		advised, note, err := v.judge(f, s.Current)
		switch {
		case err != nil:
			s.unknown("%v", err)
		case advised == "":
			s.unknown("%s", note)
		case advised == s.Current:
			s.fine()
			s.Note = note
		case now.ReadOnly:
			s.unknown("it cannot be changed here, only on the machine outside of this container")
			s.Advised = advised
		default:
			s.Status, s.Advised = Advised, advised
			s.values = []value{{path: sysctlPath(v.name), text: advised, side: v.side}}
			s.lines = []line{{File: sysctlFile, Key: v.name, Text: v.name + " = " + advised}}
			if file := f.Later[v.name]; file != "" {
				s.Note = fmt.Sprintf("/%s sets it too and is read later, so that it wins at the next start", file)
			}
		}
		all = append(all, s)
	}
	return all
}
