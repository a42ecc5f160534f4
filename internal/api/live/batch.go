package live

import "sync"

// A batch is what has left the hub at once. Batches form a list to which the hub appends, and which each client walks
// at its own pace: what all clients have passed is garbage, so nobody keeps count.
type batch struct {
	messages []*message // in order of their numbers
	whole    frame      // for those who want everything
	next     *batch     // to be read once done is closed
	done     chan struct{}

	mu     sync.Mutex
	frames map[string]frame // for those who want a part, by the key of their filter
}

// A frame is what goes out as one WebSocket message. Clients share it.
type frame struct {
	text  []byte // nil when it has no messages
	count int
	solid int // messages in it that may not be dropped
}

func newBatch(messages []*message) *batch {
	return &batch{messages: messages, whole: join(messages), done: make(chan struct{}), frames: map[string]frame{}}
}

// following is the next batch, nil while there is none.
func (b *batch) following() *batch {
	select {
	case <-b.done:
		return b.next
	default:
		return nil
	}
}

// after reports whether all in b comes after seq.
func (b *batch) after(seq uint64) bool { return len(b.messages) == 0 || b.messages[0].seq > seq }

// frame is the part of b that passes f. Whoever asks first makes it, the others share it.
func (b *batch) frame(f filter) frame {
	if f.all() {
		return b.whole
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	made, ok := b.frames[f.key]
	if !ok {
		var wanted []*message
		for _, m := range b.messages {
			if f.wants(m) {
				wanted = append(wanted, m)
			}
		}
		made = join(wanted)
		b.frames[f.key] = made
	}
	return made
}

// join makes a frame of messages.
func join(messages []*message) frame {
	if len(messages) == 0 {
		return frame{}
	}
	const begin, end = `{"type":"batch","messages":[`, `]}`
	size := len(begin) + len(end)
	for _, m := range messages {
		size += len(m.json) + 1
	}
	f := frame{text: append(make([]byte, 0, size), begin...), count: len(messages)}
	for i, m := range messages {
		if i > 0 {
			f.text = append(f.text, ',')
		}
		f.text = append(f.text, m.json...)
		if !m.fleeting {
			f.solid++
		}
	}
	f.text = append(f.text, end...)
	return f
}

// coalesce leaves the newest progress of each download, move and benchmark, of most of them at most, and all that is no progress.
// It works in place, keeps the order, and says how many are gone.
func coalesce(messages []*message, most int) ([]*message, int) {
	seen := map[string]bool{}
	to := len(messages)
	for i := len(messages) - 1; i >= 0; i-- {
		m := messages[i]
		if m.fleeting {
			if seen[m.subject] || len(seen) >= most {
				continue
			}
			seen[m.subject] = true
		}
		to--
		messages[to] = m
	}
	clear(messages[:to]) // nobody reads them again, and the memory behind them is worth having
	return messages[to:], to
}
