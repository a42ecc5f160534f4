package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// bareTag is the tag of what the bare handler sends.
const bareTag = `"bare"`

// bare answers every request with the bytes of a file, or with 304 to who has them, as fast as net/http can. It prints
// its URL, and ends when in does.
func bare(file string, in io.Reader, out io.Writer) error {
	body, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: bareHandler(body), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	if _, err := fmt.Fprintf(out, "http://%s/\n", l.Addr()); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	err = errors.Join(err, srv.Close())
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func bareHandler(body []byte) http.Handler {
	kind, tag, length := []string{"application/json"}, []string{bareTag}, []string{strconv.Itoa(len(body))}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Etag"] = tag
		if r.Header.Get("If-None-Match") == bareTag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h["Content-Type"], h["Content-Length"] = kind, length
		_, _ = w.Write(body) //nolint:errcheck // whoever hangs up misses it
	})
}

// A server is one that this command has started.
type server struct {
	url  string
	stop func() error
}

// bare starts the bare handler as a process of its own.
func (b *bench) bare(ctx context.Context, file string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "-bare", file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{stop: func() error { return errors.Join(in.Close(), cmd.Wait()) }}
	if _, err := fmt.Fscanln(bufio.NewReader(out), &s.url); err != nil {
		return nil, errors.Join(fmt.Errorf("the bare handler does not say where it is: %w", err), s.stop())
	}
	return s, nil
}

// nginxConfig has one worker for each processor. Connections last as long as the others' do.
const nginxConfig = `%sdaemon off;
worker_processes auto;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 2048; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  default_type application/json;
  client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  server {
    listen 127.0.0.1:%d backlog=4096;
    root html;
  }
}
`

// nginx starts one that sends a file.
func (b *bench) nginx(ctx context.Context, file string) (*server, error) {
	dir := filepath.Join(b.dir, "nginx")
	if err := os.MkdirAll(filepath.Join(dir, "html"), 0o755); err != nil {
		return nil, err
	}
	body, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // else its workers may not read what lies here
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "html", "body.json"), body, 0o644),
		os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, nginxConfig, user, port), 0o600),
	); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{url: fmt.Sprintf("http://127.0.0.1:%d/body.json", port), stop: func() error {
		return errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait())
	}}
	if _, err := answering(ctx, s.url, 10*time.Second); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// freePort is one of loopback's that nobody uses.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// answering asks until the answer is 200, and returns when it began to be.
func answering(ctx context.Context, url string, patience time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return time.Time{}, err
		}
		res, err := c.Do(req)
		if err == nil {
			if err := res.Body.Close(); err != nil {
				return time.Time{}, err
			}
			if res.StatusCode == http.StatusOK {
				return time.Now(), nil
			}
			err = errors.New(res.Status)
		}
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s does not answer: %w", url, err)
		case <-time.After(time.Millisecond):
		}
	}
}
