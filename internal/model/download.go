package model

import (
	"fmt"
	"time"
)

// State is where a download stands. Which state may follow which is the queue's table.
type State string

// The states of a download.
const (
	Queued      State = "queued"
	Resolving   State = "resolving"
	Downloading State = "downloading"
	Verifying   State = "verifying"
	Retrying    State = "retrying" // waits for Download.NextTry
	Paused      State = "paused"
	Completed   State = "completed"
	Failed      State = "failed"
	Stopped     State = "cancelled"
)

// Final reports whether nothing follows: the download is history.
func (s State) Final() bool { return s == Completed || s == Failed || s == Stopped }

// Priority orders downloads; the zero Priority is NormalPriority.
type Priority int8

// The priorities.
const (
	LowPriority Priority = iota - 1
	NormalPriority
	HighPriority
	CriticalPriority // may pre-empt
)

var priorityNames = [...]string{"low", "normal", "high", "critical"}

// String is the name used in JSON and on the command line.
func (p Priority) String() string {
	if i := int(p - LowPriority); i >= 0 && i < len(priorityNames) {
		return priorityNames[i]
	}
	return fmt.Sprintf("priority %d", int(p))
}

// ParsePriority reads a name; "" is normal.
func ParsePriority(s string) (Priority, error) {
	if s == "" {
		return NormalPriority, nil
	}
	for i, name := range priorityNames {
		if s == name {
			return LowPriority + Priority(i), nil
		}
	}
	return 0, fmt.Errorf("priority %q is none of low, normal, high, critical", s)
}

// MarshalText makes priorities appear by name.
func (p Priority) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Priority) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePriority(string(b))
	return err
}

// Pause says who paused a download, and so what resumes it.
type Pause string

// The reasons for a pause; "" when a download is not paused.
const (
	ByUser       Pause = "user"      // until somebody resumes it
	ByPreemption Pause = "preempted" // until the download of critical priority has made room
	BySpace      Pause = "no space"  // until the disk has room again
)

// A Download is one job: bring a revision of a model onto this machine. It is a record, a value.
type Download struct {
	ID       string // unique for ever: "dl_" and 16 hexadecimal digits
	Model    ID
	Revision string // as asked for; "" is the source's default
	Include  []string
	Exclude  []string

	Priority    Priority
	Limit       Bytes // bytes per second; 0 is none of its own
	Connections int   // most connections; 0 is as configured
	MaxRetries  int   // attempts without progress before it fails; 0 is as configured, -1 none

	State   State
	Pause   Pause     // why it is paused
	Reason  string    // in words: why it waits, was paused, or failed; "" when there is nothing to say
	Class   string    // class of the error in Reason, by name; "" when it is no error
	NextTry time.Time // of a Retrying one
	Retries int       // attempts that failed since it last made progress
	Tries   int       // times that it was started

	Commit  string // once resolved
	Path    string // of the snapshot, once completed
	Size    Bytes  // of all its files, once known
	Done    Bytes  // of these, here when it was last looked at
	Order   int64  // of arrival; grows
	Created time.Time
	Started time.Time // the first time; zero before
	Ended   time.Time // when State became final; zero before
}
