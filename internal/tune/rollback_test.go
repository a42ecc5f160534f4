package tune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

// A fault is how a machine stops in the middle of a change.
type fault int

const (
	before fault = iota // nothing of the change is done
	during              // a part of it is: a file of the kernel is empty, a new file has not taken its place
	after               // all of it is, and nobody is told
)

var errStopped = errors.New("the power is gone")

// A faulty machine stops at one change, and does nothing more from then on.
type faulty struct {
	changer
	kept  keeper
	left  int // changes until it stops
	how   fault
	done  int
	root  string
	order []string // what was changed
}

func (f *faulty) change(name string, do, partly func() error) error {
	if f.left < 0 {
		return errStopped
	}
	if f.left--; f.left >= 0 {
		f.done++
		f.order = append(f.order, name)
		return do()
	}
	switch f.how {
	case during:
		if err := partly(); err != nil {
			return err
		}
	case after:
		if err := do(); err != nil {
			return err
		}
	case before:
	}
	return errStopped
}

func nothing() error { return nil }

func (f *faulty) set(name, text string) error {
	return f.change(name, func() error { return f.changer.set(name, text) }, func() error { return f.changer.set(name, "") })
}

func (f *faulty) replace(name string, s state) error {
	return f.change(name, func() error { return f.changer.replace(name, s) }, func() error {
		return os.WriteFile(filepath.Join(f.root, fresh(name)), s.Data[:len(s.Data)/2], 0o600)
	})
}

func (f *faulty) remove(name string) error {
	return f.change(name, func() error { return f.changer.remove(name) }, nothing)
}

func (f *faulty) makeFolder(name string) error {
	return f.change(name, func() error { return f.changer.makeFolder(name) }, nothing)
}

func (f *faulty) removeFolder(name string) (gone bool, err error) {
	err = f.change(name, func() error {
		gone, err = f.changer.removeFolder(name)
		return err
	}, nothing)
	return gone, err
}

// A faultyKeeper shares the changes of a faulty machine.
type faultyKeeper struct{ *faulty }

func (f faultyKeeper) lock() (func() error, error) { return f.kept.lock() }
func (f faultyKeeper) load() (*journal, error)     { return f.kept.load() }
func (f faultyKeeper) drop() error                 { return f.change("drop", f.kept.drop, nothing) }
func (f faultyKeeper) save(j *journal) error {
	return f.change("journal", func() error { return f.kept.save(j) }, nothing)
}

// stopping makes the machine stop after that many changes.
func (s stand) stopping(t testing.TB, left int, how fault) (*Machine, *faulty) {
	m := s.open(t)
	f := &faulty{changer: m.from, kept: m.kept, left: left, how: how, root: s.root}
	m.from, m.kept = f, faultyKeeper{f}
	return m, f
}

const never = 1 << 20 // more changes than any test makes

