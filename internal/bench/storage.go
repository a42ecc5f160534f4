package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ema/internal/host"
	"ema/internal/model"
)

// A StorageResult is of the disk of one tier. Rates are in a million bytes per second, all medians; nil is not known.
type StorageResult struct {
	Tier       string      `json:"tier"`
	Path       string      `json:"path"`
	FileSystem string      `json:"file_system"`
	Bytes      model.Bytes `json:"bytes"`

	WriteBuffered *float64 `json:"write_buffered_mb_per_second"` // through the page cache, the fsync after it included
	WriteDirect   *float64 `json:"write_direct_mb_per_second"`   // past the page cache
	ReadBuffered  *float64 `json:"read_buffered_mb_per_second"`  // through the page cache, which was emptied of the file before
	ReadCached    *float64 `json:"read_cached_mb_per_second"`    // from the page cache: this is memory, not the disk
	ReadDirect    *float64 `json:"read_direct_mb_per_second"`    // past the page cache

	RandomP50 *float64 `json:"random_read_4k_p50_ms"` // past the page cache
	RandomP99 *float64 `json:"random_read_4k_p99_ms"`
	FsyncP50  *float64 `json:"fsync_p50_ms"` // of an append of 4 KiB
	FsyncP95  *float64 `json:"fsync_p95_ms"`
	Files     *float64 `json:"metadata_files_per_second"` // created, renamed and unlinked
}

const (
	chunk = 1 << 20 // of sequential reads and writes
	page  = 4096
)

