package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ema/internal/demohub"
	"ema/internal/model"
)

// examples is the page whose examples are run. Those of one language are one program, in pieces.
const examples = "../docs/api.md"

// An example is a piece of a program, and what it prints.
type example struct {
	line int // of the page, counted from 1
	code string
	want string
}

// A language is how examples are run.
type language struct {
	name  string // of a file, by its ending
	print string // what prints the mark between two pieces
	run   []string
	needs string // a program
}

func languages() map[string]language {
	return map[string]language{
		"sh":         {"example.sh", "echo '%s'", []string{"sh", "-eu"}, "curl"},
		"python":     {"example.py", "print('%s')", []string{"python3"}, "python3"},
		"javascript": {"example.mjs", "console.log('%s');", []string{"node"}, "node"},
	}
}

func TestTheExamplesOfTheAPIPrintWhatThePageSays(t *testing.T) {
	raw, err := os.ReadFile(examples)
	if err != nil {
		t.Fatal(err)
	}
	all := readExamples(t, string(raw))
	for name, l := range languages() {
		if len(all[name]) < 4 {
			t.Errorf("the page has %d examples in %s", len(all[name]), name)
		}
		t.Run(name, func(t *testing.T) {
			if _, err := exec.LookPath(l.needs); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatalf("%v; .ci/run installs it", err)
				}
				t.Skip(err)
			}
			t.Parallel()
			l.try(t, all[name])
		})
	}
}

// readExamples finds the fenced pieces of code of a page, by their language. What a piece prints is the text that
// follows it; when none does, it prints nothing.
func readExamples(t *testing.T, page string) map[string][]example {
	t.Helper()
	all := map[string][]example{}
	language, before := "", "" // of the piece that this line is in, and of the one before it
	for i, line := range strings.Split(page, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && language == "":
			language = fence
			switch fence {
			case "sh", "python", "javascript":
				all[fence] = append(all[fence], example{line: i + 2})
			case "text":
				if before == "" {
					t.Errorf("line %d: what prints this text?", i+1)
				}
			case "json": // is for people
			default:
				t.Errorf("line %d: nothing runs %q", i+1, fence)
			}
		case isFence:
			before, language = language, ""
			if before == "text" || before == "json" {
				before = ""
			}
		case language == "text" && before != "":
			last := &all[before][len(all[before])-1]
			last.want += line + "\n"
		case language == "" && strings.TrimSpace(line) != "":
			before = "" // a text belongs to the code that it follows at once
		case all[language] != nil:
			last := &all[language][len(all[language])-1]
			last.code += line + "\n"
		}
	}
	return all
}

// try runs pieces of a program, one after the other, against a daemon with an empty store.
func (l language) try(t *testing.T, pieces []example) {
	server, key, stop := serveExamples(t)
	defer stop()
	const mark = "--- the next example ---"
	var program []string
	for _, e := range pieces {
		program = append(program, e.code)
	}
	dir := t.TempDir()
	between := "\n" + fmt.Sprintf(l.print, mark) + "\n"
	if err := os.WriteFile(filepath.Join(dir, l.name), []byte(strings.Join(program, between)), 0o666); err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clone(l.run[1:]), l.name)
	if l.needs == "node" && !hasWebSocket(t) {
		args = append([]string{"--experimental-websocket"}, args...)
	}
	cmd := exec.CommandContext(t.Context(), l.run[0], args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "EMA_SERVER=" + server, "EMA_API_KEY=" + key, "NO_COLOR=1"}
	var out, errs buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v\n%s", err, errs.String())
		}
	case <-time.After(2 * time.Minute):
		_ = cmd.Process.Kill()
		<-ended
		t.Errorf("it goes on and on\n%s", errs.String())
	}
	printed := strings.Split(out.String(), mark+"\n")
	for i, e := range pieces {
		switch {
		case i >= len(printed):
			t.Errorf("%s:%d: it was never reached", examples, e.line)
		case !pattern(e.want).MatchString(printed[i]):
			t.Errorf("%s:%d prints\n%s\nand not\n%s", examples, e.line, printed[i], e.want)
		}
	}
}

// hasWebSocket reports whether node has it without being asked for it, as from Node 22 on.
func hasWebSocket(t *testing.T) bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "node", "-p", "typeof WebSocket").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)) == "function"
}

// pattern matches what a page says is printed: … stands for anything in a line, and alone in one for any number of lines.
func pattern(want string) *regexp.Regexp {
	var p strings.Builder
	for line := range strings.SplitAfterSeq(want, "\n") {
		if line == "…\n" {
			p.WriteString(`(?:.*\n)*?`)
			continue
		}
		p.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
	}
	return regexp.MustCompile(`\A` + p.String() + `\z`)
}

// serveExamples runs a daemon until it is stopped, whose hub has the models that the examples ask for: a small one that
// takes a moment, and a large one that takes long.
func serveExamples(t *testing.T) (url, key string, stop func()) {
	t.Helper()
	w := newWorld(t,
		demohub.Repo("acme/tiny-llm", demohub.Bytes("config.json", []byte("{}\n")), demohub.Safetensors("model.safetensors", 3, 2*model.MiB)),
		demohub.Repo("acme/large-llm", demohub.File("large.bin", 256*model.MiB)),
	)
	w.hub.Fault(demohub.Match{Kind: demohub.Bulk, Path: "model.safetensors"}, demohub.Trickle(2*model.MiB), 1<<30)
	w.hub.Fault(demohub.Match{Kind: demohub.Bulk, Path: "large.bin"}, demohub.Trickle(64*model.KiB), 1<<30)
	key = "a key for the examples"
	settings := filepath.Join(w.home, "ema.yaml")
	text := fmt.Sprintf("auth:\n  api_keys:\n    - {name: examples, role: power_user, sha256: \"%x\"}\n", sha256.Sum256([]byte(key)))
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := w.start(t, "serve", "--config", settings, "--listen", "127.0.0.1:0")
	stop = func() {
		if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if code := daemon.end(t); code != 0 {
			t.Errorf("the daemon ends with %d\n%s", code, daemon.err.String())
		}
	}
	ready := regexp.MustCompile(` and (http://\S+): `)
	until(t, "the daemon is ready", func() bool { return ready.MatchString(daemon.err.String()) })
	return ready.FindStringSubmatch(daemon.err.String())[1], key, stop
}
