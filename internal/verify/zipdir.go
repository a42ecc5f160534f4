package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Signatures and sizes of zip records (PKWARE APPNOTE 6.3, section 4.3).
const (
	zipLocalSig     = "PK\x03\x04"
	zipCentralSig   = "PK\x01\x02"
	zipEndSig       = "PK\x05\x06"
	zip64EndSig     = "PK\x06\x06"
	zip64LocatorSig = "PK\x06\x07"

	zipLocalSize     = 30
	zipCentralSize   = 46
	zipEndSize       = 22
	zip64EndSize     = 56
	zip64LocatorSize = 20
)

// Flags of a zip member.
const (
	zipEncrypted  = 1<<0 | 1<<6 | 1<<13
	zipDescriptor = 1 << 3 // sizes and checksum follow the data instead of preceding it
)

// maxZipMembers bounds the members of an archive that are looked at; torch writes one per tensor.
const maxZipMembers = 1_000_000

// A zipMember is one entry of the central directory. The standard library's reader is not used
// because it takes any directory as long as it can, follows entries beyond it, and never looks at
// what the local headers say.
type zipMember struct {
	name         string
	flags        uint16
	method       uint16
	crc          uint32
	packed, size int64 // compressed and plain, in bytes
	header       int64 // offset of the local header
	body         int64 // offset of the data; known once the local header was read
}

// A zipEnd is what the records at the end of an archive say about its directory.
type zipEnd struct {
	members   uint64
	size, off uint64
	at        int64 // where the end records begin, which is where the directory has to end
}

// readZipEnd finds the end of the archive as common readers do: the last end record in the last
// 64 KiB. Whatever would make two readers see two directories is reported.
func readZipEnd(r io.ReaderAt, size int64, b *budget, rep *report) (zipEnd, error) {
	tail := make([]byte, min(size, zipEndSize+math.MaxUint16))
	base := size - int64(len(tail))
	if err := readAt(r, tail, base, b); err != nil {
		return zipEnd{}, err
	}
	i := bytes.LastIndex(tail[:max(0, len(tail)-zipEndSize+len(zipEndSig))], []byte(zipEndSig))
	if i < 0 {
		return zipEnd{}, errors.New("an archive without its directory at the end; it is cut short or not an archive")
	}
	if ends := func(i int) bool { return i+zipEndSize+int(binary.LittleEndian.Uint16(tail[i+20:])) == len(tail) }; !ends(i) {
		rep.add(Suspicious, "byte %d: the archive's end record is not at its end; readers may find another one", base+int64(i))
	} else {
		for j := bytes.Index(tail[:i], []byte(zipEndSig)); j >= 0; {
			if ends(j) {
				rep.add(Suspicious, "byte %d: a second end record; readers may find another directory", base+int64(j))
				break
			}
			next := bytes.Index(tail[j+1:i], []byte(zipEndSig))
			if next < 0 {
				break
			}
			j += 1 + next
		}
	}
	rec := tail[i:]
	if binary.LittleEndian.Uint32(rec[4:]) != 0 || !bytes.Equal(rec[8:10], rec[10:12]) {
		rep.add(Suspicious, "the archive claims to be spread over several disks; readers differ in what they make of it")
	}
	end := zipEnd{
		members: uint64(binary.LittleEndian.Uint16(rec[10:])),
		size:    uint64(binary.LittleEndian.Uint32(rec[12:])),
		off:     uint64(binary.LittleEndian.Uint32(rec[16:])),
		at:      base + int64(i),
	}
	return readZip64End(r, end, b, rep)
}

// readZip64End follows the locator that precedes the end record of a large archive.
func readZip64End(r io.ReaderAt, end zipEnd, b *budget, rep *report) (zipEnd, error) {
	if end.at < zip64LocatorSize+zip64EndSize {
		return end, nil
	}
	var loc [zip64LocatorSize]byte
	if err := readAt(r, loc[:], end.at-zip64LocatorSize, b); err != nil {
		return end, err
	}
	if string(loc[:4]) != zip64LocatorSig {
		return end, nil
	}
	at := end.at - zip64LocatorSize - zip64EndSize
	if binary.LittleEndian.Uint64(loc[8:]) != uint64(at) {
		return end, errors.New("the locator of the zip64 end record does not point to the record before it")
	}
	var rec [zip64EndSize]byte
	if err := readAt(r, rec[:], at, b); err != nil {
		return end, err
	}
	if string(rec[:4]) != zip64EndSig {
		return end, errors.New("there is no zip64 end record where its locator points")
	}
	large := zipEnd{
		members: binary.LittleEndian.Uint64(rec[32:]),
		size:    binary.LittleEndian.Uint64(rec[40:]),
		off:     binary.LittleEndian.Uint64(rec[48:]),
		at:      at,
	}
	if end.members != math.MaxUint16 && end.members != large.members ||
		end.size != math.MaxUint32 && end.size != large.size ||
		end.off != math.MaxUint32 && end.off != large.off {
		rep.add(Suspicious, "the archive's two end records disagree; readers may find another directory")
	}
	return large, nil
}

