package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRatioComparesRunsOfTheSameRound(t *testing.T) {
	results := []result{
		{Peer: "ema", Round: 0, Wall: 1},
		{Peer: "curl", Round: 0, Wall: 2},
		{Peer: "ema", Round: 1, Wall: 30},
		{Peer: "curl", Round: 1, Wall: 40}, // a slow moment of the machine
		{Peer: "ema", Round: 2, Wall: 2},
		{Peer: "curl", Round: 2, Wall: 1},
		{Peer: "ema", Round: 3, Wall: 3},
		{Peer: "curl", Round: 3, Wall: 1, Problem: "wrong file"},
	}
	if v, ok := ratio("curl", wall)(results); !ok || v != 0.75 {
		t.Errorf("ratio = %v, %v; want the middle of 0.5, 0.75 and 2", v, ok)
	}
	if _, ok := ratio("rclone-16", wall)(results); ok {
		t.Error("there is a ratio to a peer that never ran")
	}
}

func TestVerdicts(t *testing.T) {
	results := []result{{Peer: "ema", Wall: 2, Size: 1000}, {Peer: "ema", Wall: 1, Size: 1000}, {Peer: "ema", Wall: 4, Size: 1000}}
	for promise, one := range map[string]struct {
		target
		kept bool
		line string
	}{
		"the bound itself is kept":          {atMost("s", 2, median(wall)), true, "ema: at most 2 s: kept, 2"},
		"above the bound is missed":         {atMost("s", 1.9, median(wall)), false, "ema: at most 1.9 s: **missed**, 2"},
		"the worst run decides on memory":   {atMost("s", 3, highest(wall)), false, "ema: at most 3 s: **missed**, 4"},
		"at least is the other way round":   {atLeast("of it", 0.6, median(partOf(1000))), false, "ema: at least 0.6 of it: **missed**, 0.5"},
		"what was not measured is not kept": {atMost("x", 2, ratio("curl", wall)), false, "ema: at most 2 x: **not measured**"},
	} {
		if line, kept := one.verdict(results); line != one.line || kept != one.kept {
			t.Errorf("%s: %q, %v", promise, line, kept)
		}
	}
}

func TestTableCountsWrongRunsAndLeavesThemOut(t *testing.T) {
	c, _ := caseOf("A", 1)
	text, missed := c.table([]result{
		{Peer: "ema", Round: 0, Wall: 1, Quiet: true}, {Peer: "ema", Round: 1, Wall: 100, Problem: "flipped", Quiet: true},
	}, true)
	for _, want := range []string{"| ema | 1/2 | 1.00 (1.00–1.00) |", "- ema, round 2: flipped"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if missed != 3 { // all that compare; there is nobody to compare with
		t.Errorf("%d targets missed, want 3", missed)
	}
}

func TestDataIsTheSameEveryTimeAndChecked(t *testing.T) {
	c := testCase{groups: []group{{3, 1, 5000}, {1, 2 * mib, 2 * mib}}}
	first, err := prepare(t.Context(), c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	made, err := prepare(t.Context(), c, dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := prepare(t.Context(), c, dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, f := range first.Files {
		if f != made.Files[i] || f != again.Files[i] {
			t.Errorf("%v, then %v, then %v", f, made.Files[i], again.Files[i])
		}
		seen[f.SHA256] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d contents in 4 files", len(seen))
	}
	folder := made.folder(made.Models[0])
	if err := made.check(t.Context(), folder); err != nil {
		t.Error(err)
	}
	path := filepath.Join(folder, made.Files[3].Path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := made.check(t.Context(), folder); err == nil {
		t.Error("a flipped bit went unnoticed")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if made, err = prepare(t.Context(), c, dir); err != nil {
		t.Fatal(err)
	}
	if err := made.check(t.Context(), folder); err != nil {
		t.Errorf("a lost file was not made again: %v", err)
	}
}

func TestPeersThatCannotTakePartAreRefusedByName(t *testing.T) {
	here := programs{ema: "ema", curl: "curl"}
	for _, one := range []struct{ testCase, peer, why string }{
		{"A", "wget", "there are"},
		{"C", "curl", "fetches one"},
		{"E", "rclone-16", "never resumes"},
		{"ls", "curl", "measures ema only"},
		{"A", "aria2-1M", "not installed"},
	} {
		c, _ := caseOf(one.testCase, 1)
		if _, err := choose(c, []string{one.peer}, here); err == nil || !strings.Contains(err.Error(), one.why) {
			t.Errorf("%s in %s: %v, want %q", one.peer, one.testCase, err, one.why)
		}
	}
	c, _ := caseOf("A", 1)
	if chosen, err := choose(c, nil, here); err != nil || len(chosen) != 2 {
		t.Errorf("%d peers, %v; want the two that are installed", len(chosen), err)
	}
}

func TestEveryCaseNamesPeersThatCanTakePart(t *testing.T) {
	all := programs{ema: "x", origin: "x", bare: "x", rclone: "x", aria2c: "x", curl: "x"}
	for _, c := range allCases(1) {
		if chosen, err := choose(c, c.peers, all); err != nil || len(chosen) != len(c.peers) {
			t.Errorf("case %s: %d of %d peers, %v", c.name, len(chosen), len(c.peers), err)
		}
	}
}

func TestWaitingForAnIdleMachineEnds(t *testing.T) {
	begin := time.Now()
	if _, err := awaitIdle(t.Context(), time.Millisecond); err != nil {
		t.Error(err)
	}
	if waited := time.Since(begin); waited > 10*time.Second {
		t.Errorf("waited %s", waited)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := awaitIdle(ctx, time.Hour); err == nil {
		t.Error("a cancelled wait reports success")
	}
}
