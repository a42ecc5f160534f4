package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

func TestAnInterruptedPullSaysHowToGoOn(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		entries := generate(t, "30x1KiB-200KiB,2x8MiB")
		w := newWorld(t, demohub.Repo(acme.Name, parts(entries)...), demohub.Rate(3*model.MiB))
		p := w.start(t, "pull", acme.Name, "--connections", "4")
		until(t, "a good part is here", func() bool { return w.hub.Stats().Body > int64(6*model.MiB) })
		begun := time.Now()
		if err := p.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		code, took := p.end(t), time.Since(begun)
		last := strings.TrimSpace(p.err.String())
		last = last[strings.LastIndex(last, "\n")+1:]
		if code != 130 || p.out.String() != "" || !strings.Contains(last, "ema pull acme/model --connections 4") || !strings.Contains(last, "kept") {
			t.Errorf("%v: exit code %d, stdout %q, last line %q", sig, code, p.out.String(), last)
		}
		if took > 2*time.Second {
			t.Errorf("%v: it took %v to stop", sig, took)
		}
		w.hub.Set(demohub.Rate(0))
		holds(t, w.pull(t, acme.Name), entries)
		if sent, size := w.hub.Stats().Body, sizeOf(entries); sent > size+4*(int64(model.MiB)+2*inFlight) {
			t.Errorf("%v: %d bytes were sent for %d", sig, sent, size)
		}
	}
}
