package snapshot

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"ema/internal/model"
	"ema/internal/store"
)

const (
	measureEvery = time.Second        // free space changes without a word
	planEvery    = time.Minute        // what could be collected, while things change
	leftAlone    = 24 * time.Hour     // what is younger is not called garbage, as by "ema gc"
	hotTier      = "hot"              // the only tier there is: the store's own folder
	collectHint  = `"ema gc" removes` // what every candidate's reason begins with
)

// A keeping is the answer about storage, and what it is made of.
type keeping struct {
	flight chan struct{} // holds one while somebody makes the answer
	// What follows is the flight's.
	answer     answer
	held       uint64 // the store's facts in it
	measured   time.Duration
	planned    time.Duration
	plan       []offer
	planSeen   bool
	storedPart []modelStorage
}

// An offer is what a collection would remove of one model.
type offer struct {
	id    model.ID
	bytes model.Bytes
	kinds []string
}

func newKeeping() keeping { return keeping{flight: make(chan struct{}, 1)} }
