package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"ema/client"
	"ema/internal/demohub"
	"ema/internal/model"
)

const (
	few      = 10 // models of the smaller store
	dozen    = 12 // models that one repository of the hub stands for: contents are made once
	big      = "acme/big"
	statuses = client.Base + "/models/status/detailed"
)

// stores are those that were made, with their daemons.
type stores struct {
	b    *bench
	made map[int]*store
	hub  *demohub.Hub
	srv  *http.Server
	url  string
	done chan struct{}
}

// A store has so many models.
type store struct {
	b      *bench
	models int
	path   string
	hub    string
	daemon *daemon
}

// of is the store of so many models, with a daemon that runs.
func (s *stores) of(ctx context.Context, models int) (*store, error) {
	if have := s.made[models]; have != nil {
		return have, nil
	}
	if s.hub == nil {
		if err := s.open(ctx); err != nil {
			return nil, err
		}
	}
	made := &store{b: s.b, models: models, path: filepath.Join(s.b.dir, fmt.Sprintf("hub-%d", models)), hub: s.url}
	if err := made.fill(ctx); err != nil {
		return nil, err
	}
	var err error
	if made.daemon, err = made.serve(ctx); err != nil {
		return nil, err
	}
	if s.made == nil {
		s.made = map[int]*store{}
	}
	s.made[models] = made
	return made, nil
}

// open serves models on loopback.
func (s *stores) open(ctx context.Context) error {
	var repos []demohub.Option
	for i := range max(s.b.models, few) {
		seed := uint64(i%dozen + 1)
		repos = append(repos, demohub.Repo(name(i), demohub.File("config.json", 512),
			demohub.SeededFile("tokenizer.json", 2*model.KiB, seed), demohub.SeededFile("model.safetensors", 4*model.KiB, seed)))
	}
	repos = append(repos, demohub.Repo(big, demohub.SeededFile("model.bin", model.Bytes(s.b.file)*model.MiB, 99)))
	s.hub = demohub.New(repos...)
	if err := s.hub.Warm(ctx); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url, s.srv, s.done = "http://"+l.Addr().String(), &http.Server{Handler: s.hub, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	go func() {
		defer close(s.done)
		_ = s.srv.Serve(l) //nolint:errcheck // it ends by Close
	}()
	return nil
}

func name(i int) string { return fmt.Sprintf("acme/some-model-%04d", i) }

// close ends all daemons, and the hub.
func (s *stores) close() (err error) {
	for _, one := range s.made {
		err = errors.Join(err, one.daemon.stop())
	}
	if s.srv != nil {
		err = errors.Join(err, s.srv.Close())
		<-s.done
	}
	return err
}

// environ is that of an ema which works on this store, and limits nothing. What is stored need not survive a power loss.
func (s *store) environ() []string {
	return append(os.Environ(), "EMA_STORE__PATH="+s.path, "EMA_STORE__STATE_DIR="+s.path+"-state", "EMA_STORE__DURABILITY=process",
		"EMA_SERVER__LISTEN=127.0.0.1:0", "EMA_RATE_LIMIT__REQUESTS_PER_MINUTE=0", "HF_HUB_CACHE="+s.path, "HF_ENDPOINT="+s.hub, "HF_TOKEN=")
}

// fill pulls the models, as everybody does.
func (s *store) fill(ctx context.Context) error {
	args := []string{"pull", "--quiet"}
	for i := range s.models {
		args = append(args, name(i))
	}
	cmd := exec.CommandContext(ctx, s.b.ema, args...)
	cmd.Env = s.environ()
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pull %d models: %w: %s", s.models, err, text[max(0, len(text)-1000):])
	}
	return nil
}

// A daemon is a running "ema serve".
type daemon struct {
	*client.Client
	cmd   *exec.Cmd
	url   string
	began time.Time
	log   *output
	read  sync.WaitGroup
}

// output keeps what a process says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// serve starts the daemon and waits until it says that it is ready.
func (s *store) serve(ctx context.Context) (*daemon, error) {
	d := &daemon{cmd: exec.CommandContext(ctx, s.b.ema, "serve"), log: &output{}}
	d.cmd.Env = s.environ()
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	d.began = time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(stderr)
	for d.url == "" {
		line, err := lines.ReadString('\n')
		_, _ = d.log.Write([]byte(line)) //nolint:errcheck // memory
		if err != nil {
			return nil, errors.Join(fmt.Errorf("the daemon is not ready: %w: %s", err, d.log), d.cmd.Wait())
		}
		d.url = address(line)
	}
	d.read.Go(func() { _, _ = io.Copy(d.log, lines) }) //nolint:errcheck // it ends with the daemon
	d.Client = client.Local(s.path + "-state")
	return d, nil
}

// address is where a daemon says that it serves; "" when a line says something else.
func address(line string) string {
	if at := regexp.MustCompile(`^ema: serving the store .* and (https?://\S+): `).FindStringSubmatch(line); at != nil {
		return at[1]
	}
	return ""
}

func (d *daemon) stop() error {
	d.Close()
	err := d.cmd.Process.Signal(os.Interrupt)
	d.read.Wait()
	if err := errors.Join(err, d.cmd.Wait()); err != nil {
		return fmt.Errorf("the daemon ended badly: %w: %s", err, d.log)
	}
	return nil
}

// cost is what the daemon has used so far: CPU time, and the most memory that was resident.
type cost struct {
	cpu  time.Duration
	peak model.Bytes
}

func (d *daemon) cost() (c cost, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return c, err
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		return c, err
	}
	c.peak = model.Bytes(kib) * model.KiB
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return c, err
	}
	for _, field := range strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[11:13] { // utime and stime (proc(5)), in ticks of 10 ms
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return c, err
		}
		c.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	return c, nil
}
