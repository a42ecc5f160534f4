package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"ema/internal/config"
	"ema/internal/model"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ema": main, "ema-waits": waits})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exit-code": exitsWith},
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("GORACE", noRest)
			return os.MkdirAll(home, 0o700)
		},
	})
}

// exitsWith is the script command "exit-code N PROGRAM ARG…".
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit-code N PROGRAM ARG…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// waits is ema with one more command, which waits to be cancelled: politely, or not at all.
func waits() {
	a := newApp()
	root := rootCommand(a)
	wait := &cobra.Command{Use: "wait", RunE: func(cmd *cobra.Command, args []string) error {
		fmt.Println("ready")
		<-cmd.Context().Done()
		fmt.Println("cancelled")
		if len(args) > 0 { // stubborn
			<-context.Background().Done()
		}
		return cmd.Context().Err()
	}, Args: cobra.ArbitraryArgs}
	root.AddCommand(wait)
	a.frame(wait)
	os.Exit(run(a, root, os.Args[1:]))
}

// start runs ema-waits as a process, and returns once it waits.
func start(t *testing.T, args ...string) (cmd *exec.Cmd, stdout *bufio.Scanner, stderr *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), self)
	cmd.Args = append([]string{"ema-waits", "wait"}, args...)
	stderr = new(bytes.Buffer)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdout = bufio.NewScanner(out)
	expectLine(t, stdout, "ready")
	return cmd, stdout, stderr
}

func expectLine(t *testing.T, s *bufio.Scanner, want string) {
	t.Helper()
	if !s.Scan() || s.Text() != want {
		t.Fatalf("read %q (%v), want %q", s.Text(), s.Err(), want)
	}
}

func TestTheFirstSignalCancelsAndTheExitCodeSaysSo(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		cmd, stdout, stderr := start(t)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		expectLine(t, stdout, "cancelled")
		err := cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 130 || stderr.String() != "ema: interrupted\n" {
			t.Errorf("%v: exit code %d, stderr %q, %v", sig, code, stderr, err)
		}
	}
}

func TestTheSecondSignalEndsAtOnce(t *testing.T) {
	cmd, stdout, _ := start(t, "stubborn")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	expectLine(t, stdout, "cancelled")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Fatalf("ended with %v (%v), want the signal itself", cmd.ProcessState, err)
	}
}

func TestExitCodesKeepTheirMeaning(t *testing.T) {
	of := func(c model.Class) error {
		return fmt.Errorf("pull: %w", &model.Error{Op: "fetch", Class: c})
	}
	for promise, c := range map[string]struct {
		err         error
		interrupted bool
		want        int
	}{
		"any failure":             {errors.New("x"), false, 1},
		"a server's failure":      {of(model.ServerError), false, 1},
		"usage":                   {of(model.Usage), false, 2},
		"the command line":        {&usageError{errors.New("x")}, false, 2},
		"not found":               {of(model.NotFound), false, 3},
		"not permitted":           {of(model.Auth), false, 3},
		"integrity":               {of(model.Integrity), false, 4},
		"no space":                {of(model.DiskFull), false, 5},
		"no space when stopping":  {of(model.DiskFull), true, 5},
		"a regression":            {fmt.Errorf("benchmark: %w", errRegression), false, 6},
		"interrupted":             {of(model.Cancelled), true, 130},
		"interrupted, bare":       {context.Canceled, true, 130},
		"a deadline is a failure": {context.DeadlineExceeded, false, 1},
	} {
		if got := exitCode(c.err, c.interrupted); got != c.want {
			t.Errorf("%s: exit code %d, want %d", promise, got, c.want)
		}
	}
}

func TestAnErrorIsJSONTooWhenAsked(t *testing.T) {
	var stdout, stderr bytes.Buffer
	a := &app{stdout: &stdout, stderr: &stderr, json: true}
	a.report(&model.Error{Op: "pull", Class: model.DiskFull, File: "/models", Err: errors.New("14.2 GiB <more> needed")}, false)
	var answer struct {
		Error struct{ Class, Message string }
	}
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Error.Class != "disk_full" || answer.Error.Message != "pull: /models: 14.2 GiB <more> needed" || stderr.String() != "ema: "+answer.Error.Message+"\n" {
		t.Fatalf("stdout %s stderr %s", stdout.String(), stderr.String())
	}
}

func TestEveryCommandHasAnExampleAndAShortDescription(t *testing.T) {
	var visit func(*cobra.Command)
	count := 0
	visit = func(c *cobra.Command) {
		count++
		if !strings.HasPrefix(c.Example, "  ") || !strings.Contains(c.Example, "ema") || c.Short == "" {
			t.Errorf("%s: example %q, short %q", c.CommandPath(), c.Example, c.Short)
		}
		for _, inner := range c.Commands() {
			visit(inner)
		}
	}
	visit(rootCommand(&app{}))
	if count < 8 {
		t.Errorf("only %d commands", count)
	}
}

func TestTheLogGoesWhereTheKeysSay(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stderr: &stderr}
	write := func(keys config.Log, fallback slog.Level) {
		t.Helper()
		log, closeLog, err := a.logger(keys, fallback)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("hello")
		if err := closeLog(); err != nil {
			t.Fatal(err)
		}
	}
	write(config.Log{Format: "text"}, slog.LevelWarn)
	if stderr.Len() != 0 {
		t.Errorf("a command that only warns says %q", stderr.String())
	}
	write(config.Log{Format: "text", Level: "info"}, slog.LevelWarn)
	if !strings.Contains(stderr.String(), "level=INFO msg=hello") {
		t.Errorf("stderr %q", stderr.String())
	}
	file := filepath.Join(t.TempDir(), "log")
	write(config.Log{Format: "json", File: file}, slog.LevelInfo)
	write(config.Log{Format: "json", File: file}, slog.LevelInfo)
	if b, err := os.ReadFile(file); err != nil || strings.Count(string(b), `"msg":"hello"`) != 2 {
		t.Errorf("log %q, %v", b, err)
	}
	if _, _, err := a.logger(config.Log{File: filepath.Join(file, "x")}, 0); model.ClassOf(err) != model.DiskError {
		t.Errorf("a log that can't be opened gives %v", err)
	}
}

func TestColoursAreForTerminalsOnly(t *testing.T) {
	if (&app{}).colored(new(bytes.Buffer)) || interactive(nil) {
		t.Error("a buffer counts as a terminal")
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if interactive(f) {
		t.Error("a device that is no terminal counts as one")
	}
}
