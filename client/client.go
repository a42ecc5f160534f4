// Package client talks to the daemon of ema: to the one on this machine through its socket, to any other over HTTP.
//
// What goes over the wire is in wire.go and events.go, and what an answer says that is none of success in failure.go. The
// server uses these types too. The names of JSON fields are a promise to clients that exist already: fields may be added,
// never renamed.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ema/internal/model"
)

// ErrNoDaemon means that nobody listens on the socket of that state folder.
var ErrNoDaemon = errors.New("no daemon runs")

// ErrUnreachable is in the chain of every error that says that the daemon of a URL gives no answer at all.
var ErrUnreachable = errors.New("no daemon answers")

// answerPatience is how long a daemon may take to begin an answer. It answers at once; a longer silence means that it
// is stopped, or that its disk hangs.
const answerPatience = 30 * time.Second

// mostAnswer is the largest answer that is read, in bytes; a daemon of a thousand models answers with some 10 MiB.
const mostAnswer = 256 << 20

// A Client talks to one daemon. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	base  string
	where string // the daemon's URL, for messages; empty when it is the one of this machine
	limit time.Duration
}

// Options are how a daemon is reached by its URL. The zero Options are for a daemon on this machine that asks for no key.
type Options struct {
	// Key is the API key, sent with each request to the daemon's own address and to no other: redirects are not followed.
	// It is in no error. Whoever can read the network reads it, unless the URL is https.
	Key string
	// Roots are the certificate authorities that may vouch for an https daemon; nil means those of the system.
	Roots *x509.CertPool
	// Proxy finds the proxy of a request; nil means that of the environment, which has none for loopback addresses.
	Proxy func(*http.Request) (*url.URL, error)
	// Timeout is how long the daemon may take to begin an answer, and then to end one that is no stream; 0 means 30 s.
	Timeout time.Duration
}

// Local is the client of the daemon on this machine whose state folder that is. It connects when it is used.
func Local(stateDir string) *Client {
	return &Client{
		base: "http://daemon" + Base, limit: answerPatience,
		http: newHTTP(&http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, Socket(stateDir)) },
			// A connection for each request: the daemon keeps none for a client that only waits.
			DisableKeepAlives: true,
		}, "", answerPatience),
	}
}

// New is the client of the daemon at that URL, e.g. http://127.0.0.1:8000 or https://models.example/ema behind a proxy.
// It connects when it is used. Close it when it is needed no more.
func New(address string, o Options) (*Client, error) {
	base, err := parse(address)
	if err != nil {
		return nil, &model.Error{Op: "find the daemon", Class: model.Usage, Err: err, Hint: "name it like http://127.0.0.1:8000"}
	}
	if strings.ContainsFunc(o.Key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, &model.Error{Op: "find the daemon", Class: model.Usage, URL: base, Err: errors.New("the API key has a space or a character that no key has"), Hint: "pass the key alone"}
	}
	limit := o.Timeout
	if limit <= 0 {
		limit = answerPatience
	}
	proxy := o.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	return &Client{
		base: base + Base, where: base, limit: limit,
		http: newHTTP(&http.Transport{
			Proxy: proxy, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: limit,
			DialContext:     (&net.Dialer{Timeout: limit}).DialContext,
			TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		}, o.Key, limit),
	}, nil
}

// parse is the address without what is not to be in it: the API begins at Base below it.
func parse(address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil: // its sentence would repeat the address, in which people write passwords
		return "", errors.New("its address is no URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return "", fmt.Errorf("its address %s is no http or https URL", model.Redact(address))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("its address %s has a user, a query or a fragment too; a key is passed by itself", model.Redact(address))
	}
	return strings.TrimSuffix(strings.TrimRight(u.String(), "/"), Base), nil
}

func newHTTP(t *http.Transport, key string, limit time.Duration) *http.Client {
	t.ResponseHeaderTimeout = limit
	return &http.Client{
		Transport: &keyed{Transport: t, key: key},
		// The API has no redirects: who answers with one is another server, and must not get the key passed on.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// keyed adds the key to requests.
type keyed struct {
	*http.Transport
	key string
}

// RoundTrip makes one request.
func (k *keyed) RoundTrip(req *http.Request) (*http.Response, error) {
	if k.key != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+k.key)
	}
	return k.Transport.RoundTrip(req)
}

// HTTP makes requests for which there is no method here. It bears the key, and reaches the daemon whatever the host in
// the URL is when the client is Local.
func (c *Client) HTTP() *http.Client { return c.http }

