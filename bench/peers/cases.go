package main

import (
	"fmt"
	"time"
)

// The cap of cases B: bytes per second of each connection.
const capRate = 20_000_000

// A group is some files of a model: count of them, of sizes between low and high.
type group struct {
	count     int
	low, high int64
}

// kind is how a case is measured.
type kind uint8

const (
	download kind = iota // from nothing to complete
	resume               // from a half that a kill has left
	listing              // ema ls over many models
)

// A testCase is one situation, the peers that make sense in it, and what ema is to reach.
type testCase struct {
	name    string
	title   string
	kind    kind
	groups  []group
	models  int      // how many models have these files; more than one only for listing
	origin  []string // arguments that shape the origin
	ema     []string // arguments of ema pull
	watch   bool     // whether to find out when the origin's last byte left
	peers   []string
	targets []target
}

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

var capped = []string{"--rate-bytes", fmt.Sprint(capRate), "--latency", (50 * time.Millisecond).String()}

// allCases lists the cases with large files shrunk to scale.
func allCases(scale float64) []testCase {
	large := func(n int64) int64 { return max(4*mib, int64(float64(n)*scale)/mib*mib) }
	mixed := []group{{200, 4 * kib, mib}, {3, large(512 * mib), large(512 * mib)}}
	return []testCase{
		{
			name: "A", title: "one 2 GiB file to disk, verified and durable",
			groups: []group{{1, large(2 * gib), large(2 * gib)}},
			peers:  []string{"ema", "rclone-16", "aria2-1M", "curl", "bare"},
			targets: []target{
				atMost("the time of rclone with 16 streams", 1, ratio("rclone-16", wall)),
				atMost("the time of aria2c -x16 -s16 -k1M", 0.5, ratio("aria2-1M", wall)),
				atMost("the time of the bare program", 1.15, ratio("bare", wall)),
				atMost("s of CPU", 2.6, median(cpu)),
			},
		},
		{
			name: "B", title: "256 MiB from an origin capped at 20 MB/s per connection with 50 ms before each answer, 16 connections",
			groups: []group{{1, large(256 * mib), large(256 * mib)}}, origin: capped, ema: []string{"--connections", "16"},
			peers:   []string{"ema", "rclone-16", "aria2-1M", "bare-16"},
			targets: []target{atMost("s", 1.2, median(wall))},
		},
		{
			name: "B8", title: "2 GiB from the same capped origin, ema's default of 8 connections",
			groups: []group{{1, large(2 * gib), large(2 * gib)}}, origin: capped,
			peers:   []string{"ema", "rclone-8", "aria2-8"},
			targets: []target{atLeast("of 8 times the cap", 0.95, median(partOf(8*capRate)))},
		},
		{
			name: "C", title: "a model of 200 files of 4 KiB to 1 MiB and 3 of 512 MiB",
			groups: mixed, peers: []string{"ema", "aria2-list", "rclone-list", "curl-list"},
			targets: []target{atMost("the time of aria2c -j16 with a ready list", 0.9, ratio("aria2-list", wall))},
		},
		{
			name: "C2", title: "2,000 files of 4 to 64 KiB",
			groups: []group{{2000, 4 * kib, 64 * kib}}, peers: []string{"ema", "aria2-list", "rclone-list", "curl-list"},
			targets: []target{atMost("the time of aria2c -j16 with a ready list", 1, ratio("aria2-list", wall))},
		},
		{
			name: "D", title: "one 4 GiB file: memory, and time from the origin's last byte to the end",
			groups: []group{{1, large(4 * gib), large(4 * gib)}}, watch: true, peers: []string{"ema", "rclone-16", "bare"},
			targets: []target{
				atMost("MiB resident, in any run", 64, highest(memory)),
				atMost("s from the last byte to verified and durable", 0.3, median(tail)),
			},
		},
		{
			name: "E", title: "resume of a 4 GiB file that was killed half done", kind: resume,
			groups: []group{{1, large(4 * gib), large(4 * gib)}},
			origin: []string{"--send-buffer", "65536"}, // what waits there when a client dies counts as sent
			peers:  []string{"ema", "aria2-1M", "curl"},
			targets: []target{
				atMost("s from the start to the first request for content", 0.3, median(first)),
			},
		},
		{
			name: "ls", title: "ema ls over 1,000 models of 5 small files", kind: listing,
			groups: []group{{5, 200, 4 * kib}}, models: 1000, peers: []string{"ema"},
			targets: []target{atMost("s", 0.1, median(wall))},
		},
	}
}

func caseNames() []string {
	var names []string
	for _, c := range allCases(1) {
		names = append(names, c.name)
	}
	return names
}

func caseOf(name string, scale float64) (testCase, bool) {
	for _, c := range allCases(scale) {
		if c.name == name {
			return c, true
		}
	}
	return testCase{}, false
}
