package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by a release: -ldflags "-X main.version=v1.2.3". The linker can set nothing but a variable.
var version string

// A build says what this program was made from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"` // the working tree had changes besides the commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// currentBuild reads what the Go command and the linker left in the binary.
func currentBuild() build {
	b := build{Version: version, Commit: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" {
		b.Version = "(devel)"
	}
	return b
}

// String is one line, without the program's name.
func (b build) String() string {
	commit := b.Commit
	if b.Modified {
		commit += ", modified"
	}
	return fmt.Sprintf("%s (commit %s) %s %s", b.Version, commit, b.Go, b.Platform)
}

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit, Go and platform",
		Example: "  ema version\n  ema version --json",
		RunE: func(*cobra.Command, []string) error {
			b := currentBuild()
			return a.result(b, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "ema", b)
				return err
			})
		},
	}
}
