package verify

import (
	"cmp"
	"compress/flate"
	"hash"
	"hash/crc32"
	"io"
	"path"
	"slices"
	"strings"
)

// Compression methods of zip members that readers of models know.
const (
	zipStored   = 0
	zipDeflated = 8
)

// checkZip checks an archive: torch's own format, numpy's npz, or any other. The directory is
// compared with the local headers, the members have to lie side by side, and every member that may
// be a pickle or a numpy array is checked as such. Whatever honest tools would not write is Suspicious.
func checkZip(name string, r io.ReaderAt, size int64, b *budget, rep *report) {
	rep.checked("zip")
	if strings.EqualFold(path.Ext(name), ".npz") {
		rep.format = "npz"
	}
	members, end, err := readZipDirectory(r, size, b, rep)
	if err != nil {
		rep.fail("the archive", err)
		return
	}
	dir := int64(end.off)
	whole := make([]bool, len(members)) // indexed as members, after the sort below
	slices.SortFunc(members, func(a, b zipMember) int { return cmp.Compare(a.header, b.header) })
	for i := range members {
		if members[i].isTorch() {
			rep.format = "torch zip"
		}
		if err := readZipLocal(r, &members[i], dir, b, rep); err != nil {
			rep.fail("the archive", err)
			continue
		}
		whole[i] = true
	}
	checkZipNames(members, rep)
	checkZipLayout(members, whole, dir, rep)
	inflate := flate.NewReader(nil) // one for all members; it holds some 40 KiB
	for i := range members {
		if whole[i] {
			checkZipMember(r, &members[i], inflate, b, rep)
		}
	}
}

// isTorch reports whether the member is the pickle that makes an archive one of torch's.
func (m *zipMember) isTorch() bool {
	return m.name == "data.pkl" || strings.HasSuffix(m.name, "/data.pkl")
}

// checkZipNames reports names that occur twice or that lead out of the archive's folder.
func checkZipNames(members []zipMember, rep *report) {
	names := make([]string, 0, len(members))
	for i := range members {
		m := &members[i]
		names = append(names, m.name)
		if strings.HasPrefix(m.name, "/") || strings.ContainsAny(m.name, "\\\x00") || slices.Contains(strings.Split(m.name, "/"), "..") {
			rep.add(Suspicious, "%s: a name that leads out of the archive's folder", quote(m.name))
		}
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i-1] == names[i] {
			rep.add(Suspicious, "%s: the name is there twice; readers differ in which one they take", quote(names[i]))
		}
	}
}

// checkZipLayout demands that the members, in the order of their headers, fill the archive from its
// first byte to the directory: bytes that belong to no member may be one that some readers find.
func checkZipLayout(members []zipMember, whole []bool, dir int64, rep *report) {
	at, known, descriptor := int64(0), true, false
	check := func(next int64) {
		gap := next - at
		switch {
		case !known || gap == 0:
		case gap < 0:
			rep.add(Suspicious, "byte %d: two members of the archive overlap", next)
		case descriptor && (gap == 12 || gap == 16 || gap == 20 || gap == 24): // with or without signature and zip64
		default:
			rep.add(Suspicious, "byte %d: %d bytes belong to no member of the archive; readers may find a hidden one", at, gap)
		}
	}
	for i := range members {
		m := &members[i]
		check(m.header)
		at, known, descriptor = m.body+m.packed, whole[i], m.flags&zipDescriptor != 0
	}
	check(dir)
}

// checkZipMember checks what is inside one member.
func checkZipMember(r io.ReaderAt, m *zipMember, inflate io.ReadCloser, b *budget, rep *report) {
	part := "member " + quote(m.name)
	switch {
	case m.flags&zipEncrypted != 0:
		rep.add(Suspicious, "%s: is encrypted; what is inside cannot be checked", part)
		return
	case m.method != zipStored && m.method != zipDeflated:
		rep.add(Suspicious, "%s: compressed by method %d, which loaders of models do not know; what is inside cannot be checked", part, m.method)
		return
	case m.method == zipStored && m.packed != m.size:
		rep.add(Broken, "%s: stored as it is, but %d bytes became %d", part, m.size, m.packed)
		return
	case m.size == 0:
		return
	}
	head := make([]byte, min(m.size, headSize))
	if m.method == zipStored {
		head = head[:min(len(head), 16)] // enough for every magic, where there may be 100,000 members
	}
	if _, err := io.ReadFull(m.open(r, inflate, b), head); err != nil {
		rep.fail(part, early(err))
		return
	}
	hint := m.hint(head)
	numpy := strings.HasPrefix(string(head), "\x93NUMPY") || path.Ext(m.name) == ".npy"
	switch {
	case strings.HasPrefix(string(head), zipLocalSig):
		rep.add(Unknown, "%s: an archive in the archive; what is inside is not checked", part)
		return
	case hint != notPickle && compression(head) != "":
		rep.add(Unknown, "%s: %s data, which may be a pickle; what is inside is not checked", part, compression(head))
		return
	case hint == notPickle && !numpy:
		return
	}
	sum := &summed{src: m.open(r, inflate, b), crc: crc32.NewIEEE()}
	c := newStream(sum, m.size, b)
	var inside report
	if numpy {
		checkNpy(c, &inside)
	} else {
		checkPickle(c, hint, &inside)
	}
	rep.include(part, &inside)
	if inside.verdict == NotApplicable || numpy && inside.verdict == OK {
		return // data, of any size: its checksum is not worth reading it
	}
	if err := c.skip(uint64(c.left())); err != nil {
		rep.fail(part, err)
		return
	}
	// torch can be told to write no checksums; it leaves a zero then.
	if got := sum.crc.Sum32(); got != m.crc && m.crc != 0 {
		rep.add(Suspicious, "%s: its checksum is %08x but the directory says %08x; it is damaged, or made so that some readers pass it by", part, got, m.crc)
	}
}

// hint says whether the member may be a pickle.
func (m *zipMember) hint(head []byte) pickleHint {
	hint := pickleByName(strings.ToLower(path.Ext(m.name)))
	if hint == notPickle && isPickleMagic(head) {
		return maybePickle
	}
	return hint
}

// open returns the member's plain bytes. It uses the one inflater that all members share.
func (m *zipMember) open(r io.ReaderAt, inflate io.ReadCloser, b *budget) io.Reader {
	packed := newDisk(r, m.body, m.packed)
	if m.method == zipStored {
		return packed
	}
	// What goes in is charged too: a stream may take gigabytes without ever giving a byte. Reset
	// fails never, as flate's documentation has it.
	_ = inflate.(flate.Resetter).Reset(&meter{packed, b}, nil)
	return io.LimitReader(inflate, m.size)
}

// A summed reader computes the checksum of what is read through it.
type summed struct {
	src io.Reader
	crc hash.Hash32
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	_, _ = s.crc.Write(p[:n]) // a hash never fails
	return n, err
}
