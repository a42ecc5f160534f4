package fetch

import (
	"fmt"

	"ema/internal/model"
)

// ChunkRule is how large a chunk is (chunk_optimization): by the file's size at first, then by the
// measured rate. A chunk is what a connection asks for at least where requests cost something, and at
// most where they cost nothing; on slow networks it is also how finely the rest is divided. Far
// origins get longer requests, so that a round trip costs little of each.
type ChunkRule struct {
	Default, Small, Large          model.Bytes // chunk: 8, 4, 16 MiB
	SmallThreshold, LargeThreshold model.Bytes // of the file: 100, 1000 MiB
	Fixed                          bool        // adaptive chunking off: always Default
	Network                        NetworkRule
}

// NetworkRule lowers or raises the chunk by the rate at which a job has received lately.
type NetworkRule struct {
	Enabled              bool
	Slow, Fast           model.Bytes // per second: at most, at least; 10, 100 MiB
	SlowChunk, FastChunk model.Bytes // 2, 32 MiB
}

func (c ChunkRule) withDefaults() ChunkRule {
	c.Default = def(c.Default, 8*model.MiB)
	c.Small = def(c.Small, 4*model.MiB)
	c.Large = def(c.Large, 16*model.MiB)
	c.SmallThreshold = def(c.SmallThreshold, 100*model.MiB)
	c.LargeThreshold = def(c.LargeThreshold, 1000*model.MiB)
	c.Network.Slow = def(c.Network.Slow, 10*model.MiB)
	c.Network.Fast = def(c.Network.Fast, 100*model.MiB)
	c.Network.SlowChunk = def(c.Network.SlowChunk, 2*model.MiB)
	c.Network.FastChunk = def(c.Network.FastChunk, 32*model.MiB)
	return c
}

// size is the chunk for a file of n bytes over a network of this speed, and why.
func (c ChunkRule) size(n int64, at speed) (chunk int64, why string) {
	switch {
	case c.Fixed:
		chunk, why = int64(c.Default), "the same for all files"
	case n < int64(c.SmallThreshold):
		chunk, why = int64(c.Small), fmt.Sprintf("a file of less than %v", c.SmallThreshold)
	case n > int64(c.LargeThreshold):
		chunk, why = int64(c.Large), fmt.Sprintf("a file of more than %v", c.LargeThreshold)
	default:
		chunk, why = int64(c.Default), fmt.Sprintf("a file between %v and %v", c.SmallThreshold, c.LargeThreshold)
	}
	switch {
	case !c.Network.Enabled:
	case at == slow && chunk > int64(c.Network.SlowChunk):
		chunk, why = int64(c.Network.SlowChunk), fmt.Sprintf("the network brings at most %v/s", c.Network.Slow)
	case at == fast && chunk < int64(c.Network.FastChunk):
		chunk, why = int64(c.Network.FastChunk), fmt.Sprintf("the network brings at least %v/s", c.Network.Fast)
	}
	return chunk, why
}

// speed is what a NetworkRule tells apart.
type speed uint8

const (
	middling speed = iota
	slow
	fast
)

// A pace follows a job's rate and says how fast the network is. One second says little: the rate is
// smoothed, and must be a quarter beyond a threshold before the judgement is taken back, so that a
// rate near one does not change the chunk every second.
type pace struct {
	speed speed
	rate  float64 // smoothed bytes per second; 0: unknown
	n     int     // seconds that it rests on
}

// step takes the bytes of one second, and reports whether the speed is another now. A second without
// any says nothing: the network is away, or there was nothing to fetch.
func (p *pace) step(r NetworkRule, bytes int64) bool {
	const weight, enough, clear = 0.3, 3, 1.25
	if bytes <= 0 {
		return false
	}
	if p.n++; p.n == 1 {
		p.rate = float64(bytes)
	}
	p.rate += weight * (float64(bytes) - p.rate)
	if p.n < enough {
		return false
	}
	was := p.speed
	low, high := float64(r.Slow), float64(r.Fast)
	switch {
	case p.rate <= low || was == slow && p.rate <= low*clear:
		p.speed = slow
	case p.rate >= high || was == fast && p.rate >= high/clear:
		p.speed = fast
	default:
		p.speed = middling
	}
	return p.speed != was
}

// follow is called once a second with the bytes of that second. It returns the files whose chunk has
// changed.
func (p *plan) follow(bytes int64) (changed []chunked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	rule := p.settings.Chunk
	if !p.pace.step(rule.Network, bytes) || !rule.Network.Enabled {
		return nil
	}
	for _, b := range p.blobs {
		if chunk, why := rule.size(b.file.Size, p.pace.speed); chunk != b.chunk {
			b.chunk, b.why = chunk, why
			changed = append(changed, p.chunked(b))
		}
	}
	return changed
}

// chunked is what the log is told about a file's chunk.
type chunked struct {
	file  model.File
	chunk model.Bytes
	why   string
	rate  model.Bytes // measured, per second; 0: not yet
}

func (p *plan) chunked(b *blob) chunked {
	return chunked{file: b.file, chunk: model.Bytes(b.chunk), why: b.why, rate: model.Bytes(p.pace.rate)}
}

// logChunk writes why a chunk is as large as it is.
func (r *run) logChunk(c chunked) {
	if log := r.settings().Log; log != nil {
		log.Debug("chunk size", "model", r.job.Manifest.ID.String(), "file", c.file.Path, "size", model.Bytes(c.file.Size).String(),
			"chunk", c.chunk.String(), "because", c.why, "measured_per_second", c.rate.String())
	}
}
