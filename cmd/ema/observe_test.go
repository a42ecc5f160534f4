package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ema/client"
	"ema/internal/ledger"
	"ema/internal/model"
)

// boxed runs a daemon that may neither use fanotify nor look at other processes, as in a container.
func boxed(ctx context.Context, t *testing.T, environ []string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{stdout: transcript{wrote: make(chan struct{}, 1)}, stderr: transcript{wrote: make(chan struct{}, 1)}}
	p.Cmd = exec.CommandContext(ctx, "sh", "-c", `echo 0 > /proc/sys/user/max_fanotify_groups && exec "$0" serve`, filepath.Join(t.TempDir(), "ema"))
	if err := os.Symlink(self, p.Args[3]); err != nil { // the name says which program the test is
		t.Fatal(err)
	}
	p.Env, p.Stdout, p.Stderr = environ, &p.stdout, &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := p.Start(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("this system makes no user namespaces: %v", err)
	}
	if err := p.stderr.contains(ctx, "ema: serving the store "); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAProgramThatLoadsAModelUsesItOnceAndEmaItselfNever(t *testing.T) {
	for how, serve := range map[string]func(context.Context, *testing.T, []string) *process{"fanotify": serving, "inotify": boxed} {
		t.Run(how, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			c := &tidy{t: t}
			c.hub, c.environ = quickHub(t)
			c.process = serve(ctx, t, c.environ)
			if err := c.stderr.contains(ctx, "by="+how); err != nil {
				t.Fatal(err)
			}
			c.url = c.address(t) + client.Base
			c.ema("pull", "acme/slow", "acme/other", "--quiet")
			used := func() bool {
				var got client.Storage
				asks(t, http.DefaultClient, "GET", c.url+"/models/storage", "", &got)
				for _, m := range got.Models {
					if m.Model == "acme/slow" && m.LastAccessed != nil {
						return true
					}
				}
				return false
			}
			load := func(times string) {
				t.Helper()
				cat := exec.CommandContext(ctx, "sh", "-c", `i=0; while [ $i -lt "$2" ]; do cat "$1" >/dev/null; i=$((i+1)); done`, "sh",
					filepath.Join(strings.TrimSpace(c.ema("path", "acme/slow")), "weights.bin"), times)
				if err := cat.Run(); err != nil {
					t.Fatal(err)
				}
			}
			for load("1"); !used(); load("1") { // by inotify it may have been the pull that opened it, at first
			}
			load("200")
			for range 3 {
				c.ema("verify")
			}
			c.ema("repair", "acme/other")
			c.ema("gc")
			var asked client.Resources
			asks(t, http.DefaultClient, "GET", c.url+"/admin/resources", "", &asked)
			if cache := asked.ModelCache; cache == nil {
				t.Error("nothing is kept in memory")
			}
			c.ends(t)
			l, err := ledger.Open(ctx, filepath.Join(strings.TrimPrefix(c.environ[0], "HOME="), ".cache/huggingface/ema/hub", ledgerFile))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var uses []model.UseCount
			if err := l.Uses(ctx, c.began, func(u model.UseCount) error { uses = append(uses, u); return nil }); err != nil {
				t.Fatal(err)
			}
			if len(uses) != 1 || uses[0].Model.Name != "acme/slow" || uses[0].Times != 1 || uses[0].By != model.UseByOpen {
				t.Errorf("200 opens of one model and 3 verifications of both are %+v", uses)
			}
		})
	}
}
