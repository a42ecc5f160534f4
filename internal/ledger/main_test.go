package ledger_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"ema/internal/ledger"
)

// saveInChild, when set, makes this test binary save downloads to the named ledger until it is killed.
const saveInChild = "EMA_TEST_SAVE_TO_LEDGER"

func TestMain(m *testing.M) {
	if path := os.Getenv(saveInChild); path != "" {
		fmt.Println("failed:", saveForEver(path, os.Getenv(saveInChild+"_ROUND")))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// saveForEver says on its output what has been saved, after it has.
func saveForEver(path, round string) error {
	l, err := ledger.Open(context.Background(), path)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for worker := range 4 {
		go func() {
			for n := 0; ; n++ {
				d := download(fmt.Sprintf("dl_%s_%d_%d", round, worker, n))
				if err := l.Save(context.Background(), d); err != nil {
					failed <- err
					return
				}
				_, _ = os.Stdout.WriteString(d.ID + "\n") // one write each: lines do not mix
			}
		}()
	}
	return <-failed
}
