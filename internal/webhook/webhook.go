// Package webhook posts messages to addresses that people have named, without making anybody wait for those.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"ema/internal/model"
)

const (
	// waiting is how many messages wait at most; one more is dropped, and said.
	waiting = 1000
	// attempts are made to deliver a message, with a pause between them that doubles.
	attempts = 5
	shortest = time.Second
	// patience is how long one attempt may take.
	patience = 10 * time.Second
)

// A Sender delivers messages one after the other. A message is delivered at least once, or given up after some attempts,
// which is logged; those that wait when Run ends are lost. Its methods may be called concurrently; Run once.
type Sender struct {
	client *http.Client
	queue  chan letter
	log    *slog.Logger
}

// A letter is a message on its way.
type letter struct {
	url  string
	body []byte
}

// New makes a Sender that posts with a transport, nil for the usual one. It follows no redirects.
func New(transport http.RoundTripper, log *slog.Logger) *Sender {
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Sender{client: &http.Client{Transport: transport, CheckRedirect: refuse}, queue: make(chan letter, waiting), log: log}
}

// Check refuses what is no address of a webhook: an http or https URL with a host, and without a user's name and password.
func Check(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return &model.Error{Op: "notify", Class: model.Usage, Err: errors.New("a webhook is an http:// or https:// URL without a user's name")}
	}
	return nil
}

// Send has body posted as JSON, soon. It never waits.
func (s *Sender) Send(address string, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		s.log.Error("webhook", "error", err.Error())
		return
	}
	select {
	case s.queue <- letter{address, raw}:
	default:
		s.log.Warn("webhook: too many messages wait already, this one is dropped", "host", host(address))
	}
}

// Run delivers until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	for {
		select {
		case <-ctx.Done():
			return nil
		case l := <-s.queue:
			if err := s.deliver(ctx, l); err != nil && ctx.Err() == nil {
				s.log.Warn("webhook: not delivered", "host", host(l.url), "error", err.Error())
			}
		}
	}
}

// deliver posts a letter until it is taken, or refused for good.
func (s *Sender) deliver(ctx context.Context, l letter) (err error) {
	for i, wait := 0, shortest; i < attempts; i, wait = i+1, 2*wait {
		if i > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
		}
		var again bool
		if again, err = s.post(ctx, l); err == nil || !again {
			return err
		}
	}
	return err
}

// post makes one attempt; again reports whether another one may succeed.
func (s *Sender) post(ctx context.Context, l letter) (again bool, err error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(l.body))
	if err != nil {
		return false, errors.New("its address is no URL")
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := s.client.Do(r)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address, which may have a secret in it
		}
		return true, err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, 64<<10) // so that the connection can be used again
	if answer.StatusCode/100 == 2 {
		return false, nil
	}
	return answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode == http.StatusRequestTimeout,
		fmt.Errorf("it answered %s", answer.Status)
}

// host is what may be told of an address: the rest of it may be a secret.
func host(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Host
	}
	return "?"
}
