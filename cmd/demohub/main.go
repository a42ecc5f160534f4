// Command demohub runs a model hub of made-up or local models on this machine: for tests and benchmarks of
// downloaders, with bandwidth, latency and faults as asked.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(os.Stdout).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demohub:", err)
		os.Exit(1)
	}
}
