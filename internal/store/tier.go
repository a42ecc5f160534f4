package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"ema/internal/model"
)

// A colder tier is a folder with the layout of the store, of which it has only blobs:
//
//	TIER/models--org--name/blobs/<etag>                       complete content
//	                            /<etag>.00000000.incomplete   content that is being moved there
//	TIER/.locks/ema-tier.json                                 whose tier it is, so that an empty mount point is not taken for it
//	StateDir/tiers.json                                       which markers were seen
//	        /moves/models--org--name.json                     a move that was begun
//	        /blocks/models--org--name/<etag>.<tier>.crc       the proof of the copy that lies in that tier
//
// The blob's name in the store is then an absolute link to it, so every path that was handed out keeps leading to the bytes.
// Where a blob lies, that name alone tells.
const (
	tierMarker   = "ema-tier.json"
	tiersFile    = "tiers.json"
	movingSuffix = "00000000" // of a content that is being moved: always the same, so that a move finds what it had copied
)

// ErrTierAway is in errors about a tier whose folder is not there, or is another's.
var ErrTierAway = errors.New("the tier's folder is not there")

// TierState is how the folder of a tier stands.
type TierState struct {
	Tier        model.Tier
	Path        string
	State       string // "ready", "missing", "read_only" or "full"
	Problem     string // what is wrong, in words; "" when it is ready
	Total, Free model.Bytes
}

// The states of a tier's folder.
const (
	TierReady    = "ready"
	TierMissing  = "missing"
	TierReadOnly = "read_only"
	TierFull     = "full"
)

// Has reports whether there is such a tier.
func (s *Store) Has(t model.Tier) bool { return t == model.Hot || s.colder[t] != "" }

// Tiers tells how the folders of all tiers stand, the fastest first.
func (s *Store) Tiers() []TierState {
	var all []TierState
	for _, t := range model.Tiers() {
		if s.Has(t) {
			all = append(all, s.tierState(t))
		}
	}
	return all
}

func (s *Store) tierState(t model.Tier) TierState {
	st := TierState{Tier: t, Path: s.path, State: TierReady}
	if t != model.Hot {
		st.Path = s.colder[t]
		if err := s.reachTier(t); err != nil {
			st.State, st.Problem = TierMissing, err.Error()
			return st
		}
	}
	var fsys unix.Statfs_t
	dir := st.Path
	for {
		err := retried(func() error { return unix.Statfs(dir, &fsys) })
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			st.State, st.Problem = TierMissing, diskError("measure free space", model.ID{}, dir, err).Error()
			return st
		}
		dir = filepath.Dir(dir) // it is made when it is needed first
	}
	st.Total, st.Free = model.Bytes(fsys.Blocks)*model.Bytes(fsys.Frsize), model.Bytes(fsys.Bavail)*model.Bytes(fsys.Frsize)
	switch {
	case fsys.Flags&unix.ST_RDONLY != 0 || unix.Access(dir, unix.W_OK) != nil:
		st.State, st.Problem = TierReadOnly, fmt.Sprintf("%s cannot be written to: its models load, but none moves there or away", dir)
	case st.Free < fullBelow:
		st.State, st.Problem = TierFull, fmt.Sprintf("%s has %s left", dir, st.Free)
	}
	return st
}

// fullBelow is the space under which a tier counts as full, in bytes.
const fullBelow = 16 * model.MiB

// marker says whose tier a folder is.
type marker struct {
	ID    string `json:"id"`
	Store string `json:"store"` // the path of the store that made it
}

// seen is which marker each tier had when it was used last, in StateDir/tiers.json.
type seen map[model.Tier]struct {
	Path string `json:"path"`
	ID   string `json:"id"`
}

func (s *Store) markerPath(t model.Tier) string {
	return filepath.Join(s.colder[t], ".locks", tierMarker)
}

func (s *Store) readMarker(t model.Tier) (m marker, err error) {
	raw, err := os.ReadFile(s.markerPath(t))
	if err == nil && (json.Unmarshal(raw, &m) != nil || m.ID == "") {
		err = errors.New("it cannot be read")
	}
	return m, err
}

func (s *Store) readSeen() (all seen) {
	raw, err := os.ReadFile(filepath.Join(s.state, tiersFile))
	if err != nil || json.Unmarshal(raw, &all) != nil {
		all = nil
	}
	return all
}

