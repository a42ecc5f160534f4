package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"ema/internal/model"
)

// ErrNoDaemon means that nobody listens.
var ErrNoDaemon = errors.New("no daemon runs")

// answerPatience is how long a daemon may take to begin an answer. It answers at once; a longer silence means that it
// is stopped, or that its disk hangs.
const answerPatience = 30 * time.Second

// A Client talks to one daemon. It is safe for concurrent use.
type Client struct {
	http *http.Client
	base string
}

// NewClient is the client of the daemon whose state folder that is. It connects when it is used.
func NewClient(stateDir string) *Client {
	return &Client{
		base: "http://daemon" + Base,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, Socket(stateDir)) },
			// A connection for each request: the daemon keeps none for a client that only waits.
			DisableKeepAlives:     true,
			ResponseHeaderTimeout: answerPatience,
		}},
	}
}

// Version asks what the daemon is.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	return v, c.call(ctx, http.MethodGet, "/admin/version", nil, &v)
}

// Reload makes the daemon read its settings again.
func (c *Client) Reload(ctx context.Context) (r Reloaded, err error) {
	return r, c.call(ctx, http.MethodPost, "/admin/reload", struct{}{}, &r)
}

// Manage starts a download or changes its course.
func (c *Client) Manage(ctx context.Context, m Manage) (done Managed, err error) {
	return done, c.call(ctx, http.MethodPost, "/models/download/manage", m, &done)
}

// Active asks for the downloads that are not over.
func (c *Client) Active(ctx context.Context) (a Active, err error) {
	return a, c.call(ctx, http.MethodGet, "/models/download/active", nil, &a)
}

// History asks for a page of the downloads that are over; the first page is 1, and it has at most limit <= 100.
func (c *Client) History(ctx context.Context, page, limit int) (h History, err error) {
	return h, c.call(ctx, http.MethodGet, fmt.Sprintf("/models/download/history?page=%d&limit=%d", page, limit), nil, &h)
}

// Progress asks about one download of a model: the one of that id, or the newest if id is empty.
func (c *Client) Progress(ctx context.Context, m model.ID, id string) (d Download, err error) {
	path := "/models/download/progress/" + url.PathEscape(m.String())
	if id != "" {
		path += "?download_id=" + url.QueryEscape(id)
	}
	return d, c.call(ctx, http.MethodGet, path, nil, &d)
}

// Interest says which events to hear. The zero Interest is in all, from now on.
type Interest struct {
	Since    uint64   // after the event of that number; 0 means from now on
	Download string   // of this download only
	Model    model.ID // of downloads of this model only
}

// Events listens to what happens. Whatever happens after it has returned will be heard. Close what it returns.
func (c *Client) Events(ctx context.Context, i Interest) (*Events, error) {
	query := url.Values{}
	if i.Since > 0 {
		query.Set("since", strconv.FormatUint(i.Since, 10))
	}
	if i.Download != "" {
		query.Set("download_id", i.Download)
	}
	if !i.Model.IsZero() {
		query.Set("model_id", i.Model.String())
	}
	res, err := c.do(ctx, http.MethodGet, "/events?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	return &Events{body: res.Body, dec: json.NewDecoder(res.Body)}, nil
}

// Events is a stream of events, for one goroutine.
type Events struct {
	body io.ReadCloser
	dec  *json.Decoder
}

// Next waits for the next event. It fails when the daemon stops, and when the stream's context ends.
func (e *Events) Next() (Event, error) {
	var next Event
	if err := e.dec.Decode(&next); err != nil {
		return Event{}, fmt.Errorf("the daemon has stopped talking: %w", err)
	}
	return next, nil
}

// Close ends the stream.
func (e *Events) Close() error { return e.body.Close() }

// Run executes a command line within the daemon, writes what it prints, and returns its exit code. When ctx ends, the
// command is cancelled.
func (c *Client) Run(ctx context.Context, command Command, stdout, stderr io.Writer) (code int, err error) {
	res, err := c.do(ctx, http.MethodPost, "/admin/run", command)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	for {
		var f Frame
		if err := dec.Decode(&f); err != nil {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			return 0, fmt.Errorf("the daemon stopped before the command was done: %w", err)
		}
		if f.Exit != nil {
			return *f.Exit, nil
		}
		if _, err := stdout.Write(f.Stdout); err != nil {
			return 0, err
		}
		if _, err := stderr.Write(f.Stderr); err != nil {
			return 0, err
		}
	}
}

// call asks and reads one JSON object.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	res, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// do asks. What is no success comes back as an *Error, and a daemon that is not there as ErrNoDaemon.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var payload bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&payload).Encode(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, &payload)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNoDaemon
	case errors.Is(err, fs.ErrPermission):
		return nil, &model.Error{
			Op: "ask the daemon", Class: model.Auth, Err: errors.New("it belongs to another user"),
			Hint: "run this command as the user who runs \"ema serve\"",
		}
	default:
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // it repeats an address that means nothing to people
		}
		return nil, &model.Error{Op: "ask the daemon", Class: model.Timeout, Err: err, Hint: `see what it is doing, or start it anew with "ema serve"`}
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	return nil, errorOf(res)
}
