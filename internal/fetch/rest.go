package fetch

// Rest gives up the buffers that no job holds. Who has nothing to fetch for a while calls it; the next
// job makes them anew.
func (f *Fetcher) Rest() {
	f.buffers.mu.Lock()
	defer f.buffers.mu.Unlock()
	f.buffers.spare = nil
}
