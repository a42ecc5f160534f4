package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"ema/internal/api/snapshot"
	"ema/internal/config"
	"ema/internal/model"
	"ema/internal/store"
)

// colder are the folders of the colder tiers that there are.
func colder(set config.StorageTiers) map[model.Tier]string {
	folders := map[model.Tier]string{}
	for t, path := range map[model.Tier]string{model.Warm: set.Warm.Path, model.Cold: set.Cold.Path} {
		if path != "" {
			folders[t] = path
		}
	}
	return folders
}

// largest is what a tier's models may take together; 0 is no bound.
func largest(set config.StorageTiers, t model.Tier) model.Bytes {
	return section(set, t).MaxSizeGB.Bytes()
}

// tiers are how the tiers of a store stand, the hot one first. Reserve is what downloads leave free, in the hot one. Only the
// hot one has to be there.
func tiers(s *store.Store, set config.StorageTiers, reserve model.Bytes) ([]snapshot.Tier, error) {
	var all []snapshot.Tier
	for _, st := range s.Tiers() {
		one := snapshot.Tier{Tier: st.Tier, Path: st.Path, State: st.State, Problem: st.Problem, Max: largest(set, st.Tier)}
		if st.State != store.TierMissing || st.Tier == model.Hot {
			v, device, err := volume(st.Path)
			if err != nil && st.Tier == model.Hot {
				return nil, err
			}
			one.Volume, one.Device = v, device // zero where it has gone this very moment
		}
		if st.Tier == model.Hot {
			one.Reserve = reserve
		}
		all = append(all, one)
	}
	return all, nil
}

// volume measures the file system where dir lies, or would lie, and says which one that is.
func volume(dir string) (v snapshot.Volume, device uint64, err error) {
	failed := func(err error) (snapshot.Volume, uint64, error) {
		return snapshot.Volume{}, 0, &model.Error{Op: "measure the disk", Class: model.DiskError, File: dir, Err: err}
	}
	there, err := nearest(dir)
	if err != nil {
		return failed(err)
	}
	var st unix.Statfs_t
	var info unix.Stat_t
	if err := unbroken(func() error { return unix.Statfs(there, &st) }); err != nil {
		return failed(err)
	}
	if err := unbroken(func() error { return unix.Stat(there, &info) }); err != nil {
		return failed(err)
	}
	unit := model.Bytes(st.Frsize)
	return snapshot.Volume{
		Total: model.Bytes(st.Blocks) * unit, Used: model.Bytes(st.Blocks-st.Bfree) * unit, Available: model.Bytes(st.Bavail) * unit,
	}, info.Dev, nil
}

// unbroken repeats a system call that a signal has broken off.
func unbroken(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
