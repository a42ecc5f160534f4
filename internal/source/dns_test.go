package source

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"ema/internal/model"
)

// A nameServer answers for one name, over UDP and TCP on loopback.
type nameServer struct {
	t    *testing.T
	addr string

	mu        sync.Mutex
	addresses []netip.Addr
	code      dnsmessage.RCode
	mute      bool // gives no answer
	truncates bool // over UDP
	queries   int  // for addresses of IPv4
	byTCP     int
}

func newNameServer(t *testing.T, addresses ...string) *nameServer {
	t.Helper()
	s := &nameServer{t: t}
	s.set(addresses...)
	var udp net.PacketConn
	tcp := listenTwice(t, func(port string) (err error) {
		udp, err = net.ListenPacket("udp", "127.0.0.1:"+port)
		return err
	})
	s.addr = tcp.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			if a := s.answer(b[:n], false); a != nil {
				_, _ = udp.WriteTo(a, from)
			}
		}
	})
	wg.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serveTCP(c) })
		}
	})
	t.Cleanup(func() {
		_ = udp.Close()
		_ = tcp.Close()
		wg.Wait()
	})
	return s
}

// listenTwice listens on a port of 127.0.0.1 that other can listen on too, in its own way.
func listenTwice(t *testing.T, other func(port string) error) net.Listener {
	t.Helper()
	var last error
	for range 20 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(ln.Addr().String())
		if last = other(port); last == nil {
			return ln
		}
		_ = ln.Close()
		if !errors.Is(last, syscall.EADDRINUSE) {
			break
		}
	}
	t.Fatalf("no port of this machine is free for both: %v", last)
	return nil
}

func (s *nameServer) serveTCP(c net.Conn) {
	defer c.Close()
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	b := make([]byte, int(size[0])<<8|int(size[1]))
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	if a := s.answer(b, true); a != nil {
		_, _ = c.Write(append([]byte{byte(len(a) >> 8), byte(len(a))}, a...))
	}
}

func (s *nameServer) set(addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses = nil
	for _, a := range addresses {
		s.addresses = append(s.addresses, netip.MustParseAddr(a))
	}
}

func (s *nameServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *nameServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries
}

func (s *nameServer) answer(query []byte, tcp bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		s.t.Errorf("a query that is none: %v", err)
		return nil
	}
	q := m.Questions[0]
	if q.Type == dnsmessage.TypeA {
		s.queries++
		if tcp {
			s.byTCP++
		}
	}
	if s.mute {
		return nil
	}
	m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, s.code, nil
	if m.RCode == dnsmessage.RCodeSuccess && !strings.HasPrefix(q.Name.String(), "hub.test.") {
		m.RCode = dnsmessage.RCodeNameError
	}
	if m.Truncated = s.truncates && !tcp; !m.Truncated && m.RCode == dnsmessage.RCodeSuccess {
		for _, a := range s.addresses {
			head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}
			switch {
			case a.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
			case a.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
			}
		}
	}
	b, err := m.Pack()
	if err != nil {
		s.t.Error(err)
	}
	return b
}

