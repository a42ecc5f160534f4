// Package store keeps blobs and snapshots on disk so that a crash cannot turn them into lies.
//
// The folder has the Hugging Face cache layout (models--org--name with blobs, refs, snapshots and
// trees), so every tool that knows that layout loads from it. What only ema needs - block checksums,
// resume journals, records - lies in a state folder beside it, never inside.
//
// A [Store] reads and needs no lock. A [Writer] changes things and exists once per folder, guarded
// by a file lock that dies with its process. The life of a file is
//
//	Writer.Partial (or StageSmall) → Partial.WriteAt … Sync → Stage → Writer.Publish → Writer.Commit
//
// and after a crash between any two steps it goes on from the last proven byte.
package store

import (
	"path/filepath"

	"ema/internal/model"
)

// BlockSize is the unit of checksums and of resume notes, in bytes. Files of at most one block are
// written whole and need no notes.
const BlockSize = int64(model.MiB)

// Settings say where a store is and how careful it must be. The zero value of every field but Path
// means its default.
type Settings struct {
	// Path is the Hugging Face cache folder (HF_HUB_CACHE). Required.
	Path string
	// StateDir holds what only ema needs; "" is <dir of Path>/ema/<base of Path>. Never inside Path,
	// where other tools' scans would report it.
	StateDir string
	// Process chooses durability "process": no sync at all, so that a power loss may cost everything
	// that was fetched, though it still cannot make wrong bytes look right in a file being fetched.
	// The zero value survives a power loss.
	Process bool
	// WriteSize is the largest single write(2); 0 is 64 KiB. Larger buffered writes make the page
	// cache use large folios, which cost several times as much on some virtual machines.
	WriteSize model.Bytes
	// Cache says what becomes of the page cache's copy of files larger than BlockSize; the zero value is
	// CacheAuto.
	Cache Cache
	// BootID identifies the running kernel's boot; "" reads /proc/sys/kernel/random/boot_id. While it
	// stays the same, what a killed process wrote is still in the page cache and can be trusted.
	BootID string
	// Colder are the folders of the colder tiers: model.Warm, model.Cold or both. The hot one is Path.
	Colder map[model.Tier]string
	// Disk is the file system; nil is the operating system's.
	Disk Disk
}

// Cache is a policy for the page cache's copy of what is fetched.
type Cache uint8

const (
	// CacheAuto writes past the page cache what WritePast is given in whole blocks, as fast connections
	// do: filling the page cache can cost more than all the rest of a fast download, and puts out what
	// other programs use. What comes slowly stays in memory, since the model is about to be loaded.
	CacheAuto Cache = iota
	// CacheKeep leaves everything in memory.
	CacheKeep
	// CacheDrop is CacheAuto, and removes the rest from memory once it is published.
	CacheDrop
)

// A Store reads what is kept in one folder. It holds no lock and no open file, and is safe for
// concurrent use, also while a Writer of this or another process changes the folder.
type Store struct {
	path, state string
	colder      map[model.Tier]string
	sync        bool
	writeSize   int
	cache       Cache
	bootID      string
	disk        Disk
}

// New describes a store; it does no input or output, so the folder need not exist yet.
func New(set Settings) *Store {
	path := filepath.Clean(set.Path)
	s := &Store{
		path: path, state: set.StateDir, sync: !set.Process,
		writeSize: int(set.WriteSize), cache: set.Cache, bootID: set.BootID, disk: set.Disk,
		colder: map[model.Tier]string{},
	}
	for t, dir := range set.Colder {
		if t != model.Hot && dir != "" {
			s.colder[t] = filepath.Clean(dir)
		}
	}
	if s.state == "" {
		s.state = filepath.Join(filepath.Dir(path), "ema", filepath.Base(path))
	}
	if s.writeSize <= 0 {
		s.writeSize = 64 << 10
	}
	if s.disk == nil {
		s.disk = OS{}
	}
	return s
}

// Path is the Hugging Face cache folder.
func (s *Store) Path() string { return s.path }

// StateDir is the folder of ema's own state beside it.
func (s *Store) StateDir() string { return s.state }
