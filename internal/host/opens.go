package host

import "errors"

// ErrTooManyWatched is why a folder is not watched where this user watches as many as it may. The error around it names the
// setting to raise.
var ErrTooManyWatched = errors.New("this user watches as many folders as it may")

// An Opener is who has opened a file.
type Opener uint8

// The openers.
const (
	Unknown Opener = iota // the system does not tell
	Self                  // this process
	Other                 // another one
)

// An Open is one time that a file was opened.
type Open struct {
	Path string
	By   Opener
	Lost bool // so many were opened that some were not told of; nothing else is set
}
