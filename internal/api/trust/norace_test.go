//go:build !race

package trust

// raceDetector says whether the tests run with the race detector.
const raceDetector = false
