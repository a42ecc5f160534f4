package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"ema/internal/model"
	"ema/internal/pipeline"
	"ema/internal/store"
)

// sized is a view of a download of total bytes, of which done are here.
func sized(done, total model.Bytes) view {
	return view{
		name: "meta-llama/Llama-3.3-70B-Instruct", stage: stageWords["fetching"], done: done, total: total,
		files: 7, allFiles: 43, rate: 350 * model.MiB, connections: 8,
	}
}

func TestABarNeverWraps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := model.Bytes(rapid.Int64Range(1, int64(5*model.TiB)).Draw(t, "total"))
		v := view{
			name:  rapid.StringMatching(`[a-zA-Z0-9._-]{1,96}/[a-zA-Z0-9._-]{1,96}`).Draw(t, "name"),
			stage: rapid.SampledFrom([]string{"fetching", "checking", "resolving", "publishing"}).Draw(t, "stage"),
			done:  model.Bytes(rapid.Int64Range(0, int64(total)).Draw(t, "done")), total: total,
			files: rapid.IntRange(0, 20000).Draw(t, "files"), allFiles: 20000,
			rate: model.Bytes(rapid.Int64Range(0, int64(20*model.GiB)).Draw(t, "rate")), connections: rapid.IntRange(0, 256).Draw(t, "connections"),
		}
		v.stage = stageWords[v.stage]
		width := rapid.IntRange(0, 250).Draw(t, "width")
		line := v.bar(width)
		if n := utf8.RuneCountInString(line); n > width || strings.Contains(line, "\n") {
			t.Fatalf("%d columns of %d: %q", n, width, line)
		}
	})
}