// reachTier reports why a colder tier's folder cannot be used. One that was never used may be missing: it is made then.
func (s *Store) reachTier(t model.Tier) error {
	dir := s.colder[t]
	away := func(err error, hint string) error {
		return &model.Error{Op: "reach the " + string(t) + " tier", Class: model.DiskError, File: dir, Err: err, Hint: hint}
	}
	known, used := s.readSeen()[t]
	used = used && known.Path == dir
	m, err := s.readMarker(t)
	switch {
	case used && err != nil:
		return away(fmt.Errorf("%w: %s is missing there", ErrTierAway, filepath.Join(".locks", tierMarker)), "mount it; nothing is lost meanwhile")
	case used && m.ID != known.ID, err == nil && !used && m.Store != s.path:
		return away(fmt.Errorf("%w: there is the tier of the store %s instead", ErrTierAway, m.Store),
			"mount the right one, choose another folder, or remove "+s.markerPath(t)+" if that store is gone")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return away(fmt.Errorf("%w: %w", ErrTierAway, err), "check the folder")
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return away(fmt.Errorf("%w: there is a file of that name", ErrTierAway), "choose another folder")
	}
	return nil
}

// useTier makes a tier's folder ready for writing. The marker is durable before anything else lies there, and noted before the
// first blob's name leads there.
func (w *Writer) useTier(t model.Tier) error {
	if t == model.Hot {
		return nil
	}
	if err := w.reachTier(t); err != nil {
		return err
	}
	m, err := w.readMarker(t)
	if err != nil {
		var id [8]byte
		rand.Read(id[:]) // never fails (crypto/rand)
		m = marker{ID: hex.EncodeToString(id[:]), Store: w.path}
		if err := w.writeDurably(w.markerPath(t), m); err != nil {
			return diskError("use the "+string(t)+" tier", model.ID{}, w.colder[t], err)
		}
	}
	all := w.readSeen()
	if known, ok := all[t]; ok && known.Path == w.colder[t] && known.ID == m.ID {
		return nil
	}
	all = maps.Clone(all)
	if all == nil {
		all = seen{}
	}
	all[t] = struct {
		Path string `json:"path"`
		ID   string `json:"id"`
	}{w.colder[t], m.ID}
	return diskError("use the "+string(t)+" tier", model.ID{}, w.state, w.writeDurably(filepath.Join(w.state, tiersFile), all))
}

// writeDurably replaces a small file of ours, as a whole.
func (w *Writer) writeDurably(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := w.folder(filepath.Dir(name)); err != nil {
		return err
	}
	if err := w.writeNew(name, append(text, '\n')); err != nil {
		return err
	}
	return w.saveNames()
}

// BlobFolders are those in which contents of a model lie, or would lie, in all tiers.
func (s *Store) BlobFolders(id model.ID) []string {
	dirs := []string{s.blobsDir(id)}
	for _, t := range s.coldTiers() {
		dirs = append(dirs, s.tierBlobs(t, id))
	}
	return dirs
}

func (s *Store) tierBlobs(t model.Tier, id model.ID) string {
	if t == model.Hot {
		return s.blobsDir(id)
	}
	return filepath.Join(s.colder[t], id.DirName(), "blobs")
}

// blobIn is the file of a blob when it lies in that tier.
func (s *Store) blobIn(t model.Tier, id model.ID, name string) string {
	return filepath.Join(s.tierBlobs(t, id), name)
}

// sidecarIn is the proof of the copy that lies in that tier.
func (s *Store) sidecarIn(t model.Tier, id model.ID, name string) string {
	return filepath.Join(s.blocksDir(id), sidecarName(name, t))
}

func sidecarName(blob string, t model.Tier) string {
	if t == model.Hot {
		return blob + ".crc"
	}
	return blob + "." + string(t) + ".crc"
}

// tierOf is the tier in which a blob lies, by its name in the store alone: what it leads to may be gone. A link that leads
// elsewhere is another tool's, and counts as hot: nobody moves or removes what it leads to.
func (s *Store) tierOf(id model.ID, name string) model.Tier {
	if len(s.colder) == 0 {
		return model.Hot
	}
	target, err := os.Readlink(s.blobPath(id, name))
	if err != nil {
		return model.Hot
	}
	return s.tierOfLink(id, name, target)
}

func (s *Store) tierOfLink(id model.ID, name, target string) model.Tier {
	for t := range s.colder {
		if target == s.blobIn(t, id, name) {
			return t
		}
	}
	return model.Hot
}

// sidecarHere is the proof of a blob where it lies now.
func (s *Store) sidecarHere(id model.ID, name string) string {
	return s.sidecarIn(s.tierOf(id, name), id, name)
}

// parseSidecarName reads whose proof a sidecar's name says it is.
func parseSidecarName(file string) (blob string, t model.Tier, ok bool) {
	blob, ok = strings.CutSuffix(file, ".crc")
	if !ok {
		return "", "", false
	}
	blob, tier, colder := strings.Cut(blob, ".")
	if !colder {
		return blob, model.Hot, isBlobName(blob)
	}
	t, err := model.ParseTier(tier)
	return blob, t, err == nil && t != model.Hot && isBlobName(blob)
}

// coldTiers are the colder tiers that there are, the fastest first.
func (s *Store) coldTiers() []model.Tier {
	return slices.DeleteFunc(model.Tiers(), func(t model.Tier) bool { return s.colder[t] == "" })
}
