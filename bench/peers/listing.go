package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// list brings all models into one store and then times ema ls, with everything in the page cache.
func (b *bench) list(ctx context.Context) ([]result, error) {
	e, remove, err := b.errand()
	if err != nil {
		return nil, err
	}
	results, err := b.listings(ctx, e)
	return results, errors.Join(err, remove())
}

func (b *bench) listings(ctx context.Context, e errand) (results []result, err error) {
	limited, cancel := context.WithTimeout(ctx, 5*b.timeout)
	defer cancel()
	// Only the result matters here, so nothing needs to survive a power loss on the way.
	if err := os.WriteFile(e.scratch("ema.yaml"), []byte("store: {durability: process}\n"), 0o666); err != nil {
		return nil, err
	}
	pull := append(append([]string{"pull"}, b.data.Models...), "--store", e.store(), "--endpoint", e.endpoint, "--config", e.scratch("ema.yaml"), "--quiet")
	cmd, _, stderr := b.command(limited, e, b.tools.ema, pull)
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("pull %d models: %w: %s", len(b.data.Models), err, lastLine(stderr.String()))
	}
	fmt.Fprintf(os.Stderr, "  pulled %d models in %.1f s\n", len(b.data.Models), time.Since(begin).Seconds())
	if _, err := syncFolder(e.folder); err != nil {
		return nil, err
	}
	for round := range b.runs {
		r := result{Case: b.name, Peer: "ema ls", Round: round, Size: int64(len(b.data.Models)) * b.data.bytes()}
		if r.Quiet, err = awaitIdle(ctx, b.idle); err != nil {
			return results, err
		}
		limited, cancel := context.WithTimeout(ctx, b.timeout)
		cmd, stdout, stderr := b.command(limited, e, b.tools.ema, []string{"ls", "--store", e.store()})
		own := ownPeak()
		begin := time.Now()
		err := cmd.Run()
		r.Wall = time.Since(begin).Seconds()
		cancel()
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		r.charge(cmd.ProcessState, own)
		if err != nil {
			r.Problem = fmt.Sprintf("%v: %s", err, lastLine(stderr.String()))
		}
		for _, m := range b.data.Models {
			if r.Problem == "" && !strings.Contains(stdout.String(), m) {
				r.Problem = "lists no " + m
			}
		}
		note(r)
		results = append(results, r)
	}
	return results, nil
}
