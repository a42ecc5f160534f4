package verify

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A vector is a line of testdata/pickles.txt.
type vector struct {
	verdict, name string
	data          []byte
}

func pickleVectors(t testing.TB) []vector {
	t.Helper()
	f, err := os.Open("testdata/pickles.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var list []vector
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		parts := strings.Split(lines.Text(), "\t")
		if len(parts) != 3 {
			t.Fatalf("line %q has %d parts, want 3", lines.Text(), len(parts))
		}
		data, err := hex.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, vector{parts[0], parts[1], data})
	}
	if lines.Err() != nil || len(list) < 40 {
		t.Fatalf("read %d vectors: %v", len(list), lines.Err())
	}
	return list
}

func check(name string, data []byte) Finding {
	return Structure(name, bytes.NewReader(data), int64(len(data)))
}

// wantVerdict also demands that every verdict that is not clean comes with words.
func wantVerdict(t *testing.T, f Finding, want Verdict, words ...string) {
	t.Helper()
	if f.Verdict != want {
		t.Errorf("verdict = %v, want %v; %q", f.Verdict, want, f.Problems)
	}
	if (len(f.Problems) > 0) != (f.Verdict > OK) {
		t.Errorf("verdict %v with problems %q", f.Verdict, f.Problems)
	}
	for _, w := range words {
		if !strings.Contains(strings.Join(f.Problems, "\n"), w) {
			t.Errorf("problems %q do not say %q", f.Problems, w)
		}
	}
}

func TestPickleVectors(t *testing.T) {
	for _, v := range pickleVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			f := check("model.pkl", v.data)
			if f.Verdict.String() != v.verdict {
				t.Errorf("verdict = %v, want %s; %q", f.Verdict, v.verdict, f.Problems)
			}
		})
	}
}

func TestPickleImportOfGetpidIsFoundWithItsPlace(t *testing.T) {
	for name, c := range map[string]struct{ data, at string }{
		"protocol 0": {"636f730a6765747069640a2874522e", "byte 0:"},
		"protocol 4": {"80048c026f738c0667657470696493" + "29522e", "byte 14:"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := hex.DecodeString(c.data)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"model.pkl", "model.bin", "weights.pt"} {
				wantVerdict(t, check(file, data), Dangerous, c.at, `imports "os" "getpid"`)
			}
		})
	}
}

func TestEveryPrefixOfACallIsDangerousOnceItImports(t *testing.T) {
	data := []byte("\x80\x04\x8c\x02os\x8c\x06getpid\x93)R.")
	for n := range data {
		want := Broken
		if n >= 15 {
			want = Dangerous // a pickle runs up to where it breaks
		}
		if n == 0 {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) { wantVerdict(t, check("x.pkl", data[:n]), want) })
	}
}

func TestDataThatIsNoPickleIsNotApplicable(t *testing.T) {
	for name, data := range map[string]string{
		"onnx weights":              "\x00\x00\x80\x3f\x00\x00\x80\x3f",
		"a tokenizer's table":       "great\ncat\nconfig\n",
		"text that begins like one": "config\nvalue\nother\n",
		"a tensor like a magic":     "\x80\x02\xff\xff\x80\x3f",
		"a lone None":               "N.",
		"an import in mid-air":      "cmodel\nweights\n\xff\xff",
		"pushes and a STACK_GLOBAL": "NN\x93\xff\xff",
	} {
		t.Run(name, func(t *testing.T) { wantVerdict(t, check("pytorch_model.bin", []byte(data)), NotApplicable) })
	}
}

func TestPickleIsFoundUnderAnyName(t *testing.T) {
	for _, name := range []string{"tokenizer", "x.json", "weights.bin", "a.npy.dat"} {
		wantVerdict(t, check(name, []byte("\x80\x04cos\ngetpid\n)R.")), Dangerous)
	}
	wantVerdict(t, check("model.pkl", []byte("GGUF\x00\x00\x00\x00\x00cos\ngetpid\n)R.")), Dangerous, "os")
}

