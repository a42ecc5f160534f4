package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"ema/internal/demohub"
	"ema/internal/model"
)

// demoRate is what a connection to the sample hub brings per second: slow enough to watch, to pause and to limit.
const demoRate = 8 * model.MiB

// sampleModels are those of "ema serve --demo", generated as they are asked for.
func sampleModels() *demohub.Hub {
	llama := []demohub.Part{
		demohub.Bytes("README.md", []byte("# A sample\n\nGenerated numbers in the right format. It says nothing sensible.\n")),
		demohub.Bytes("config.json", []byte("{\"model_type\":\"llama\",\"hidden_size\":64}\n")),
		demohub.Bytes("tokenizer.json", []byte("{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}\n")),
	}
	for i := range 3 {
		llama = append(llama, demohub.Safetensors(fmt.Sprintf("model-%05d-of-00003.safetensors", i+1), 12, 64*model.MiB))
	}
	return demohub.New(
		demohub.Repo("demo/tiny-llama", llama...),
		demohub.Repo("demo/tiny-gguf", demohub.Bytes("README.md", []byte("# A sample\n")), demohub.GGUF("tiny-q4.gguf", 24, 48*model.MiB)),
		demohub.Rate(demoRate), demohub.Latency(20*time.Millisecond),
	)
}

// demo runs the daemon over a sample hub on this machine, so that everything can be tried without a network. Unless a
// store is named, its models go to a folder that is removed at the end.
func (a *app) demo(ctx context.Context, serve func(context.Context) error) (err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return &model.Error{Op: "serve --demo", Class: model.Other, Err: err}
	}
	a.endpoint = "http://" + l.Addr().String()
	try := ""
	if a.storeDir == "" {
		folder, err := os.MkdirTemp("", "ema-demo-")
		if err != nil {
			return errors.Join(&model.Error{Op: "serve --demo", Class: model.DiskError, Err: err, Hint: "name a folder with --store"}, l.Close())
		}
		defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
		a.storeDir = filepath.Join(folder, "hub")
		try = "export HF_HUB_CACHE=" + shellWord(a.storeDir) + "; "
	}
	fmt.Fprintf(a.stderr, "ema: demo: a sample hub at %s has demo/tiny-llama and demo/tiny-gguf; try in another terminal: %sema pull demo/tiny-llama\n", a.endpoint, try)

	hub := &http.Server{Handler: sampleModels(), ReadHeaderTimeout: 10 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := hub.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		return errors.Join(serve(ctx), hub.Close())
	})
	return g.Wait()
}
