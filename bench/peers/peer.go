package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// programs are the paths of all that is run; an empty path means that it is not here.
type programs struct{ ema, origin, bare, rclone, aria2c, curl string }

// build makes ema, the origin and the bare program from this checkout, and looks for the others.
func build(ctx context.Context, o options) (p programs, err error) {
	bin := filepath.Join(o.dir, "bin")
	if err := os.MkdirAll(bin, 0o777); err != nil {
		return p, err
	}
	p.ema, p.origin, p.bare = o.ema, filepath.Join(bin, "demohub"), filepath.Join(bin, "bare")
	targets := map[string]string{p.origin: "./cmd/demohub", p.bare: "./bench/bare"}
	if p.ema == "" {
		p.ema = filepath.Join(bin, "ema")
		targets[p.ema] = "./cmd/ema"
	}
	for out, pkg := range targets {
		if text, err := exec.CommandContext(ctx, "go", "build", "-o", out, pkg).CombinedOutput(); err != nil {
			return p, fmt.Errorf("build %s (run this from the top of the checkout): %w\n%s", pkg, err, text)
		}
	}
	for name, found := range map[string]*string{"rclone": &p.rclone, "aria2c": &p.aria2c, "curl": &p.curl} {
		*found, err = exec.LookPath(name)
		if err != nil && !errors.Is(err, exec.ErrNotFound) {
			return p, err
		}
	}
	return p, nil
}

// An errand is what a peer is to do: bring the files of one model into an empty folder.
type errand struct {
	programs
	endpoint string // the origin
	model    string
	files    []dataFile
	folder   string // empty; the files go into its folder "out"
	emaArgs  []string
}

func (e errand) base() string             { return e.endpoint + "/" + e.model + "/resolve/main" }
func (e errand) out() string              { return filepath.Join(e.folder, "out") }
func (e errand) store() string            { return filepath.Join(e.folder, "store") }
func (e errand) target(f dataFile) string { return filepath.Join(e.out(), f.Path) }
func (e errand) source(f dataFile) string { return e.base() + "/" + f.Path }
func (e errand) scratch(n string) string  { return filepath.Join(e.folder, n) }
func (e errand) only() dataFile           { return e.files[0] }

// A peer is one way to download.
type peer struct {
	name    string
	program func(programs) string
	single  bool // only for models of one file
	resumes bool // goes on after a kill when run again
	durable bool // when it ends, the files are on the disk
	// argv is the command line, and the list of files that it reads, if any.
	argv func(e errand) (args []string, list string)
}

func allPeers() []peer {
	rclone := func(p programs) string { return p.rclone }
	aria2c := func(p programs) string { return p.aria2c }
	curl := func(p programs) string { return p.curl }
	bare := func(p programs) string { return p.bare }
	peers := []peer{{
		name: "ema", resumes: true, durable: true, program: func(p programs) string { return p.ema },
		argv: func(e errand) ([]string, string) {
			return append([]string{"pull", e.model, "--store", e.store(), "--endpoint", e.endpoint, "--quiet"}, e.emaArgs...), ""
		},
	}, {
		name: "aria2-list", resumes: true, program: aria2c,
		argv: func(e errand) ([]string, string) {
			var list strings.Builder
			for _, f := range e.files {
				fmt.Fprintf(&list, "%s\n  out=%s\n", e.source(f), f.Path)
			}
			return []string{"--no-conf", "-q", "-j16", "-x16", "-s16", "-k1M", "-d", e.out(), "-i", e.scratch("list")}, list.String()
		},
	}, {
		name: "rclone-list", program: rclone,
		argv: func(e errand) ([]string, string) {
			var list strings.Builder
			for _, f := range e.files {
				fmt.Fprintln(&list, f.Path)
			}
			return []string{
				"copy", "--transfers", "16", "--checkers", "16", "--multi-thread-streams", "16", "--multi-thread-cutoff", "1M",
				"--no-traverse", "--files-from-raw", e.scratch("list"), "--http-url", e.base() + "/", ":http:", e.out(),
			}, list.String()
		},
	}, {
		name: "curl-list", program: curl,
		argv: func(e errand) ([]string, string) {
			var list strings.Builder
			for _, f := range e.files {
				fmt.Fprintf(&list, "url = %q\noutput = %q\n", e.source(f), e.target(f))
			}
			return []string{"-q", "-s", "-f", "--parallel", "--parallel-max", "16", "-K", e.scratch("list")}, list.String()
		},
	}, {
		name: "curl", single: true, resumes: true, program: curl,
		argv: func(e errand) ([]string, string) {
			return []string{"-q", "-s", "-f", "-C", "-", "-o", e.target(e.only()), e.source(e.only())}, ""
		},
	}}
	for _, streams := range []string{"1", "8", "16"} {
		peers = append(peers, peer{
			name: "rclone-" + streams, single: true, program: rclone,
			argv: func(e errand) ([]string, string) {
				return []string{
					"copyto", "--multi-thread-streams", streams, "--multi-thread-cutoff", "1M",
					"--http-url", e.base(), ":http:" + e.only().Path, e.target(e.only()),
				}, ""
			},
		})
	}
	for _, one := range []struct{ name, conns string }{{"aria2-1M", "16"}, {"aria2-8", "8"}} {
		peers = append(peers, peer{
			name: one.name, single: true, resumes: true, program: aria2c,
			argv: func(e errand) ([]string, string) {
				f := e.only()
				return []string{
					"--no-conf", "-q", "-c", "-x" + one.conns, "-s" + one.conns, "-k1M",
					"-d", filepath.Dir(e.target(f)), "-o", path.Base(f.Path), e.source(f),
				}, ""
			},
		})
	}
	for _, one := range []struct {
		name string
		args []string
	}{{"bare", nil}, {"bare-buffered", []string{"-mode", "buffered"}}, {"bare-16", []string{"-conns", "16"}}} {
		peers = append(peers, peer{
			name: one.name, single: true, durable: true, program: bare,
			argv: func(e errand) ([]string, string) {
				f := e.only()
				return append([]string{"-url", e.source(f), "-out", e.target(f), "-sha256", f.SHA256}, one.args...), ""
			},
		})
	}
	return peers
}

func peerNames() []string {
	var names []string
	for _, p := range allPeers() {
		names = append(names, p.name)
	}
	return names
}

// choose finds the peers of a case, in the order asked for. The case's own peers that are not on this machine are left
// out; whoever asks for one by name gets an error instead.
func choose(c testCase, asked []string, p programs) ([]peer, error) {
	names := asked
	if len(asked) == 0 {
		names = c.peers
	}
	known := map[string]peer{}
	for _, one := range allPeers() {
		known[one.name] = one
	}
	var chosen []peer
	for _, name := range names {
		one, ok := known[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("peer %q: there are %s", name, strings.Join(peerNames(), ", "))
		case c.kind == listing && name != "ema":
			return nil, fmt.Errorf("case %s measures ema only", c.name)
		case c.kind == resume && !one.resumes:
			return nil, fmt.Errorf("case %s: %s never resumes", c.name, name)
		case one.single && len(c.groups) > 1 || one.single && c.groups[0].count > 1:
			return nil, fmt.Errorf("case %s has many files, and %s fetches one", c.name, name)
		case one.program(p) != "":
			chosen = append(chosen, one)
		case len(asked) > 0:
			return nil, fmt.Errorf("peer %s: its program is not installed; bench/README.md says how", name)
		}
	}
	return chosen, nil
}
