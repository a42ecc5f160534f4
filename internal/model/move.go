package model

import "time"

// A Move is one way of a model from one tier to another: a wish, then work, then history. It is a record, a value; the
// model and the time it was asked for name it.
type Move struct {
	Model    ID
	From, To Tier
	ByHand   bool      // whether a person asked for it; else the rules did
	Why      string    // in words
	Asked    time.Time // when
	Began    time.Time // when the first byte could move; zero before
	Ended    time.Time // when Result was known; zero before
	Bytes    Bytes     // moved
	Result   string    // "" before it ended; then "done", "failed" or "cancelled"
	Error    string    // in words; "" unless it failed
}
