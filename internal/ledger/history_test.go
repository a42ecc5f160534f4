package ledger_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"ema/internal/ledger"
	"ema/internal/model"
)

func write(t testing.TB, l *ledger.Ledger, b ledger.Batch) {
	t.Helper()
	if err := l.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func check(name, kind string, at time.Duration) model.HealthCheck {
	return model.HealthCheck{
		Model: acme(name), Commit: "c0ffee", At: noon().Add(at), Kind: kind, Overall: model.Degraded, Health: new(0.75), Integrity: new(1.0),
		Files: 3, Bytes: 7 * model.GiB, Duration: 1500 * time.Microsecond, Issues: []string{"it's \"odd\": 模型"},
	}
}

func keepsChecks(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	first, second, quick, other := check("a", "full", 0), check("a", "scrub", time.Hour), check("a", "quick", 2*time.Hour), check("b", "full", time.Minute)
	other.Issues, other.Overall, other.Performance = nil, model.Healthy, new(0.0)
	write(t, l, ledger.Batch{Checks: []model.HealthCheck{first, other, second, quick}})
	shut(t, l)
	l = open()
	defer shut(t, l)
	for _, c := range []struct {
		id    model.ID
		limit int
		want  []model.HealthCheck
	}{
		{model.ID{}, 0, []model.HealthCheck{quick, second, other, first}},
		{model.ID{}, 1, []model.HealthCheck{quick}},
		{acme("b"), 0, []model.HealthCheck{other}},
		{acme("c"), 0, nil},
	} {
		if got, err := l.Checks(t.Context(), c.id, c.limit); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("of %s, %d:\ngot  %+v, %v\nwant %+v", c.id, c.limit, got, err, c.want)
		}
	}
	full, err := l.FullReads(t.Context(), noon())
	if err != nil || !reflect.DeepEqual(full, []model.HealthCheck{first, other}) {
		t.Errorf("full checks are %+v, %v", full, err)
	}
	if full, err = l.FullReads(t.Context(), noon().Add(time.Second)); err != nil || !reflect.DeepEqual(full, []model.HealthCheck{other}) {
		t.Errorf("later ones are %+v, %v", full, err)
	}
	last, err := l.LastChecks(t.Context())
	if err != nil || len(last) != 2 {
		t.Fatalf("%d newest checks, %v", len(last), err)
	}
	for _, c := range last {
		if want := map[model.ID]model.HealthCheck{acme("a"): second, acme("b"): other}[c.Model]; !reflect.DeepEqual(c, want) {
			t.Errorf("got %+v, want %+v", c, want)
		}
	}
}

func sumsUpSamples(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	at := func(d time.Duration, v float64) model.Sample {
		return model.Sample{Series: "download.speed_mbps", At: noon().Add(d), Value: v}
	}
	write(t, l, ledger.Batch{Samples: []model.Sample{at(0, 3), at(10*time.Second, 5), at(time.Minute, -1), at(time.Second, math.NaN()), at(time.Second, math.Inf(1))}})
	write(t, l, ledger.Batch{Samples: []model.Sample{at(59*time.Second, 1), {Series: "other", At: noon(), Value: 8}}})
	for step, want := range map[time.Duration][]model.SampleSum{
		0: {
			{At: noon(), Times: 1, Mean: 3, Least: 3, Most: 3},
			{At: noon().Add(10 * time.Second), Times: 1, Mean: 5, Least: 5, Most: 5},
			{At: noon().Add(59 * time.Second), Times: 1, Mean: 1, Least: 1, Most: 1},
			{At: noon().Add(time.Minute), Times: 1, Mean: -1, Least: -1, Most: -1},
		},
		time.Minute: {{At: noon(), Times: 3, Mean: 3, Least: 1, Most: 5}, {At: noon().Add(time.Minute), Times: 1, Mean: -1, Least: -1, Most: -1}},
		time.Hour:   {{At: noon(), Times: 4, Mean: 2, Least: -1, Most: 5}},
	} {
		if got, err := l.Samples(t.Context(), "download.speed_mbps", noon(), noon().Add(time.Hour), step); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("by %s: %+v, %v; want %+v", step, got, err, want)
		}
	}
	if got, err := l.Samples(t.Context(), "download.speed_mbps", noon().Add(time.Second), noon().Add(time.Minute), 0); err != nil || len(got) != 2 {
		t.Errorf("of a part: %+v, %v", got, err)
	}
	if names, err := l.Series(t.Context()); err != nil || !reflect.DeepEqual(names, []string{"download.speed_mbps", "other"}) {
		t.Errorf("the series are %q, %v", names, err)
	}
}

