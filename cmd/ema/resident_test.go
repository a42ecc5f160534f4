package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/host"
	"ema/internal/model"
)

// aside is another name of a file, which can be opened without using its model.
func (c *tidy) aside(path string) string {
	c.t.Helper()
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		c.t.Fatal(err)
	}
	name := filepath.Join(c.t.TempDir(), "aside")
	if err := os.Link(real, name); err != nil {
		c.t.Fatal(err)
	}
	return name
}

func TestAModelThatIsUsedIsInMemory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	path := c.aside(filepath.Join(strings.TrimSpace(c.ema("path", "acme/slow")), "weights.bin"))
	size := int64(8 * model.MiB)
	resident := func() int64 {
		t.Helper()
		n, _, err := host.PageCache{}.Resident(path, 0, size)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := (host.PageCache{}).Drop(path); err != nil {
		t.Fatal(err)
	}
	if resident() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("what is in memory is not dropped")
		}
		t.Skip("this file system does not drop what is in memory") // one in memory
	}
	asks(t, http.DefaultClient, "POST", c.url+"/models/usage", `{"model_id":"acme/slow"}`, nil)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for resident() < size {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d bytes of it are in memory", resident())
		}
	}
	var r client.Resources
	asks(t, http.DefaultClient, "GET", c.url+"/admin/resources", "", &r)
	if m := r.ModelCache; m == nil || m.Models != 1 || m.KeptMB != 8 || m.ResidentMB != 8 || m.Uses != 1 || m.HitRate == nil || *m.HitRate != 0 || m.LimitMB < 8 {
		t.Errorf("it says %+v", m)
	}
	if out, err := exec.CommandContext(ctx, "fincore", "--noheadings", "--bytes", "--output", "RES", path).Output(); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64); err != nil || n != size {
			t.Errorf("fincore says %s, %v", out, err)
		}
	}
	asks(t, http.DefaultClient, "POST", c.url+"/models/usage", `{"model_id":"acme/slow"}`, nil)
	asks(t, http.DefaultClient, "GET", c.url+"/admin/resources", "", &r)
	if m := r.ModelCache; m.Uses != 2 || *m.HitRate != 0.5 {
		t.Errorf("half of what was used was in memory: %+v", m)
	}

	c.ema("config", "set", "memory_management.model_cache_size_gb", "0.001")
	asks(t, http.DefaultClient, "GET", c.url+"/admin/resources", "", &r)
	if m := r.ModelCache; m.LimitMB > 1.1 || m.KeptMB > m.LimitMB {
		t.Errorf("with a limit of 1 MiB: %+v", m)
	}
	c.ema("config", "set", "cache_optimization.model_cache.enabled", "false")
	var off client.Resources
	asks(t, http.DefaultClient, "GET", c.url+"/admin/resources", "", &off)
	if off.ModelCache != nil {
		t.Errorf("switched off: %+v", off.ModelCache)
	}
	c.ends(t)
}

func TestModelsThatWereUsedOftenAreReadAtTheStart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	path := c.aside(filepath.Join(strings.TrimSpace(c.ema("path", "acme/slow")), "weights.bin"))
	for range 10 {
		asks(t, http.DefaultClient, "POST", c.url+"/models/usage", `{"model_id":"acme/slow"}`, nil)
	}
	c.ends(t)
	if err := (host.PageCache{}).Drop(path); err != nil {
		t.Fatal(err)
	}
	again := serving(ctx, t, c.environ)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, _, err := (host.PageCache{}).Resident(path, 0, int64(8*model.MiB)); err != nil {
			t.Fatal(err)
		} else if n == int64(8*model.MiB) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it is not in memory")
		}
	}
	again.ends(t)
}
