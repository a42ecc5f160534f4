package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/config"
	"ema/internal/model"
	"ema/internal/throttle"
)

func TestTheReasonSaysWhatOneWantsToKnow(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	soon := now.Add(75 * time.Second)
	for promise, c := range map[string]struct {
		d    client.Download
		want string
	}{
		"its place in the queue":     {client.Download{Status: "QUEUED", Position: 3}, "number 3 in the queue"},
		"who paused it":              {client.Download{Status: "PAUSED", PausedBy: "user"}, "by the user"},
		"why it was paused":          {client.Download{Status: "PAUSED", PausedBy: "no space", Reason: "9 GiB too few"}, "9 GiB too few"},
		"when it is tried again":     {client.Download{Status: "RETRYING", NextTry: &soon, Reason: "timeout"}, "next try in 1:15: timeout"},
		"that the time has come":     {client.Download{Status: "RETRYING", NextTry: &now, Reason: "timeout"}, "next try in 0:00: timeout"},
		"why it failed":              {client.Download{Status: "FAILED", Reason: "gone"}, "gone"},
		"what goes wrong at present": {client.Download{Status: "DOWNLOADING", Model: "a/b", Note: "fetch a/b: f: reset; retrying"}, "f: reset"},
		"nothing":                    {client.Download{Status: "DOWNLOADING"}, "-"},
	} {
		if got := reason(c.d, now); got != c.want {
			t.Errorf("%s: %q, want %q", promise, got, c.want)
		}
	}
}

func TestAPictureFitsIntoTheTerminal(t *testing.T) {
	eta := 90.0
	active := client.Active{SpeedMBps: 3, LimitMBps: 20, LimitWhy: `the window "office"`}
	for _, status := range []string{"DOWNLOADING", "VERIFYING", "RESOLVING", "QUEUED", "PAUSED", "RETRYING"} {
		active.Downloads = append(active.Downloads, client.Download{
			Model: "organisation/a-name-that-is-long-enough-to-be-cut", Status: status, Stage: "fetching", Priority: "normal",
			DownloadedBytes: 1 << 30, TotalBytes: 3 << 30, SpeedMBps: 3, ETASeconds: &eta, Connections: 8, Files: 12, FilesDone: 3,
			Reason: strings.Repeat("because of something ", 10),
		})
	}
	for width := 20; width < 200; width += 7 {
		for height := 4; height < 12; height++ {
			lines := strings.Split(strings.TrimSuffix(picture(active, width, height, time.Now()), "\n"), "\n")
			if len(lines) > height {
				t.Errorf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, line := range lines {
				if n := len([]rune(line)); n > width {
					t.Errorf("%dx%d: a line of %d columns: %s", width, height, n, line)
				}
			}
		}
	}
	if all := picture(active, 200, 5, time.Now()); !strings.Contains(all, "3 running, 3 waiting   3.0 MiB/s of 20.0 MiB/s (the window \"office\")") || !strings.Contains(all, "and 4 more") {
		t.Errorf("it says\n%s", all)
	}
	if none := picture(client.Active{}, 80, 24, time.Now()); !strings.Contains(none, "no downloads") {
		t.Errorf("it says\n%s", none)
	}
}

func TestTheWindowsOfTheConfigurationAreThoseOfTheThrottle(t *testing.T) {
	s, err := schedule(config.BandwidthManagement{
		GlobalLimitMbps: 50,
		TimeBasedLimits: map[string]config.Window{
			"business_hours": {Start: "09:00", End: "17:00", LimitMbps: 20, Timezone: "Europe/Vienna", Days: []string{"mon", "sun"}},
			"off_hours":      {LimitMbps: 100},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Windows) != 1 || s.Global != 50*model.MiB || s.OffHours != 100*model.MiB {
		t.Fatalf("%+v", s)
	}
	w := s.Windows[0]
	if w.Name != "business_hours" || w.Start != 540 || w.End != 1020 || w.Limit != 20*model.MiB || w.Zone.String() != "Europe/Vienna" || !slices.Equal(w.Days, []time.Weekday{time.Monday, time.Sunday}) {
		t.Errorf("%+v", w)
	}
	_, err = schedule(config.BandwidthManagement{TimeBasedLimits: map[string]config.Window{
		"a": {Start: "9", End: "17:00"}, "b": {Start: "09:00", End: "17:00", Timezone: "Mars/Base"}, "c": {Start: "09:00", End: "09:00"},
	}})
	if model.ClassOf(err) != model.Usage || err == nil {
		t.Fatalf("%v", err)
	}
	for _, name := range []string{"time_based_limits.a: start", "time_based_limits.b: timezone", `"c"`} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}

func TestTheConfigurationsRulesForAdaptingArrive(t *testing.T) {
	if got := adapt(config.AdaptiveLimiting{Enabled: true, MonitorSystemLoad: true, ReduceOnHighLoad: true, LoadThreshold: 0.5}); got != (throttle.Adapt{Enabled: true, MonitorLoad: true, Reduce: true, Threshold: 0.5}) {
		t.Errorf("%+v", got)
	}
}

func TestPrioritiesAndLimitsAsTheyAreShared(t *testing.T) {
	for p, want := range map[model.Priority]int{model.LowPriority: 1, model.NormalPriority: 2, model.HighPriority: 4, model.CriticalPriority: 8} {
		if got := weight(p); got != want {
			t.Errorf("%v weighs %d, want %d", p, got, want)
		}
	}
	for _, c := range [][3]model.Bytes{{0, 0, 0}, {0, 5, 5}, {5, 0, 5}, {5, 3, 3}, {3, 5, 3}} {
		if got := smaller(c[0], c[1]); got != c[2] {
			t.Errorf("the smaller of %d and %d is %d", c[0], c[1], got)
		}
	}
}

func TestAnExitCodeComesBackAsItWent(t *testing.T) {
	for _, code := range []int{1, 2, 3, 4, 5, 130} {
		if got := exitCode(&reportedError{&model.Error{Class: classOfExit(code)}}, code == 130); got != code {
			t.Errorf("%d comes back as %d", code, got)
		}
	}
}
