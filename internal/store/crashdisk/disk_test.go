package crashdisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ema/internal/store"
	"ema/internal/store/crashdisk"
)

// after shows how often something is true after a power loss that follows what do did.
func after(t *testing.T, do func(d *crashdisk.Disk, root string) error, is func(root string) bool) (yes, all int) {
	t.Helper()
	for seed := range uint64(40) {
		root := filepath.Join(t.TempDir(), "root")
		if err := os.Mkdir(root, 0o777); err != nil {
			t.Fatal(err)
		}
		d, err := crashdisk.New(root)
		if err == nil {
			err = do(d, root)
		}
		if err == nil {
			err = d.PowerLoss(seed, root+".after")
		}
		if err != nil {
			t.Fatal(err)
		}
		if all++; is(root + ".after") {
			yes++
		}
	}
	return yes, all
}

var text = bytes.Repeat([]byte("sure"), 1000)

func create(d store.Disk, name string, sync bool) error {
	f, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil && sync {
		err = f.Datasync()
	}
	return errors.Join(err, f.Close())
}

func whole(name string) func(root string) bool {
	return func(root string) bool {
		b, err := os.ReadFile(filepath.Join(root, name))
		return err == nil && bytes.Equal(b, text)
	}
}

func TestWhatSurvivesAPowerLoss(t *testing.T) {
	const never, sometimes, always = "never", "sometimes", "always"
	for promise, c := range map[string]struct {
		do   func(d *crashdisk.Disk, root string) error
		is   func(root string) bool
		want string
	}{
		"a file with its name, both synced": {func(d *crashdisk.Disk, root string) error {
			return errors.Join(create(d, root+"/a", true), d.SyncDir(root))
		}, whole("a"), always},
		"a file whose name is not synced": {func(d *crashdisk.Disk, root string) error {
			return create(d, root+"/a", true)
		}, whole("a"), sometimes},
		"a name whose content is not synced": {func(d *crashdisk.Disk, root string) error {
			return errors.Join(create(d, root+"/a", false), d.SyncDir(root))
		}, whole("a"), sometimes},
		"everything after syncfs": {func(d *crashdisk.Disk, root string) error {
			return errors.Join(d.Mkdir(root+"/d", 0o777), create(d, root+"/d/a", false), d.SyncFS(root))
		}, whole("d/a"), always},
		"a removal that is not synced": {func(d *crashdisk.Disk, root string) error {
			return errors.Join(create(d, root+"/a", true), d.SyncDir(root), d.Remove(root+"/a"))
		}, whole("a"), sometimes},
		"a removal that is synced": {func(d *crashdisk.Disk, root string) error {
			return errors.Join(create(d, root+"/a", true), d.SyncDir(root), d.Remove(root+"/a"), d.SyncDir(root))
		}, whole("a"), never},
		"one name of two, when a rename is not synced": {func(d *crashdisk.Disk, root string) error {
			return errors.Join(create(d, root+"/a", true), d.SyncDir(root), d.Rename(root+"/a", root+"/b"))
		}, func(root string) bool { return whole("a")(root) != whole("b")(root) }, always},
		"a link that is synced": {func(d *crashdisk.Disk, root string) error {
			return errors.Join(d.Symlink("x", root+"/l"), d.SyncDir(root))
		}, func(root string) bool { to, err := os.Readlink(root + "/l"); return err == nil && to == "x" }, always},
	} {
		t.Run(promise, func(t *testing.T) {
			yes, all := after(t, c.do, c.is)
			got := sometimes
			switch yes {
			case 0:
				got = never
			case all:
				got = always
			}
			if got != c.want {
				t.Errorf("survives %s (%d of %d), want %s", got, yes, all, c.want)
			}
		})
	}
}

func TestAnInodeAndItsTimeSurviveTheirSync(t *testing.T) {
	var before syscall.Stat_t
	old := time.Unix(1e9, 0)
	yes, all := after(t, func(d *crashdisk.Disk, root string) error {
		err := create(d, root+"/a", true)
		err = errors.Join(err, os.Chtimes(root+"/a", old, old), d.SyncFS(root))
		return errors.Join(err, syscall.Stat(root+"/a", &before))
	}, func(root string) bool {
		var now syscall.Stat_t
		return syscall.Stat(root+"/a", &now) == nil && now.Ino == before.Ino && now.Mtim == before.Mtim
	})
	if yes != all {
		t.Errorf("only in %d of %d", yes, all)
	}
}

func TestNothingWorksAfterTheLastOperation(t *testing.T) {
	root := t.TempDir()
	d, err := crashdisk.New(filepath.Join(root, "."))
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(root + ".attic")
	d.StopAfter(2)
	for i := range 4 {
		err := d.Mkdir(filepath.Join(root, fmt.Sprint(i)), 0o777)
		if stopped := errors.Is(err, crashdisk.ErrStopped); stopped != (i >= 2) {
			t.Errorf("operation %d: %v", i, err)
		}
	}
	if d.Ops() != 2 {
		t.Errorf("%d operations counted, want 2", d.Ops())
	}
}
