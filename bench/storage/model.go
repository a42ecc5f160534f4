package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prepare makes a model of one large file, and a store that has it.
func (b *bench) prepare(ctx context.Context) error {
	if err := os.MkdirAll(b.source(), 0o777); err != nil {
		return err
	}
	if err := fill(filepath.Join(b.source(), "model.bin"), b.size); err != nil {
		return err
	}
	settings, err := json.Marshal(map[string]any{
		"store": map[string]any{"path": filepath.Join(b.dir, "hot"), "state_dir": filepath.Join(b.dir, "state")},
		"storage_tiers": map[string]any{"cold": map[string]any{
			"path": b.cold, "io_priority": "low", "criteria": map[string]any{"usage_frequency_threshold": 0, "last_used_days": 90},
		}},
		"tier_management": map[string]any{"auto_tiering_enabled": false},
		"server":          map[string]any{"listen": "127.0.0.1:0", "metrics_listen": ""},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.config(), settings, 0o600); err != nil {
		return err
	}
	_, _, err = b.run1(ctx, b.ema, "pull", b.name(), "--config", b.config(), "--quiet")
	return err
}

func (b *bench) source() string { return filepath.Join(b.dir, "source") }
func (b *bench) config() string { return filepath.Join(b.dir, "ema.json") }
func (b *bench) name() string   { return "file://" + b.source() }

// fill writes size bytes that no file system can compress, past the page cache.
func fill(name string, size int64) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if end := f.Close(); err == nil {
			err = end
		}
	}()
	draw := rand.NewChaCha8([32]byte{1})
	piece := make([]byte, 64<<10) // larger ones are slow on some machines
	for at := int64(0); at < size; at += int64(len(piece)) {
		if _, err := draw.Read(piece); err != nil {
			return err
		}
		if _, err := f.Write(piece[:min(int64(len(piece)), size-at)]); err != nil {
			return err
		}
	}
	return f.Sync()
}

// blob is where the model's bytes lie now.
func (b *bench) blob(ctx context.Context) (string, error) {
	out, _, err := b.run1(ctx, b.ema, "path", b.name(), "--config", b.config())
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(out), "model.bin"))
}

// forget lets go of the page cache's copy of files, so that they are read from the disk.
func forget(names ...string) error {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fsync(int(f.Fd()))
		if err == nil {
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		_ = f.Close() //nolint:errcheck // it was only read
		if err != nil {
			return err
		}
	}
	return nil
}

// run1 runs a command to its end, and says what it printed, and how long it took and which time of processors.
func (b *bench) run1(ctx context.Context, name string, args ...string) (string, cost, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	begun := time.Now()
	err := cmd.Run()
	c := cost{wall: time.Since(begun).Seconds()}
	if err != nil {
		return "", c, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, complaints.String())
	}
	c.cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.peak = float64(u.Maxrss) / 1024
	}
	return out.String(), c, nil
}

// A cost is what a command took: seconds of time, of processors, and MiB at most.
type cost struct{ wall, cpu, peak float64 }
