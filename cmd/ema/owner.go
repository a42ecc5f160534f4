package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"ema/internal/store"
)

// ownerFinding says who owns the store now. It tries the lock for an instant and changes nothing.
func ownerFinding(s *store.Store) finding {
	name := filepath.Join(s.Path(), ".locks", "ema.owner")
	f, err := (store.OS{}).OpenFile(name, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return finding{Check: "owner", Status: good, Found: "nobody has written to this store yet"}
	}
	if err != nil {
		return finding{"owner", warn, fmt.Sprintf("the owner's lock cannot be read: %v", err), "check the permissions of the store"}
	}
	defer f.Close() // opened for reading: nothing can be lost
	free, err := f.TryLock()
	switch {
	case err != nil:
		return finding{"owner", warn, fmt.Sprintf("the owner's lock cannot be tried: %v", err), "a network file system may have no locks; let one machine only write to it"}
	case free:
		return finding{Check: "owner", Status: good, Found: "free: no pull is running here"}
	}
	owner := store.Owner{Command: "another process"}
	if raw, err := os.ReadFile(name); err == nil {
		_ = json.Unmarshal(raw, &owner) //nolint:errcheck // an owner that has not introduced itself yet
	}
	return finding{Check: "owner", Status: good, Found: "in use by " + owner.String()}
}

// nearest is dir, or the nearest folder above it that exists.
func nearest(dir string) (string, error) {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%s is not a folder", dir)
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}
