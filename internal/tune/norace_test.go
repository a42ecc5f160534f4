//go:build !race

package tune

// weeks are those of a made-up machine.
const weeks = 2
