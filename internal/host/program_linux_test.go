package host_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"ema/internal/host"
)

// ofFiles is how much of the files that it has mapped a process keeps, in KiB.
func ofFiles(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("RssFile:"))
	if _, err := fmt.Sscan(string(bytes.Fields(rest)[0]), &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

func TestTheProgramIsForgottenAndGoesOn(t *testing.T) {
	before := ofFiles(t)
	if err := host.ForgetProgram(); err != nil {
		t.Fatal(err)
	}
	if after := ofFiles(t); after > before*4/5 {
		t.Errorf("%d KiB of the program were mapped, and %d still are", before, after)
	}
}
