package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"ema/internal/demohub"
	"ema/internal/model"
)

// flags are what the command line says.
type flags struct {
	listen       string
	cdn          bool
	model        string
	files        string
	dirs         []string
	web          string
	rateMbps     float64
	rateBytes    int64
	latency      time.Duration
	collapse     string
	apiQuota     string
	resolveQuota string
	signedFor    time.Duration
	pageSize     int
	smallHop     bool
	sendBuffer   int
	statsFile    string
	onlyReady    bool
}

func command(out io.Writer) *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "demohub",
		Short: "Serve made-up or local models as a model hub, with faults on request",
		Long: `Serve made-up or local models as a model hub, with faults on request.

While it runs, GET /_stats gives the counters, GET /_log the newest requests, POST /_reset sets both to
nothing, POST /_fault?fault=NAME[=ARGS]&kind=bulk&method=GET&path=*.bin&times=3 arms a fault,
POST /_next?fault=A&fault=B bends the next bulk answers in order, and DELETE /_fault disarms all.`,
		Example: `  demohub --listen 127.0.0.1:8090 --cdn --model acme/demo --files 200x4KiB-1MiB,3x512MiB
  curl -X POST 'http://127.0.0.1:8090/_next?fault=reset-after=3MiB&fault=status=503'`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), f, out)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.listen, "listen", "127.0.0.1:0", "address to listen on")
	fs.BoolVar(&f.cdn, "cdn", false, "redirect large files to a second listener, by signed URLs")
	fs.StringVar(&f.model, "model", "demo/model", "id of the made-up model")
	fs.StringVar(&f.files, "files", "", "its files, e.g. 200x4KiB-1MiB,3x512MiB; none: no such model")
	fs.StringArrayVar(&f.dirs, "dir", nil, "serve a folder as a model, ORG/NAME=FOLDER; may be repeated")
	fs.StringVar(&f.web, "web", "", "serve the files of a folder at /files/, as a plain web server")
	fs.Float64Var(&f.rateMbps, "rate-mbps", 0, "cap of each connection in MiB/s; 0: none")
	fs.Int64Var(&f.rateBytes, "rate-bytes", 0, "cap of each connection in bytes/s; 0: none")
	fs.DurationVar(&f.latency, "latency", 0, "wait before each answer")
	fs.StringVar(&f.collapse, "collapse", "", "CONNS:SIZE: above CONNS bulk transfers all together get SIZE per second")
	fs.StringVar(&f.apiQuota, "api-quota", "", "N/DURATION: API requests per window, e.g. 500/5m")
	fs.StringVar(&f.resolveQuota, "resolve-quota", "", "N/DURATION: file requests per window, the CDN's not counted")
	fs.DurationVar(&f.signedFor, "signed-for", time.Hour, "how long signed URLs are valid")
	fs.IntVar(&f.pageSize, "page-size", 1000, "entries in a page of a tree listing")
	fs.BoolVar(&f.smallHop, "small-via-redirect", false, "serve small files through a redirect, as the real hub does")
	fs.IntVar(&f.sendBuffer, "send-buffer", 0, "bytes of socket send buffer, so that little is in flight when a client dies; 0: the kernel decides")
	fs.StringVar(&f.statsFile, "stats-file", "", "write the counters here at the end, as JSON")
	fs.BoolVar(&f.onlyReady, "once-ready-print", false, "print nothing but the line that says ready")
	cmd.MarkFlagsMutuallyExclusive("rate-mbps", "rate-bytes")
	return cmd
}

