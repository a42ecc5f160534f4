//go:build !linux

package host

import (
	"context"
	"errors"
)

// Opens would tell of files that are opened.
type Opens struct{}

// NewOpens fails: only Linux is asked.
func NewOpens() (*Opens, error) {
	return nil, errors.New("this system is not asked which files are opened")
}

// How is no way.
func (*Opens) How() string { return "" }

// HowOf is no way.
func (*Opens) HowOf(string) string { return "" }

// Add does nothing.
func (*Opens) Add(string) error { return nil }

// Remove does nothing.
func (*Opens) Remove(string) {}

// Close does nothing.
func (*Opens) Close() error { return nil }

// Run waits until ctx ends.
func (*Opens) Run(ctx context.Context, _ func(Open)) error {
	<-ctx.Done()
	return context.Cause(ctx)
}
