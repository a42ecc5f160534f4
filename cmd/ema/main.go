// Command ema keeps AI models on this machine: complete, verified, on the right disk.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	_ "time/tzdata" // time zones of windows are known on machines and in containers that have none

	"github.com/spf13/cobra"

	"ema/internal/config"
	"ema/internal/model"
)

func main() {
	a := newApp()
	a.spareThreads()
	os.Exit(run(a, rootCommand(a), os.Args[1:]))
}

// errRegression marks a measurement that is worse than its baseline.
var errRegression = errors.New("slower than the baseline")

// run executes one command line until a signal comes, and returns the exit code.
func run(a *app, root *cobra.Command, args []string) int {
	ctx, stop := untilSignal()
	defer stop()
	return execute(ctx, a, root, args)
}

// execute executes one command line until ctx is cancelled, and returns the exit code.
func execute(ctx context.Context, a *app, root *cobra.Command, args []string) int {
	if err := perform(ctx, a, root, args); err != nil {
		return exitCode(err, ctx.Err() != nil)
	}
	return 0
}

// perform executes one command line until ctx is cancelled. An error was printed, and decides the exit code.
func perform(ctx context.Context, a *app, root *cobra.Command, args []string) error {
	a.args = args
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return nil
	}
	if !a.running && model.ClassOf(err) == model.Other { // the command line was not understood
		err = &usageError{err}
		a.json = a.json || slices.Contains(args, "--json")
	}
	if _, done := errors.AsType[*reportedError](err); !done {
		a.report(err, ctx.Err() != nil)
	}
	return &reportedError{err}
}

// untilSignal is a context that the first SIGINT or SIGTERM cancels. The second one has its usual effect and ends the
// process at once: that is given back before the context is cancelled, so that no second signal is ever lost.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		cancel()
	}()
	return ctx, cancel
}

// exitCode is what scripts decide by. These numbers are a promise.
func exitCode(err error, interrupted bool) int {
	if errors.Is(err, errRegression) {
		return 6
	}
	switch model.ClassOf(err) {
	case model.Usage:
		return 2
	case model.NotFound, model.Auth:
		return 3
	case model.Integrity:
		return 4
	case model.DiskFull:
		return 5
	case model.Cancelled:
		if interrupted {
			return 130
		}
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}

// A usageError is a command line that can't be understood.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// A reportedError was printed already, and still decides the exit code.
type reportedError struct{ err error }

func (e *reportedError) Error() string { return e.err.Error() }
func (e *reportedError) Unwrap() error { return e.err }

// report prints an error for people on stderr, and with --json for programs on stdout.
func (a *app) report(err error, interrupted bool) {
	message := err.Error()
	if interrupted && (err == context.Canceled || err == context.DeadlineExceeded) { //nolint:errorlint // a wrapped one says more
		message = "interrupted"
	}
	fmt.Fprintln(a.stderr, "ema: "+message)
	if !a.json {
		return
	}
	var answer struct {
		Error struct {
			Class    string        `json:"class"`
			Model    string        `json:"model,omitempty"`
			Message  string        `json:"message"`
			Mistakes config.Errors `json:"mistakes,omitempty"` // of a configuration
		} `json:"error"`
	}
	class := model.ClassOf(err)
	if exitCode(err, interrupted) == 2 {
		class = model.Usage
	}
	answer.Error.Class, answer.Error.Message = class.String(), message
	if e, ok := errors.AsType[*model.Error](err); ok {
		answer.Error.Model = model.Redact(e.Model.String())
	}
	if mistakes, ok := errors.AsType[config.Errors](err); ok {
		answer.Error.Mistakes = mistakes
	}
	if err := a.printJSON(answer); err != nil {
		fmt.Fprintln(a.stderr, "ema: "+err.Error())
	}
}
