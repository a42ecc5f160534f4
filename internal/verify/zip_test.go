package verify

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"
)

// A zipPart is a member as zipFile writes it: with what the local header says apart from what the
// directory says.
type zipPart struct {
	name, data string
	method     uint16
	flags      uint16
	local      string // name in the local header, if another
	crc        uint32 // in the directory, if another
	pad        int    // bytes before the header that belong to nobody
	hidden     bool   // not in the directory
	large      bool   // sizes and offset in zip64 fields
	unsummed   bool   // without checksum in the directory
	inflated   int    // size of what data, which is deflated already, inflates to
	zeroes     bool   // as torch writes members: sizes and checksum follow the data
}

// zipFile writes an archive as torch does, and as nobody should.
func zipFile(t testing.TB, parts ...zipPart) []byte {
	t.Helper()
	var out, dir bytes.Buffer
	n := 0
	le := binary.LittleEndian
	for _, p := range parts {
		out.Write(make([]byte, p.pad))
		packed := []byte(p.data)
		if p.method == zipDeflated && p.inflated == 0 {
			var z bytes.Buffer
			w, err := flate.NewWriter(&z, 9)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(w, p.data) //nolint:errcheck // a buffer
			w.Close()
			packed = z.Bytes()
		}
		crc := crc32.ChecksumIEEE([]byte(p.data))
		header := out.Len()
		local := p.name
		if p.local != "" {
			local = p.local
		}
		flags := p.flags
		if p.zeroes {
			flags |= zipDescriptor
		}
		var extra []byte
		plain := len(p.data)
		if p.inflated > 0 {
			plain = p.inflated
		}
		sizes := [2]uint32{uint32(len(packed)), uint32(plain)}
		if p.large {
			extra = append(extra, 1, 0, 16, 0)
			extra = le.AppendUint64(extra, uint64(len(p.data)))
			extra = le.AppendUint64(extra, uint64(len(packed)))
			sizes = [2]uint32{1<<32 - 1, 1<<32 - 1}
		}
		h := append([]byte(zipLocalSig), 20, 0)
		h = le.AppendUint16(h, flags)
		h = le.AppendUint16(h, p.method)
		h = append(h, 0, 0, 0, 0)
		if p.zeroes {
			h = append(h, make([]byte, 12)...)
		} else {
			h = le.AppendUint32(h, crc)
			h = le.AppendUint32(h, sizes[0])
			h = le.AppendUint32(h, sizes[1])
		}
		h = le.AppendUint16(h, uint16(len(local)))
		h = le.AppendUint16(h, uint16(len(extra)))
		out.Write(h)
		out.WriteString(local)
		out.Write(extra)
		out.Write(packed)
		if p.zeroes {
			d := le.AppendUint32([]byte("PK\x07\x08"), crc)
			d = le.AppendUint32(d, uint32(len(packed)))
			out.Write(le.AppendUint32(d, uint32(len(p.data))))
		}
		if p.hidden {
			continue
		}
		if p.crc != 0 {
			crc = p.crc
		}
		if p.unsummed {
			crc = 0
		}
		offset := uint32(header)
		if p.large {
			extra[2] = 24
			extra = le.AppendUint64(extra, uint64(header))
			offset = 1<<32 - 1
		}
		c := append([]byte(zipCentralSig), 20, 0, 20, 0)
		c = le.AppendUint16(c, flags)
		c = le.AppendUint16(c, p.method)
		c = append(c, 0, 0, 0, 0)
		c = le.AppendUint32(c, crc)
		c = le.AppendUint32(c, sizes[0])
		c = le.AppendUint32(c, sizes[1])
		c = le.AppendUint16(c, uint16(len(p.name)))
		c = le.AppendUint16(c, uint16(len(extra)))
		c = append(c, make([]byte, 10)...)
		c = le.AppendUint32(c, offset)
		dir.Write(c)
		dir.WriteString(p.name)
		dir.Write(extra)
		n++
	}
	at := out.Len()
	out.Write(dir.Bytes())
	e := append([]byte(zipEndSig), 0, 0, 0, 0)
	e = le.AppendUint16(e, uint16(n))
	e = le.AppendUint16(e, uint16(n))
	e = le.AppendUint32(e, uint32(dir.Len()))
	e = le.AppendUint32(e, uint32(at))
	out.Write(append(e, 0, 0))
	return out.Bytes()
}

