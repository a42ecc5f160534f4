// Command check measures how fast models are verified and repaired, beside sha256sum and dd on the same files.
//
//	go run ./bench/check                     # about three minutes, 9 GiB of disk
//	go run ./bench/check -size 512 -rounds 3
//
// Models come from a hub of its own on loopback, into a store in -dir, which is removed afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"ema/bench/table"
	"ema/internal/demohub"
	"ema/internal/host"
	"ema/internal/model"
)

const (
	one  = "acme/one"  // has one large file
	four = "acme/four" // has four, of the same size together
)

// A bench is where and what is measured.
type bench struct {
	ema, dir, url string
	rounds        int
	size          model.Bytes
	hub           *demohub.Hub
	table         table.Table
}

func main() {
	var b bench
	flag.IntVar(&b.rounds, "rounds", 5, "how often each is measured; the medians count")
	size := flag.Int64("size", 4096, "`MiB` of each model")
	flag.StringVar(&b.dir, "dir", "", "an empty `folder` to work in; default: a temporary one")
	flag.StringVar(&b.ema, "ema", "", "a `binary` to measure instead of the one that is built")
	check := flag.Bool("check", false, "fail when a target is missed")
	flag.Parse()
	b.size = model.Bytes(*size) * model.MiB
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := b.run(ctx)
	stop()
	if err == nil && *check && b.table.Missed() {
		err = errors.New("a target is missed")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "ema-check-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if b.ema == "" {
		b.ema = filepath.Join(b.dir, "ema")
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", b.ema, "./cmd/ema").CombinedOutput(); err != nil {
			return fmt.Errorf("build ema (run this from the top of the checkout): %w\n%s", err, text)
		}
	}
	quarter := b.size / 4
	b.hub = demohub.New(demohub.Repo(one, demohub.SeededFile("model.bin", b.size, 1)), demohub.Repo(four,
		demohub.SeededFile("a.bin", quarter, 2), demohub.SeededFile("b.bin", quarter, 3), demohub.SeededFile("c.bin", quarter, 4), demohub.SeededFile("d.bin", quarter, 5)))
	if err := b.hub.Warm(ctx); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: b.hub, ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) //nolint:errcheck // it ends by Close
	}()
	defer func() {
		err = errors.Join(err, server.Close())
		<-ended
	}()
	b.url = "http://" + l.Addr().String()
	for _, m := range []string{one, four} {
		if _, err := b.took(ctx, b.ema, "pull", m, "--quiet"); err != nil {
			return err
		}
	}
	for _, measure := range []func(context.Context) error{b.inMemory, b.fromDisk, b.repair} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return b.table.Print(os.Stdout, "check")
}

// took runs a program, and returns the seconds that it took.
func (b *bench) took(ctx context.Context, program string, args ...string) (float64, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(os.Environ(), "EMA_STORE__PATH="+filepath.Join(b.dir, "hub"), "EMA_STORE__STATE_DIR="+filepath.Join(b.dir, "state"), "HF_ENDPOINT="+b.url, "HF_TOKEN=")
	begun := time.Now()
	said, err := c.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, said)
	}
	return time.Since(begun).Seconds(), nil
}

// files are those of a model, by their real names.
func (b *bench) files(m string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(b.dir, "hub", "models--"+strings.ReplaceAll(m, "/", "--"), "blobs", "*"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s is not there", m)
	}
	return found, err
}

// inMemory measures with the files in the page cache.
func (b *bench) inMemory(ctx context.Context) error {
	for _, m := range []string{one, four} {
		files, err := b.files(m)
		if err != nil {
			return err
		}
		for _, name := range files {
			if err := load(name); err != nil {
				return err
			}
		}
		var ours, theirs []float64
		for range b.rounds {
			sum, err := b.took(ctx, "sha256sum", files...)
			if err != nil {
				return err
			}
			verify, err := b.took(ctx, b.ema, "verify", m)
			if err != nil {
				return err
			}
			ours, theirs = append(ours, verify), append(theirs, sum)
		}
		b.table.Note(m+" in memory: ema verify, sha256sum", fmt.Sprintf("%.2f s, %.2f s", table.Middle(ours), table.Middle(theirs)))
		target := 0.95
		if m == four {
			target = 1.8
		}
		b.table.AtLeast(m+": times as fast as sha256sum", "%.2f", table.Middle(theirs)/table.Middle(ours), target)
	}
	return nil
}

