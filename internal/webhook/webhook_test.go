package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A post is what an origin was sent, and when.
type post struct {
	at   time.Time
	body string
}

// An origin answers each post by the next of its answers: a status, or a failure. It stands in for a network, so that time is simulated.
type origin struct {
	mu      sync.Mutex
	answers []int // 0 = the connection breaks, -1 = it hangs
	posts   []post
}

func (o *origin) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		return nil, errors.New("this is no message")
	}
	o.mu.Lock()
	o.posts = append(o.posts, post{time.Now(), string(body)})
	status := 200
	if len(o.answers) > 0 {
		status, o.answers = o.answers[0], o.answers[1:]
	}
	o.mu.Unlock()
	switch status {
	case 0:
		return nil, errors.New("connection reset")
	case -1:
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader("")), Request: r, Header: http.Header{"Location": {"/other"}}}, nil
}

// sent runs a Sender over an origin for a while, and returns what was posted and logged.
func sent(t *testing.T, o *origin, messages ...any) ([]post, string) {
	t.Helper()
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		s := New(o, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		for _, m := range messages {
			s.Send("http://hooks.test/secret-path", m)
		}
		time.Sleep(10 * time.Minute)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return o.posts, log.String()
}

func TestAMessageIsDeliveredInTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		answers []int
		posts   int
		said    string
	}{
		"at once":                 {nil, 1, ""},
		"after failures":          {[]int{500, 0, 429, 200}, 4, ""},
		"after one that hangs":    {[]int{-1, 200}, 2, ""},
		"not when it is refused":  {[]int{404}, 1, "not delivered"},
		"nor to another address":  {[]int{302}, 1, "not delivered"},
		"and not again and again": {[]int{500, 500, 500, 500, 500, 500}, 5, "not delivered"},
	} {
		t.Run(name, func(t *testing.T) {
			posts, log := sent(t, &origin{answers: c.answers}, map[string]int{"n": 1})
			if len(posts) != c.posts || c.said == "" && log != "" || !strings.Contains(log, c.said) {
				t.Errorf("%d posts, want %d; log %q", len(posts), c.posts, log)
			}
			if strings.Contains(log, "secret-path") {
				t.Errorf("the log has the address: %q", log)
			}
			for i, p := range posts {
				if p.body != `{"n":1}` || i > 1 && p.at.Sub(posts[i-1].at) < 2*posts[1].at.Sub(posts[0].at)-patience {
					t.Errorf("post %d: %+v", i, p)
				}
			}
		})
	}
}

func TestNobodyWaitsForAnAddressThatIsAway(t *testing.T) {
	var messages []any
	for i := range waiting + 10 {
		messages = append(messages, i)
	}
	answers := make([]int, 100_000)
	_, log := sent(t, &origin{answers: answers}, messages...)
	if n := strings.Count(log, "dropped"); n < 9 || n > 10 {
		t.Errorf("%d messages were dropped, want those for which there was no room", n)
	}
}

func TestOnlyAddressesOfTheWebAreWebhooks(t *testing.T) {
	for address, ok := range map[string]bool{
		"http://localhost:1/x": true, "https://a.test": true, "ftp://a.test": false, "file:///etc/passwd": false, "http://": false, "http://user:pw@a.test": false, "::": false, "": false,
	} {
		if err := Check(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}