// zip64End replaces the end of an archive by a zip64 end.
func zip64End(data []byte) []byte {
	le := binary.LittleEndian
	end := data[len(data)-zipEndSize:]
	at := len(data) - zipEndSize
	rec := append([]byte(zip64EndSig), 44, 0, 0, 0, 0, 0, 0, 0, 45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	n := uint64(le.Uint16(end[10:]))
	rec = le.AppendUint64(le.AppendUint64(rec, n), n)
	rec = le.AppendUint64(rec, uint64(le.Uint32(end[12:])))
	rec = le.AppendUint64(rec, uint64(le.Uint32(end[16:])))
	loc := le.AppendUint64(append([]byte(zip64LocatorSig), 0, 0, 0, 0), uint64(at))
	loc = append(loc, 1, 0, 0, 0)
	last := append([]byte(zipEndSig), 0, 0, 0, 0)
	last = append(last, bytes.Repeat([]byte{0xff}, 12)...)
	return bytes.Join([][]byte{data[:at], rec, loc, append(last, 0, 0)}, nil)
}

const (
	harmlessPickle  = "\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01."
	dangerousPickle = "\x80\x02cos\ngetpid\n)R."
)

// torchParts are the members of a torch archive around a pickle.
func torchParts(pickle string, change func(*zipPart)) []zipPart {
	parts := []zipPart{
		{name: "model/data.pkl", data: pickle, zeroes: true},
		{name: "model/byteorder", data: "little", zeroes: true},
		{name: "model/data/0", data: "\x80\x02\x00\x00\x80\x3f\x00\x00", zeroes: true},
		{name: "model/version", data: "3\n", zeroes: true},
		{name: "model/.data/serialization_id", data: "0123456789", zeroes: true},
	}
	if change != nil {
		change(&parts[0])
	}
	return parts
}

func TestTorchArchives(t *testing.T) {
	torch := func(pickle string, change func(*zipPart)) []byte { return zipFile(t, torchParts(pickle, change)...) }
	sound := torch(harmlessPickle, nil)
	dir := bytes.Index(sound, []byte(zipCentralSig))
	edit := func(b byte, at ...int) []byte { return patch(sound, b, at...) }
	for promise, c := range map[string]struct {
		data  []byte
		want  Verdict
		words string
	}{
		"a model is sound":                               {sound, OK, ""},
		"a zip64 model is sound":                         {zip64End(torch(harmlessPickle, func(p *zipPart) { p.large = true })), OK, ""},
		"sizes in the header are sound":                  {torch(harmlessPickle, func(p *zipPart) { p.zeroes = false }), OK, ""},
		"zip64 sizes in the header are sound":            {torch(harmlessPickle, func(p *zipPart) { p.zeroes, p.large = false, true }), OK, ""},
		"a deflated pickle is sound":                     {torch(harmlessPickle, func(p *zipPart) { p.method = zipDeflated }), OK, ""},
		"a checksum left out is sound":                   {torch(harmlessPickle, func(p *zipPart) { p.unsummed = true }), OK, ""},
		"an import is found":                             {torch(dangerousPickle, nil), Dangerous, `member "model/data.pkl": byte 2: imports "os"`},
		"an import is found when deflated":               {torch(dangerousPickle, func(p *zipPart) { p.method = zipDeflated }), Dangerous, "os"},
		"an import is found under another name":          {torch(dangerousPickle, func(p *zipPart) { p.name = "model/readme.txt" }), Dangerous, "os"},
		"an import is found behind a wrong checksum":     {torch(dangerousPickle, func(p *zipPart) { p.crc = 1 }), Dangerous, "os"},
		"an import is found behind a wrong local name":   {torch(dangerousPickle, func(p *zipPart) { p.local = "model/data.txt" }), Dangerous, "os"},
		"a pickle cut short is found":                    {torch(harmlessPickle[:12], nil), Broken, "in the middle of a pickle"},
		"a wrong checksum is suspicious":                 {torch(harmlessPickle, func(p *zipPart) { p.crc = 1 }), Suspicious, "checksum"},
		"checksums that differ are suspicious":           {torch(harmlessPickle, func(p *zipPart) { p.zeroes, p.crc = false, 1 }), Suspicious, "another size or checksum"},
		"another local name is suspicious":               {torch(harmlessPickle, func(p *zipPart) { p.local = "model/data.pk_" }), Suspicious, "another name"},
		"encryption is suspicious":                       {torch(harmlessPickle, func(p *zipPart) { p.flags = 1 }), Suspicious, "encrypted"},
		"another compression is suspicious":              {torch(harmlessPickle, func(p *zipPart) { p.method = 14 }), Suspicious, "method 14"},
		"a member that no directory lists is suspicious": {zipFile(t, append(torchParts(harmlessPickle, nil), zipPart{name: "x", data: dangerousPickle, hidden: true})...), Suspicious, "belong to no member"},
		"bytes between members are suspicious":           {zipFile(t, append(torchParts(harmlessPickle, nil), zipPart{name: "x", data: "y", pad: 5})...), Suspicious, "21 bytes belong to no member"},
		"a name twice is suspicious":                     {zipFile(t, append(torchParts(harmlessPickle, nil), zipPart{name: "model/data.pkl", data: harmlessPickle})...), Suspicious, "twice"},
		"a name that leads out is suspicious":            {zipFile(t, zipPart{name: "../../x.pkl", data: harmlessPickle}), Suspicious, "leads out"},
		"a comment with a second end is found":           {withSecondEnd(sound), Broken, "second end record"},
		"bytes after the end are suspicious":             {append(bytes.Clone(sound), 1, 2, 3), Suspicious, "not at its end"},
		"a directory longer than it says is suspicious":  {edit(4, len(sound)-zipEndSize+8, len(sound)-zipEndSize+10), Suspicious, "goes on after its last member"},
		"counts that differ are suspicious":              {edit(4, len(sound)-zipEndSize+8), Suspicious, "several disks"},
		"two ends that disagree are suspicious":          {patch(zip64End(sound), 0, -zipEndSize+8, -zipEndSize+10), Suspicious, "disagree"},
		"a locator that points elsewhere is broken":      {patch(zip64End(sound), 1, -zipEndSize-zip64LocatorSize+8), Broken, "locator"},
		"a locator to nothing is broken":                 {patch(zip64End(sound), 1, -zipEndSize-zip64LocatorSize-zip64EndSize), Broken, "no zip64 end record"},
		"an archive cut short is broken":                 {sound[:len(sound)-30], Broken, "cut short"},
		"an archive cut in its data is broken":           {sound[:60], Broken, "cut short"},
		"a directory elsewhere is broken":                {edit(0xff, len(sound)-6), Broken, "directory"},
		"a member that is not where it should is broken": {edit(7, dir+42), Broken, "no header at byte 7"},
		"an archive in the archive is not checked":       {zipFile(t, zipPart{name: "a.zip", data: string(sound)}), Unknown, "archive in the archive"},
		"a compressed pickle is not checked":             {zipFile(t, zipPart{name: "a.joblib", data: "\x1f\x8b\x08\x00"}), Unknown, "gzip"},
	} {
		t.Run(promise, func(t *testing.T) { wantVerdict(t, check("pytorch_model.bin", c.data), c.want, c.words) })
	}
}

// patch sets bytes of a copy of data; negative offsets count from its end.
func patch(data []byte, b byte, at ...int) []byte {
	data = bytes.Clone(data)
	for _, i := range at {
		if i < 0 {
			i += len(data)
		}
		data[i] = b
	}
	return data
}

// withSecondEnd hides an archive's end in the comment of another, empty one.
func withSecondEnd(data []byte) []byte {
	at := len(data) - zipEndSize
	out := bytes.Clone(data)
	binary.LittleEndian.PutUint16(out[len(out)-2:], zipEndSize)
	return append(out, data[at:]...)
}

func TestArchivesOfOtherWritersAreSound(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range []struct {
		name, data string
		method     uint16
	}{
		{"config.json", `{"a":1}`, zip.Deflate},
		{"data.pkl", harmlessPickle, zip.Deflate},
		{"empty/", "", zip.Store},
		{"raw", "xyz", zip.Store},
	} {
		f, err := w.CreateHeader(&zip.FileHeader{Name: m.name, Method: m.method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := check("model.keras", b.Bytes())
	wantVerdict(t, f, OK)
	if f.Format != "torch zip" {
		t.Errorf("format = %q", f.Format)
	}
	inFront := zipFile(t, zipPart{name: "x", data: "y", pad: 5})
	wantVerdict(t, check("model.zip", inFront), Suspicious, "byte 0: 5 bytes belong to no member")
	for n := range b.Len() - 1 {
		if f := check("model.zip", b.Bytes()[:n+1]); f.Verdict < Suspicious {
			t.Errorf("the first %d of %d bytes: %+v", n+1, b.Len(), f)
		}
	}
}

func TestBombsStopAtTheBudget(t *testing.T) {
	// A pickle that inflates to 150 MiB: one compressed MiB, over and over.
	chunk := bytes.Repeat([]byte("\x80\x02X\xf8\x01\x00\x00"+string(bytes.Repeat([]byte("x"), 0x1f8))+"N."), 2048)
	var z bytes.Buffer
	w, err := flate.NewWriter(&z, 9)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(chunk); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	packed := bytes.Repeat(z.Bytes(), 150)
	bomb := zipFile(t, zipPart{name: "data.pkl", data: string(packed), method: zipDeflated, inflated: 150 * len(chunk)})
	wantVerdict(t, check("m.pt", bomb), Suspicious, "larger than what is checked")
}
