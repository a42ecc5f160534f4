// Command analytics measures how fast uses are written and answers about them come, over ten million uses of a thousand models, on
// SQLite and on PostgreSQL.
//
//	go run ./bench/analytics                        # both, about ten minutes, 3 GiB of disk
//	go run ./bench/analytics -database sqlite -uses 1000000
//
// It runs a daemon of its own, and a PostgreSQL server of its own, in a temporary folder, and removes all of it.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"ema/bench/table"
	"ema/client"
	"ema/internal/ledger"
	"ema/internal/ledger/pgserver"
	"ema/internal/model"
)

const (
	batch  = 20_000
	days   = 90
	within = 50.0    // milliseconds at the 95th percentile
	sooner = 20_000. // uses per second
	beside = 5 * time.Second
)

// A bench is what is measured, and where.
type bench struct {
	ema, dir               string
	uses, models, requests int
	table                  table.Table
}

func main() {
	var b bench
	database := flag.String("database", "sqlite,postgresql", "the `databases` to measure, separated by commas")
	flag.IntVar(&b.uses, "uses", 10_000_000, "`uses` over 90 days")
	flag.IntVar(&b.models, "models", 1000, "`models`")
	flag.IntVar(&b.requests, "requests", 200, "`requests` to each endpoint")
	check := flag.Bool("check", false, "fail when a target is missed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	missed, err := b.run(ctx, strings.Split(*database, ","))
	stop()
	if err == nil && *check && missed {
		err = errors.New("a target is missed")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "analytics:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, databases []string) (missed bool, err error) {
	if b.dir, err = os.MkdirTemp("", "ema-analytics-"); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.ema = filepath.Join(b.dir, "ema")
	if text, err := exec.CommandContext(ctx, "go", "build", "-o", b.ema, "./cmd/ema").CombinedOutput(); err != nil {
		return false, fmt.Errorf("build ema (run this from the top of the checkout): %w\n%s", err, text)
	}
	for _, name := range databases {
		b.table = table.Table{}
		measure := map[string]func(context.Context) error{"sqlite": b.sqlite, "postgresql": b.postgres}[name]
		if measure == nil {
			return missed, fmt.Errorf("there is no database %q; there are sqlite and postgresql", name)
		}
		if err := measure(ctx); err != nil {
			return missed, err
		}
		if err := b.table.Print(os.Stdout, name); err != nil {
			return missed, err
		}
		missed = missed || b.table.Missed()
	}
	return missed, nil
}

func (b *bench) sqlite(ctx context.Context) error {
	home := filepath.Join(b.dir, "sqlite")
	state := filepath.Join(home, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	open := func() (*ledger.Ledger, error) { return ledger.Open(ctx, filepath.Join(state, "ema.db")) }
	return b.measure(ctx, home, open)
}

func (b *bench) postgres(ctx context.Context) error {
	home := filepath.Join(b.dir, "postgresql")
	if err := os.MkdirAll(filepath.Join(home, "server"), 0o755); err != nil {
		return err
	}
	s, err := pgserver.New(ctx, filepath.Join(home, "server"))
	if err != nil {
		return err
	}
	err = b.measure(ctx, home, func() (*ledger.Ledger, error) { return ledger.OpenPostgres(ctx, s.URL()) }, "EMA_DATABASE__URL="+s.URL())
	return errors.Join(err, s.Close())
}

// measure fills a database, and asks a daemon that uses it.
func (b *bench) measure(ctx context.Context, home string, open func() (*ledger.Ledger, error), environ ...string) error {
	l, err := open()
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := b.fill(ctx, l, b.uses, "a", begun.Add(-days*24*time.Hour), days*24*time.Hour); err != nil {
		return err
	}
	rate := float64(b.uses) / time.Since(begun).Seconds()
	b.table.AtLeast("uses written per second", "%.0f", rate, sooner)
	fmt.Printf("  filled in %.0f s\n", time.Since(begun).Seconds())
	url, stop, err := b.serve(ctx, home, environ)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if err = ready(ctx, url); err == nil {
		err = b.answers(ctx, url)
	}
	if err == nil {
		err = b.whileWriting(ctx, url, l)
	}
	return errors.Join(err, stop(), l.Close())
}

// fill writes uses of the last 90 days in the order in which they came: of some models many, of most few, and more by day than by night.
func (b *bench) fill(ctx context.Context, l *ledger.Ledger, uses int, name string, from time.Time, span time.Duration) error {
	rnd := rand.New(rand.NewPCG(1, uint64(uses)))
	popular := rand.NewZipf(rnd, 1.1, 10, uint64(b.models-1))
	for done := 0; done < uses; done += batch {
		all := ledger.Batch{ID: fmt.Sprintf("%s-%d", name, done), Uses: make([]model.Use, 0, batch)}
		for i := range min(batch, uses-done) {
			at := from.Add(time.Duration(float64(done+i) / float64(uses) * float64(span)))
			if at.Hour() < 7 && rnd.IntN(4) > 0 {
				at = at.Add(7 * time.Hour)
			}
			all.Uses = append(all.Uses, model.Use{
				Model: model.ID{Name: fmt.Sprintf("acme/model-%04d", popular.Uint64())}, At: at.UTC(), By: model.UseByAPI, Operation: "generate",
				Duration: time.Duration(rnd.IntN(3000)) * time.Millisecond, OK: rnd.IntN(50) > 0,
			})
		}
		if err := l.Write(ctx, all); err != nil {
			return err
		}
	}
	return nil
}

// serve runs a daemon until stop is called.
func (b *bench) serve(ctx context.Context, home string, environ []string) (url string, stop func() error, err error) {
	c := exec.CommandContext(ctx, b.ema, "serve")
	c.Env = append(append(os.Environ(), environ...), "EMA_STORE__PATH="+filepath.Join(home, "hub"), "EMA_STORE__STATE_DIR="+filepath.Join(home, "state"),
		"EMA_SERVER__LISTEN=127.0.0.1:0", "EMA_SERVER__METRICS_LISTEN=", "EMA_RATE_LIMIT__REQUESTS_PER_MINUTE=0", "HF_ENDPOINT=http://127.0.0.1:1", "HF_TOKEN=")
	said, err := c.StderrPipe()
	if err != nil {
		return "", nil, err
	}
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	lines := bufio.NewScanner(said)
	listens := regexp.MustCompile(` and (http://\S+): `)
	var log []string
	for lines.Scan() {
		log = append(log, lines.Text())
		if at := listens.FindStringSubmatch(lines.Text()); at != nil {
			url = at[1] + client.Base
			break
		}
	}
	if url == "" {
		return "", nil, fmt.Errorf("the daemon does not start: %w: %s", c.Wait(), strings.Join(log, "\n"))
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, said) //nolint:errcheck // it ends with the daemon
	}()
	return url, func() error {
		err := c.Process.Signal(syscall.SIGTERM)
		<-drained
		return errors.Join(err, c.Wait())
	}, nil
}

// ready waits until the daemon has its database: it looks for that in the background.
func ready(ctx context.Context, url string) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		_, err := timed(ctx, 1, url+"/models/analytics")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// recomputed asks n questions that nobody has asked before, and returns the milliseconds of each answer.
func recomputed(ctx context.Context, n int, url, path string) ([]float64, error) {
	var all []float64
	for i := range n {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		one, err := timed(ctx, 1, fmt.Sprintf("%s%s%soffset=%d", url, path, sep, i)) // another question each time
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
	}
	slices.Sort(all)
	return all, nil
}

// timedFor asks for so long, a hundred times a second, and returns the milliseconds of each answer.
func timedFor(ctx context.Context, d time.Duration, url string) ([]float64, error) {
	var all []float64
	for end := time.Now().Add(d); time.Now().Before(end); {
		one, err := timed(ctx, 1, url)
		if err != nil {
			return nil, err
		}
		all = append(all, one...)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	slices.Sort(all)
	return all, nil
}

// timed asks n times, and returns the milliseconds of each answer.
func timed(ctx context.Context, n int, url string) ([]float64, error) {
	took := make([]float64, 0, n)
	for range n {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		begun := time.Now()
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(answer.Body)
		if err = errors.Join(err, answer.Body.Close()); err != nil || answer.StatusCode != http.StatusOK {
			return nil, errors.Join(err, fmt.Errorf("%s: %s: %.200s", url, answer.Status, body))
		}
		took = append(took, float64(time.Since(begun).Microseconds())/1000)
	}
	slices.Sort(took)
	return took, nil
}

func p95(all []float64) float64 { return all[len(all)*95/100] }

// answers measures the endpoints.
func (b *bench) answers(ctx context.Context, url string) error {
	for _, path := range []string{
		"/models/analytics", "/models/analytics?period=week", "/models/analytics?start_date=" + time.Now().AddDate(0, 0, 1-days).Format(time.DateOnly) + "&timezone=America/New_York",
		"/models/analytics?limit=1000", "/models/analytics/acme%2Fmodel-0000?period=year", "/models/analytics/performance", "/models/analytics/cleanup", "/models/analytics/preload",
	} {
		took, err := timed(ctx, b.requests, url+path)
		if err != nil {
			return err
		}
		what, _, _ := strings.Cut(strings.TrimPrefix(path, "/models"), "&")
		if strings.Contains(path, "limit=1000") {
			b.table.Note("ms at the 95th percentile: "+what, fmt.Sprintf("%.1f (half within %.1f)", p95(took), table.Middle(took)))
			continue
		}
		b.table.AtMost(fmt.Sprintf("ms at the 95th percentile: %s (half within %.1f)", what, table.Middle(took)), "%.1f", p95(took), within)
	}
	for _, path := range []string{"/models/analytics", "/models/analytics?period=year"} {
		took, err := recomputed(ctx, b.requests/4, url, path)
		if err != nil {
			return err
		}
		b.table.Note("the same, of an answer that is not kept: "+strings.TrimPrefix(path, "/models"), fmt.Sprintf("%.1f (half within %.1f)", p95(took), table.Middle(took)))
	}
	return nil
}

// whileWriting measures answers about all models while uses are written as fast as that goes.
func (b *bench) whileWriting(ctx context.Context, url string, l *ledger.Ledger) error {
	const status = "/models/status/detailed"
	quiet, err := timedFor(ctx, beside, url+status)
	if err != nil {
		return err
	}
	writing, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	begun := time.Now()
	go func() { ended <- b.fill(writing, l, b.uses, "b", begun, 24*time.Hour) }()
	busy, err := timedFor(ctx, beside, url+status)
	took := time.Since(begun)
	stop()
	if end := <-ended; end != nil && writing.Err() == nil {
		err = errors.Join(err, end)
	}
	if err != nil {
		return err
	}
	b.table.Note("a status request, ms: median, 95th percentile", fmt.Sprintf("%.2f, %.2f", table.Middle(quiet), p95(quiet)))
	b.table.Note(fmt.Sprintf("while uses are written, over %.1f s", took.Seconds()), fmt.Sprintf("%.2f, %.2f", table.Middle(busy), p95(busy)))
	return nil
}
