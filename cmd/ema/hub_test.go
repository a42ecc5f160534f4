package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"ema/internal/demohub"
	"ema/internal/model"
)

// TestScriptsWithAHub runs the scripts that need a hub. Each has one of its own, at $HF_ENDPOINT, with these commands:
//
//	hub-fault KIND FAULT TIMES   bend answers, as in demohub.ParseFault; KIND is api, resolve or bulk, TIMES 0 is for good
//	hub-reset                    forget counters and faults
//	hub-served KIND OP N         compare the requests of a kind, or the bytes of bulk ("bytes"), with a number: = or <=
//	hub-commit ID BRANCH FILE    commit one more file, and nothing but it
//	flip FILE OFFSET             change one byte, through links
func TestScriptsWithAHub(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "hub"),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exit-code":  exitsWith,
			"hub-fault":  hubFault,
			"hub-reset":  hubReset,
			"hub-served": hubServed,
			"hub-commit": hubCommit,
			"flip":       flip,
		},
		Setup: withHub,
	})
}

// noRest keeps processes that were built with the race detector from resting for a second before they end.
const noRest = "atexit_sleep_ms=0"

// hubKey finds the script's hub.
type hubKey struct{}

func withHub(env *testscript.Env) error {
	hub := sampleHub()
	srv := httptest.NewServer(hub)
	cdn := httptest.NewServer(hub.CDN())
	hub.Set(demohub.ViaCDN(cdn.URL))
	env.Defer(srv.Close)
	env.Defer(cdn.Close)
	env.Values[hubKey{}] = hub
	home := filepath.Join(env.WorkDir, "home")
	env.Setenv("HOME", home)
	env.Setenv("HF_ENDPOINT", srv.URL)
	env.Setenv("GORACE", noRest)
	env.Setenv("EMA_RETRY_OPTIMIZATION__BASE_DELAY_SECONDS", "0.01")
	return os.MkdirAll(home, 0o700)
}

// sampleHub has one model of every kind that the scripts ask for.
func sampleHub() *demohub.Hub {
	tiny := func(size model.Bytes) []demohub.Part {
		return []demohub.Part{
			demohub.Bytes("README.md", []byte("# Tiny\n")),
			demohub.Bytes("config.json", []byte("{\"model_type\":\"demo\"}\n")),
			demohub.Safetensors("model.safetensors", 4, size),
			demohub.File("part/a.bin", 5000),
		}
	}
	manifest, err := json.Marshal(map[string]any{"files": []map[string]string{
		{"path": "config.json", "url": "web.json"}, {"path": "weights.bin", "url": "web.bin"},
	}})
	if err != nil {
		panic(err) // strings are always JSON
	}
	size := 5 * model.MiB
	repo := func(id string, more ...demohub.Part) demohub.Option {
		defer func() { size += 64 }() // each has another content
		return demohub.Repo(id, append(tiny(size), more...)...)
	}
	return demohub.New(
		repo("acme/tiny", demohub.Tag("v1.0"), demohub.Branch("dev", demohub.Bytes("config.json", []byte("{}\n")))),
		demohub.Repo("acme/twin", tiny(5*model.MiB)...), // but this one
		repo("acme/other"),
		repo("acme/third"),
		repo("acme/fourth"),
		repo("acme/gated", demohub.Gated("tok-ok")),
		// Gates that hide no hash: which of them it is shows when a file is asked for.
		demohub.Repo("acme/small", demohub.Bytes("config.json", []byte("{}\n")), demohub.Gated("tok-ok"), demohub.Pending("tok-pending")),
		repo("acme/private", demohub.Private("tok-ok")),
		demohub.Repo("acme/pickle", demohub.Bytes("weights.pkl", []byte("cos\nsystem\n(S'true'\ntR."))),
		demohub.Renamed("acme/old", "acme/tiny"),
		demohub.Account("tok-ok", "ada"), demohub.Account("tok-pending", "pia"), demohub.Account("tok-other", "olga"),
		demohub.Files(demohub.Bytes("web.json", []byte("{}\n")), demohub.File("web.bin", 2*model.MiB), demohub.Bytes("manifest.json", manifest)),
	)
}

func hubOf(ts *testscript.TestScript) *demohub.Hub { return ts.Value(hubKey{}).(*demohub.Hub) }

func hubFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: hub-fault KIND FAULT TIMES")
	}
	fault, err := demohub.ParseFault(args[1])
	ts.Check(err)
	times, err := strconv.Atoi(args[2])
	ts.Check(err)
	hubOf(ts).Fault(demohub.Match{Kind: demohub.Kind(args[0])}, fault, times)
}

func hubReset(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: hub-reset")
	}
	hubOf(ts).ClearFaults()
	hubOf(ts).ResetStats()
}

func hubServed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: hub-served KIND OP N")
	}
	stats := hubOf(ts).Stats()
	got := stats.Requests[demohub.Kind(args[0])]
	if args[0] == "bytes" {
		got = stats.Body
	}
	want, err := strconv.ParseInt(args[2], 10, 64)
	ts.Check(err)
	if args[1] == "=" && got != want || args[1] == "<=" && got > want {
		ts.Fatalf("the hub served %s %d, want %s %d", args[0], got, args[1], want)
	}
}

func hubCommit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: hub-commit ID BRANCH FILE")
	}
	_, err := hubOf(ts).Commit(args[0], args[1], demohub.Bytes(args[2], []byte(args[2])))
	ts.Check(err)
}

func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	at, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	matches, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(matches) != 1 {
		ts.Fatalf("%s means %d files", args[0], len(matches))
	}
	f, err := os.OpenFile(matches[0], os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	ts.Check(err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b, at)
	ts.Check(err)
}

// TestNoTokenIsEverShown runs every command that could, and looks for the token in all that it prints.
func TestNoTokenIsEverShown(t *testing.T) {
	const token = "tok-secret"
	hub := demohub.New(demohub.Repo("acme/tiny", demohub.Bytes("a", []byte("a"))), demohub.Account("tok-ok", "ada"))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	for _, args := range [][]string{
		{"pull", "acme/tiny"},
		{"pull", "acme/tiny", "--json"},
		{"doctor"},
		{"doctor", "--json"},
		{"config", "show"},
		{"pull", srv.URL + "/files/none.bin?sig=" + token},
	} {
		var out strings.Builder
		a := &app{
			stdout: &out, stderr: &out,
			environ: []string{"HOME=" + t.TempDir(), "HF_TOKEN=" + token, "HF_ENDPOINT=" + srv.URL, "EMA_RETRY_OPTIMIZATION__MAX_RETRIES=0"},
		}
		code := run(a, rootCommand(a), args)
		if strings.Contains(out.String(), token) {
			t.Errorf("ema %v shows the token (exit code %d):\n%s", args, code, out.String())
		}
		if args[0] != "config" && code == 0 {
			t.Errorf("ema %v succeeds with a token that the hub refuses", args)
		}
	}
}