// readZipDirectory reads the central directory.
func readZipDirectory(r io.ReaderAt, size int64, b *budget, rep *report) ([]zipMember, zipEnd, error) {
	end, err := readZipEnd(r, size, b, rep)
	if err != nil {
		return nil, end, err
	}
	if end.off > uint64(end.at) || end.size != uint64(end.at)-end.off {
		return nil, end, fmt.Errorf("the directory is said to be %d bytes at offset %d, but it ends at %d", end.size, end.off, end.at)
	}
	if end.members > end.size/zipCentralSize {
		return nil, end, fmt.Errorf("the directory claims %d members, more than it has room for", end.members)
	}
	if end.members > maxZipMembers {
		return nil, end, errBudget
	}
	c := newCursor(r, int64(end.off), end.at, b)
	var members []zipMember
	for range end.members {
		m, err := readZipMember(c)
		if err != nil {
			return nil, end, fmt.Errorf("the directory, before byte %d: %w", c.at, err)
		}
		members = append(members, m)
	}
	if c.left() > 0 {
		rep.add(Suspicious, "byte %d: the directory goes on after its last member; readers may find more members", c.at)
	}
	return members, end, nil
}

// readZipMember reads one entry of the central directory.
func readZipMember(c *cursor) (zipMember, error) {
	p, err := c.take(zipCentralSize)
	if err != nil {
		return zipMember{}, err
	}
	if string(p[:4]) != zipCentralSig {
		return zipMember{}, errors.New("no entry where one has to be")
	}
	le := binary.LittleEndian
	m := zipMember{flags: le.Uint16(p[8:]), method: le.Uint16(p[10:]), crc: le.Uint32(p[16:])}
	fields := [3]uint64{uint64(le.Uint32(p[24:])), uint64(le.Uint32(p[20:])), uint64(le.Uint32(p[42:]))}
	nameLen, extraLen, noteLen := int(le.Uint16(p[28:])), int(le.Uint16(p[30:])), int(le.Uint16(p[32:]))
	name, err := takeLong(c, nameLen)
	if err != nil {
		return m, err
	}
	m.name = string(name)
	extra, err := takeLong(c, extraLen)
	if err != nil {
		return m, err
	}
	if err := zip64Extra(extra, fields[:]); err != nil {
		return m, fmt.Errorf("%s: %w", quote(m.name), err)
	}
	for _, f := range fields {
		if f > math.MaxInt64 {
			return m, fmt.Errorf("%s: a size that no file has", quote(m.name))
		}
	}
	m.size, m.packed, m.header = int64(fields[0]), int64(fields[1]), int64(fields[2])
	return m, c.skip(uint64(noteLen))
}

// zip64Extra replaces those of the fields (plain size, compressed size, offset) that are all ones
// by the 64-bit values in the extra field 1, where they follow each other in this order.
func zip64Extra(extra []byte, fields []uint64) error {
	le := binary.LittleEndian
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		extra = extra[4:]
		if n > len(extra) {
			return errors.New("an extra field that is longer than all of them")
		}
		value := extra[:n]
		extra = extra[n:]
		if id != 1 {
			continue
		}
		for i := range fields {
			if fields[i] != math.MaxUint32 {
				continue
			}
			if len(value) < 8 {
				return errors.New("a zip64 field without the size that it stands for")
			}
			fields[i], value = le.Uint64(value), value[8:]
		}
		return nil
	}
	return nil
}

// readZipLocal reads a member's local header, sets where its data begins, and reports where the
// header says something else than the directory.
func readZipLocal(r io.ReaderAt, m *zipMember, dir int64, b *budget, rep *report) error {
	if m.header > dir-zipLocalSize {
		return fmt.Errorf("%s: its header is said to be at byte %d, behind all data", quote(m.name), m.header)
	}
	var p [zipLocalSize]byte
	if err := readAt(r, p[:], m.header, b); err != nil {
		return err
	}
	le := binary.LittleEndian
	if string(p[:4]) != zipLocalSig {
		return fmt.Errorf("%s: there is no header at byte %d, where the directory says", quote(m.name), m.header)
	}
	nameLen, extraLen := int64(le.Uint16(p[26:])), int64(le.Uint16(p[28:]))
	m.body = m.header + zipLocalSize + nameLen + extraLen
	if m.body > dir || m.packed > dir-m.body {
		return fmt.Errorf("%s: its %d bytes reach beyond the data of the archive", quote(m.name), m.packed)
	}
	rest := make([]byte, nameLen+extraLen)
	if err := readAt(r, rest, m.header+zipLocalSize, b); err != nil {
		return err
	}
	flags, method := le.Uint16(p[6:]), le.Uint16(p[8:])
	if string(rest[:nameLen]) != m.name || flags != m.flags || method != m.method {
		rep.add(Suspicious, "%s: its header at byte %d gives another name, method or flag than the directory; readers differ in which they believe",
			quote(m.name), m.header)
	}
	if flags&zipDescriptor != 0 {
		return nil // the header need not know sizes and checksum
	}
	fields := []uint64{uint64(le.Uint32(p[22:])), uint64(le.Uint32(p[18:]))}
	if err := zip64Extra(rest[nameLen:], fields); err != nil {
		return fmt.Errorf("%s: %w", quote(m.name), err)
	}
	if le.Uint32(p[14:]) != m.crc || fields[0] != uint64(m.size) || fields[1] != uint64(m.packed) {
		rep.add(Suspicious, "%s: its header at byte %d gives another size or checksum than the directory; readers differ in which they believe",
			quote(m.name), m.header)
	}
	return nil
}

// takeLong is take for up to 64 KiB.
func takeLong(c *cursor, n int) ([]byte, error) {
	out := make([]byte, 0, n)
	for n > 0 {
		p, err := c.take(min(n, cursorBuffer))
		if err != nil {
			return nil, err
		}
		out = append(out, p...)
		n -= len(p)
	}
	return out, nil
}
