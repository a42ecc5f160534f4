package store_test

import (
	"context"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"

	"ema/internal/store"
)

// ownInChild, when set, makes this test binary own the named store until its input ends: a second
// process, as real as they come.
const ownInChild = "EMA_TEST_OWN_STORE"

// memoryDir is a folder for tests whose crashes are made up: in memory where there is such a file
// system, since a real device would only make them wait.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ema-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// crcOf is the checksum that whoever writes b gives along.
func crcOf(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func TestMain(m *testing.M) {
	if path := os.Getenv(ownInChild); path != "" {
		w, err := store.New(store.Settings{Path: path}).Own(context.Background(), "child of a test", nil)
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println("owned")
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = w.Close()
		os.Exit(0)
	}
	// Each check opens and crashes a store many times; -rapid.checks asks for more.
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
