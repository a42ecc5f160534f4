package crashdisk

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// sector is what a device writes completely or not at all.
const sector = 512

// PowerLoss makes to, a folder that must not exist, look as root may look after the power failed
// now; seed chooses what of the unsynced is lost. Inodes and times survive as a device keeps them.
// The Disk, whose files share these inodes, is of no use afterwards.
func (d *Disk) PowerLoss(seed uint64, to string) error {
	if err := d.Kill(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l := loss{rand.New(rand.NewPCG(seed, 1)), map[*node]bool{}}
	return l.show(d.top, to)
}

type loss struct {
	rnd  *rand.Rand
	done map[*node]bool // files whose content is decided
}

func (l loss) show(n *node, to string) error {
	switch {
	case n.dir:
		if err := os.Mkdir(to, 0o777); err != nil {
			return err
		}
		names := maps.Clone(n.durNames)
		for _, r := range n.pendingSet {
			if l.rnd.IntN(2) == 0 {
				continue
			}
			for name, node := range r {
				if names[name] = node; node == nil {
					delete(names, name)
				}
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) { // sorted: the seed decides, not the map
			if err := l.show(names[name], filepath.Join(to, name)); err != nil {
				return err
			}
		}
		return nil
	case n.attic == "":
		return os.Symlink(n.target, to)
	}
	if err := l.decide(n); err != nil {
		return err
	}
	return os.Link(n.attic, to)
}

// decide gives a file the content that the device has of it.
func (l loss) decide(n *node) error {
	if l.done[n] {
		return nil
	}
	l.done[n] = true
	info, err := os.Stat(n.attic)
	if err != nil {
		return err
	}
	mtime := info.ModTime()
	if n.mtime.IsZero() {
		n.mtime = mtime.Add(-1)
	}
	if len(n.pending) > 0 {
		content := n.durable
		for _, c := range n.pending {
			content = l.some(c, content)
		}
		if err := os.Truncate(n.attic, 0); err != nil {
			return err
		}
		f, err := os.OpenFile(n.attic, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for off := 0; off < len(content); off += 64 << 10 {
			piece := content[off:min(off+64<<10, len(content))]
			if bytes.Count(piece, []byte{0}) == len(piece) {
				continue
			}
			if _, err := f.WriteAt(piece, int64(off)); err != nil {
				return err
			}
		}
		if err := f.Truncate(int64(len(content))); err != nil {
			return err
		}
	}
	if l.rnd.IntN(2) == 0 {
		mtime = n.mtime
	}
	return os.Chtimes(n.attic, mtime, mtime)
}

// some applies a change wholly, not at all, or sector by sector.
func (l loss) some(c change, b []byte) []byte {
	switch l.rnd.IntN(3) {
	case 0:
		return b
	case 1:
		return c.apply(b)
	}
	if c.data == nil {
		return b
	}
	if end := c.off + int64(len(c.data)); end > int64(len(b)) {
		b = resized(b, end)
	}
	for from := int64(0); from < int64(len(c.data)); {
		to := min((c.off+from)/sector*sector+sector-c.off, int64(len(c.data)))
		if l.rnd.IntN(2) == 0 {
			copy(b[c.off+from:], c.data[from:to])
		}
		from = to
	}
	return b
}
