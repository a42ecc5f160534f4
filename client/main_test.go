package client_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// A proxy that nobody runs: whoever asks it for the way to this machine gets nowhere, so each test proves that nobody does.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		if err := os.Setenv(name, "http://127.0.0.1:1"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}
