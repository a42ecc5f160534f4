package host

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if what := os.Getenv(childDoes); what != "" {
		os.Exit(child(what))
	}
	if how := os.Getenv("EMA_HOST_HOLD"); how != "" {
		os.Exit(holdFile(how, os.Getenv("EMA_HOST_FILE")))
	}
	goleak.VerifyTestMain(m)
}
