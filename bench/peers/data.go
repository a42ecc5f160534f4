package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A dataFile is one file of a model that the origin serves.
type dataFile struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// A dataSet is a folder of models; each is a folder of files.
type dataSet struct {
	Models []string   `json:"models"` // "bench/NAME", folder NAME below dir
	Files  []dataFile `json:"files"`  // the same paths and sizes in every model; hashes are of the first one
	dir    string
}

func (d dataSet) folder(model string) string { return filepath.Join(d.dir, filepath.Base(model)) }

func (d dataSet) bytes() (sum int64) {
	for _, f := range d.Files {
		sum += f.Size
	}
	return sum
}

// prepare makes the files of a case below dir, or finds those that an earlier run has left. Their content is
// pseudo-random, never the same in two files, and always the same for the same name and size.
func prepare(ctx context.Context, c testCase, dir string) (dataSet, error) {
	name := ""
	for _, g := range c.groups {
		name += fmt.Sprintf("%dx%d-%d,", g.count, g.low, g.high)
	}
	models := max(1, c.models)
	d := dataSet{dir: filepath.Join(dir, "data", fmt.Sprintf("%s%d", name, models))}
	listed := filepath.Join(d.dir, "files.json")
	if b, err := os.ReadFile(listed); err == nil && json.Unmarshal(b, &d) == nil && d.complete() {
		return d, nil
	}
	d.Models, d.Files = nil, nil
	for m := range models {
		d.Models = append(d.Models, fmt.Sprintf("bench/m%04d", m))
		for i, g := range c.groups {
			for k := range g.count {
				if err := ctx.Err(); err != nil {
					return dataSet{}, err
				}
				f := dataFile{Path: fmt.Sprintf("part%d/%05d", i+1, k), Size: g.size(k)}
				f.Path += f.suffix()
				if err := f.make(filepath.Join(d.folder(d.Models[m]), f.Path), uint64(m)); err != nil {
					return dataSet{}, err
				}
				if m == 0 {
					d.Files = append(d.Files, f)
				}
			}
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		return dataSet{}, err
	}
	return d, os.WriteFile(listed, b, 0o666) // last: a folder without it was not finished
}

// size spreads sizes evenly by their logarithm, without an order.
func (g group) size(k int) int64 {
	if g.low == g.high {
		return g.low
	}
	at := rand.New(rand.NewPCG(uint64(g.low), uint64(k))).Float64()
	return int64(math.Exp(math.Log(float64(g.low)) + at*math.Log(float64(g.high)/float64(g.low))))
}

func (d dataSet) complete() bool {
	for _, m := range d.Models {
		for _, f := range d.Files {
			if info, err := os.Stat(filepath.Join(d.folder(m), f.Path)); err != nil || info.Size() != f.Size {
				return false
			}
		}
	}
	return len(d.Files) > 0
}

// suffix makes weights of whatever is large. What is small has a name that says nothing of its content.
func (f dataFile) suffix() string {
	if f.Size > mib {
		return ".safetensors"
	}
	return ".dat"
}

// head is how the file begins: a safetensors file has a correct header, so that a peer that reads it finds no fault.
func (f dataFile) head() []byte {
	const length = 4096 // of the header, padded by spaces as the format allows
	if f.suffix() != ".safetensors" {
		return nil
	}
	content := f.Size - 8 - length
	header := fmt.Sprintf(`{"weights":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}`, content, content)
	return append(binary.LittleEndian.AppendUint64(nil, length), fmt.Sprintf("%-*s", length, header)...)
}

// make writes the file at path and fills in its hash.
func (f *dataFile) make(path string, seed uint64) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	name := fnv.New64a()
	fmt.Fprintf(name, "%d %s %d", seed, f.Path, f.Size)
	var key [32]byte
	copy(key[:], name.Sum(nil))
	sum := sha256.New()
	head := f.head()
	content := io.MultiReader(bytes.NewReader(head), io.LimitReader(rand.NewChaCha8(key), f.Size-int64(len(head))))
	if _, err := io.CopyBuffer(io.MultiWriter(out, sum), content, make([]byte, 128<<10)); err != nil {
		return err
	}
	f.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// check says what is wrong with the files that a peer has left in dir.
func (d dataSet) check(ctx context.Context, dir string) error {
	buf := make([]byte, 256<<10)
	for _, f := range d.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.check(filepath.Join(dir, f.Path), buf); err != nil {
			return err
		}
	}
	return nil
}

func (f dataFile) check(path string, buf []byte) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	sum := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{in}, buf) // bare: only then is buf used
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != f.Size || got != f.SHA256 {
		return fmt.Errorf("%s has %d bytes and sha256 %s, want %d and %s", f.Path, n, got, f.Size, f.SHA256)
	}
	return nil
}