func TestRollbackLeavesNoTrace(t *testing.T) {
	s := newStand(t, ordinary())
	before := treeOf(t, s.root)
	m := s.open(t)
	changed, err := m.Apply(t.Context(), advice(m), true)
	if err != nil || len(changed) < 15 {
		t.Fatalf("%v, %v", changed, err)
	}
	for name, want := range map[string]string{
		"proc/sys/net/ipv4/tcp_rmem":      "4096 131072 134217728\n",
		"sys/block/sda/queue/scheduler":   "mq-deadline\n",
		"sys/block/loop0/queue/scheduler": "[none] mq-deadline\n",
		"etc/fstab":                       strings.Replace(strings.Replace(fstab, "defaults 0", "defaults,noatime 0", 1), "nofail", "nofail,noatime", 1),
		tmpfilesFile: "# Written by \"ema tune apply\"; \"ema tune rollback\" puts back what was here before.\n# The backup is in \"" + s.backup + "\"\n" +
			"w /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor - - - - performance\n" +
			"w /sys/devices/system/cpu/cpu1/cpufreq/scaling_governor - - - - performance\n",
	} {
		if got := s.read(t, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if text := s.read(t, sysctlFile); !strings.Contains(text, "\nnet.ipv4.tcp_congestion_control = bbr\n") || strings.Count(text, "\n") != 12 {
		t.Errorf("%s", text)
	}
	rule := `ACTION=="add|change", SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", KERNEL=="sda", ATTR{queue/rotational}=="1", ATTR{queue/scheduler}="mq-deadline"`
	if text := s.read(t, udevFile); !strings.Contains(text, "\n"+rule+"\n") {
		t.Errorf("%s", text)
	}
	for _, one := range advice(m) {
		if one.Status == Advised {
			t.Errorf("still advised: %+v", one)
		}
	}
	if begun, err := m.BackedUp(); err != nil || begun.IsZero() {
		t.Errorf("backed up %v, %v", begun, err)
	}
	r, err := m.Rollback(t.Context(), Areas(), false)
	if err != nil || len(r.Paths) != len(changed) || len(r.Kept)+len(r.Gone) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	before.same(t, treeOf(t, s.root))
	r, err = m.Rollback(t.Context(), Areas(), false)
	if err != nil || len(r.Paths) > 0 {
		t.Errorf("once more: %+v, %v", r, err)
	}
}

// The promise of the whole room: wherever apply stops, and however, and wherever the rollback after it stops, the next
// rollback leaves what was there.
func TestAnApplyThatStopsAnywhereIsTakenBack(t *testing.T) {
	for left := 0; ; left++ {
		for _, how := range []fault{before, during, after} {
			s := newStand(t, ordinary())
			was := treeOf(t, s.root)
			m, f := s.stopping(t, left, how)
			_, err := m.Apply(t.Context(), advice(m), true)
			if f.left >= 0 {
				if err != nil || left < 20 {
					t.Fatalf("after %d changes: %v", left, err)
				}
				return
			}
			if !errors.Is(err, errStopped) {
				t.Fatalf("stopped at change %d: %v", left, err)
			}
			m, _ = s.stopping(t, left/2, how)
			_, err = m.Rollback(t.Context(), Areas(), false)
			if err != nil && !errors.Is(err, errStopped) {
				t.Errorf("stopped at %d: %v", left, err)
			}
			if _, err := s.open(t).Rollback(t.Context(), Areas(), false); err != nil {
				t.Errorf("stopped at %d: %v", left, err)
			}
			was.same(t, treeOf(t, s.root))
			if t.Failed() {
				t.Fatalf("apply had stopped at change %d (%d): %v", left, how, f.order)
			}
		}
	}
}

func TestARollbackThatStopsAnywhereGoesOn(t *testing.T) {
	for left := 0; ; left++ {
		s := newStand(t, ordinary())
		was := treeOf(t, s.root)
		m := s.open(t)
		if _, err := m.Apply(t.Context(), advice(m), true); err != nil {
			t.Fatal(err)
		}
		how := fault(left % 3)
		m, f := s.stopping(t, left, how)
		_, err := m.Rollback(t.Context(), Areas(), false)
		if f.left < 0 && !errors.Is(err, errStopped) || f.left >= 0 && err != nil {
			t.Fatalf("stopped at %d: %v", left, err)
		}
		if _, err := s.open(t).Rollback(t.Context(), Areas(), false); err != nil {
			t.Fatalf("stopped at %d (%d): %v", left, how, err)
		}
		was.same(t, treeOf(t, s.root))
		if f.left >= 0 {
			return
		}
	}
}

func TestTheBackupIsThereBeforeTheFirstChange(t *testing.T) {
	s := newStand(t, ordinary())
	m, f := s.stopping(t, never, before)
	if _, err := m.Apply(t.Context(), advice(m), true); err != nil {
		t.Fatal(err)
	}
	if f.order[0] != "journal" || slices.Contains(f.order[1:], "journal") {
		t.Errorf("the order is %v", f.order)
	}
	firstFile := slices.IndexFunc(f.order, func(n string) bool { return strings.HasPrefix(n, "etc/") })
	if slices.ContainsFunc(f.order[firstFile:], func(n string) bool { return !strings.HasPrefix(n, "etc/") }) {
		t.Errorf("what lasts is written before the kernel has taken it: %v", f.order)
	}
}

// Any machine, with any part of it missing, tuned already, or odd.
func TestAnyMachineIsTakenBack(t *testing.T) {
	folder := quickFolder(t)
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(folder, "any")
		if err != nil {
			r.Fatal(err)
		}
		s := stand{filepath.Join(dir, "root"), filepath.Join(dir, "backup")}
		files := ordinary()
		for _, name := range slices.Sorted(maps.Keys(files)) {
			switch rapid.IntRange(0, 9).Draw(r, "fate of "+name) {
			case 0:
				delete(files, name)
			case 1:
				files[name] = rapid.SampledFrom([]string{"", "0\n", "7", "1 2 3\n", "[none] mq-deadline\n", "none [bfq]\n", "performance", "x / ext4 defaults\n", "a\tb"}).Draw(r, "content")
			}
		}
		for _, name := range []string{sysctlFile, udevFile, tmpfilesFile} {
			if rapid.Bool().Draw(r, name) {
				files[name] = rapid.SampledFrom([]string{"", "# own", "vm.swappiness = 1\n"}).Draw(r, "own")
			}
		}
		made(t, s.root, files)
		if err := os.MkdirAll(s.root, 0o755); err != nil {
			r.Fatal(err)
		}
		for _, name := range slices.Sorted(maps.Keys(files)) {
			mode := rapid.SampledFrom([]fs.FileMode{0o644, 0o644, 0o600, 0o664, 0o755}).Draw(r, "mode")
			if err := os.Chmod(filepath.Join(s.root, name), mode); err != nil {
				r.Fatal(err)
			}
		}
		was := treeOf(t, s.root)
		left, how := never, before
		if rapid.Bool().Draw(r, "stops") {
			left, how = rapid.IntRange(0, 40).Draw(r, "after"), fault(rapid.IntRange(0, 2).Draw(r, "how"))
		}
		m, f := s.stopping(t, left, how)
		areas := rapid.SampledFrom([][]Area{Areas(), {Sysctl}, {Scheduler, Mount}, {Governor}}).Draw(r, "areas")
		if _, err := m.Apply(t.Context(), Only(advice(m), areas), rapid.Bool().Draw(r, "fstab")); err != nil && !errors.Is(err, errStopped) {
			r.Fatal(err)
		}
		if rapid.Bool().Draw(r, "twice") {
			m := s.open(t)
			if _, err := m.Apply(t.Context(), advice(m), true); err != nil {
				r.Fatal(err)
			}
		}
		m = s.open(t)
		if rapid.Bool().Draw(r, "in parts") {
			for _, area := range rapid.Permutation(Areas()).Draw(r, "order") {
				if _, err := m.Rollback(t.Context(), []Area{area}, false); err != nil {
					r.Fatal(err)
				}
			}
		}
		if _, err := m.Rollback(t.Context(), Areas(), false); err != nil {
			r.Fatal(err)
		}
		now := treeOf(t, s.root)
		was.same(r, now)
		if r.Failed() {
			r.Fatalf("changed: %v", f.order)
		}
		if _, err := os.Stat(filepath.Join(s.backup, journalFile)); !errors.Is(err, fs.ErrNotExist) {
			r.Fatalf("the backup stays: %v", err)
		}
	})
}