func (r *assessor) storage(ctx context.Context) error {
	each := r.lasting("storage") / time.Duration(len(r.Places))
	for _, p := range r.Places {
		err := within(p.Dir, func(folder string) error {
			d := &disk{assessor: r, place: p, folder: folder, each: each, pass: each / time.Duration(8*r.Repeats), samples: map[string][]float64{}}
			return d.measure(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// A disk is measured in a folder of its own.
type disk struct {
	*assessor
	place   Place
	folder  string
	each    time.Duration // for all of it
	pass    time.Duration // the longest that one pass takes; its rate is of what was done until then
	samples map[string][]float64
}

func (d *disk) measure(ctx context.Context) error {
	res := &StorageResult{Tier: d.place.Tier, Path: d.place.Dir, Bytes: d.AssessSettings.Size}
	d.Results.Storage = append(d.Results.Storage, res)
	var err error
	if res.FileSystem, err = fileSystem(d.place.Dir); err != nil {
		d.unknown("file_system", err)
	}
	err = d.repeat(ctx, d.each, d.enough, func(n int) error {
		d.Progress(fmt.Sprintf("storage: %s, repeat %d", d.place.Tier, n+1))
		return d.once(ctx)
	})
	if err != nil {
		return err
	}
	take := func(to **float64, name, unit string, better Better) {
		*to = d.note("storage."+d.place.Tier+"."+name, d.samples[name], unit, better)
	}
	take(&res.WriteBuffered, "write_buffered", "MB/s", Higher)
	take(&res.WriteDirect, "write_direct", "MB/s", Higher)
	take(&res.ReadBuffered, "read_buffered", "MB/s", Higher)
	take(&res.ReadCached, "read_cached", "MB/s", Higher)
	take(&res.ReadDirect, "read_direct", "MB/s", Higher)
	take(&res.RandomP50, "random_read_4k_p50", "ms", Lower)
	take(&res.RandomP99, "random_read_4k_p99", "ms", Lower)
	take(&res.FsyncP50, "fsync_p50", "ms", Lower)
	take(&res.FsyncP95, "fsync_p95", "ms", Lower)
	take(&res.Files, "metadata_files", "per_second", Higher)
	return nil
}

// enough leaves out the slowest requests: they differ by nature, and the medians do not wait for them.
func (d *disk) enough() bool {
	for name, series := range d.samples {
		if name != "random_read_4k_p99" && name != "fsync_p95" && !tightEnough(series) {
			return false
		}
	}
	return true
}

func (d *disk) unknown(name string, why error) {
	d.Unknown["storage."+d.place.Tier+"."+name] = why.Error()
}

// add keeps a sample. Where there is no O_DIRECT there is none, which is no failure.
func (d *disk) add(name string, value float64, err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		d.unknown(name, errors.New("this file system cannot read and write past the page cache"))
		return nil
	}
	if err == nil {
		d.samples[name] = append(d.samples[name], value)
	}
	return err
}

// once is one repeat of all.
func (d *disk) once(ctx context.Context) error {
	name := filepath.Join(d.folder, "data")
	// The direct write comes first: the buffered one then leaves a whole file for the reads, whatever the file system can.
	rate, err := d.write(ctx, name, unix.O_DIRECT)
	if err = d.add("write_direct", rate, err); err != nil {
		return err
	}
	rate, err = d.write(ctx, name, 0)
	if err = d.add("write_buffered", rate, err); err != nil {
		return err
	}
	if err := (host.PageCache{}).Drop(name); err != nil {
		d.unknown("read_buffered", fmt.Errorf("the page cache could not be emptied of the file: %w", err))
	} else {
		rate, err = d.read(ctx, name, 0)
		if err = d.add("read_buffered", rate, err); err != nil {
			return err
		}
	}
	if err := d.cached(ctx, name); err != nil {
		return err
	}
	rate, err = d.read(ctx, name, unix.O_DIRECT)
	if err = d.add("read_direct", rate, err); err != nil {
		return err
	}
	took, err := d.random(ctx, name)
	if err = errors.Join(d.add("random_read_4k_p50", Quantile(took, 0.5), err), d.add("random_read_4k_p99", Quantile(took, 0.99), err)); err != nil {
		return err
	}
	took, err = d.fsyncs(ctx)
	if err = errors.Join(d.add("fsync_p50", Quantile(took, 0.5), err), d.add("fsync_p95", Quantile(took, 0.95), err)); err != nil {
		return err
	}
	rate, err = d.metadata(ctx)
	return errors.Join(d.add("metadata_files", rate, err), os.Remove(name))
}

// aligned is a buffer as devices want it for direct reads and writes, of bytes that no file system makes smaller.
func aligned(n int) []byte {
	raw := make([]byte, n+page)
	b := raw[-uintptr(unsafe.Pointer(unsafe.SliceData(raw)))&(page-1):][:n]
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) //nolint:errcheck // it never fails
	return b
}

// write writes the file and syncs it, and returns the rate.
func (d *disk) write(ctx context.Context, name string, flag int) (rate float64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|flag, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := aligned(chunk)
	begun, done := time.Now(), int64(0)
	for done < int64(d.AssessSettings.Size) && time.Since(begun) < d.pass {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := f.Write(b)
		done += int64(n)
		if err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return float64(done) / 1e6 / time.Since(begun).Seconds(), nil
}

// read reads the file from its beginning, and returns the rate.
func (d *disk) read(ctx context.Context, name string, flag int) (rate float64, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|flag, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := aligned(chunk)
	begun, done := time.Now(), int64(0)
	for time.Since(begun) < d.pass {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := f.Read(b)
		done += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	return float64(done) / 1e6 / time.Since(begun).Seconds(), nil
}

// cached reads the file when it is in the page cache, as far as it fits there.
func (d *disk) cached(ctx context.Context, name string) error {
	if _, err := d.read(ctx, name, 0); err != nil { // now it is
		return err
	}
	rate, err := d.read(ctx, name, 0)
	return d.add("read_cached", rate, err)
}

// random reads 4 KiB from random places past the page cache, and returns the milliseconds of each.
func (d *disk) random(ctx context.Context, name string) (took []float64, err error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	b := aligned(page)
	for begun := time.Now(); len(took) < 1000 && time.Since(begun) < d.pass; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		at := rng.Int64N(info.Size()/page) * page
		start := time.Now()
		if _, err := f.ReadAt(b, at); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(start)))
	}
	return took, nil
}

// fsyncs appends 4 KiB and syncs, and returns the milliseconds of each.
func (d *disk) fsyncs(ctx context.Context) (took []float64, err error) {
	f, err := os.OpenFile(filepath.Join(d.folder, "log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := aligned(page)
	for begun := time.Now(); len(took) < 200 && time.Since(begun) < d.pass; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		if _, err := f.Write(b); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(start)))
	}
	return took, nil
}

// metadata makes files, renames and removes them, and returns how many per second.
func (d *disk) metadata(ctx context.Context) (float64, error) {
	const files = 1000
	name := func(kind string, n int) string { return filepath.Join(d.folder, fmt.Sprint(kind, n)) }
	begun := time.Now()
	for step, do := range []func(n int) error{
		func(n int) error {
			f, err := os.Create(name("new", n))
			return errors.Join(err, f.Close())
		},
		func(n int) error { return os.Rename(name("new", n), name("old", n)) },
		func(n int) error { return os.Remove(name("old", n)) },
	} {
		for n := range files {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			if err := do(n); err != nil {
				return 0, fmt.Errorf("step %d: %w", step, err)
			}
		}
	}
	return files / time.Since(begun).Seconds(), nil
}
