package metrics

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	dto "github.com/prometheus/client_model/go"
)

// deployed is where a file of deploy/ is.
func deployed(elements ...string) string {
	return filepath.Join(append([]string{"..", "..", "deploy"}, elements...)...)
}

type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource *struct{ Type, UID string }
	GridPos    struct{ H, W, X, Y int }
	Targets    []struct {
		RefID      string
		Expr       string
		Datasource struct{ Type, UID string }
	}
}

type board struct {
	UID        string
	Title      string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Query, Definition any }
	}
}

func dashboard(t *testing.T) board {
	t.Helper()
	raw, err := os.ReadFile(deployed("grafana", "ema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var b board
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	raw, err := os.ReadFile(deployed("prometheus", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no rules")
	}
	return all
}

// expressions are all of the dashboard, by where they stand, with what Grafana would put in.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	put := strings.NewReplacer("$__rate_interval", "5m", "$job", "ema", "$instance", ".*")
	all := map[string]string{}
	for _, p := range dashboard(t).Panels {
		for _, target := range p.Targets {
			all[fmt.Sprintf("dashboard: %s, %s", p.Title, target.RefID)] = put.Replace(target.Expr)
		}
	}
	return all
}

// names are those that may stand in an expression: of series, as Prometheus stores them, each with its labels.
func names(t *testing.T) map[string][]string {
	t.Helper()
	scraped := []string{"job", "instance"} // Prometheus adds them
	all := map[string][]string{"up": scraped}
	for name, f := range gathered(t, used()) {
		labels := slices.Clone(scraped)
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		if f.GetType() != dto.MetricType_HISTOGRAM {
			all[name] = labels
			continue
		}
		all[name+"_sum"], all[name+"_count"], all[name+"_bucket"] = labels, labels, append(slices.Clone(labels), "le")
	}
	return all
}

var (
	metricName = regexp.MustCompile(`\b(?:up|(?:ema|model|api|go|process|promhttp)_[a-z_]+)\b(\{[^}]*\})?`)
	grouping   = regexp.MustCompile(`\b(?:by|on|group_left|without|ignoring) ?\(([^)]*)\)`)
	matcher    = regexp.MustCompile(`([a-z_]+) ?(?:=~|!~|!=|=) ?"`)
)

// unknown are the metrics and labels of an expression that do not exist.
func unknown(known map[string][]string, expr string) (wrong []string) {
	var labels []string
	seen := 0
	for _, found := range metricName.FindAllStringSubmatch(grouping.ReplaceAllString(expr, ""), -1) {
		name, _, _ := strings.Cut(found[0], "{")
		seen++
		has, ok := known[name]
		if !ok {
			wrong = append(wrong, name)
		}
		labels = append(labels, has...)
		for _, m := range matcher.FindAllStringSubmatch(found[1], -1) {
			if ok && !slices.Contains(has, m[1]) {
				wrong = append(wrong, name+"{"+m[1]+"}")
			}
		}
	}
	for _, found := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(found[1], ",") {
			if !slices.Contains(labels, strings.TrimSpace(l)) {
				wrong = append(wrong, "by "+l)
			}
		}
	}
	if seen == 0 {
		wrong = append(wrong, "no metric at all")
	}
	return wrong
}

func TestDashboardAndAlertsAskForWhatExists(t *testing.T) {
	all := expressions(t)
	for _, r := range rules(t) {
		all["alert: "+r.Alert] = r.Expr
	}
	known := names(t)
	for where, expr := range all {
		if wrong := unknown(known, expr); wrong != nil {
			t.Errorf("%s: there is no %q in %s", where, wrong, expr)
		}
	}
	for _, expr := range []string{
		`ema_nothing > 0`, `model_download_duration_seconds`, `up{state="x"}`, `sum by (class) (up)`, `1 > 0`,
	} {
		if unknown(known, expr) == nil {
			t.Errorf("nothing is wrong with %s", expr)
		}
	}
}

func TestTheOperationsThatAreLeftOutAreThoseOfTheAPI(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "api", "operation.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := expressions(t)
	for _, r := range rules(t) {
		all["alert: "+r.Alert] = r.Expr
	}
	found := 0
	for where, expr := range all {
		for _, left := range regexp.MustCompile(`operation!~"([^"]*)"`).FindAllStringSubmatch(expr, -1) {
			for operation := range strings.SplitSeq(left[1], "|") {
				found++
				if !strings.Contains(string(source), strconv.Quote(operation)) {
					t.Errorf("%s: the API has no operation %s", where, operation)
				}
			}
		}
	}
	if found == 0 {
		t.Error("none is left out")
	}
}

// What nobody looks at might as well not be measured.
func TestTheDashboardShowsAllThatIsOurs(t *testing.T) {
	var all strings.Builder
	for _, expr := range expressions(t) {
		all.WriteString(expr + "\n")
	}
	for name := range gathered(t, used()) {
		if regexp.MustCompile(`^(ema|model|api)_`).MatchString(name) && !regexp.MustCompile(`\b`+name+`(_bucket|_count|_sum)?\b`).MatchString(all.String()) {
			t.Errorf("%s is on no panel", name)
		}
	}
}

func TestTheDashboardCanBeImportedAnywhere(t *testing.T) {
	b := dashboard(t)
	if b.UID != "ema" || b.Title == "" {
		t.Errorf("it is %q, %q", b.UID, b.Title)
	}
	var variables []string
	for _, v := range b.Templating.List {
		variables = append(variables, fmt.Sprint(v.Name, ":", v.Type))
	}
	if want := []string{"datasource:datasource", "job:query", "instance:query"}; !slices.Equal(variables, want) {
		t.Errorf("its variables are %v, want %v", variables, want)
	}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d, %q: its id or its title is nobody's or another's", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%q lies over %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource == nil || p.Datasource.UID != "${datasource}" {
			t.Errorf("%q has no data, or of a source of somebody's own", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || !strings.Contains(target.Expr, `{job="$job", instance=~"$instance"`) {
				t.Errorf("%q: %s is not of the daemon that was chosen", p.Title, target.Expr)
			}
		}
	}
}

