package model

import "time"

// UseSource says how a use was noticed.
type UseSource string

// The ways in which uses are noticed.
const (
	UseByAPI     UseSource = "api"     // somebody told us of it
	UseByServing UseSource = "serving" // we handed out the model's bytes
	UseByOpen    UseSource = "open"    // another program opened its files
)

// A Use is one time that somebody worked with a model. It is a value.
type Use struct {
	Model     ID
	At        time.Time
	By        UseSource
	Operation string        // what was done, in the words of who tells, such as "generate"; "" when nobody said
	Duration  time.Duration // how long it took; 0 when nobody said
	Bytes     Bytes         // how much was read or made; 0 when nobody said
	OK        bool          // whether it succeeded
}