// namesOf makes names whose clock is later by what late holds.
func namesOf(t *testing.T, d DNS) (n *names, late *atomic.Int64) {
	t.Helper()
	n, err := newNames(Settings{DNS: d}.withDefaults().DNS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	late = new(atomic.Int64)
	n.now = func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	return n, late
}

// finds fails unless the name has these addresses, in any order.
func finds(t *testing.T, n *names, want ...string) {
	t.Helper()
	got, err := n.lookup(t.Context(), "hub.test")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, a := range got {
		texts = append(texts, a.String())
	}
	slices.Sort(texts)
	slices.Sort(want)
	if !slices.Equal(texts, want) {
		t.Fatalf("found %q, want %q", texts, want)
	}
}

func TestAddressesAreRemembered(t *testing.T) {
	t.Run("while they are fresh, then asked for again", func(t *testing.T) {
		s := newNameServer(t, "127.0.0.1", "::1")
		n, late := namesOf(t, DNS{Cache: true, Servers: []string{s.addr}})
		for range 5 {
			finds(t, n, "127.0.0.1", "::1")
		}
		s.set("127.0.0.2")
		late.Store(int64(299 * time.Second))
		finds(t, n, "127.0.0.1", "::1")
		if s.asked() != 1 {
			t.Errorf("asked %d times within 300 s", s.asked())
		}
		late.Store(int64(301 * time.Second))
		finds(t, n, "127.0.0.2")
		if s.asked() != 2 {
			t.Errorf("asked %d times", s.asked())
		}
	})
	t.Run("not at all when that is not wanted", func(t *testing.T) {
		s := newNameServer(t, "127.0.0.1")
		n, _ := namesOf(t, DNS{Servers: []string{s.addr}})
		finds(t, n, "127.0.0.1")
		s.set("127.0.0.2")
		finds(t, n, "127.0.0.2")
	})
	t.Run("a day long while asking again fails", func(t *testing.T) {
		s := newNameServer(t, "127.0.0.1")
		n, late := namesOf(t, DNS{Cache: true, TTL: time.Minute, Servers: []string{s.addr}})
		finds(t, n, "127.0.0.1")
		s.change(func() { s.code = dnsmessage.RCodeServerFailure })
		late.Store(int64(23 * time.Hour))
		finds(t, n, "127.0.0.1")
		before := s.asked()
		finds(t, n, "127.0.0.1")
		if s.asked() != before {
			t.Error("a failed refresh is repeated at once")
		}
		late.Store(int64(25 * time.Hour))
		if got, err := n.lookup(t.Context(), "hub.test"); err == nil {
			t.Errorf("after more than a day: still %v", got)
		}
		s.change(func() { s.code = dnsmessage.RCodeSuccess })
		finds(t, n, "127.0.0.1")
	})
	t.Run("and used while asking again takes long", func(t *testing.T) {
		s := newNameServer(t, "127.0.0.1")
		n, late := namesOf(t, DNS{Cache: true, TTL: time.Minute, Servers: []string{s.addr}})
		finds(t, n, "127.0.0.1")
		s.change(func() { s.mute = true })
		late.Store(int64(time.Hour))
		finds(t, n, "127.0.0.1") // the test would take 5 s longer, and fail, if it waited for the answer
	})
	t.Run("but not that a name does not exist", func(t *testing.T) {
		s := newNameServer(t, "127.0.0.1")
		s.change(func() { s.code = dnsmessage.RCodeNameError })
		n, _ := namesOf(t, DNS{Cache: true, Servers: []string{s.addr}})
		_, err := n.lookup(t.Context(), "hub.test")
		if e, ok := errors.AsType[*net.DNSError](err); !ok || !e.IsNotFound {
			t.Errorf("%v", err)
		}
		s.change(func() { s.code = dnsmessage.RCodeSuccess })
		finds(t, n, "127.0.0.1")
	})
	t.Run("not beyond the failure of all of them", func(t *testing.T) {
		dead, err := net.Listen("tcp", "127.0.0.1:0") // nobody listens on its port at 127.0.0.9
		if err != nil {
			t.Fatal(err)
		}
		defer dead.Close()
		_, port, _ := net.SplitHostPort(dead.Addr().String())
		s := newNameServer(t, "127.0.0.9")
		n, _ := namesOf(t, DNS{Cache: true, Servers: []string{s.addr}})
		dial := n.dialer(new(net.Dialer))
		if _, err := dial(t.Context(), "tcp", "hub.test:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		s.set("127.0.0.1") // the host has moved
		c, err := dial(t.Context(), "tcp", "hub.test:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
}

func TestAnAddressIsAskedForOnceByMany(t *testing.T) {
	s := newNameServer(t, "127.0.0.1")
	n, _ := namesOf(t, DNS{Cache: true, Servers: []string{s.addr}})
	s.mu.Lock() // no answer before all have asked
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { finds(t, n, "127.0.0.1") })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.lookup(ctx, "hub.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("who has stopped waits: %v", err)
	}
	s.mu.Unlock()
	wg.Wait()
	if s.asked() != 1 {
		t.Errorf("asked %d times", s.asked())
	}
}

func TestServersAreAskedInOrder(t *testing.T) {
	t.Run("the second when the first fails", func(t *testing.T) {
		first, second := newNameServer(t, "127.0.0.1"), newNameServer(t, "127.0.0.2")
		n, _ := namesOf(t, DNS{Servers: []string{first.addr, second.addr}})
		finds(t, n, "127.0.0.1")
		if second.asked() != 0 {
			t.Error("the second is asked although the first has answered")
		}
		first.change(func() { first.code = dnsmessage.RCodeServerFailure })
		finds(t, n, "127.0.0.2")
	})
	t.Run("not the second when the first knows that there is no such name", func(t *testing.T) {
		first, second := newNameServer(t), newNameServer(t, "127.0.0.2")
		first.change(func() { first.code = dnsmessage.RCodeNameError })
		n, _ := namesOf(t, DNS{Servers: []string{first.addr, second.addr}})
		if _, err := n.lookup(t.Context(), "hub.test"); err == nil || second.asked() != 0 {
			t.Errorf("%v; the second was asked %d times", err, second.asked())
		}
	})
	t.Run("over TCP when the answer is too long for UDP", func(t *testing.T) {
		s := newNameServer(t, "127.0.0.1")
		s.change(func() { s.truncates = true })
		n, _ := namesOf(t, DNS{Servers: []string{s.addr}})
		finds(t, n, "127.0.0.1")
		if s.byTCP == 0 {
			t.Error("never over TCP")
		}
	})
	t.Run("and what is no address of a server is refused", func(t *testing.T) {
		for _, bad := range []string{"dns.test", "1.2.3", "1.2.3.4:0", "1.2.3.4:99999", "", "[::1]"} {
			_, err := New(Settings{DNS: DNS{Servers: []string{bad}}})
			mentions(t, classIs(t, err, model.Usage), "DNS server", "IP address")
		}
	})
}

func TestFamiliesOfAddresses(t *testing.T) {
	var six net.Listener
	ln := listenTwice(t, func(port string) (err error) {
		six, err = net.Listen("tcp", "[::1]:"+port)
		return err
	})
	defer ln.Close()
	defer six.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	reaches := func(t *testing.T, prefer bool, addresses ...string) netip.Addr {
		t.Helper()
		s := newNameServer(t, addresses...)
		n, _ := namesOf(t, DNS{PreferIPv4: prefer, Servers: []string{s.addr}})
		c, err := n.dialer(&net.Dialer{Timeout: 10 * time.Second})(t.Context(), "tcp", "hub.test:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return netip.MustParseAddrPort(c.RemoteAddr().String()).Addr()
	}
	for range 5 {
		if a := reaches(t, true, "::1", "127.0.0.1"); !a.Is4() {
			t.Errorf("connected to %v although IPv4 is preferred", a)
		}
	}
	if a := reaches(t, true, "::1", "127.0.0.9"); !a.Is6() { // nobody listens at the latter
		t.Errorf("connected to %v", a)
	}
	if a := reaches(t, true, "::1"); !a.Is6() {
		t.Errorf("connected to %v", a)
	}
	if a := reaches(t, false, "::1", "127.0.0.9"); !a.Is6() {
		t.Errorf("connected to %v", a)
	}
}

// Whatever the address that hangs, another is tried beside it.
func TestAnAddressThatHangsIsPassedOver(t *testing.T) {
	bad, good := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	a, b := net.Pipe()
	defer b.Close()
	var stopped atomic.Bool
	c, err := race(t.Context(), []netip.Addr{bad, good}, func(ctx context.Context, to netip.Addr) (net.Conn, error) {
		if to == good {
			return a, nil
		}
		<-ctx.Done()
		stopped.Store(true)
		return nil, ctx.Err()
	})
	if err != nil || c != a || !stopped.Load() {
		t.Errorf("%v, %v; the other was stopped: %v", c, err, stopped.Load())
	}
	_ = c.Close()
	if got := alternate([]netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("::2"), good, bad}); !slices.Equal(got, []netip.Addr{netip.MustParseAddr("::1"), good, netip.MustParseAddr("::2"), bad}) {
		t.Errorf("in turns: %v", got)
	}
}

func TestSourcesAskTheServersThatAreSet(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"sha": commit1, "siblings": []any{map[string]any{"rfilename": "a", "size": 1, "blobId": commit2}}})
	}))
	defer srv.Close()
	s := newNameServer(t, "127.0.0.1")
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(srv.URL, "http://"))
	src, err := New(Settings{Endpoint: "http://hub.test:" + port, NoKeepAlive: true, DNS: DNS{Cache: true, Servers: []string{s.addr}}})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for range 3 {
		resolved(t, src, tiny, "")
	}
	if s.asked() != 1 {
		t.Errorf("asked %d times for three connections", s.asked())
	}
}