func TestEachAlertSaysWhatToDoAndIsTested(t *testing.T) {
	tests, err := os.ReadFile(deployed("prometheus", "alerts_test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	once := map[string]bool{}
	for _, r := range rules(t) {
		if once[r.Alert] || !strings.HasPrefix(r.Alert, "Ema") {
			t.Errorf("the name %q is taken, or may be another program's", r.Alert)
		}
		once[r.Alert] = true
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s is of severity %q", r.Alert, r.Labels["severity"])
		}
		for _, what := range []string{"summary", "description", "action"} {
			if r.Annotations[what] == "" {
				t.Errorf("%s has no %s", r.Alert, what)
			}
		}
		if !strings.Contains(r.Annotations["summary"], "{{ $labels.instance }}") {
			t.Errorf("%s does not say which daemon it is about", r.Alert)
		}
		// A counter of the last minutes does not flicker; anything else must last.
		if r.For == "" && !strings.Contains(r.Expr, "increase(") && !strings.Contains(r.Expr, "changes(") {
			t.Errorf("%s is raised at once", r.Alert)
		}
		if !regexp.MustCompile(`(alertname: |alertname=")` + r.Alert + `\b`).Match(tests) {
			t.Errorf("%s has no test", r.Alert)
		}
	}
}

// promtool runs Prometheus' own tool.
func promtool(t *testing.T, stdin io.Reader, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("there is no promtool on this machine; .ci/run installs it, and Debian has it in the package prometheus")
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Stdin = stdin
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}

func TestPrometheusTakesTheConfigurationAndTheRules(t *testing.T) {
	promtool(t, nil, "check", "config", deployed("prometheus", "prometheus.yml"))
	promtool(t, nil, "check", "rules", "--lint-fatal", deployed("prometheus", "alerts.yaml"))
}

func TestAlertsAreRaisedWhenTheyShouldBeAndOnlyThen(t *testing.T) {
	promtool(t, nil, "test", "rules", deployed("prometheus", "alerts_test.yaml"))
}

func TestPrometheusTakesWhatIsShown(t *testing.T) {
	w := httptest.NewRecorder()
	used().Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	promtool(t, w.Body, "check", "metrics")
}

func TestPrometheusUnderstandsTheDashboard(t *testing.T) {
	type recording struct {
		Record string            `json:"record"`
		Expr   string            `json:"expr"`
		Labels map[string]string `json:"labels"`
	}
	var all []recording
	for where, expr := range expressions(t) {
		all = append(all, recording{"panel:of:dashboard", expr, map[string]string{"where": where}})
	}
	raw, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": all}}}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "check", "rules", path)
}