func TestDangersAreToldBeforeAnythingElse(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("\x80\x02")
	for i := range 5000 { // more than are kept
		fmt.Fprintf(&b, "cmod%d\nName\n0", i)
	}
	b.WriteString("cos\nsystem\n.")
	f := check("x.pkl", b.Bytes())
	wantVerdict(t, f, Dangerous, `"os" "system"`)
	if !strings.Contains(f.Problems[0], `"os"`) || len(f.Problems) != maxSaid+1 {
		t.Errorf("%d problems, first %q; want %d and the danger first", len(f.Problems), f.Problems[0], maxSaid+1)
	}
}

func TestHugePicklesEndAtTheLimitAndAreNotClean(t *testing.T) {
	for name, data := range map[string][]byte{
		"a deep stack":   bytes.Repeat([]byte("N"), maxPickleStack+10),
		"a lot of marks": bytes.Repeat([]byte("("), maxPickleStack+10),
	} {
		t.Run(name, func(t *testing.T) { wantVerdict(t, check("x.pkl", data), Suspicious, "larger than what is checked") })
	}
}

func TestManyImportsAndManyPicklesTakeNoTimeOutOfProportion(t *testing.T) {
	var imports, pickles bytes.Buffer
	imports.WriteString("\x80\x02")
	for i := range 100_000 {
		fmt.Fprintf(&imports, "cm%d\nn\n0", i)
	}
	for i := range 100_000 {
		fmt.Fprintf(&pickles, "\x8c\x06%06d\x940", i)
	}
	pickles.WriteString("N." + strings.Repeat("\x8c\x01a\x94.", 100_000))
	for name, data := range map[string][]byte{"imports": imports.Bytes(), "pickles after a large one": pickles.Bytes()} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			check("x.pkl", data)
			if took := time.Since(begin); took > 20*time.Second { // a second on a slow machine, hours if squared
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestMemoBeyondItsLimitHidesNothing(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("\x80\x04\x8c\x01x" + strings.Repeat("\x94", maxPickleMemo))
	b.WriteString("0\x8c\x02os\x940\x8c\x06getpid\x940")
	fmt.Fprintf(&b, "j%s", le32(maxPickleMemo))
	fmt.Fprintf(&b, "j%s\x93)R.", le32(maxPickleMemo+1))
	wantVerdict(t, check("x.pkl", b.Bytes()), Dangerous, "hidden")
}

func le32(n int) string {
	return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
}

func TestImportsAreJudgedByModuleAndName(t *testing.T) {
	for _, c := range []struct {
		module, name string
		want         Verdict
	}{
		{"collections", "OrderedDict", OK},
		{"torch", "BFloat16Storage", OK},
		{"torch", "bfloat16", OK},
		{"torch._utils", "_rebuild_tensor_v2", OK},
		{"numpy.core.multiarray", "_reconstruct", OK},
		{"torch", "load", Dangerous},
		{"torch", "load.FloatStorage", Dangerous},
		{"torch", "serialization.os.FloatStorage", Dangerous},
		{"torch.storage", "_load_from_bytes", Dangerous},
		{"builtins", "eval", Dangerous},
		{"builtins", "getattr", Dangerous},
		{"builtins", "list", OK},
		{"builtins", "list.__class__", Dangerous},
		{"os.path", "join", Dangerous},
		{"osprey", "Model", Suspicious},
		{"torch.nn.modules.linear", "Linear", Suspicious},
		{"collections", "", Suspicious},
		{"", "OrderedDict", Suspicious},
		{"", "", Suspicious},
		{"code", "InteractiveInterpreter.runcode", Dangerous},
		{"code.model", "Net", Suspicious},
	} {
		if got := judgeImport(c.module, c.name); got != c.want {
			t.Errorf("%s %s = %v, want %v", c.module, c.name, got, c.want)
		}
	}
}