// Close gives up connections that are kept for later requests. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version asks what the daemon is.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	if err := c.call(ctx, http.MethodGet, "/admin/version", nil, &v); err != nil {
		return Version{}, err
	}
	if v.Version == "" { // whatever answers there, it is no ema
		return Version{}, &Error{Message: c.said("without a version"), Class: ClassUsage, Status: http.StatusOK}
	}
	return v, nil
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
func (c *Client) Progress(ctx context.Context, model, id string) (d Download, err error) {
	path := "/models/download/progress/" + url.PathEscape(model)
	if id != "" {
		path += "?download_id=" + url.QueryEscape(id)
	}
	return d, c.call(ctx, http.MethodGet, path, nil, &d)
}

// Run executes a command line within the daemon, writes what it prints, and returns its exit code. When ctx ends, the
// command is cancelled.
func (c *Client) Run(ctx context.Context, command Command, stdout, stderr io.Writer) (code int, err error) {
	res, err := c.do(ctx, http.MethodPost, "/admin/run", command, stream)
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

// Statuses asks how all models stand.
func (c *Client) Statuses(ctx context.Context) (s Statuses, err error) {
	return s, c.call(ctx, http.MethodGet, "/models/status/detailed", nil, &s)
}

// Status asks how one model stands. One of which nobody ever heard is an *Error of ModelNotFound.
func (c *Client) Status(ctx context.Context, model string) (s ModelStatus, err error) {
	return s, c.call(ctx, http.MethodGet, "/models/status/detailed/"+url.PathEscape(model), nil, &s)
}

// Storage asks how the folders of the models stand.
func (c *Client) Storage(ctx context.Context) (s Storage, err error) {
	return s, c.call(ctx, http.MethodGet, "/models/storage", nil, &s)
}

// SuggestFallbacks are models that could stand in for one.
func (c *Client) SuggestFallbacks(ctx context.Context, ask FallbackRequest) (f Fallbacks, err error) {
	return f, c.call(ctx, http.MethodPost, "/models/fallback/suggest", ask, &f)
}

// AwaitModel has somebody told when a model is available: Events tell it, and a webhook.
func (c *Client) AwaitModel(ctx context.Context, ask AwaitRequest) (a Awaited, err error) {
	return a, c.call(ctx, http.MethodPost, "/models/fallback/queue", ask, &a)
}

// Waiting are those who wait for models.
func (c *Client) Waiting(ctx context.Context) (w Waiters, err error) {
	return w, c.call(ctx, http.MethodGet, "/models/fallback/queue", nil, &w)
}

// StopWaiting ends waiting, by the id that AwaitModel has returned.
func (c *Client) StopWaiting(ctx context.Context, id string) error {
	var a Awaited
	return c.call(ctx, http.MethodDelete, "/models/fallback/queue/"+url.PathEscape(id), nil, &a)
}

// Updates is what the sources of models have that is newer, as far as that is known.
func (c *Client) Updates(ctx context.Context) (u Updates, err error) {
	return u, c.call(ctx, http.MethodGet, "/models/updates", nil, &u)
}

// LookForUpdate asks the source of one model now, or those of all soon when it is "".
func (c *Client) LookForUpdate(ctx context.Context, model string) (u Updates, err error) {
	return u, c.call(ctx, http.MethodPost, "/models/updates/check", UpdateRequest{Model: model}, &u)
}

// ApplyUpdate begins the download of what the source of a model has now.
func (c *Client) ApplyUpdate(ctx context.Context, model string) (u UpdateApplied, err error) {
	return u, c.call(ctx, http.MethodPost, "/models/updates/apply", UpdateRequest{Model: model}, &u)
}

// RollBack has a model's branch lead to an earlier commit; "" is the one before.
func (c *Client) RollBack(ctx context.Context, ask RollbackRequest) (b RolledBack, err error) {
	return b, c.call(ctx, http.MethodPost, "/models/updates/rollback", ask, &b)
}

// Analytics is how models were used: one of them, or with "" the most used ones.
func (c *Client) Analytics(ctx context.Context, model string, q AnalyticsQuery) (a Analytics, err error) {
	path := "/models/analytics"
	if model != "" {
		path += "/" + url.PathEscape(model)
	}
	return a, c.call(ctx, http.MethodGet, path+q.encode(model == ""), nil, &a)
}

// encode is q as the query of a URL.
func (q AnalyticsQuery) encode(paged bool) string {
	v := url.Values{}
	for name, value := range map[string]string{"period": q.Period, "start_date": q.From, "end_date": q.To, "timezone": q.Zone} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if paged && q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if paged && q.Offset > 0 {
		v.Set("offset", strconv.Itoa(q.Offset))
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// ExportAnalytics writes how all models were used as CSV, a line for each model and day of the period.
func (c *Client) ExportAnalytics(ctx context.Context, q AnalyticsQuery, w io.Writer) error {
	res, err := c.do(ctx, http.MethodGet, "/models/analytics/export"+q.encode(false), nil, "text/csv")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err = io.Copy(w, res.Body); err != nil && ctx.Err() == nil {
		return &model.Error{Op: "ask the daemon", Class: model.Truncated, URL: c.where, Err: fmt.Errorf("its answer stops in the middle: %w", err), Hint: "ask again"}
	}
	return err
}

// CleanupAdvice is which models could go so that they take at most so many GiB; 0 is as configured.
func (c *Client) CleanupAdvice(ctx context.Context, mostGB float64) (a CleanupAdvice, err error) {
	return a, c.call(ctx, http.MethodGet, "/models/analytics/cleanup?storage_threshold_gb="+strconv.FormatFloat(mostGB, 'f', -1, 64), nil, &a)
}

// Optimizations are the settings that the daemon has changed by itself, and what it recommends.
func (c *Client) Optimizations(ctx context.Context) (o Optimizations, err error) {
	return o, c.call(ctx, http.MethodGet, "/admin/performance/optimizations", nil, &o)
}

// UndoOptimization takes one back: the setting is as it was before. One that somebody has changed since stays.
func (c *Client) UndoOptimization(ctx context.Context, id string) (o OptimizationUndone, err error) {
	return o, c.call(ctx, http.MethodPost, "/admin/performance/optimizations/"+url.PathEscape(id)+"/undo", nil, &o)
}

// Performance is whether models became faster or slower.
func (c *Client) Performance(ctx context.Context) (p PerformanceTrends, err error) {
	return p, c.call(ctx, http.MethodGet, "/models/analytics/performance", nil, &p)
}

// PreloadAdvice is which models will be wanted soon. zone is empty for the daemon's own.
func (c *Client) PreloadAdvice(ctx context.Context, zone string) (p PreloadAdvice, err error) {
	return p, c.call(ctx, http.MethodGet, "/models/analytics/preload"+AnalyticsQuery{Zone: zone}.encode(false), nil, &p)
}

// ModelsHealth is how well all models are.
func (c *Client) ModelsHealth(ctx context.Context) (h ModelsHealth, err error) {
	return h, c.call(ctx, http.MethodGet, "/models/health", nil, &h)
}

// ModelHealth is how well one model is, with the checks of the past that are remembered.
func (c *Client) ModelHealth(ctx context.Context, model string) (h ModelHealth, err error) {
	return h, c.call(ctx, http.MethodGet, "/models/health/"+url.PathEscape(model), nil, &h)
}

// CheckModel has a model checked, and does not wait for the end.
func (c *Client) CheckModel(ctx context.Context, model string, ask CheckRequest) (b CheckBegun, err error) {
	return b, c.call(ctx, http.MethodPost, "/models/health/"+url.PathEscape(model)+"/check", ask, &b)
}

// RepairModel has a model repaired, and does not wait for the end.
func (c *Client) RepairModel(ctx context.Context, model string, ask RepairRequest) (b RepairBegun, err error) {
	return b, c.call(ctx, http.MethodPost, "/models/health/"+url.PathEscape(model)+"/repair", ask, &b)
}

// MoveModel has a model brought to another tier, or gives that up, and does not wait for the end: Events tell it. A model
// that is being downloaded, or is on its way to another tier, is an *Error of WrongState; a tier without room one of NoSpace.
func (c *Client) MoveModel(ctx context.Context, m MoveRequest) (done Moved, err error) {
	return done, c.call(ctx, http.MethodPost, "/models/storage/move", m, &done)
}

// PinModel lets a model stay in its tier, whatever the rules say, or lets it loose.
func (c *Client) PinModel(ctx context.Context, model string, pinned bool) (p Pinned, err error) {
	return p, c.call(ctx, http.MethodPost, "/models/storage/pin", PinRequest{Model: model, Pinned: pinned}, &p)
}

// CleanUp makes space, or says what would go. What went wrong with one model is in the answer, and no error.
func (c *Client) CleanUp(ctx context.Context, ask Cleanup) (done CleanedUp, err error) {
	return done, c.call(ctx, http.MethodPost, "/models/cleanup", ask, &done)
}

// RecordUse counts a use of a model.
func (c *Client) RecordUse(ctx context.Context, u Use) (done Used, err error) {
	return done, c.call(ctx, http.MethodPost, "/models/usage", u, &done)
}

// DeleteModel removes a model with all of its revisions. One that is being downloaded is an *Error of WrongState.
func (c *Client) DeleteModel(ctx context.Context, model string) (d Deleted, err error) {
	return d, c.call(ctx, http.MethodDelete, "/models/"+url.PathEscape(model), nil, &d)
}

// ConfigCurrent asks for the settings that hold.
func (c *Client) ConfigCurrent(ctx context.Context) (s Settings, err error) {
	return s, c.call(ctx, http.MethodGet, "/config/current", nil, &s)
}

// ConfigUpdate changes some settings: a part of a configuration file, as an object of objects. When one of them is wrong,
// nothing changes, and the *Error of Invalid has all mistakes in its Fields.
func (c *Client) ConfigUpdate(ctx context.Context, part map[string]any) (r Reloaded, err error) {
	return r, c.call(ctx, http.MethodPut, "/config/update", part, &r)
}

// ConfigProfiles asks which profiles there are, and what each would change there.
func (c *Client) ConfigProfiles(ctx context.Context) (p Profiles, err error) {
	return p, c.call(ctx, http.MethodGet, "/config/profile", nil, &p)
}

// ConfigProfile lets a profile hold; an empty name is none.
func (c *Client) ConfigProfile(ctx context.Context, name string) (r Reloaded, err error) {
	return r, c.call(ctx, http.MethodPut, "/config/profile", ProfileRequest{Profile: name}, &r)
}

// ConfigValidate has settings judged as ConfigUpdate would judge them, and changes nothing. Mistakes are no error.
func (c *Client) ConfigValidate(ctx context.Context, part map[string]any) (v Validated, err error) {
	return v, c.call(ctx, http.MethodPost, "/config/validate", part, &v)
}

// ConfigSchema asks for the JSON Schema of a configuration file.
func (c *Client) ConfigSchema(ctx context.Context) (schema json.RawMessage, err error) {
	return schema, c.call(ctx, http.MethodGet, "/config/schema", nil, &schema)
}

// AdminHealth asks how the daemon and its parts are.
func (c *Client) AdminHealth(ctx context.Context) (h AdminHealth, err error) {
	return h, c.call(ctx, http.MethodGet, "/admin/health", nil, &h)
}

// PartHealth asks how one part of the daemon is, by one of the Part constants.
func (c *Client) PartHealth(ctx context.Context, part string) (h PartHealth, err error) {
	return h, c.call(ctx, http.MethodGet, "/admin/health/"+url.PathEscape(part), nil, &h)
}

// Resources asks what the daemon takes and what its machine has.
func (c *Client) Resources(ctx context.Context) (r Resources, err error) {
	return r, c.call(ctx, http.MethodGet, "/admin/resources", nil, &r)
}

// Analysis asks what everything waits for, or the download of one model: the one that runs, or else the last one. Without a model it is
// about all that the daemon does.
func (c *Client) Analysis(ctx context.Context, model string) (a PerformanceAnalysis, err error) {
	path := "/admin/performance/analysis"
	if model != "" {
		path += "?model_id=" + url.QueryEscape(model)
	}
	return a, c.call(ctx, http.MethodGet, path, nil, &a)
}

// Baseline asks how the figures were when a baseline was taken.
func (c *Client) Baseline(ctx context.Context) (b PerformanceBaseline, err error) {
	return b, c.call(ctx, http.MethodGet, "/admin/performance/baseline", nil, &b)
}

// SetBaseline takes how the figures were over the last hours for the baseline.
func (c *Client) SetBaseline(ctx context.Context, hours float64) (b PerformanceBaseline, err error) {
	return b, c.call(ctx, http.MethodPost, "/admin/performance/baseline", map[string]float64{"hours": hours}, &b)
}

// Regressions asks what is worse than it was.
func (c *Client) Regressions(ctx context.Context) (r PerformanceRegressions, err error) {
	return r, c.call(ctx, http.MethodGet, "/admin/performance/regressions", nil, &r)
}

// Audit asks for a page of who has changed what; the first page is 1, and it has at most limit <= 100.
func (c *Client) Audit(ctx context.Context, page, limit int) (a Audit, err error) {
	return a, c.call(ctx, http.MethodGet, fmt.Sprintf("/admin/audit?page=%d&limit=%d", page, limit), nil, &a)
}

// Profile has the daemon profile itself, and writes what go tool pprof reads. For took, in whole seconds from 1 to 300, a profile of
// the kind ProfileCPU tells what its processors did; one of the kind ProfileHeap is of the moment. When ctx ends, the daemon stops it.
func (c *Client) Profile(ctx context.Context, kind string, took time.Duration, w io.Writer) (told ProfileTold, err error) {
	path := "/admin/profile/" + kind
	patient := c
	if kind == ProfileCPU {
		path += "?seconds=" + strconv.Itoa(int(took/time.Second))
		patient = c.waiting(took)
		defer patient.Close()
	}
	res, err := patient.do(ctx, http.MethodPost, path, nil, binary)
	if err != nil {
		return ProfileTold{}, err
	}
	defer res.Body.Close()
	if _, err = io.Copy(w, res.Body); err != nil && ctx.Err() == nil {
		err = &model.Error{Op: "ask the daemon", Class: model.Truncated, URL: c.where, Err: fmt.Errorf("its answer stops in the middle: %w", err), Hint: "ask again"}
	}
	for name, to := range map[string]*int64{MemoryNow: &told.MemoryBytes, MemoryPeak: &told.MemoryPeakBytes} {
		*to, _ = strconv.ParseInt(res.Header.Get(name), 10, 64) //nolint:errcheck // what is no number was not told
	}
	return told, err
}

// waiting is a client that waits longer for the beginning of an answer, by that time.
func (c *Client) waiting(longer time.Duration) *Client {
	patient := *c
	if k, ok := c.http.Transport.(*keyed); ok {
		patient.http = newHTTP(k.Clone(), k.key, c.limit+longer)
	}
	return &patient
}

// call asks and reads one JSON object.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	reading, cancel := context.WithTimeout(ctx, 2*c.limit)
	defer cancel()
	res, err := c.do(reading, method, path, body, document)
	if err != nil {
		if ctx.Err() == nil && reading.Err() != nil {
			return c.unreachable(reading.Err())
		}
		return err
	}
	defer res.Body.Close()
	err = json.NewDecoder(io.LimitReader(res.Body, mostAnswer)).Decode(into)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case reading.Err() != nil:
		return c.unreachable(fmt.Errorf("the answer stops in the middle: %w", reading.Err()))
	}
	return &model.Error{Op: "ask the daemon", Class: model.Truncated, URL: c.where, Err: fmt.Errorf("its answer cannot be read: %w", err), Hint: "ask again; if that does not help, compare \"ema version\" on both sides"}
}

// The kinds of answers.
const (
	document = "application/json"
	stream   = "application/x-ndjson" // a JSON object a line
	binary   = "application/octet-stream"
)

// do asks for an answer of that kind. What is no success comes back as an *Error, and a daemon that is not there as
// ErrNoDaemon or ErrUnreachable.
func (c *Client) do(ctx context.Context, method, path string, body any, kind string) (*http.Response, error) {
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
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.unreachable(err)
	}
	got, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) //nolint:errcheck // what is no type is not the one asked for
	if res.StatusCode == http.StatusOK && got == kind {
		return res, nil
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil, c.stranger(res, fmt.Sprintf("with %q instead of %s", got, kind))
	}
	return nil, c.errorOf(res)
}

// unreachable is the sentence about a request that had no answer.
func (c *Client) unreachable(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // it repeats an address that means nothing to people
	}
	switch {
	case c.where != "":
		hint := `check the address, and that "ema serve" listens there`
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			hint = "trust the authority of its certificate, e.g. with SSL_CERT_FILE, or name it as its certificate does"
		}
		return &model.Error{Op: "ask the daemon", Class: model.Timeout, URL: c.where, Err: fmt.Errorf("%w: %w", ErrUnreachable, err), Hint: hint}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return ErrNoDaemon
	case errors.Is(err, fs.ErrPermission):
		return &model.Error{
			Op: "ask the daemon", Class: model.Auth, Err: errors.New("it belongs to another user"),
			Hint: "run this command as the user who runs \"ema serve\"",
		}
	}
	return &model.Error{Op: "ask the daemon", Class: model.Timeout, Err: err, Hint: `see what it is doing, or start it anew with "ema serve"`}
}