// load brings a file into the page cache.
func load(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}

// fromDisk measures with nothing of the files in memory.
func (b *bench) fromDisk(ctx context.Context) error {
	for _, m := range []string{one, four} {
		files, err := b.files(m)
		if err != nil {
			return err
		}
		drop := func() error {
			for _, name := range files {
				if err := (host.PageCache{}).Drop(name); err != nil {
					return err
				}
			}
			return nil
		}
		var ours, theirs []float64
		for range b.rounds {
			if err := drop(); err != nil {
				return err
			}
			var dd float64
			for _, name := range files {
				one, err := b.took(ctx, "dd", "if="+name, "of=/dev/null", "bs=1M")
				if err != nil {
					return err
				}
				dd += one
			}
			if err := drop(); err != nil {
				return err
			}
			verify, err := b.took(ctx, b.ema, "verify", m)
			if err != nil {
				return err
			}
			ours, theirs = append(ours, verify), append(theirs, dd)
		}
		b.table.Note(m+" from disk: ema verify, dd", fmt.Sprintf("%.2f s, %.2f s", table.Middle(ours), table.Middle(theirs)))
		b.table.AtLeast(m+": times as fast as dd", "%.2f", table.Middle(theirs)/table.Middle(ours), 0.95)
	}
	return nil
}

// repair flips one bit of a large file, in the middle, and has it mended.
func (b *bench) repair(ctx context.Context) error {
	var mends, verifies, copies []float64
	var most int64
	for range b.rounds {
		files, err := b.files(one)
		if err != nil {
			return err
		}
		verify, err := b.took(ctx, b.ema, "verify", one)
		if err != nil {
			return err
		}
		copying, err := b.copied(ctx, files[0])
		if err != nil {
			return err
		}
		if err := flip(files[0], int64(b.size)/2+12345); err != nil {
			return err
		}
		b.hub.ResetStats()
		mend, err := b.took(ctx, b.ema, "repair", one)
		if err != nil {
			return err
		}
		most = max(most, b.hub.Stats().Body)
		mends, verifies, copies = append(mends, mend), append(verifies, verify), append(copies, copying)
	}
	b.table.AtMost("repair of one bit: MiB that the hub sent", "%.2f", float64(most)/float64(model.MiB), 1)
	more := table.Middle(mends) - table.Middle(verifies)
	b.table.AtMost("repair of one bit: seconds more than verify", "%.2f", more, 1)
	b.table.Note("the same, and less than cp --reflink=auto, sync and rm take", fmt.Sprintf("%.2f (they take %.2f)", more-table.Middle(copies), table.Middle(copies)))
	return nil
}

// copied returns the seconds that a durable copy of a file takes, and the removal of one: what a repair that leaves readers what they
// read cannot do without.
func (b *bench) copied(ctx context.Context, name string) (all float64, err error) {
	to := name + ".copy"
	for _, step := range [][]string{{"cp", "--reflink=auto", name, to}, {"sync", to}, {"rm", to}, {"sync", filepath.Dir(to)}} {
		took, err := b.took(ctx, step[0], step[1:]...)
		if err != nil {
			return 0, err
		}
		all += took
	}
	return all, nil
}

// flip changes one bit of a file, and none of its times.
func flip(name string, at int64) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	bit := make([]byte, 1)
	if _, err = f.ReadAt(bit, at); err == nil {
		bit[0] ^= 1
		_, err = f.WriteAt(bit, at)
	}
	return errors.Join(err, f.Sync(), f.Close(), os.Chtimes(name, info.ModTime(), info.ModTime()))
}
