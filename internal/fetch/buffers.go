package fetch

import (
	"context"
	"sync"
)

const (
	// bufferSize is one read from the network and one in-order piece for the hash. Larger ones gain
	// nothing, and fall out of the processor's cache between network, hash and disk.
	bufferSize = 128 << 10
	// ahead is how much of a file may wait in buffers for the in-order hash to come by. Beyond, the
	// hash reads from the page cache, which costs a copy but no memory.
	ahead = 12 << 20
)

// buffers is the memory that all bytes in flight share. Buffers are made when first needed and
// reused; when all are out, whoever needs one waits.
type buffers struct {
	slots chan struct{}
	spare chan []byte
	queue int64 // most bytes that may wait for hashes
	mu    sync.Mutex
	held  int64 // bytes that wait for hashes
	small chan []byte
}

func newBuffers(limit int64, connections int) *buffers {
	n := max(limit/bufferSize, int64(2*connections))
	return &buffers{
		slots: make(chan struct{}, n),
		spare: make(chan []byte, n),
		queue: min(ahead, limit/2),
		small: make(chan []byte, connections),
	}
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

// replace gets a new buffer for one that was given away; readErr is kept for the caller.
func (b *buffers) replace(ctx context.Context, readErr error) ([]byte, error) {
	buf, err := b.get(ctx)
	if err != nil {
		return nil, err
	}
	return buf, readErr
}

// hold reserves n bytes of waiting room for a hash; false means that the hash has to read the file.
func (b *buffers) hold(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held+n > b.queue {
		return false
	}
	b.held += n
	return true
}

// unhold returns a buffer that waited for a hash.
func (b *buffers) unhold(buf []byte, n int64) {
	b.mu.Lock()
	b.held -= n
	b.mu.Unlock()
	b.put(buf)
}

// getSmall lends room for a small file that no ordinary buffer holds. There are never more of them
// than connections.
func (b *buffers) getSmall() []byte {
	select {
	case buf := <-b.small:
		return buf
	default:
		return make([]byte, BlockSize)
	}
}

func (b *buffers) putSmall(buf []byte) {
	select {
	case b.small <- buf:
	default:
	}
}