// serve runs the hub until ctx ends, which is no error.
func serve(ctx context.Context, f flags, out io.Writer) (err error) {
	opts, err := f.options()
	if err != nil {
		return err
	}
	hub := demohub.New(opts...)
	if err := hub.Warm(ctx); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", f.listen)
	if err != nil {
		return err
	}
	servers := []*http.Server{{Handler: control(hub), ReadHeaderTimeout: time.Minute}}
	listeners := []net.Listener{buffered{listener, f.sendBuffer}}
	if f.cdn {
		host, _, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		second, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		hub.Set(demohub.ViaCDN("http://" + second.Addr().String()))
		servers = append(servers, &http.Server{Handler: hub.CDN(), ReadHeaderTimeout: time.Minute})
		listeners = append(listeners, buffered{second, f.sendBuffer})
	}

	g, ctx := errgroup.WithContext(ctx)
	for i, s := range servers {
		g.Go(func() error {
			if err := s.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			return s.Close() // not Shutdown: a stalled answer would hold it up for ever
		})
	}
	url := "http://" + listener.Addr().String()
	fmt.Fprintln(out, "ready", url)
	if !f.onlyReady {
		fmt.Fprintf(out, "use it with HF_ENDPOINT=%s; counters are at %s/_stats; stop it with Ctrl-C\n", url, url)
	}
	err = g.Wait()
	if f.statsFile != "" {
		err = errors.Join(err, writeStats(f.statsFile, hub.Stats()))
	}
	return err
}

func (f flags) options() ([]demohub.Option, error) {
	rate := model.Bytes(f.rateBytes)
	if f.rateMbps != 0 {
		rate = model.Bytes(f.rateMbps * float64(model.MiB))
	}
	if rate < 0 || f.latency < 0 || f.sendBuffer < 0 {
		return nil, errors.New("--rate-mbps, --rate-bytes, --latency and --send-buffer must not be negative")
	}
	opts := []demohub.Option{
		demohub.Rate(rate), demohub.Latency(f.latency), demohub.SignedFor(f.signedFor), demohub.PageSize(f.pageSize),
	}
	if f.smallHop {
		opts = append(opts, demohub.SmallViaRedirect())
	}
	if f.files != "" {
		entries, err := demohub.Generate(f.files)
		if err != nil {
			return nil, fmt.Errorf("--files: %w", err)
		}
		opts = append(opts, demohub.Repo(f.model, parts(entries)...))
	}
	for _, dir := range f.dirs {
		id, folder, ok := strings.Cut(dir, "=")
		if !ok || id == "" || folder == "" {
			return nil, fmt.Errorf("--dir %q: want ORG/NAME=FOLDER", dir)
		}
		entries, err := demohub.Folder(folder)
		if err != nil {
			return nil, fmt.Errorf("--dir %s: %w", dir, err)
		}
		opts = append(opts, demohub.Repo(id, parts(entries)...))
	}
	if f.web != "" {
		entries, err := demohub.Folder(f.web)
		if err != nil {
			return nil, fmt.Errorf("--web %s: %w", f.web, err)
		}
		opts = append(opts, demohub.Files(entries...))
	}
	if f.collapse != "" {
		conns, size, _ := strings.Cut(f.collapse, ":")
		n, err := strconv.Atoi(conns)
		total, sizeErr := demohub.ParseSize(size)
		if err != nil || sizeErr != nil || n < 0 {
			return nil, fmt.Errorf("--collapse %q: want CONNS:SIZE, e.g. 16:1MiB", f.collapse)
		}
		opts = append(opts, demohub.Collapse(n, total))
	}
	for name, quota := range map[string]struct {
		text   string
		option func(int, time.Duration) demohub.Option
	}{"--api-quota": {f.apiQuota, demohub.APIQuota}, "--resolve-quota": {f.resolveQuota, demohub.ResolveQuota}} {
		if quota.text == "" {
			continue
		}
		count, window, _ := strings.Cut(quota.text, "/")
		n, err := strconv.Atoi(count)
		d, windowErr := time.ParseDuration(window)
		if err != nil || windowErr != nil || n < 1 || d <= 0 {
			return nil, fmt.Errorf("%s %q: want N/DURATION, e.g. 500/5m", name, quota.text)
		}
		opts = append(opts, quota.option(n, d))
	}
	return opts, nil
}

func parts(entries []demohub.Entry) []demohub.Part {
	all := make([]demohub.Part, len(entries))
	for i, e := range entries {
		all[i] = e
	}
	return all
}

// buffered sets the send buffer of every connection it accepts.
type buffered struct {
	net.Listener
	bytes int
}

func (b buffered) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && b.bytes > 0 {
		if err := tcp.SetWriteBuffer(b.bytes); err != nil {
			return nil, errors.Join(err, tcp.Close())
		}
	}
	return conn, err
}

func writeStats(path string, stats demohub.Stats) error {
	b, err := json.MarshalIndent(stats, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}
