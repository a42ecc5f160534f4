package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// models of several kinds, so that kills land everywhere: while the hub is asked, in small files, in
// large ones, while they are published, and in the commit.
func victims() map[string][]demohub.Entry {
	var small []demohub.Entry
	for i := range 300 {
		small = append(small, demohub.File(fmt.Sprintf("part%d/%03d.bin", i/50, i), model.Bytes(1+i*37)))
	}
	return map[string][]demohub.Entry{
		"mixed": {
			demohub.File("a.bin", 7*model.MiB+3), demohub.File("b.bin", 3*model.MiB), demohub.File("c.bin", 12*model.MiB),
			demohub.File("empty", 0), demohub.Bytes("config.json", []byte("{}\n")), demohub.File("sub/d.bin", 900*model.KiB),
		},
		"small": small,
		"large": {demohub.File("large.safetensors", 40*model.MiB+12345)},
		"same":  {demohub.SeededFile("x.bin", 5*model.MiB, 1), demohub.SeededFile("y.bin", 5*model.MiB, 1), demohub.SeededFile("z.bin", 6*model.MiB, 2)},
	}
}

// A pull that is killed at any moment goes on with what it had: per kill, it costs no more than what
// each open connection had in its hands. It is killed until it completes, and then there is another
// model.
func TestAKilledPullGoesOn(t *testing.T) {
	kills := 200
	if testing.Short() {
		kills = 40
	}
	const connections = 4
	names := []string{"mixed", "large", "small", "same"}
	rnd := rand.New(rand.NewPCG(7, 11))
	done, models := 0, 0
	for ; done < kills; models++ {
		entries := victims()[names[models%len(names)]]
		w := newWorld(t, demohub.Repo("acme/model", parts(entries)...), demohub.Rate(8*model.MiB))
		whole := w.typical(t, connections)
		killed := 0
		for ; ; killed++ {
			p := w.start(t, "pull", "acme/model", "--connections", fmt.Sprint(connections))
			// Half of the kills come early, since much happens then: a resume finds less and less to do.
			after := time.Duration(rnd.Int64N(int64(whole)))
			if rnd.IntN(2) == 0 {
				after /= 4
			}
			timer := time.AfterFunc(after, func() { _ = p.Process.Kill() })
			code := p.end(t)
			timer.Stop()
			if code == 0 {
				break
			}
			if code != -1 {
				t.Fatalf("model %d after %d kills: exit code %d\n%s", models, killed, code, p.err.String())
			}
			if killed > 500 {
				t.Fatalf("model %d: no end after %d kills", models, killed)
			}
		}
		done += killed
		path := w.pull(t, "acme/model")
		holds(t, path, entries)
		w.run(t, 0, "verify", "acme/model")
		// What a kill costs, and what is under way when a connection takes over a part of another's span.
		slack := int64(killed)*connections*int64(model.MiB) + int64(killed+1)*connections*2*inFlight
		sent, size := w.hub.Stats().Body, unique(entries)
		if sent > size+slack {
			t.Errorf("%d bytes were sent for %d, after %d kills", sent, size, killed)
		}
		left, err := filepath.Glob(filepath.Join(w.cache(), "*", "blobs", "*.incomplete"))
		if err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
		t.Logf("%s: %d kills, %s sent for %s", names[models%len(names)], killed, model.Bytes(sent), model.Bytes(size))
	}
	t.Logf("%d kills of %d models", done, models)
}

// typical is how long a pull of the world's model takes, by a home of its own.
func (w *world) typical(t testing.TB, connections int) time.Duration {
	t.Helper()
	other := *w
	other.home = t.TempDir()
	begun := time.Now()
	other.pull(t, "acme/model", "--connections", fmt.Sprint(connections))
	w.hub.ResetStats()
	return time.Since(begun)
}

// unique is the size of contents, each once.
func unique(entries []demohub.Entry) (sum int64) {
	seen := map[model.Digest]bool{}
	for _, e := range entries {
		if d, err := e.Digest(); err == nil && !seen[d] {
			seen[d] = true
			sum += e.Size()
		}
	}
	return sum
}

// A repair that is killed at any moment leaves the old file or the right one, and the next repair goes on. Whenever one
// completes, the model is damaged again.
func TestAKilledRepairGoesOn(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 20
	}
	e := demohub.File("large.bin", 12*model.MiB+5)
	w := newWorld(t, demohub.Repo("acme/model", e), demohub.Rate(8*model.MiB))
	path := w.pull(t, "acme/model")
	name := filepath.Join(path, e.Path)
	right, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	killed, since, mended := 0, 0, 0
	var old []byte
	damage := func() {
		for range 1 + rnd.IntN(3) {
			flip(t, name, rnd.Int64N(e.Size()))
		}
		if old, err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
		w.hub.ResetStats()
	}
	begun := time.Now()
	damage()
	w.run(t, 0, "repair", "acme/model")
	whole := time.Since(begun)
	for damage(); killed < kills; {
		p := w.start(t, "repair", "acme/model")
		timer := time.AfterFunc(time.Duration(rnd.Int64N(int64(whole))), func() { _ = p.Process.Kill() })
		code := p.end(t)
		timer.Stop()
		now, err := os.ReadFile(name)
		switch {
		case err != nil:
			t.Fatal(err)
		case !bytes.Equal(now, old) && !bytes.Equal(now, right):
			t.Fatalf("after %d kills the file is neither the old one nor the right one", killed)
		case code == 0 && !bytes.Equal(now, right):
			t.Fatalf("a repair that says it is done has mended nothing\n%s", p.out.String())
		case code == 0:
			if sent := w.hub.Stats().Body; sent > int64(since+1)*3*int64(model.MiB) {
				t.Errorf("after %d kills at most three blocks cost %d bytes", since, sent)
			}
			mended, since = mended+1, 0
			damage()
		case code == -1:
			killed, since = killed+1, since+1
		default:
			t.Fatalf("exit code %d\n%s", code, p.err.String())
		}
	}
	w.run(t, 0, "repair", "acme/model")
	holds(t, path, []demohub.Entry{e})
	out, _ := w.run(t, 0, "verify", "acme/model", "--json")
	if !json.Valid([]byte(out)) {
		t.Errorf("verify printed %q", out)
	}
	if left, err := filepath.Glob(filepath.Join(w.cache(), "*", "blobs", "*.incomplete")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	t.Logf("%d kills of %d repairs", killed, mended+1)
}
