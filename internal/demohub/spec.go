package demohub

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"ema/internal/model"
)

// mostFiles bounds the files of one specification.
const mostFiles = 1_000_000

// Generate makes the files of a made-up model from a specification such as "200x4KiB-1MiB,3x512MiB": 200
// files of 4 KiB to 1 MiB and 3 of 512 MiB. Sizes in between are spread evenly by their logarithm, in an
// order without a pattern. Files of one size from 1 MiB on are safetensors shards, all others have a
// name of their own group: the same specification always makes the same files.
func Generate(spec string) ([]Entry, error) {
	var entries []Entry
	for group, text := range strings.Split(spec, ",") {
		count, sizes, ok := strings.Cut(text, "x")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 1 || n > mostFiles-len(entries) {
			return nil, fmt.Errorf("files %q: want COUNTxSIZE or COUNTxSIZE-SIZE, at most %d files in all", text, mostFiles)
		}
		low, high, isRange := strings.Cut(sizes, "-")
		from, err := ParseSize(low)
		to := from
		if err == nil && isRange {
			to, err = ParseSize(high)
		}
		if err != nil || to < from {
			return nil, fmt.Errorf("files %q: sizes are written as 4KiB or 4KiB-1MiB, the smaller first", text)
		}
		for i := range n {
			if from == to && from >= model.MiB {
				entries = append(entries, Safetensors(fmt.Sprintf("model%d-%05d-of-%05d.safetensors", group+1, i+1, n), 16, from))
				continue
			}
			at := float64(mix(uint64(group), uint64(i))>>11) / (1 << 53)
			size := model.Bytes(math.Exp(math.Log(float64(from+1))+at*(math.Log(float64(to+1))-math.Log(float64(from+1)))) - 1)
			entries = append(entries, File(fmt.Sprintf("part%d/%05d.bin", group+1, i+1), min(max(size, from), to)))
		}
	}
	return entries, nil
}

// ParseSize reads "512", "4KiB", "1MiB", "3GiB" or "2TiB".
func ParseSize(s string) (model.Bytes, error) {
	unit, digits := model.Bytes(1), s
	for suffix, u := range map[string]model.Bytes{"KiB": model.KiB, "MiB": model.MiB, "GiB": model.GiB, "TiB": model.TiB} {
		if short, ok := strings.CutSuffix(s, suffix); ok {
			unit, digits = u, short
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || model.Bytes(n) > math.MaxInt64/unit {
		return 0, fmt.Errorf("size %q: want a whole number, bare or with KiB, MiB, GiB or TiB", s)
	}
	return model.Bytes(n) * unit, nil
}

// Warm computes the hashes of all files that have none yet, so that no request has to wait for them.
func (h *Hub) Warm(ctx context.Context) error {
	h.mu.Lock()
	var entries []Entry
	for _, r := range h.repos {
		for _, c := range r.commits {
			entries = append(entries, c.entries...)
		}
	}
	h.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, e := range entries {
		g.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if e.err != nil {
				return e.err
			}
			_, err := e.listedSum()
			return err
		})
	}
	return g.Wait()
}
