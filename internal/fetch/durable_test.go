package fetch_test

import (
	"context"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/fetch"
	"ema/internal/model"
	"ema/internal/store"
)

// gated is a sink on a disk that takes its time: no sync ends before the gate is open.
type gated struct {
	*store.Partial
	gate <-chan struct{}
}

func (g gated) Sync(state []byte, upto int64) error {
	<-g.gate
	return g.Partial.Sync(state, upto)
}

// However slow the disk syncs, a power loss costs at most SyncBytes of a file: connections wait, at
// most with the piece that each has in hand beyond it.
func TestConnectionsWaitRatherThanHaveMoreUnsynced(t *testing.T) {
	const limit, connections = 8 * model.MiB, 3
	r := newRig(t, fetch.Settings{Connections: connections, SyncBytes: limit}, demohub.Repo("acme/model", demohub.File("large.bin", 64*model.MiB)))
	w, err := r.store.Own(t.Context(), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	m, err := r.source.Resolve(t.Context(), r.id, "main")
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	var p fetch.Progress
	done := make(chan error, 1)
	go func() {
		done <- r.fetcher.Fetch(t.Context(), fetch.Job{
			Manifest: m, Files: m.Files, Progress: &p,
			Open: func(ctx context.Context, f model.File) (fetch.Sink, error) {
				partial, err := w.Partial(ctx, r.id, f, "")
				return gated{partial, gate}, err
			},
			Large: func(_ context.Context, _ model.File, s fetch.Sink, d model.Digest) error {
				staged, err := s.(gated).Stage(d)
				if err != nil {
					return err
				}
				return w.Publish(t.Context(), []*store.Staged{staged})
			},
		})
	}()
	// Nothing moves any more when nothing has been written for a second.
	for before := int64(-1); before == 0 || p.Written.Load() != before; {
		before = p.Written.Load()
		select {
		case <-time.After(time.Second):
		case err := <-done:
			t.Fatalf("the job ended (%v) although no sync did", err)
		}
	}
	if got := model.Bytes(p.Written.Load()); got > limit+connections*model.MiB {
		t.Errorf("%v are written and not durable, want at most %v and a piece for each connection", got, limit)
	}
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.right(t, m)
}
