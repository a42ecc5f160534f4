package fetch

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"ema/internal/model"
)

func TestTheChunkFollowsTheFileAndThenTheNetwork(t *testing.T) {
	on := NetworkRule{Enabled: true}
	for _, c := range []struct {
		rule ChunkRule
		size model.Bytes
		at   speed
		want model.Bytes
	}{
		{ChunkRule{}, 99 * model.MiB, middling, 4 * model.MiB},
		{ChunkRule{}, 100 * model.MiB, middling, 8 * model.MiB},
		{ChunkRule{}, 1001 * model.MiB, middling, 16 * model.MiB},
		{ChunkRule{Fixed: true}, 1001 * model.MiB, middling, 8 * model.MiB},
		{ChunkRule{}, 1001 * model.MiB, slow, 16 * model.MiB}, // switched off
		{ChunkRule{Network: on}, 1001 * model.MiB, middling, 16 * model.MiB},
		{ChunkRule{Network: on}, 1001 * model.MiB, slow, 2 * model.MiB},
		{ChunkRule{Network: on}, 99 * model.MiB, fast, 32 * model.MiB},
		{ChunkRule{Network: on, Fixed: true}, 99 * model.MiB, slow, 2 * model.MiB},
		{ChunkRule{Network: on, Large: 64 * model.MiB}, 2 * model.GiB, fast, 64 * model.MiB}, // raised, never lowered
		{ChunkRule{Network: on, Small: model.MiB}, 50 * model.MiB, slow, model.MiB},          // lowered, never raised
	} {
		got, why := c.rule.withDefaults().size(int64(c.size), c.at)
		if model.Bytes(got) != c.want || why == "" {
			t.Errorf("%v at speed %d: %v (%s), want %v", c.size, c.at, model.Bytes(got), why, c.want)
		}
	}
}

func TestASpeedNearAThresholdDoesNotFlutter(t *testing.T) {
	rule := ChunkRule{}.withDefaults().Network
	step := func(p *pace, seconds int, rate model.Bytes) (changes []speed) {
		for i := range seconds {
			wobble := rate / 10 * model.Bytes(i%3-1)
			if p.step(rule, int64(rate+wobble)) {
				changes = append(changes, p.speed)
			}
		}
		return changes
	}
	var p pace
	for _, c := range []struct {
		rate model.Bytes
		want []speed
	}{
		{50 * model.MiB, nil},
		{9 * model.MiB, []speed{slow}},
		{11 * model.MiB, nil}, // still: it must be clear
		{10 * model.MiB, nil},
		{15 * model.MiB, []speed{middling}},
		{120 * model.MiB, []speed{fast}},
		{95 * model.MiB, nil},
		{60 * model.MiB, []speed{middling}},
		{0, nil}, // the network is away
		{model.MiB, []speed{slow}},
	} {
		if got := step(&p, 60, c.rate); !slices.Equal(got, c.want) {
			t.Errorf("at %v/s it became %v, want %v", c.rate, got, c.want)
		}
	}
}

func TestAWaveringRateChangesTheSpeedAtMostOnceInHysteresis(t *testing.T) {
	rule := ChunkRule{}.withDefaults().Network
	rapid.Check(t, func(t *rapid.T) {
		p, changes := pace{}, 0
		for range 100 { // within the band around the lower threshold
			if p.step(rule, rapid.Int64Range(int64(rule.Slow)*9/10, int64(rule.Slow)*12/10).Draw(t, "rate")) {
				changes++
			}
		}
		if changes > 1 {
			t.Fatalf("%d changes", changes)
		}
	})
}

// lines collects log records.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// While a file is fetched, its chunk follows the rate, and the log says each time why.
func TestTheChunkChangesWhileAFileIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lines
		v := newValve(model.MiB)
		v.most = 1 << 20
		job := jobOf(150*model.MiB, 2*model.MiB)
		job.Limit = v
		set := Settings{
			Connections: 2, FixedParallel: true, Chunk: ChunkRule{Network: NetworkRule{Enabled: true, Fast: 12 * model.MiB, Slow: 2 * model.MiB}},
			Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		}
		f := New(set, &origin{answer: 20 * time.Millisecond})
		end := begin(t.Context(), f, job)
		time.Sleep(20 * time.Second)
		v.change(16 * model.MiB)
		whole(t, job, end())
		type line struct{ Msg, File, Chunk, Because string }
		got := map[string][]string{}
		for at := json.NewDecoder(&log.buf); at.More(); {
			var l line
			if err := at.Decode(&l); err != nil {
				t.Fatal(err)
			}
			if l.Because == "" {
				t.Errorf("no reason in %+v", l)
			}
			got[l.File] = append(got[l.File], l.Chunk)
		}
		if want := []string{"8.0 MiB", "2.0 MiB", "8.0 MiB", "32.0 MiB"}; !slices.Equal(got["a"], want) {
			t.Errorf("the chunks of the large file were %v, want %v", got["a"], want)
		}
		if len(got["b"]) == 0 || got["b"][0] != "4.0 MiB" {
			t.Errorf("the chunks of the smaller file were %v, want 4 MiB first", got["b"])
		}
	})
}
