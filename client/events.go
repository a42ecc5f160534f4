package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// An Event is what just happened. One of the pointers is set, as Type says.
type Event struct {
	Seq        uint64          `json:"seq"`
	At         time.Time       `json:"timestamp"`
	Type       string          `json:"type"` // progress, state, retry, limit, space, move, tier or bench
	DownloadID string          `json:"download_id,omitempty"`
	Model      string          `json:"model_id,omitempty"`
	Progress   *ProgressEvent  `json:"progress,omitempty"`
	Change     *ChangeEvent    `json:"state,omitempty"`
	Retry      *RetryEvent     `json:"retry,omitempty"`
	Limit      *LimitEvent     `json:"limit,omitempty"`
	Space      *SpaceEvent     `json:"space,omitempty"`
	Move       *MoveEvent      `json:"move,omitempty"`
	Tier       *TierEvent      `json:"tier,omitempty"`
	Benchmark  *BenchmarkEvent `json:"bench,omitempty"`
}

// A ProgressEvent is how a running download stands.
type ProgressEvent struct {
	Status          string   `json:"status"`
	Stage           string   `json:"stage,omitempty"`
	ProgressPercent float64  `json:"progress_percent"`
	DownloadedBytes int64    `json:"downloaded_bytes"`
	TotalBytes      int64    `json:"total_bytes"`
	SpeedMBps       float64  `json:"speed_mbps"`
	ETASeconds      *float64 `json:"eta_seconds"`
	Connections     int      `json:"connections"`
	Files           int      `json:"files_total"`
	FilesDone       int      `json:"files_done"`
	Note            string   `json:"note,omitempty"`
}

// A ChangeEvent is a new state of a download.
type ChangeEvent struct {
	Old     string     `json:"old_status"`
	New     string     `json:"new_status"`
	Reason  string     `json:"reason,omitempty"`
	NextTry *time.Time `json:"next_try,omitempty"`
}

// A RetryEvent is an attempt that failed and is repeated.
type RetryEvent struct {
	Host        string  `json:"host,omitempty"`
	Class       string  `json:"error_class"`
	Error       string  `json:"error_message"`
	WaitSeconds float64 `json:"wait_seconds"`
}

// A LimitEvent is a new limit for all downloads together.
type LimitEvent struct {
	LimitMBps float64 `json:"bandwidth_limit_mbps"` // 0 is none
	Reason    string  `json:"reason"`
}

// A SpaceEvent says that the disk is too full to go on.
type SpaceEvent struct {
	ShortBytes int64  `json:"short_bytes"`
	Reason     string `json:"reason"`
}

// A MoveEvent is how far a model is on its way from one tier to another.
type MoveEvent struct {
	From            string  `json:"from"`
	To              string  `json:"to"`
	State           string  `json:"state"` // one of the Move constants
	ProgressPercent float64 `json:"progress_percent"`
	MovedBytes      int64   `json:"moved_bytes"`
	TotalBytes      int64   `json:"total_bytes"`
	Error           string  `json:"error_message,omitempty"`
}

// A TierEvent says that the folder of a tier is no longer as it was.
type TierEvent struct {
	Tier    string `json:"tier"`
	State   string `json:"state"` // one of the Tier constants
	Problem string `json:"problem,omitempty"`
}

// A BenchmarkEvent is how far a benchmark is.
type BenchmarkEvent struct {
	ID              string   `json:"benchmark_id"`
	State           string   `json:"state"`           // one of the Benchmark constants
	Suite           string   `json:"suite,omitempty"` // that runs
	Step            string   `json:"step,omitempty"`  // what is measured
	ProgressPercent float64  `json:"progress_percent"`
	ElapsedSeconds  float64  `json:"elapsed_seconds"`
	ETASeconds      *float64 `json:"eta_seconds"` // at most; null when it is over
	Error           string   `json:"error_message,omitempty"`
}

// Interest says which events to hear. The zero Interest is in all, from now on.
type Interest struct {
	Since    uint64 // after the event of that number; 0 means from now on
	Download string // of this download only
	Model    string // of downloads of this model only
}

// Events listens to what happens. Whatever happens after it has returned will be heard. Close what it returns.
func (c *Client) Events(ctx context.Context, i Interest) (*Events, error) {
	query := url.Values{}
	if i.Since > 0 {
		query.Set("since", strconv.FormatUint(i.Since, 10))
	}
	if i.Download != "" {
		query.Set("download_id", i.Download)
	}
	if i.Model != "" {
		query.Set("model_id", i.Model)
	}
	res, err := c.do(ctx, http.MethodGet, "/events?"+query.Encode(), nil, stream)
	if err != nil {
		return nil, err
	}
	return &Events{body: res.Body, dec: json.NewDecoder(res.Body)}, nil
}

// Events is a stream of events, for one goroutine.
type Events struct {
	body io.ReadCloser
	dec  *json.Decoder
}

// Next waits for the next event. It fails when the daemon stops, and when the stream's context ends.
func (e *Events) Next() (Event, error) {
	var next Event
	if err := e.dec.Decode(&next); err != nil {
		return Event{}, fmt.Errorf("the daemon has stopped talking: %w", err)
	}
	return next, nil
}

// Close ends the stream.
func (e *Events) Close() error { return e.body.Close() }
