package fetch

import (
	"testing"

	"ema/internal/model"
)

func TestWhoRestsKeepsNoBuffersAndLosesNoneThatAreOut(t *testing.T) {
	f := New(Settings{Connections: 2, Buffers: 4 * model.MiB}, nil)
	out, err := f.buffers.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	idle, err := f.buffers.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.buffers.put(idle)
	f.Rest()
	if len(f.buffers.spare) != 0 || f.buffers.out != 1 {
		t.Errorf("%d spare, %d out", len(f.buffers.spare), f.buffers.out)
	}
	f.buffers.put(out)
	if len(f.buffers.spare) != 1 || f.buffers.out != 0 {
		t.Errorf("%d spare, %d out", len(f.buffers.spare), f.buffers.out)
	}
}