func TestASecondApplyKeepsTheFirstBackup(t *testing.T) {
	s := newStand(t, ordinary())
	was := treeOf(t, s.root)
	m := s.open(t)
	apply := func(areas ...Area) {
		t.Helper()
		if _, err := m.Apply(t.Context(), Only(advice(m), areas), true); err != nil {
			t.Fatal(err)
		}
	}
	apply(Sysctl)
	first := s.read(t, sysctlFile)
	s.write(t, sysctlPath(dirtyRatio), "40\n") // somebody lets go of one value
	apply(Sysctl, Governor)
	if s.read(t, sysctlPath(dirtyRatio)) != "15\n" || s.read(t, sysctlFile) != first {
		t.Errorf("the second apply has made %q", s.read(t, sysctlFile))
	}
	if _, err := m.Rollback(t.Context(), Areas(), false); err != nil {
		t.Fatal(err)
	}
	was.same(t, treeOf(t, s.root))
}

func TestAreasAreTakenBackOneByOne(t *testing.T) {
	s := newStand(t, ordinary())
	was := treeOf(t, s.root)
	m := s.open(t)
	if _, err := m.Apply(t.Context(), advice(m), true); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Rollback(t.Context(), []Area{Sysctl}, false); err != nil {
		t.Fatal(err)
	}
	if s.read(t, sysctlFile) != "" || s.read(t, sysctlPath(dirtyRatio)) != "20\n" || s.read(t, tmpfilesFile) == "" {
		t.Error("more or less than one area is taken back")
	}
	if _, err := m.Rollback(t.Context(), Areas(), false); err != nil {
		t.Fatal(err)
	}
	was.same(t, treeOf(t, s.root))
}

