package main

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"ema/internal/model"
	"ema/internal/store"
)

func TestTheDaemonGoesOnWithAMoveThatWasCutShort(t *testing.T) {
	_, environ := quickHub(t)
	environ = append(environ, "EMA_STORAGE_TIERS__COLD__PATH="+filepath.Join(t.TempDir(), "cold"))
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	ema := func(ctx context.Context, args ...string) (int, string) {
		var stderr bytes.Buffer
		a := &app{stdout: &bytes.Buffer{}, stderr: &stderr, environ: environ}
		return execute(ctx, a, rootCommand(a), args), stderr.String()
	}
	if code, stderr := ema(ctx, "pull", "acme/slow", "--quiet"); code != 0 {
		t.Fatal(stderr)
	}
	s, err := (&app{environ: environ}).store()
	if err != nil {
		t.Fatal(err)
	}
	for after := int64(0); ; after++ { // until one is cut short that had begun
		code, stderr := ema(fade(ctx, after), "tier", "move", "acme/slow", "cold")
		if left, err := s.Resume(); len(left) == 1 {
			break
		} else if code != 130 || err != nil {
			t.Fatalf("no move was cut short: exit code %d, %s, %v", code, stderr, err)
		}
	}
	daemon := serving(ctx, t, environ)
	if err := daemon.stderr.contains(ctx, `msg=moved model=acme/slow to=cold `); err != nil {
		t.Fatal(err)
	}
	if code, stderr := ema(ctx, "verify", "acme/slow"); code != 0 {
		t.Error(stderr)
	}
	k, err := s.Model(model.ID{Name: "acme/slow"})
	if err != nil || k.Tiers[model.Hot] != 0 || k.Tiers[model.Cold] != k.Size {
		t.Errorf("it lies in %v, %v", k.Tiers, err)
	}
	if left, err := s.Resume(); len(left) > 0 || err != nil {
		t.Errorf("%+v are under way, %v", left, err)
	}
	if got := s.Tiers(); len(got) != 2 || got[1].State != store.TierReady {
		t.Errorf("tiers %+v", got)
	}
	daemon.ends(t)
}
