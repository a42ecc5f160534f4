package tune

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"ema/internal/model"
)

func named(t *testing.T, all []Setting, name string) Setting {
	t.Helper()
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no setting %q", name)
	return Setting{}
}

// adviceOf judges the ordinary machine with those changes; "-" takes a file away.
func adviceOf(t *testing.T, changes map[string]string) []Setting {
	t.Helper()
	all := ordinary()
	for name, text := range changes {
		if all[name] = text; text == "-" {
			delete(all, name)
		}
	}
	return advice(newStand(t, all).open(t))
}

func TestAdviceFitsTheMachine(t *testing.T) {
	sys := sysctlPath
	for promise, c := range map[string]struct {
		changes map[string]string
		name    string
		status  Status
		advised string
		note    string // a part of it
	}{
		"a limit is raised to the text's":                {nil, "net.core.rmem_max", Advised, "134217728", ""},
		"a higher limit stays":                           {map[string]string{sys("net.core.rmem_max"): "268435456\n"}, "net.core.rmem_max", Fine, "268435456", ""},
		"each number of three is only ever raised":       {map[string]string{sys("net.ipv4.tcp_rmem"): "8192 131072 6291456\n"}, "net.ipv4.tcp_rmem", Advised, "8192 131072 134217728", ""},
		"the start of sending is raised":                 {nil, "net.ipv4.tcp_wmem", Advised, "4096 65536 134217728", ""},
		"a small machine gets small buffers":             {map[string]string{"proc/meminfo": "MemTotal: 2097152 kB\n"}, "net.core.wmem_max", Advised, "33554432", ""},
		"an unknown memory gets the smallest":            {map[string]string{"proc/meminfo": "-"}, "net.core.wmem_max", Advised, "16777216", ""},
		"bbr is advised where it can be loaded":          {nil, congestion, Advised, "bbr", ""},
		"bbr is fine":                                    {map[string]string{sys(congestion): "bbr\n"}, congestion, Fine, "bbr", ""},
		"bbr is advised where it is offered":             {map[string]string{"lib/modules/6.1.0/modules.dep": "-", sys(available): "reno bbr cubic\n"}, congestion, Advised, "bbr", ""},
		"no bbr where there is none":                     {map[string]string{"lib/modules/6.1.0/modules.dep": "-"}, congestion, Unknown, "", "offers reno, cubic"},
		"fq goes with bbr":                               {nil, "net.core.default_qdisc", Advised, "fq", ""},
		"fq_codel is as good":                            {map[string]string{sys("net.core.default_qdisc"): "fq_codel\n"}, "net.core.default_qdisc", Fine, "fq_codel", ""},
		"no fq where nobody knows of one":                {map[string]string{"lib/modules/6.1.0/modules.dep": "-", sys(congestion): "bbr\n"}, "net.core.default_qdisc", Unknown, "", "cannot be told"},
		"no fq without bbr":                              {map[string]string{"lib/modules/6.1.0/modules.dep": "-"}, "net.core.default_qdisc", Fine, "pfifo_fast", "BBR"},
		"pressure on names is lowered":                   {nil, "vm.vfs_cache_pressure", Advised, "50", ""},
		"a lower pressure stays":                         {map[string]string{sys("vm.vfs_cache_pressure"): "10\n"}, "vm.vfs_cache_pressure", Fine, "10", ""},
		"writers wait earlier":                           {nil, dirtyRatio, Advised, "15", ""},
		"a limit in bytes is somebody's choice":          {map[string]string{sys(dirtyRatio): "0\n", sys(dirtyBytes): "1000000\n"}, dirtyRatio, Fine, "0", "vm.dirty_bytes"},
		"the kernel begins before writers wait":          {map[string]string{sys(dirtyRatio): "6\n"}, backRatio, Advised, "3", ""},
		"what is missing says so":                        {map[string]string{sys(dirtyRatio): "-"}, dirtyRatio, Unknown, "", "does not have it"},
		"what is malformed says so":                      {map[string]string{sys("net.ipv4.tcp_rmem"): "many\n"}, "net.ipv4.tcp_rmem", Unknown, "", "form"},
		"what overrules it is named":                     {map[string]string{"etc/sysctl.d/99-own.conf": "-vm/dirty_ratio=30\n"}, dirtyRatio, Advised, "15", "/etc/sysctl.d/99-own.conf"},
		"what is read before is not":                     {map[string]string{"etc/sysctl.d/10-own.conf": "vm.dirty_ratio=30\n"}, dirtyRatio, Advised, "15", ""},
		"nvme needs no order":                            {nil, "nvme0n1 scheduler", Advised, "none", ""},
		"other flash is fine with a deadline":            {map[string]string{"sys/block/sda/queue/rotational": "0\n", "sys/block/sda/queue/scheduler": "none [mq-deadline]\n"}, "sda scheduler", Fine, "mq-deadline", ""},
		"moving parts need a deadline":                   {nil, "sda scheduler", Advised, "mq-deadline", ""},
		"old kernels call it deadline":                   {map[string]string{"sys/block/sda/queue/scheduler": "noop deadline [cfq]\n"}, "sda scheduler", Advised, "deadline", ""},
		"old kernels call it noop":                       {map[string]string{"sys/block/nvme0n1/queue/scheduler": "noop deadline [cfq]\n"}, "nvme0n1 scheduler", Advised, "noop", ""},
		"what is not offered is not advised":             {map[string]string{"sys/block/sda/queue/scheduler": "[none] kyber\n"}, "sda scheduler", Unknown, "", "only none, kyber"},
		"a disk of unknown kind is left alone":           {map[string]string{"sys/block/sda/queue/rotational": "-"}, "sda scheduler", Unknown, "", "rotates"},
		"a virtual disk is what it is":                   {map[string]string{"sys/block/vda/queue/scheduler": "[none] mq-deadline\n", "sys/block/vda/queue/rotational": "1\n"}, "vda scheduler", Fine, "none", ""},
		"a virtual disk needs no fair shares":            {map[string]string{"sys/block/vda/queue/scheduler": "none mq-deadline [bfq]\n", "sys/block/vda/queue/rotational": "1\n"}, "vda scheduler", Advised, "none", ""},
		"flash reads ahead":                              {nil, "nvme0n1 read_ahead_kb", Advised, "512", ""},
		"disks with moving parts read further":           {nil, "sda read_ahead_kb", Advised, "1024", ""},
		"more read ahead stays":                          {map[string]string{"sys/block/sda/queue/read_ahead_kb": "4096\n"}, "sda read_ahead_kb", Fine, "4096", ""},
		"processors that are alike are one setting":      {nil, "cpu0 and 1 more scaling_governor", Advised, "performance", ""},
		"a battery is spared":                            {map[string]string{"sys/class/power_supply/BAT0/type": "Battery\n"}, "cpu0 and 1 more scaling_governor", Fine, "powersave", "battery"},
		"what no processor offers is not advised":        {map[string]string{"sys/devices/system/cpu/cpu0/cpufreq/scaling_available_governors": "ondemand\n"}, "cpu0 scaling_governor", Unknown, "", "offered"},
		"noatime is done by hand":                        {nil, "/ noatime", ByHand, "noatime", "--edit-fstab"},
		"names with spaces are understood":               {nil, "/fast nvme noatime", ByHand, "noatime", "--edit-fstab"},
		"noatime is fine":                                {map[string]string{"proc/self/mountinfo": strings.ReplaceAll(mountinfo, "relatime", "noatime")}, "/ noatime", Fine, "noatime", ""},
		"a line that says so already waits for a mount":  {map[string]string{"etc/fstab": "UUID=1 / ext4 noatime 0 1\n"}, "/ noatime", ByHand, "noatime", "next mount"},
		"a line that asks for times is left alone":       {map[string]string{"etc/fstab": "UUID=1 / ext4 strictatime 0 1\n"}, "/ noatime", ByHand, "noatime", "asks for times"},
		"what is no disk is left alone":                  {map[string]string{"proc/self/mountinfo": "22 1 0:1 / / rw,relatime - overlay overlay rw\n"}, "/ noatime", Unknown, "", "overlay"},
		"mounts are also listed elsewhere":               {map[string]string{"proc/self/mountinfo": "-", "proc/mounts": "/dev/sda1 / ext4 rw,relatime 0 0\n"}, "/ noatime", ByHand, "noatime", ""},
		"the kind of file system is judged":              {map[string]string{"proc/self/mountinfo": "22 1 8:1 / / rw,noatime - ntfs3 /dev/sda1 rw\n"}, "/ file system", ByHand, "ext4 or xfs", "set up"},
		"data=writeback is advised against":              {map[string]string{"proc/self/mountinfo": "22 1 8:1 / / rw,noatime - ext4 /dev/sda1 rw,data=writeback\n"}, "/ data", ByHand, "ordered", "fstab"},
		"flash is told weekly what is free":              {nil, "/fast nvme discard", ByHand, "fstrim.timer", ""},
		"discard is fine":                                {map[string]string{"proc/self/mountinfo": strings.ReplaceAll(mountinfo, "attr2", "discard")}, "/fast nvme discard", Fine, "discard", ""},
		"a timer that runs is fine":                      {map[string]string{"etc/systemd/system/timers.target.wants/fstrim.timer": ""}, "/fast nvme discard", Fine, "fstrim.timer", ""},
		"PostgreSQL gets at most what the text says":     {nil, "shared_buffers", ByHand, "2048MB", ""},
		"PostgreSQL on a small machine gets a quarter":   {map[string]string{"proc/meminfo": "MemTotal: 4194304 kB\n"}, "shared_buffers", ByHand, "1024MB", ""},
		"sorts on a small machine get little":            {map[string]string{"proc/meminfo": "MemTotal: 4194304 kB\n"}, "work_mem", ByHand, "64MB", ""},
		"PostgreSQL on an unknown machine is left alone": {map[string]string{"proc/meminfo": "-"}, "settings", Unknown, "", "memory"},
	} {
		t.Run(promise, func(t *testing.T) {
			s := named(t, adviceOf(t, c.changes), c.name)
			if s.Status != c.status || s.Advised != c.advised || !strings.Contains(s.Note, c.note) || c.note == "" && s.Status == Unknown {
				t.Errorf("%+v, want %s %q (%s)", s, c.status, c.advised, c.note)
			}
		})
	}
}

