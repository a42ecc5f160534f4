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
	goleak.VerifyTestMain(m)
}
