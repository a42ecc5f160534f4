package source

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

func TestADemoHub(t *testing.T) {
	for promise, opts := range map[string][]demohub.Option{
		"that serves everything itself": nil,
		"that redirects small files":    {demohub.SmallViaRedirect()},
		"whose links are good for two":  {demohub.SmallViaRedirect(), demohub.SignedUses(2)},
		"that lists little at a time":   {demohub.PageSize(3), demohub.MaxSiblings(1000)},
	} {
		t.Run("is read whole, "+promise, func(t *testing.T) {
			parts := []demohub.Part{demohub.Gated(token), demohub.File("big.bin", 3*model.MiB), demohub.Bytes("ä b%.json", []byte("{}")), demohub.File("empty", 0)}
			if len(opts) == 2 && opts[0] != nil {
				for i := range 1100 {
					parts = append(parts, demohub.Bytes(fmt.Sprintf("many/%d", i), fmt.Append(nil, i)))
				}
			}
			hub := demohub.New(append(opts, demohub.Repo("acme/demo", parts...), demohub.Account(token, "me"))...)
			cdn, front := httptest.NewServer(hub.CDN()), httptest.NewServer(hub)
			defer cdn.Close()
			defer front.Close()
			if len(opts) > 0 {
				hub.Set(demohub.ViaCDN(cdn.URL))
			}
			s, err := New(Settings{Endpoint: front.URL, Token: token})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			m := resolved(t, s, model.ID{Name: "acme/demo"}, "")
			if m.Commit != hub.Head("acme/demo", "main") {
				t.Fatalf("commit %s", m.Commit)
			}
			for _, f := range m.Files {
				h := f.Digest.NewHash(f.Size)
				for at := int64(0); at < f.Size; {
					at += readSome(t, s, m, f, model.Segment{Start: at, End: min(at+700_000, f.Size)}, h)
				}
				if got := f.Digest.Sum(h); got != f.Digest {
					t.Errorf("%s: read %v, listed %v", f.Path, got, f.Digest)
				}
			}
			if st := hub.Stats(); st.CDN.Authorization != 0 || st.Encoded != 0 || st.Hub.Authorization == 0 {
				t.Errorf("tokens at the CDN %d, at the hub %d; requests open to compression %d", st.CDN.Authorization, st.Hub.Authorization, st.Encoded)
			}
		})
	}
}

// readSome reads a segment into w, and tries once more when its link has expired.
func readSome(t *testing.T, s Source, m *model.Manifest, f model.File, seg model.Segment, w io.Writer) int64 {
	t.Helper()
	b, err := s.Open(t.Context(), m, f, seg)
	if model.ClassOf(err) == model.Expired {
		b, err = s.Open(t.Context(), m, f, seg)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	n, err := io.Copy(w, b)
	if err != nil || b.Segment != seg {
		t.Fatalf("%s %v: %d bytes, %v", f.Path, b.Segment, n, err)
	}
	return n
}

// inBubble serves a demo hub and its CDN over pipes, so that time passes by itself.
func inBubble(t *testing.T, test func(t *testing.T, hub *demohub.Hub, s *Sources, m *model.Manifest), opts ...demohub.Option) {
	synctest.Test(t, func(t *testing.T) {
		hub := demohub.New(append(opts, demohub.Repo("acme/demo", demohub.File("big.bin", 3*model.MiB)), demohub.ViaCDN("http://cdn.test"))...)
		front, back := demohub.NewPipeListener(), demohub.NewPipeListener()
		for l, h := range map[*demohub.PipeListener]http.Handler{front: hub, back: hub.CDN()} {
			srv := &http.Server{Handler: h}
			go func() { _ = srv.Serve(l) }()
			defer srv.Close()
		}
		s, err := New(Settings{
			Endpoint: "http://hub.test",
			Dial:     demohub.DialHosts(map[string]*demohub.PipeListener{"hub.test:80": front, "cdn.test:80": back}),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		test(t, hub, s, resolved(t, s, model.ID{Name: "acme/demo"}, ""))
	})
}

func TestSignedLinksAreRenewedBeforeTheyExpire(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *demohub.Hub, s *Sources, m *model.Manifest) {
		for range 100 { // fifty minutes
			if _, err := readSegment(t, s, m, "big.bin", model.Segment{Start: 5, End: 10}); err != nil {
				t.Fatalf("after %d requests: %v", hub.Stats().Requests[demohub.Bulk], err)
			}
			<-time.After(30 * time.Second)
		}
		if n := hub.Stats().Requests[demohub.Resolve]; n < 5 || n > 12 { // fifty minutes in links of ten
			t.Errorf("asked the hub %d times", n)
		}
	}, demohub.SignedFor(10*time.Minute))
}

func TestSilenceIsEndedByTheReadTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, hub *demohub.Hub, s *Sources, m *model.Manifest) {
		hub.Next(demohub.StallAfter(model.MiB, time.Hour))
		begin := time.Now()
		got, err := readSegment(t, s, m, "big.bin", model.Segment{End: 3 << 20})
		classIs(t, err, model.Timeout)
		if waited := time.Since(begin); waited != 30*time.Second || len(got) != 1<<20 {
			t.Errorf("gave up after %v and %d bytes, want 30s and 1 MiB", waited, len(got))
		}
		hub.Next(demohub.Silence(time.Hour))
		begin = time.Now()
		_, err = readSegment(t, s, m, "big.bin", model.Segment{End: 5})
		classIs(t, err, model.Timeout)
		if waited := time.Since(begin); waited != time.Minute {
			t.Errorf("waited %v for headers, want 1m0s", waited)
		}
	})
}

func TestQuotasTellWhenToComeBack(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *demohub.Hub, s *Sources, _ *model.Manifest) {
		_, err := s.Resolve(t.Context(), model.ID{Name: "acme/demo"}, "")
		e := classIs(t, err, model.RateLimited)
		if e.After < 4*time.Minute || e.After > 6*time.Minute {
			t.Errorf("After = %v, want the rest of the window", e.After)
		}
		<-time.After(e.After)
		resolved(t, s, model.ID{Name: "acme/demo"}, "")
	}, demohub.APIQuota(1, 5*time.Minute))
}

// BenchmarkBody says what reading a body costs beside the bytes themselves.
func BenchmarkBody(b *testing.B) {
	const size = 64 << 20
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for _, secure := range []bool{false, true} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
		}))
		var files []string
		if srv.Start(); secure {
			srv.Close()
			srv = httptest.NewTLSServer(srv.Config.Handler)
			files = []string{certOf(b, srv)}
		}
		s, err := New(Settings{Endpoint: srv.URL, CertFiles: files})
		if err != nil {
			b.Fatal(err)
		}
		m := &model.Manifest{ID: tiny, Commit: commit1}
		f := model.File{Path: "big", Size: size}
		for _, buffer := range []int{64 << 10, 256 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("tls=%t/read=%dKiB", secure, buffer>>10), func(b *testing.B) {
				p := make([]byte, buffer)
				b.SetBytes(size)
				reads := 0
				for b.Loop() {
					body, err := s.Open(b.Context(), m, f, model.Segment{End: size})
					if err != nil {
						b.Fatal(err)
					}
					for {
						_, err := body.Read(p)
						reads++
						if err == io.EOF {
							break
						}
						if err != nil {
							b.Fatal(err)
						}
					}
					_ = body.Close()
				}
				b.ReportMetric(float64(size)*float64(b.N)/float64(reads)/1024, "KiB/read")
			})
		}
		_ = s.Close()
		srv.Close()
	}
}
