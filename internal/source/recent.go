package source

import "sync"

// A recent remembers a bounded number of values and forgets the oldest first. It is safe for
// concurrent use.
type recent[K comparable, V any] struct {
	most int

	mu    sync.Mutex
	by    map[K]V
	order []K // oldest first
}

func newRecent[K comparable, V any](most int) *recent[K, V] {
	return &recent[K, V]{most: most, by: make(map[K]V)}
}

// get returns what is remembered for k, or the zero value.
func (r *recent[K, V]) get(k K) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[k]
}

// put remembers v for k, and forgets what was remembered before.
func (r *recent[K, V]) put(k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(k, v)
}

// of returns what is remembered for k; the first to ask makes it.
func (r *recent[K, V]) of(k K, first func() V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.by[k]
	if !ok {
		v = first()
		r.set(k, v)
	}
	return v
}

func (r *recent[K, V]) set(k K, v V) {
	if _, there := r.by[k]; !there {
		if len(r.order) == r.most {
			delete(r.by, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, k)
	}
	r.by[k] = v
}