func TestABarOf80ColumnsSaysEverything(t *testing.T) {
	got := sized(5*model.GiB, 131*model.GiB+400*model.MiB).bar(80)
	want := "meta-lla…nstruct [............]   5.0/131.4 GiB 350.0 MiB/s ETA 6:10 8 conn 7/43"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got = sized(1*model.GiB, 2*model.GiB).bar(132)
	want = "meta-llama/Llama-3.3-70B-Instruct [###################....................] 1.0/2.0 GiB  350.0 MiB/s  ETA 0:03    8 conn  7/43 files"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestLinesForALogAreWholeSentences(t *testing.T) {
	v := sized(model.GiB, 4*model.GiB)
	if got, want := v.line(), "meta-llama/Llama-3.3-70B-Instruct: fetching, 1.0 GiB of 4.0 GiB (25 %), 7 of 43 files, 350.0 MiB/s, 0:09 left, 8 connections"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	v.trouble = "fetch a: connection reset"
	if got := v.line(); !strings.HasSuffix(got, "; retrying: fetch a: connection reset") {
		t.Errorf("got %q", got)
	}
	v.stage = stageWords["publishing"]
	if got := v.line(); got != "meta-llama/Llama-3.3-70B-Instruct: publishing" {
		t.Errorf("got %q", got)
	}
}

// shown is a progress in the stage "fetching" of 100 bytes.
func shown(t *testing.T, stderr *bytes.Buffer, quiet bool) *progress {
	t.Helper()
	a := &app{stderr: stderr, quiet: quiet}
	return a.watch(model.ID{Name: "org/name"})
}

func TestProgressNeverRunsBackwardsNorBeyondTheEnd(t *testing.T) {
	p := shown(t, new(bytes.Buffer), false)
	p.stageNow = func() pipeline.Stage { return pipeline.Stage{Name: "fetching", Bytes: 100, Here: 20} }
	var last model.Bytes
	for _, written := range []int64{0, 30, 10, 60, 200} {
		p.progress.Written.Store(written)
		v := p.read(time.Now())
		if v.done < last || v.done > v.total {
			t.Errorf("%d after %d of %d", v.done, last, v.total)
		}
		last = v.done
	}
	if last != 100 {
		t.Errorf("ended at %d of 100", last)
	}
}

func TestWithoutATerminalALineComesEveryFewSeconds(t *testing.T) {
	defer goleak.VerifyNone(t)
	for quiet, want := range map[bool]int{false: 3, true: 0} {
		synctest.Test(t, func(t *testing.T) {
			var stderr bytes.Buffer
			p := shown(t, &stderr, quiet)
			p.start()
			<-time.After(16 * time.Second)
			p.stop()
			p.stop()
			if got := strings.Count(stderr.String(), "\n"); got != want {
				t.Errorf("quiet %v: %d lines in 16 s, want %d: %s", quiet, got, want, stderr.String())
			}
		})
	}
}

func TestTheReasonOfARetryIsShownForAWhileAndWhileNothingComes(t *testing.T) {
	p := shown(t, new(bytes.Buffer), false)
	now := time.Now()
	p.progress.LastByte.Store(now.UnixNano())
	p.progress.Note.Store("12 connections instead of 8")
	if got := p.read(now).trouble; got != "" {
		t.Errorf("a change of course is called trouble: %q", got)
	}
	p.progress.Retries.Add(1)
	p.progress.Note.Store("reset by peer; retrying")
	if got := p.read(now).trouble; got != "reset by peer" {
		t.Errorf("at once: %q", got)
	}
	later := now.Add(troubleStay + time.Second)
	if got := p.read(later).trouble; got != "reset by peer" {
		t.Errorf("while nothing comes: %q", got)
	}
	p.progress.LastByte.Store(later.UnixNano())
	if got := p.read(later).trouble; got != "" {
		t.Errorf("when all is well again: %q", got)
	}
}

func TestWhoWaitsSaysSoUntilTheNextStage(t *testing.T) {
	var stderr bytes.Buffer
	p := shown(t, &stderr, true)
	stage := pipeline.Stage{Name: "resolving"}
	p.stageNow = func() pipeline.Stage { return stage }
	p.waiting(store.Owner{PID: 7, Host: "here", Command: "ema pull org/name"})
	if got := stderr.String(); !strings.HasPrefix(got, "org/name: waiting for process 7 on here (ema pull org/name), since ") {
		t.Errorf("even a quiet one says %q", got)
	}
	for range 2 {
		if got := p.read(time.Now()).bar(80); got != "org/name  waiting for another process" {
			t.Errorf("while it waits: %q", got)
		}
	}
	stage.Name = "publishing"
	if got := p.read(time.Now()).bar(80); got != "org/name  publishing" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestTheSpeedIsThatOfTheLastSeconds(t *testing.T) {
	var s speed
	at := time.Unix(0, 0)
	for i := range 100 { // 10 bytes a second, then 1000
		at = at.Add(time.Second)
		bytes := int64(i) * 10
		if i > 50 {
			bytes += int64(i-50) * 990
		}
		s.add(at, bytes)
	}
	if got := s.perSecond(); got != 1000 {
		t.Errorf("%d bytes/s, want 1000", got)
	}
	if len(s.samples) > 10 {
		t.Errorf("%d samples are kept", len(s.samples))
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		duration(3400 * time.Millisecond):                  "3.4 s",
		duration(200 * time.Second):                        "3:20 min",
		duration(2*time.Hour + 5*time.Minute):              "2:05 h",
		clock(7 * time.Second):                             "0:07",
		clock(3*time.Hour + 7*time.Minute + 9*time.Second): "3:07:09",
		clock(100 * time.Hour):                             "4d 04h",
		ratio(1200*model.MiB, 14*model.GiB):                " 1.2/14.0 GiB",
		ratio(3, 12):                                       "3/12 B",
		files(1):                                           "1 file",
		files(0):                                           "0 files",
		shorten("meta-llama/Llama", 9):                     "meta…lama",
		clip("too wide", 4):                                "too…",
		brief("fetch org/name: a.bin: the hub answered 503 (https://host/a.bin); wait", "org/name"): "a.bin: the hub answered 503; wait",
		shorten("short", 9): "short",
		shellLine([]string{"ema", "pull", "a/b", "--to", "x y"}): "ema pull a/b --to 'x y'",
		shellWord("it's"):   `'it'\''s'`,
		shellWord(""):       "''",
		shellWord("*.json"): "'*.json'",
		rateOf(10*model.MiB, 2*time.Second).String(): "5.0 MiB",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTheCommandToGoOnWithHasNoSecrets(t *testing.T) {
	a := &app{args: []string{"pull", "https://host/weights.bin?sig=secret", "--include", "*.bin?"}}
	if got, want := a.again(), "ema pull 'https://host/weights.bin?…' --include '*.bin?'"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
