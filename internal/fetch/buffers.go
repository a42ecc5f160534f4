package fetch

import (
	"context"
	"sync"
)

const (
	// bufferSize is one block: what a fast connection reads before it writes, what goes to the disk in
	// one call, and what waits for the in-order hash. A small file fits into one.
	bufferSize = int(BlockSize)
	// ahead is how far before the hash's position bytes may wait for it in buffers. Beyond, the hash
	// reads them from the page cache, which costs a copy but no memory.
	ahead = 20 * BlockSize
)

// buffers is the memory that all bytes in flight share. Buffers are made when first needed and
// reused, never given back: on virtual machines the first touch of a page is what memory costs. When
// all are out, whoever needs one waits.
type buffers struct {
	slots chan struct{}
	spare chan []byte
	room  int // most buffers that may wait for hashes

	mu   sync.Mutex
	held int // buffers that wait for hashes
}

// newBuffers divides limit between connections, which hold one buffer each, and the hashes.
func newBuffers(limit int64, connections int) *buffers {
	room := min(int(ahead/BlockSize), max(0, int(limit)/bufferSize-connections))
	n := 2*connections + room // a connection that gives its buffer to a hash gets another at once
	return &buffers{slots: make(chan struct{}, n), spare: make(chan []byte, n), room: room}
}

func (b *buffers) get(ctx context.Context) ([]byte, error) {
	select {
	case b.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case buf := <-b.spare:
		return buf, nil
	default:
		return make([]byte, bufferSize), nil
	}
}

func (b *buffers) put(buf []byte) {
	if buf == nil {
		return
	}
	b.spare <- buf[:cap(buf)]
	<-b.slots
}

// hold takes room for one buffer that is to wait for a hash, if there is any; urgent takes it anyway.
func (b *buffers) hold(urgent bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held >= b.room && !urgent {
		return false
	}
	b.held++
	return true
}

// unhold gives the room back.
func (b *buffers) unhold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held--
}
