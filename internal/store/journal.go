package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"ema/internal/model"
)

// The journal of a file being fetched is a fixed layout that is overwritten in place, never a log
// that grows. All numbers are little-endian.
//
//	   0  header, 256 bytes, written once: what is being fetched, and a CRC
//	 512  boot record, 128 bytes: the boot in which the entries were last known to be as written
//	1024  checkpoint slot 0, 1024 bytes ┐ written in turn, so that a torn write
//	2048  checkpoint slot 1, 1024 bytes ┘ leaves the one before
//	4096  one entry of 8 bytes for each block
//
// An entry is aligned, so it never straddles a sector: a disk keeps the old one or the new one.
const (
	journalMagic   = "emajrnl\n"
	journalVersion = 1

	headerLen   = 256
	bootOffset  = 512
	bootLen     = 128
	slotOffset  = 1024
	slotLen     = 1024
	maxState    = 512
	entryOffset = 4096
	entryLen    = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry says what is known of one block: the CRC-32C of its written prefix (bits 0 to 31), the
// length of that prefix (bits 32 to 62), and whether it is durable (bit 63). Zero is a block of
// which nothing is there.
type entry uint64

const durableBit = entry(1) << 63

func newEntry(crc uint32, n int64) entry { return entry(crc) | entry(n)<<32 }

func (e entry) crc() uint32   { return uint32(e) }
func (e entry) len() int64    { return int64(e &^ durableBit >> 32) }
func (e entry) durable() bool { return e&durableBit != 0 }

// checkpoint is the state of an in-order hash after exactly upto bytes.
type checkpoint struct {
	seq   uint64 // 0 is an empty slot
	upto  int64
	state []byte
}

// journal is the content of a journal file.
type journal struct {
	etag      string
	suffix    string // of the data file's name
	size      int64
	validator [sha256.Size]byte // hashed: validators have no bounded length
	boot      string
	slots     [2]checkpoint
	entries   []entry
}

func journalSize(size int64) int64 { return entryOffset + entryLen*int64(blockCount(size)) }

var errJournal = errors.New("not a journal of this version")

// header lays out the part that never changes.
func (j *journal) header() []byte {
	b := make([]byte, headerLen)
	copy(b, journalMagic)
	binary.LittleEndian.PutUint32(b[8:], journalVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(BlockSize))
	binary.LittleEndian.PutUint64(b[16:], uint64(j.size))
	copy(b[24:88], j.etag)
	copy(b[88:96], j.suffix)
	copy(b[96:128], j.validator[:])
	binary.LittleEndian.PutUint32(b[headerLen-4:], crc32.Checksum(b[:headerLen-4], castagnoli))
	return b
}

// bootRecord lays out the boot id.
func (j *journal) bootRecord() []byte {
	b := make([]byte, bootLen)
	copy(b[:bootLen-4], j.boot)
	binary.LittleEndian.PutUint32(b[bootLen-4:], crc32.Checksum(b[:bootLen-4], castagnoli))
	return b
}

// slot lays out a checkpoint.
func (c checkpoint) slot() []byte {
	b := make([]byte, slotLen)
	binary.LittleEndian.PutUint64(b, c.seq)
	binary.LittleEndian.PutUint64(b[8:], uint64(c.upto))
	binary.LittleEndian.PutUint32(b[16:], uint32(len(c.state)))
	copy(b[24:], c.state)
	binary.LittleEndian.PutUint32(b[slotLen-4:], crc32.Checksum(b[:slotLen-4], castagnoli))
	return b
}

// parseJournal reads a journal file. It trusts nothing: what it returns is within bounds, but
// whether the entries are true is for the caller to decide. A bad header is errJournal; a bad boot
// record, slot or entry counts as absent.
func parseJournal(b []byte) (*journal, error) {
	if len(b) < entryOffset || string(b[:8]) != journalMagic || !sealed(b[:headerLen]) ||
		binary.LittleEndian.Uint32(b[8:]) != journalVersion ||
		binary.LittleEndian.Uint32(b[12:]) != uint32(BlockSize) {
		return nil, errJournal
	}
	j := &journal{
		size:   int64(binary.LittleEndian.Uint64(b[16:])),
		etag:   string(bytes.TrimRight(b[24:88], "\x00")),
		suffix: string(b[88:96]),
	}
	copy(j.validator[:], b[96:128])
	if !isBlobName(j.etag) || !isHex(j.suffix) || j.size <= 0 || j.size > 1<<60 || journalSize(j.size) != int64(len(b)) {
		return nil, errJournal
	}
	if boot := b[bootOffset : bootOffset+bootLen]; sealed(boot) {
		j.boot = string(bytes.TrimRight(boot[:bootLen-4], "\x00"))
	}
	for i := range j.slots {
		j.slots[i] = parseSlot(b[slotOffset+i*slotLen:][:slotLen], j.size)
	}
	j.entries = make([]entry, blockCount(j.size))
	for i := range j.entries {
		e := entry(binary.LittleEndian.Uint64(b[entryOffset+i*entryLen:]))
		if e.len() > 0 && e.len() <= blockLen(i, j.size) {
			j.entries[i] = e
		}
	}
	return j, nil
}

func parseSlot(b []byte, size int64) checkpoint {
	if !sealed(b) {
		return checkpoint{}
	}
	c := checkpoint{seq: binary.LittleEndian.Uint64(b), upto: int64(binary.LittleEndian.Uint64(b[8:]))}
	n := binary.LittleEndian.Uint32(b[16:])
	if c.seq == 0 || c.upto <= 0 || c.upto > size || n > maxState {
		return checkpoint{}
	}
	c.state = bytes.Clone(b[24 : 24+n])
	return c
}

// sealed reports whether b ends with the CRC of what comes before.
func sealed(b []byte) bool {
	n := len(b) - 4
	return binary.LittleEndian.Uint32(b[n:]) == crc32.Checksum(b[:n], castagnoli)
}

// reach is how far contiguous written bytes go from off; off itself if there are none.
func (j *journal) reach(off int64) int64 {
	for off < j.size {
		i := int(off / BlockSize)
		end := int64(i)*BlockSize + j.entries[i].len()
		if end <= off {
			break
		}
		off = end
		if off%BlockSize != 0 {
			break
		}
	}
	return off
}

// missing lists what is not written, ascending and disjoint.
func (j *journal) missing() []model.Segment {
	var out []model.Segment
	for i, e := range j.entries {
		start := int64(i) * BlockSize
		end := start + blockLen(i, j.size)
		start += e.len()
		switch {
		case start == end:
		case len(out) > 0 && out[len(out)-1].End == start:
			out[len(out)-1].End = end
		default:
			out = append(out, model.Segment{Start: start, End: end})
		}
	}
	return out
}

// newest is the index of the slot with the latest checkpoint.
func (j *journal) newest() int {
	if j.slots[1].seq > j.slots[0].seq {
		return 1
	}
	return 0
}

// distrust keeps of a journal what is provably true of the data file now, and reports which entries
// and slots it took back. dataSize is the file's length; prove, which reports whether the prefix of
// a block has the CRC that its entry says, is nil in the boot in which the entries were written.
//
//   - The same boot: a killed process leaves its page cache, so every entry stands.
//   - Another boot: a durable entry was marked after its bytes were synced. Any other may have
//     reached the disk before its bytes did, so it is read and compared.
//   - A checkpoint counts if every byte that it covers stands.
func (j *journal) distrust(dataSize int64, prove func(block int, e entry) (bool, error)) (entries, slots []int, err error) {
	for i, e := range j.entries {
		if e == 0 {
			continue
		}
		ok := int64(i)*BlockSize+e.len() <= dataSize
		if ok && !e.durable() && prove != nil {
			if ok, err = prove(i, e); err != nil {
				return nil, nil, err
			}
		}
		if !ok {
			j.entries[i] = 0
			entries = append(entries, i)
		}
	}
	whole := j.reach(0)
	for i, c := range j.slots {
		if c.seq != 0 && c.upto > whole {
			j.slots[i] = checkpoint{}
			slots = append(slots, i)
		}
	}
	return entries, slots, nil
}
