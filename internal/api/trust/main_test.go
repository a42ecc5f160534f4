package trust

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asServer makes this program the server that a test measures, instead of its tests.
const asServer = "EMA_TEST_AS_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		if err := serveUntilStdinEnds(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
