package fetch

import (
	"context"
	"slices"
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

// buffers is the memory that all bytes in flight share, over all jobs. Buffers are made when first
// needed and reused, never given back: on virtual machines the first touch of a page is what memory
// costs. When all are out, whoever needs one waits its turn. A connection holds one only while it has
// something to fetch, so that an idle job keeps nobody waiting.
type buffers struct {
	mu      sync.Mutex
	most    int // buffers that may be out
	out     int
	spare   [][]byte
	waiting []chan struct{} // those who wait, first come first; a closed one has been given a buffer's place
	part    int             // of most: what connections need at least
	jobs    int             // that keep buffers for their hashes
}

// newBuffers divides limit between connections, which hold one buffer each, and the hashes.
func newBuffers(limit int64, connections int) *buffers {
	b := &buffers{}
	b.resize(limit, connections)
	return b
}

// resize changes the limit; those that are out stay out until they are put back.
func (b *buffers) resize(limit int64, connections int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.most, b.part = max(int(limit)/bufferSize, connections), connections
	b.hand()
}

func (b *buffers) get(ctx context.Context) ([]byte, error) {
	b.mu.Lock()
	if b.out < b.most && len(b.waiting) == 0 {
		b.out++
		return b.pick(), nil
	}
	turn := make(chan struct{})
	b.waiting = append(b.waiting, turn)
	b.mu.Unlock()
	select {
	case <-turn:
		b.mu.Lock()
		return b.pick(), nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiting, turn); i >= 0 {
		b.waiting = slices.Delete(b.waiting, i, i+1)
	} else {
		b.out-- // the turn came at the same moment
		b.hand()
	}
	return nil, context.Cause(ctx)
}

// pick takes a used buffer or makes one; it unlocks, since making one takes a while.
func (b *buffers) pick() []byte {
	if last := len(b.spare) - 1; last >= 0 {
		defer b.mu.Unlock()
		buf := b.spare[last]
		b.spare = b.spare[:last]
		return buf
	}
	b.mu.Unlock()
	return make([]byte, bufferSize)
}

func (b *buffers) put(buf []byte) {
	if buf == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out--
	if b.out+len(b.spare) < b.most { // otherwise the limit was lowered meanwhile
		b.spare = append(b.spare, buf[:cap(buf)])
	}
	b.hand()
}

// hand gives free places to those who wait.
func (b *buffers) hand() {
	for b.out < b.most && len(b.waiting) > 0 {
		b.out++
		close(b.waiting[0])
		b.waiting = b.waiting[1:]
	}
}

// kept counts the buffers of one job that wait for its hashes.
type kept struct {
	*buffers
	n int
}

// keep makes the count of a new job; end gives its part to the others.
func (b *buffers) keep() *kept {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.jobs++
	return &kept{buffers: b}
}

func (k *kept) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.jobs--
}

// hold takes room for one buffer that is to wait for a hash, if there is any; urgent takes it anyway.
// What connections do not need is divided among the jobs.
func (k *kept) hold(urgent bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	room := min(int(ahead/BlockSize), max(0, k.most-k.part*k.jobs)/max(1, k.jobs))
	if k.n >= room && !urgent {
		return false
	}
	k.n++
	return true
}

// unhold gives the room back.
func (k *kept) unhold() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n--
}