func TestWhatSomebodyElseChangedIsNotDestroyed(t *testing.T) {
	for promise, name := range map[string]string{
		"a file of ours":       sysctlFile,
		"fstab":                "etc/fstab",
		"a value of a kernel":  sysctlPath(dirtyRatio),
		"a disk's scheduler":   "sys/block/sda/queue/scheduler",
		"a processor's choice": "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
	} {
		t.Run(promise, func(t *testing.T) {
			s := newStand(t, ordinary())
			was := treeOf(t, s.root)
			m := s.open(t)
			if _, err := m.Apply(t.Context(), advice(m), true); err != nil {
				t.Fatal(err)
			}
			s.write(t, name, "kyber")
			theirs := treeOf(t, s.root)
			_, err := m.Rollback(t.Context(), Areas(), false)
			if e, ok := errors.AsType[*ChangedError](err); !ok || !slices.Equal(e.Paths, []string{"/" + name}) {
				t.Fatalf("%v", err)
			}
			theirs.same(t, treeOf(t, s.root))
			if _, err := m.Rollback(t.Context(), Areas(), true); err != nil {
				t.Fatal(err)
			}
			was.same(t, treeOf(t, s.root))
		})
	}
}

func TestApplyDoesNotOverwriteWhatSomebodyAddedToItsFiles(t *testing.T) {
	s := newStand(t, ordinary())
	m := s.open(t)
	if _, err := m.Apply(t.Context(), advice(m), false); err != nil {
		t.Fatal(err)
	}
	s.write(t, sysctlFile, s.read(t, sysctlFile)+"vm.swappiness = 1\n")
	s.write(t, sysctlPath(dirtyRatio), "40\n")
	theirs := treeOf(t, s.root)
	_, err := m.Apply(t.Context(), advice(m), false)
	if _, ok := errors.AsType[*ChangedError](err); !ok {
		t.Fatalf("%v", err)
	}
	theirs.same(t, treeOf(t, s.root))
}

func TestFilesOfAnotherStoresApplyAreLeftAlone(t *testing.T) {
	s := newStand(t, ordinary())
	m := s.open(t)
	if _, err := m.Apply(t.Context(), advice(m), false); err != nil {
		t.Fatal(err)
	}
	s.write(t, sysctlPath(dirtyRatio), "40\n")
	other := stand{s.root, filepath.Join(t.TempDir(), "tune")}.open(t)
	for _, act := range []func() error{
		func() error { _, err := other.Apply(t.Context(), advice(other), false); return err },
		func() error { _, err := other.Rollback(t.Context(), Areas(), false); return err },
	} {
		if err := act(); model.ClassOf(err) != model.NotFound || !strings.Contains(err.Error(), s.backup) {
			t.Errorf("%v", err)
		}
	}
}

func TestWithoutLeaveFstabStaysAsItIs(t *testing.T) {
	s := newStand(t, ordinary())
	m := s.open(t)
	changed, err := m.Apply(t.Context(), advice(m), false)
	if err != nil || s.read(t, "etc/fstab") != fstab || slices.Contains(changed, "/etc/fstab") {
		t.Errorf("%v, %v", changed, err)
	}
}

func TestNothingAdvisedChangesNothing(t *testing.T) {
	s := newStand(t, nil)
	m := s.open(t)
	if changed, err := m.Apply(t.Context(), advice(m), true); err != nil || changed != nil {
		t.Errorf("%v, %v", changed, err)
	}
	if _, err := os.Stat(s.backup); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backup of nothing: %v", err)
	}
}

func TestLinksAreNotReplaced(t *testing.T) {
	s := newStand(t, ordinary())
	if err := errors.Join(os.Rename(filepath.Join(s.root, "etc/fstab"), filepath.Join(s.root, "etc/real")), os.Symlink("real", filepath.Join(s.root, "etc/fstab"))); err != nil {
		t.Fatal(err)
	}
	m := s.open(t)
	if _, err := m.Apply(t.Context(), advice(m), true); !errors.Is(err, errNoFile) {
		t.Errorf("%v", err)
	}
	if s.read(t, "etc/real") != fstab || s.read(t, sysctlFile) != "" {
		t.Error("something was changed")
	}
}