func TestEachSettingSaysWhyAndWhatItRisks(t *testing.T) {
	for _, changes := range []map[string]string{nil, {"proc/meminfo": "-"}} {
		for _, s := range adviceOf(t, changes) {
			changes := len(s.values)+len(s.lines) > 0
			if s.Why == "" || s.Risk == "" && s.Status != Unknown || s.Status == Unknown && s.Note == "" || changes != (s.Status == Advised) {
				t.Errorf("%+v", s)
			}
		}
	}
}

func TestAnEmptyRootHasNothingToAdvise(t *testing.T) {
	m := newStand(t, nil).open(t)
	all := Advise(m.Look([]string{"/models"}, Database{}))
	for _, s := range all {
		if s.Status != Unknown || s.Note == "" {
			t.Errorf("%+v", s)
		}
	}
	if len(Changes(all, true)) > 0 || len(all) < len(advisedSysctls())+4 {
		t.Errorf("%d settings, changes %v", len(all), Changes(all, true))
	}
}

func TestWhatThisUserMayNotReadSaysSo(t *testing.T) {
	f := Facts{Sysctl: map[string]Reading{}}
	for _, name := range sysctlNames() {
		f.Sysctl[name] = Reading{Err: fs.ErrPermission}
	}
	if s := named(t, Advise(f), dirtyRatio); s.Status != Unknown || !strings.Contains(s.Note, "may not read") {
		t.Errorf("%+v", s)
	}
	f.Sysctl[congestion] = Reading{Text: "cubic\n"}
	f.Sysctl[available] = Reading{Text: "cubic bbr\n"}
	f.Sysctl[allowed] = Reading{Text: "cubic\n", ReadOnly: true}
	if s := named(t, Advise(f), congestion); s.Status != Unknown || !strings.Contains(s.Note, "container") {
		t.Errorf("what a container may not choose is advised: %+v", s)
	}
	f.Sysctl[dirtyRatio] = Reading{Text: "20\n", ReadOnly: true}
	if s := named(t, Advise(f), dirtyRatio); s.Status != Unknown || s.Advised != "15" || s.values != nil {
		t.Errorf("what nobody can write is changed: %+v", s)
	}
}

