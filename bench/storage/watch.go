package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ema/bench/table"
)

// watch measures what a program that maps and loads a model loses because the daemon notices that.
func (b *bench) watch(ctx context.Context) error {
	blob, err := b.blob(ctx)
	if err != nil {
		return err
	}
	if _, err := load(blob); err != nil { // into the page cache
		return err
	}
	var alone, watched, lost []float64
	for round := range b.rounds {
		quiet, err := load(blob)
		if err != nil {
			return err
		}
		stop, err := b.serve(ctx, "EMA_CACHE_OPTIMIZATION__MODEL_CACHE__ENABLED=false")
		if err != nil {
			return err
		}
		seen, err := load(blob)
		if err = errors.Join(err, stop()); err != nil {
			return err
		}
		alone, watched, lost = append(alone, quiet), append(watched, seen), append(lost, 100*(seen/quiet-1))
		fmt.Printf("  round %d: load alone %.3f s, watched %.3f s\n", round+1, quiet, seen)
	}
	t := &b.table
	t.Note("a load from memory through a mapping", fmt.Sprintf("%.3f s", table.Middle(alone)))
	t.Note("while opens are noticed", fmt.Sprintf("%.3f s", table.Middle(watched)))
	t.AtMost("it loses %", "%.1f", table.Middle(lost), 1)
	return nil
}

// load opens a file two hundred times, as some loaders do, maps it, and takes all of it through the processor, by lines of its
// cache. It returns the seconds.
func load(name string) (float64, error) {
	begun := time.Now()
	for range 200 {
		f, err := os.Open(name)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return 0, err
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() // it is only read
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	sum := byte(0)
	for at := 0; at < len(mapped); at += 64 {
		sum += mapped[at]
	}
	if err := unix.Munmap(mapped); err != nil {
		return 0, err
	}
	if sum == 1 { // so that the reads are not left out
		fmt.Print("")
	}
	return time.Since(begun).Seconds(), nil
}
