package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A place is a folder that ema keeps something in, with the key that names it.
type place struct {
	key, path string
	real      string // where it is when links are followed
}

// tiers judges the storage tiers: each needs a folder of its own, and rules by which a model can belong to one of them.
func (c *checker) tiers() {
	c.places()
	c.priorities()
	c.caps()
	c.criteria()
}

// places refuses folders that are files, or that lie in each other: what is moved from one to the other would stay where
// it is, or be taken for something else. Links are followed, as far as there is something to follow.
func (c *checker) places() {
	all := []place{
		{key: "storage_tiers.hot.path", path: c.Store.Path},
		{key: "storage_tiers.warm.path", path: c.StorageTiers.Warm.Path},
		{key: "storage_tiers.cold.path", path: c.StorageTiers.Cold.Path},
	}
	if c.StorageTiers.Warm.Path != "" || c.StorageTiers.Cold.Path != "" {
		all = append(all, place{key: "store.state_dir", path: c.stateDir()})
	}
	for i := range all {
		one := &all[i]
		if one.path == "" {
			continue
		}
		one.path = filepath.Clean(one.path)
		one.real = followed(one.path)
		if info, err := os.Stat(one.path); err == nil && !info.IsDir() && i > 0 { // the store's own is for whoever opens it
			c.wrong(one.key, strconv.Quote(one.path), "is a file, and models need a folder", "another path")
		}
		for _, other := range all[:i] {
			if other.path != "" {
				c.apart(*one, other)
			}
		}
	}
}

// apart refuses two folders of which one is in the other.
func (c *checker) apart(one, other place) {
	if one.key == "store.state_dir" && other.key == "storage_tiers.hot.path" {
		return // said by store, for everybody
	}
	problem := ""
	switch {
	case one.path == other.path:
		problem = "is the folder of " + other.key + " too"
	case one.real == other.real:
		problem = "leads to the folder of " + other.key + " too"
	case inside(one.real, other.real):
		problem = "lies inside the folder of " + other.key + ", " + other.path
	case inside(other.real, one.real):
		problem = "has the folder of " + other.key + ", " + other.path + ", inside"
	default:
		return
	}
	c.wrong(one.key, strconv.Quote(one.path), problem, "a folder of its own, beside the others")
}

// stateDir is the folder of ema's own notes: that of the key, or beside the store. Without a store there is none.
func (c *checker) stateDir() string {
	if c.Store.StateDir != "" || c.Store.Path == "" {
		return c.Store.StateDir
	}
	path := filepath.Clean(c.Store.Path)
	return filepath.Join(filepath.Dir(path), "ema", filepath.Base(path))
}

// followed is path with its links followed; what is not there yet stays as it is written.
func followed(path string) string {
	for dir, rest := path, ""; ; {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest)
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return path // nobody can tell
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
}

// inside reports whether path is folder or lies below it.
func inside(path, folder string) bool {
	rel, err := filepath.Rel(filepath.Clean(folder), filepath.Clean(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// A namedTier is one of the storage tiers, with its name.
type namedTier struct {
	name string
	Tier
}

// named are all storage tiers, the fastest first.
func (t StorageTiers) named() []namedTier {
	return []namedTier{{"hot", t.Hot}, {"warm", t.Warm}, {"cold", t.Cold}}
}

// priorities refuses a tier that is meant for two things at once.
func (c *checker) priorities() {
	for _, t := range c.StorageTiers.named() {
		p := t.Criteria
		if p.PerformancePriority && p.BalancedPriority || p.PerformancePriority && p.StoragePriority || p.BalancedPriority && p.StoragePriority {
			c.wrong("storage_tiers."+t.name+".criteria", "", "more than one priority is true", "at most one of performance_priority, balanced_priority, storage_priority")
		}
	}
}

// caps says where a limit has nothing to limit.
func (c *checker) caps() {
	for _, t := range c.StorageTiers.named() {
		if t.MaxSizeGB > 0 && t.Path == "" && t.name != "hot" { // without a path, the hot one is the store's folder
			c.warn("storage_tiers."+t.name+".max_size_gb", "limits nothing while storage_tiers.%s.path names no folder", t.name)
		}
	}
}

// criteria says where the rules of a colder tier ask for more use than those of a hotter one: then a model that is used
// less would belong to the faster disk.
func (c *checker) criteria() {
	hotter := namedTier{}
	for _, t := range c.StorageTiers.named() {
		if t.name != "hot" && t.Path == "" {
			continue
		}
		most, asked := hotter.Criteria.UsageFrequencyThreshold, t.Criteria.UsageFrequencyThreshold
		if hotter.name != "" && asked > most {
			c.warn("storage_tiers."+t.name+".criteria.usage_frequency_threshold", "%d uses make a model %s, and only %d make it %s, which is the faster tier",
				asked, t.name, most, hotter.name)
		}
		hotter = t
	}
}