func TestApplyStopsWhenItIsTold(t *testing.T) {
	s := newStand(t, ordinary())
	was := treeOf(t, s.root)
	ctx, stop := context.WithCancel(t.Context())
	m := s.open(t)
	m.from = &stopper{changer: m.from, stop: stop}
	if _, err := m.Apply(ctx, advice(m), true); model.ClassOf(err) != model.Cancelled || !strings.Contains(err.Error(), "ema tune rollback") {
		t.Fatalf("%v", err)
	}
	if _, err := m.Rollback(t.Context(), Areas(), false); err != nil {
		t.Fatal(err)
	}
	was.same(t, treeOf(t, s.root))
}

// A stopper stops the work when the first value is set.
type stopper struct {
	changer
	stop func()
}

func (s *stopper) set(name, text string) error {
	s.stop()
	return s.changer.set(name, text)
}

func TestTwoDoNotWorkAtOnce(t *testing.T) {
	s := newStand(t, ordinary())
	m := s.open(t)
	if err := makeFolders(s.backup); err != nil {
		t.Fatal(err)
	}
	unlock, err := m.kept.lock()
	if err != nil {
		t.Fatal(err)
	}
	other := s.open(t)
	if _, err := other.Apply(t.Context(), advice(other), false); model.ClassOf(err) != model.Busy {
		t.Errorf("apply: %v", err)
	}
	if _, err := other.Rollback(t.Context(), Areas(), false); model.ClassOf(err) != model.Busy {
		t.Errorf("rollback: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Apply(t.Context(), advice(other), false); err != nil {
		t.Error(err)
	}
}

func TestASpoiltBackupIsRefused(t *testing.T) {
	s := newStand(t, ordinary())
	m := s.open(t)
	if _, err := m.Apply(t.Context(), advice(m), false); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.backup, journalFile)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	theirs := treeOf(t, s.root)
	for name, bad := range map[string]string{
		"cut":      string(good[:len(good)/2]),
		"newer":    strings.Replace(string(good), `"version": 1`, `"version": 2`, 1),
		"escaping": strings.Replace(string(good), `"path": "proc`, `"path": "../proc`, 1),
		"foreign":  strings.Replace(string(good), `"path": "etc/udev/rules.d/90-ema.rules`, `"path": "etc/shadow`, 1),
	} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Rollback(t.Context(), Areas(), true); model.ClassOf(err) != model.Integrity {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(os.WriteFile(file, good, 0o600), os.Chmod(file, 0o666)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Rollback(t.Context(), Areas(), true); !errors.Is(err, errStranger) {
		t.Errorf("a backup that anybody may write to: %v", err)
	}
	if err := errors.Join(os.Rename(file, file+".real"), os.Symlink(file+".real", file)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Rollback(t.Context(), Areas(), true); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("a backup that is a link: %v", err)
	}
	theirs.same(t, treeOf(t, s.root))
}

func TestADiskThatIsGoneIsNoHindrance(t *testing.T) {
	s := newStand(t, ordinary())
	was := treeOf(t, s.root)
	m := s.open(t)
	if _, err := m.Apply(t.Context(), advice(m), false); err != nil {
		t.Fatal(err)
	}
	gone := filepath.Join(s.root, "sys/block/sda")
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	r, err := m.Rollback(t.Context(), Areas(), false)
	if err != nil || len(r.Gone) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	maps.DeleteFunc(was, func(name, _ string) bool { return strings.HasPrefix(name, gone) })
	was.same(t, treeOf(t, s.root))
}

func TestFoldersThatOthersUseMeanwhileStay(t *testing.T) {
	s := newStand(t, ordinary())
	m := s.open(t)
	if _, err := m.Apply(t.Context(), advice(m), false); err != nil {
		t.Fatal(err)
	}
	s.write(t, "etc/udev/rules.d/10-own.rules", "# own\n")
	r, err := m.Rollback(t.Context(), Areas(), false)
	if err != nil || !slices.Equal(r.Kept, []string{"/etc/udev/rules.d", "/etc/udev"}) || s.read(t, "etc/udev/rules.d/10-own.rules") == "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A kernel answers as Linux does: it shows all schedulers, and a new one has a queue and tunables as they come.
type kernel struct {
	changer
	refuses string // a file that takes no value
	bounds  string // a file that takes another one
}

func (k kernel) set(name, text string) error {
	if name == k.refuses {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.EINVAL}
	}
	if name == k.bounds {
		text = "17\n"
	}
	if path.Base(name) != "scheduler" {
		return k.changer.set(name, text)
	}
	was, _, err := k.read(name)
	if err != nil {
		return err
	}
	c, err := parseChoice(was)
	if err != nil {
		return err
	}
	word := strings.TrimSpace(text)
	if !slices.Contains(c.offered, word) {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.EINVAL}
	}
	if word == c.selected {
		return nil
	}
	shown := strings.Replace(strings.Join(c.offered, " "), word, "["+word+"]", 1)
	err = errors.Join(k.changer.set(name, shown+"\n"), k.changer.set(path.Dir(name)+"/nr_requests", "64\n"))
	tunables, _ := k.list(path.Dir(name) + "/iosched")
	for _, t := range tunables {
		err = errors.Join(err, k.changer.set(path.Dir(name)+"/iosched/"+t, "0\n"))
	}
	return err
}

func TestWhatChangesAlongWithASchedulerIsTakenBackToo(t *testing.T) {
	s := newStand(t, ordinary())
	was := treeOf(t, s.root)
	m := s.open(t)
	m.from = kernel{changer: m.from}
	if _, err := m.Apply(t.Context(), advice(m), true); err != nil {
		t.Fatal(err)
	}
	if s.read(t, "sys/block/sda/queue/scheduler") != "none [mq-deadline] kyber bfq\n" || s.read(t, "sys/block/sda/queue/nr_requests") != "64\n" {
		t.Fatal("this is no kernel")
	}
	if _, err := m.Rollback(t.Context(), Areas(), false); err != nil {
		t.Fatal(err)
	}
	was.same(t, treeOf(t, s.root))
}

func TestAValueThatTheKernelRefusesIsNotMadeToLast(t *testing.T) {
	s := newStand(t, ordinary())
	was := treeOf(t, s.root)
	m := s.open(t)
	m.from = kernel{changer: m.from, refuses: sysctlPath(congestion)}
	changed, err := m.Apply(t.Context(), advice(m), true)
	if !errors.Is(err, syscall.EINVAL) || !strings.Contains(fmt.Sprint(err), "ema tune rollback") || len(changed) == 0 || s.read(t, sysctlFile) != "" {
		t.Fatalf("%v, %v", changed, err)
	}
	if _, err := m.Rollback(t.Context(), Areas(), false); err != nil {
		t.Fatal(err)
	}
	was.same(t, treeOf(t, s.root))
}

func TestAValueThatTheKernelMadeAnotherOneIsNotMadeToLast(t *testing.T) {
	s := newStand(t, ordinary())
	m := s.open(t)
	m.from = kernel{changer: m.from, bounds: sysctlPath(dirtyRatio)}
	_, err := m.Apply(t.Context(), advice(m), true)
	if err == nil || !strings.Contains(err.Error(), `the kernel made "17" of "15"`) || s.read(t, sysctlFile) != "" {
		t.Errorf("%v", err)
	}
}

func TestNothingBeginsWhereSomethingCannotBeWritten(t *testing.T) {
	s := newStand(t, ordinary())
	was := treeOf(t, s.root)
	m := s.open(t)
	m.from = readOnly{m.from}
	if _, err := m.Apply(t.Context(), advice(m), true); model.ClassOf(err) != model.Auth || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v", err)
	}
	was.same(t, treeOf(t, s.root))
}

// A readOnly machine is what a container sees.
type readOnly struct{ changer }

func (readOnly) writable(name string) error {
	return &fs.PathError{Op: "open", Path: name, Err: syscall.EROFS}
}

func TestWhatIsPutBackIsAsOldAsItWasAndWhoseItWas(t *testing.T) {
	s := newStand(t, ordinary())
	old := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	file := filepath.Join(s.root, "etc/fstab")
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 { // nobody else may give files away
		uid, gid = 1234, 1235
	}
	if err := errors.Join(os.Chown(file, uid, gid), os.Chtimes(file, old, old)); err != nil {
		t.Fatal(err)
	}
	m := s.open(t)
	_, err := m.Apply(t.Context(), advice(m), true)
	if _, err2 := m.Rollback(t.Context(), Areas(), false); errors.Join(err, err2) != nil {
		t.Fatal(err, err2)
	}
	info, err := os.Stat(file)
	if err != nil || !info.ModTime().Equal(old) {
		t.Fatalf("%v", err)
	}
	if owner, ok := ownerOf(info); !ok || int(owner.Uid) != uid || int(owner.Gid) != gid {
		t.Errorf("it belongs to %+v", owner)
	}
}
