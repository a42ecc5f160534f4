// Command live measures how soon and how completely the daemon's WebSocket tells many clients what happens.
//
//	go run ./bench/live                               # 2,000 clients, 100 changes per second, twice 30 s
//	go run ./bench/live -clients 200 -seconds 5
//
// The hub runs in a process of its own, so that its memory and CPU time are its own; the clients are all in this one, and so
// share the processors with it. Each change bears its number and when it was told: what a client misses, gets twice or gets in
// the wrong order is seen. The second part has one more client, which takes the handshake and never reads again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"ema/internal/model"
)

// The targets, for the default load on two processors.
const (
	mostDelay  = 300 * time.Millisecond // of 99 in 100
	mostMemory = 300 * model.MiB
)

// A load is what is measured.
type load struct {
	clients, rate, progress int // changes and progress per second
	time                    time.Duration
}

func main() {
	asHub := flag.Bool("hub", false, "be the hub: what this command starts itself with")
	clients := flag.Int("clients", 2000, "how many listen")
	rate := flag.Int("rate", 100, "changes per second, which nobody may miss")
	progress := flag.Int("progress", 20, "progress per second, of four downloads, besides")
	seconds := flag.Int("seconds", 30, "how long, for each of the two parts")
	check := flag.Bool("check", false, "fail when a target is missed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var err error
	if *asHub {
		err = hub(ctx, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, load{*clients, *rate, *progress, time.Duration(*seconds) * time.Second}, *check)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "live:", err)
		os.Exit(1)
	}
}

// run measures both parts and prints a line for each.
func run(ctx context.Context, l load, check bool) (err error) {
	if err := files(l.clients); err != nil {
		return err
	}
	p, err := start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	c, err := listen(ctx, p.url, l.clients)
	if err != nil {
		return err
	}
	defer c.stop()

	fmt.Printf("%d clients, %d changes and %d progress per second for %v\n\n", l.clients, l.rate, l.progress, l.time)
	fmt.Println("| stuck clients | changes delivered | missing | out of order | p50 | p99 | most | hub's CPU | clients' CPU | hub's peak memory | kept |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|")
	all := true
	for stuck := range 2 {
		if stuck == 1 {
			release, err := hang(ctx, p.url)
			if err != nil {
				return err
			}
			defer release()
		}
		c.reset()
		begin, err := usage()
		if err != nil {
			return err
		}
		told, err := p.tell(l)
		if err != nil {
			return err
		}
		r := c.result(ctx, told.Changes)
		end, err := usage()
		if err != nil {
			return err
		}
		kept := r.missing == 0 && r.disorder == 0 && r.p99 <= mostDelay && told.Peak <= mostMemory
		all = all && kept
		fmt.Printf("| %d | %d | %d | %d | %v | %v | %v | %.2f s | %.2f s | %v | %t |\n", stuck, r.delivered, r.missing, r.disorder,
			r.p50.Round(time.Millisecond), r.p99.Round(time.Millisecond), r.most.Round(time.Millisecond), told.CPU, end.CPU-begin.CPU, told.Peak, kept)
	}
	if check && !all {
		return errors.New("a target is missed")
	}
	return nil
}
