package client

import "time"

// A PerformanceAnalysis is what everything waits for, with the evidence.
type PerformanceAnalysis struct {
	At       time.Time `json:"timestamp"`
	Seconds  float64   `json:"seconds"`  // that were looked at
	Model    string    `json:"model_id"` // whose download this is about; empty is all of them and this machine
	Finished bool      `json:"finished"` // that download is over, and this is about all of it
	Verdict  string    `json:"verdict"`  // in one sentence

	Bottlenecks []Bottleneck      `json:"bottlenecks"` // the worst first; never null
	Components  map[string]string `json:"components"`  // what is said of those that are not among them; never null

	Times    map[string]float64 `json:"connection_seconds"` // where the time of the connections went: with four of them, four seconds in each second; never null
	Ceilings []Ceiling          `json:"ceilings"`           // never null
	Unknown  map[string]string  `json:"unknown"`            // what could not be measured, and why; never null
}

// A Bottleneck is a part that others wait for.
type Bottleneck struct {
	Component string   `json:"component"`  // network, server, dns, disk, cpu, memory, queue, limiter, api, database or gpu
	Share     float64  `json:"share"`      // of the time that it explains, 0 to 1
	AtCeiling bool     `json:"at_ceiling"` // it does as much as it can, and nothing is wrong with it
	Verdict   string   `json:"verdict"`
	Evidence  []string `json:"evidence"` // never null
	Setting   string   `json:"setting"`  // what to change; empty where none helps
	Current   string   `json:"current"`  // how that is now; empty where it is not known
	Advised   string   `json:"advised"`
	Command   string   `json:"command"` // that changes it, or tells more
}

// A Ceiling is what a part of this machine can do at most.
type Ceiling struct {
	Component string   `json:"component"`
	Name      string   `json:"name"`
	Value     *float64 `json:"value"`   // null where it is not known; see unknown
	Unit      string   `json:"unit"`    // MB/s: a million bytes per second
	Reached   *float64 `json:"reached"` // the part of it that was used, 0 to 1; null while nothing is downloaded
	Source    string   `json:"source"`  // how it is known
}