func keepsIncidents(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	damage := model.Incident{At: noon(), Kind: "model_health_alert", Severity: model.Critical, Model: acme("a"), Message: "damaged"}
	database := model.Incident{At: noon().Add(time.Second), Kind: "database_away", Severity: model.Warning, Message: "it does not answer"}
	write(t, l, ledger.Batch{Events: []model.Incident{damage, database}})
	if got, err := l.Incidents(t.Context(), 0, 0); err != nil || !reflect.DeepEqual(got, []model.Incident{database, damage}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := l.Incidents(t.Context(), 1, 1); err != nil || !reflect.DeepEqual(got, []model.Incident{damage}) {
		t.Errorf("the second: %+v, %v", got, err)
	}
}

// The answer to a batch may be lost with its connection: then it is told again.
func writesABatchOnce(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	b := ledger.Batch{
		ID: "b1", Uses: []model.Use{use("a", 0)}, Checks: []model.HealthCheck{check("a", "full", 0)}, Samples: []model.Sample{{Series: "s", At: noon(), Value: 1}},
		Events: []model.Incident{{At: noon(), Kind: "k", Severity: model.Info, Message: "m"}}, Downloads: []model.Download{download("d")},
		Audit: []model.AuditEntry{{At: noon(), Who: "w"}},
	}
	write(t, l, b)
	shut(t, l)
	l = open()
	defer shut(t, l)
	write(t, l, b)
	sums, err := l.Samples(t.Context(), "s", noon(), noon().Add(time.Hour), time.Hour)
	checks, err2 := l.Checks(t.Context(), model.ID{}, 0)
	events, err3 := l.Incidents(t.Context(), 0, 0)
	downloads, err4 := l.Downloads(t.Context())
	trail, err5 := l.Audit(t.Context(), 0, 0)
	if uses := usesSince(t, l, time.Time{}); len(uses) != 1 || uses[0].Times != 1 || len(sums) != 1 || sums[0].Times != 1 || len(checks) != 1 || len(events) != 1 || len(downloads) != 1 || len(trail) != 1 {
		t.Errorf("%+v, %+v, %d checks, %d events, %d downloads, %d lines of audit: %v", uses, sums, len(checks), len(events), len(downloads), len(trail), []error{err, err2, err3, err4, err5})
	}
	b.ID = "b2"
	write(t, l, b)
	if uses := usesSince(t, l, time.Time{}); uses[0].Times != 2 {
		t.Errorf("another batch: %+v", uses)
	}
}

// One record that no database takes must not leave the others behind by half.
func writesABatchWholeOrNot(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	bad := use("b", 0)
	bad.At = time.Time{}
	if err := l.Write(t.Context(), ledger.Batch{ID: "b", Uses: []model.Use{use("a", 0), bad}}); model.ClassOf(err) != model.Usage {
		t.Errorf("got %v", err)
	}
	refused := check("a", "full", 0)
	refused.Model.Name = "\xff\x00" // PostgreSQL has no such text
	err := l.Write(t.Context(), ledger.Batch{ID: "b", Uses: []model.Use{use("a", 0)}, Checks: []model.HealthCheck{refused}})
	uses := usesSince(t, l, time.Time{})
	if (err == nil) != (len(uses) == 1) {
		t.Errorf("%v, and %d sums", err, len(uses))
	}
	if err := l.Write(t.Context(), ledger.Batch{ID: "c", Uses: []model.Use{use("c", 0)}}); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if sums, err := l.UsageSums(t.Context(), ledger.UsageQuestion{First: ledger.DateOf(noon()), Last: ledger.DateOf(noon()), Zone: time.UTC}); err != nil || sums[len(sums)-1].Model != acme("c") {
		t.Errorf("%+v, %v", sums, err)
	}
}

func prunesHistory(t *testing.T, open func() *ledger.Ledger) {
	const day = 24 * time.Hour
	l := open()
	defer shut(t, l)
	var b ledger.Batch
	for _, age := range []time.Duration{0, 2 * day, 20 * day, 100 * day, 1000 * day} {
		b.Uses = append(b.Uses, use("a", -age))
		b.Checks = append(b.Checks, check("a", "full", -age))
		b.Samples = append(b.Samples, model.Sample{Series: "s", At: noon().Add(-age), Value: 1})
		b.Events = append(b.Events, model.Incident{At: noon().Add(-age), Kind: "k"})
	}
	for i := range 6000 { // more than goes at once
		b.Uses = append(b.Uses, use("b", -95*day-time.Duration(i)*time.Second))
	}
	write(t, l, b)
	if _, err := l.PruneHistory(t.Context(), noon(), 90*day); err != nil {
		t.Fatal(err)
	}
	left := map[string]int{}
	if err := l.RawUses(t.Context(), time.Unix(0, 0), noon().Add(day), func(model.Use) error { left["uses"]++; return nil }); err != nil {
		t.Fatal(err)
	}
	checks, err := l.Checks(t.Context(), model.ID{}, 0)
	events, err2 := l.Incidents(t.Context(), 0, 0)
	left["checks"], left["events"] = len(checks), len(events)
	for name, step := range map[string]time.Duration{"samples": 0, "minutes": time.Minute, "hours": time.Hour} {
		sums, err := l.Samples(t.Context(), "s", time.Unix(0, 0), noon().Add(day), step)
		if err != nil {
			t.Fatal(err)
		}
		left[name] = len(sums)
	}
	q := ledger.UsageQuestion{First: ledger.DateOf(noon().Add(-2000 * day)), Last: ledger.DateOf(noon()), Zone: time.UTC, Models: []model.ID{acme("a")}}
	of, err3 := l.UsageOf(t.Context(), q)
	left["days"] = int(of[0].Times)
	want := map[string]int{"uses": 3, "checks": 3, "events": 3, "samples": 1, "minutes": 2, "hours": 3, "days": 4}
	if !reflect.DeepEqual(left, want) || err != nil || err2 != nil || err3 != nil {
		t.Errorf("left are %v, %v; want %v", left, []error{err, err2, err3}, want)
	}
}

func BenchmarkWrite(b *testing.B) {
	databases := map[string]func(*testing.B) *ledger.Ledger{
		"sqlite":     func(b *testing.B) *ledger.Ledger { return open(b, b.TempDir()+"/ema.db") },
		"postgresql": func(b *testing.B) *ledger.Ledger { return openPostgres(b, postgres(b).URL()) },
	}
	for name, begin := range databases {
		b.Run(fmt.Sprintf("database=%s/uses=20000/models=1000", name), func(b *testing.B) {
			l := begin(b)
			defer shut(b, l)
			n := 0
			for b.Loop() {
				var batch ledger.Batch
				for range 20_000 {
					u := use(fmt.Sprint(n*7919%1000), time.Duration(n)*20*time.Microsecond)
					u.Duration, u.Operation = time.Duration(n%1000)*time.Millisecond, "generate"
					batch.Uses = append(batch.Uses, u)
					n++
				}
				write(b, l, batch)
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "uses/s")
		})
	}
}
