//go:build race

package tune

// weeks are those of a made-up machine. The race detector makes each last several times as long, and finds nothing here: it is all one
// goroutine.
const weeks = 1
