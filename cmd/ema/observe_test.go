package main

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ema/client"
	"ema/internal/ledger"
	"ema/internal/model"
)

func TestAProgramThatLoadsAModelUsesItOnceAndEmaItselfNever(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	c.ema("pull", "acme/other", "--quiet")
	home := filepath.Join(strings.TrimPrefix(c.environ[0], "HOME="), ".cache/huggingface")
	for range 3 {
		c.ema("verify")
	}
	var asked client.Resources
	asks(t, http.DefaultClient, "GET", c.url+"/admin/resources", "", &asked)
	load := exec.CommandContext(ctx, "sh", "-c", `i=0; while [ $i -lt 200 ]; do cat "$1" >/dev/null; i=$((i+1)); done`, "sh", filepath.Join(strings.TrimSpace(c.ema("path", "acme/slow")), "weights.bin"))
	if err := load.Run(); err != nil {
		t.Fatal(err)
	}
	c.ends(t)
	l, err := ledger.Open(ctx, filepath.Join(home, "ema/hub", ledgerFile))
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
}
