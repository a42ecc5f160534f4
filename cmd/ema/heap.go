package main

import "sync"

// How much the heap grows between two collections, in percent of what lives. Of a download little lives long, beside large
// buffers that do: collecting often costs it nothing. Answers to requests are nothing but garbage beside a few MiB that
// live: collecting as often costs them a third of their rate.
const (
	heapOfWork    = 25
	heapOfAnswers = 200
)

// A heap is collected as suits what the daemon does.
type heap struct {
	collectAt func(percent int)

	mu    sync.Mutex
	works int           // downloads and commands that are under way
	turn  chan struct{} // closed when something begins or ends; nil while nobody waits for it
}

// state reports whether something works, and when to ask again.
func (h *heap) state() (working bool, turn <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.turn == nil {
		h.turn = make(chan struct{})
	}
	return h.works > 0, h.turn
}

// work says that a download or a command begins; done says that it has ended.
func (h *heap) work() (done func()) {
	h.add(1)
	return sync.OnceFunc(func() { h.add(-1) })
}

func (h *heap) add(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	worked := h.works > 0
	h.works += n
	if h.turn != nil && worked != (h.works > 0) {
		close(h.turn)
		h.turn = nil
	}
	switch {
	case !worked && h.works > 0:
		h.collectAt(heapOfWork)
	case worked && h.works == 0:
		h.collectAt(heapOfAnswers)
	}
}
