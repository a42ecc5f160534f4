// Command bare is the bound that downloads are measured against: it does nothing but receive one file over parallel
// ranges, hash it in order while it arrives, and write it durably. It keeps no journal, retries nothing and resumes
// nothing, so what it takes on a machine is about the least that a verified download can take there.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// job is one file to bring here.
type job struct {
	url   string
	out   string
	want  string // sha256 in hexadecimal; empty: any
	conns int
	span  int  // bytes asked for by one request; a multiple of page
	write int  // bytes of one buffered write(2)
	cold  bool // O_DIRECT: past the page cache, a whole span at once
}

// page is what O_DIRECT wants offsets, lengths and addresses to be a multiple of: the largest block size in common use.
const page = 4096

func main() {
	var (
		j    job
		mode string
	)
	flag.StringVar(&j.url, "url", "", "where from; the server must answer ranges")
	flag.StringVar(&j.out, "out", "", "the file to write")
	flag.StringVar(&j.want, "sha256", "", "fail unless this is the file's sha256, in hexadecimal")
	flag.IntVar(&j.conns, "conns", 4, "connections")
	flag.IntVar(&j.span, "range", 4<<20, "bytes of one request, a multiple of 4096")
	flag.IntVar(&j.write, "write", 64<<10, "bytes of one write, buffered only")
	flag.StringVar(&mode, "mode", "direct", "direct (O_DIRECT) or buffered (page cache, written back as it goes)")
	flag.Parse()
	j.cold = mode == "direct"
	if j.url == "" || j.out == "" || flag.NArg() > 0 || (!j.cold && mode != "buffered") || j.conns < 1 || j.write < 1 ||
		j.span < page || j.span%page != 0 {
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	begin := time.Now()
	if err := j.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
	fmt.Printf("%.3f\n", time.Since(begin).Seconds())
}

// arrived is a span that is in memory and on its way to the disk.
type arrived struct{ buf, data []byte }

// run returns when the file is verified and durable.
func (j job) run(ctx context.Context) error {
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: j.conns}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	size, err := j.size(ctx, client)
	if err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if j.cold {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(j.out, flags, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return fmt.Errorf("reserve %d bytes for %s: %w", size, j.out, err)
	}

	// One mapping serves for all spans and is used again and again: on virtual machines the first touch of memory is
	// dear. Twice as many buffers as connections let the network go on while the hash catches up.
	buffers := 2*j.conns + 4
	arena, err := unix.Mmap(-1, 0, buffers*j.span, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("map %d bytes of memory: %w", buffers*j.span, err)
	}
	free := make(chan []byte, buffers)
	for b := range buffers {
		free <- arena[b*j.span : (b+1)*j.span]
	}
	spans := make([]chan arrived, (size+int64(j.span)-1)/int64(j.span))
	for i := range spans {
		spans[i] = make(chan arrived, 1)
	}

	type turn struct {
		span int
		buf  []byte
	}
	turns := make(chan turn) // buffer and number come together, so that the span the hash waits for always has a buffer
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(turns)
		for i := range spans {
			select {
			case buf := <-free:
				select {
				case turns <- turn{i, buf}:
				case <-ctx.Done():
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range j.conns {
		g.Go(func() error {
			for t := range turns {
				off := int64(t.span) * int64(j.span)
				data := t.buf[:min(int64(j.span), size-off)]
				if err := j.fetch(ctx, client, f, t.buf, data, off); err != nil {
					return err
				}
				spans[t.span] <- arrived{t.buf, data}
			}
			return nil
		})
	}
	hash := sha256.New()
	g.Go(func() error {
		for _, span := range spans {
			select {
			case a := <-span:
				hash.Write(a.data)
				free <- a.buf
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); j.want != "" && sum != j.want {
		return fmt.Errorf("sha256 of %s is %s, want %s", j.out, sum, j.want)
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// size asks for the first byte to learn how many there are.
func (j job) size(ctx context.Context, client *http.Client) (int64, error) {
	res, err := j.get(ctx, client, 0, 1)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return 0, err
	}
	_, total, _ := strings.Cut(res.Header.Get("Content-Range"), "/")
	size, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: Content-Range %q tells no size", j.url, res.Header.Get("Content-Range"))
	}
	return size, nil
}

// fetch fills data, which begins at off in the file and is the beginning of buf, and writes it.
func (j job) fetch(ctx context.Context, client *http.Client, f *os.File, buf, data []byte, off int64) error {
	res, err := j.get(ctx, client, off, len(data))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if j.cold {
		if _, err := io.ReadFull(res.Body, data); err != nil {
			return err
		}
		whole := (len(data) + page - 1) / page * page // the last page of the file is cut to size at the end
		_, err := f.WriteAt(buf[:whole], off)
		return err
	}
	for at := 0; at < len(data); at += j.write {
		piece := data[at:min(at+j.write, len(data))]
		if _, err := io.ReadFull(res.Body, piece); err != nil {
			return err
		}
		if _, err := f.WriteAt(piece, off+int64(at)); err != nil { // at once, while the processor still has it
			return err
		}
	}
	return unix.SyncFileRange(int(f.Fd()), off, int64(len(data)), unix.SYNC_FILE_RANGE_WRITE)
}

func (j job) get(ctx context.Context, client *http.Client, off int64, n int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+int64(n)-1))
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusPartialContent {
		return nil, errors.Join(fmt.Errorf("%s: %s, want a part of the file", j.url, res.Status), res.Body.Close())
	}
	return res, nil
}