func TestAreasAreNamedOrRefused(t *testing.T) {
	if some, err := ParseAreas("mount, sysctl"); err != nil || len(some) != 2 || some[0] != Mount {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := ParseAreas("sysctl,disks"); model.ClassOf(err) != model.Usage {
		t.Errorf("%v", err)
	}
	if all, err := ParseAreas(""); err != nil || len(all) != len(Areas()) {
		t.Errorf("%v, %v", all, err)
	}
}

func TestARootThatIsNoFolderIsRefused(t *testing.T) {
	if _, err := Open(t.TempDir()+"/none", t.TempDir()); model.ClassOf(err) != model.Usage || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func FuzzChoice(f *testing.F) {
	for _, seed := range []string{"[none] mq-deadline", "none [mq-deadline] kyber bfq\n", "none\n", "[a] [b]", "[", "a b", "[]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseChoice(text)
		if err == nil && (c.selected == "" || c.first(c.selected) != c.selected || strings.ContainsAny(c.selected, " \n[]\"")) {
			t.Errorf("%q is read as %+v", text, c)
		}
	})
}

func FuzzCounts(f *testing.F) {
	f.Add("4096\t131072\t6291456\n", int64(5000))
	f.Add("-1 2 3", int64(0))
	f.Add("99999999999999999999 1 1", int64(1))
	f.Fuzz(func(t *testing.T, text string, least int64) {
		if least < 0 {
			return
		}
		raised, _, err := atLeastEach(text, least, least, least)
		if err != nil {
			return
		}
		is, _ := counts(text, 3)
		now, err := counts(raised, 3)
		for i := range now {
			if now[i] < is[i] || now[i] < least {
				t.Errorf("%q is made %q", text, raised)
			}
		}
		if err != nil {
			t.Errorf("%q is made %q: %v", text, raised, err)
		}
	})
}

func FuzzFstab(f *testing.F) {
	for _, seed := range []string{fstab, "a / ext4 defaults", "\ta\t/\text4\tdefaults,x\t0 0\r\n", "a / ext4 atime\na / xfs rw\n", "# a / ext4 rw\n", "/ / / /", `a /\057 b c`} {
		f.Add(seed, "/")
	}
	f.Fuzz(func(t *testing.T, text, point string) {
		edited, err := withNoatime(text, point)
		if err != nil {
			return
		}
		if len(edited) != len(text)+len(",noatime") {
			t.Fatalf("%q is made %q", text, edited)
		}
		before, after := parseMounts(text), parseMounts(edited)
		if len(before) != len(after) {
			t.Fatalf("%q is made %q", text, edited)
		}
		differing := 0
		for i := range after {
			was, is := before[i], after[i]
			if was.Point != is.Point || was.Type != is.Type || was.Device != is.Device {
				t.Errorf("%+v is made %+v", was, is)
			}
			if strings.Join(was.Options, ",") != strings.Join(is.Options, ",") {
				differing++
				if is.Point != point || strings.Join(was.Options, ",")+",noatime" != strings.Join(is.Options, ",") {
					t.Errorf("%+v is made %+v", was, is)
				}
			}
		}
		if differing != 1 {
			t.Errorf("%q is made %q", text, edited)
		}
		if _, err := withNoatime(edited, point); err == nil {
			t.Errorf("%q is edited twice", text)
		}
	})
}

func FuzzMounts(f *testing.F) {
	f.Add(mountinfo, "/fast nvme/x")
	f.Add("1 2 3:4 / /a\\134b rw - ext4 dev rw", "/a")
	f.Fuzz(func(t *testing.T, text, folder string) {
		for _, m := range append(parseMountinfo(text), parseMounts(text)...) {
			if m.Type == "" || len(m.Options) == 0 {
				t.Errorf("%q is read as %+v", text, m)
			}
			within(folder, m.Point)
		}
		for key := range sysctlLines(text) {
			if key == "" || strings.TrimSpace(key) != key {
				t.Errorf("%q sets %q", text, key)
			}
		}
	})
}
