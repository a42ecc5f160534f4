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

// A UseCount sums up the uses of a model within an hour that were noticed in one way.
type UseCount struct {
	Model    ID
	Hour     time.Time // its beginning
	By       UseSource
	Times    int           // uses, failed ones too
	Failures int           // of these
	Timed    int           // of these, how many have a duration
	Duration time.Duration // of the timed ones together, to the microsecond
	Bytes    Bytes
	Last     time.Time // when the last of them was
}
