package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/ledger"
	"ema/internal/model"
)

func TestUsesAreToldAsTheyWere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	c := tidying(ctx, t, "7")
	for i := range 8 {
		body := fmt.Sprintf(`{"model_id":"acme/slow","operation":"generate","duration_ms":%d,"success":%t}`, 1000+100*i, i != 3)
		if res := asks(t, http.DefaultClient, "POST", c.url+"/models/usage", body, nil); res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
	}
	var a client.Analytics
	asks(t, http.DefaultClient, "GET", c.url+"/models/analytics?period=day&timezone=UTC", "", &a)
	m := a.Models["acme/slow"]
	if m.Uses != 8 || m.Failures != 1 || m.PerDay != 8 || *m.SuccessRate != 0.875 || *m.AverageTime != 1.35 || len(m.Days) != 30 || m.Days[29].Uses != 8 || len(m.Hours) != 24 || len(m.Peaks) == 0 {
		t.Errorf("one day: %+v", m)
	}
	if s := a.Summary; s.Uses != 8 || s.Models != 1 || *s.Most != "acme/slow" || *s.Least != "acme/slow" || s.From != s.To || s.Zone != "UTC" {
		t.Errorf("summary: %+v", s)
	}
	asks(t, http.DefaultClient, "GET", c.url+"/models/analytics/acme/slow?start_date=2020-01-01&end_date=2020-01-31", "", &a)
	if m := a.Models["acme/slow"]; m.Uses != 0 || m.SuccessRate != nil || len(m.Peaks) != 0 {
		t.Errorf("before it was here: %+v", m)
	}
	for query, want := range map[string]int{
		"/acme/nowhere": 404, "?timezone=Nowhere": 422, "?start_date=yesterday": 422, "?start_date=2026-02-01&end_date=2026-01-01": 422, "?period=century": 422, "?limit=0": 422,
		"/export?period=century": 422, "/export?timezone=Nowhere": 422, "/cleanup": 200, "/performance": 200, "/preload?timezone=Asia/Tokyo": 200, "/cleanup?storage_threshold_gb=-1": 422,
	} {
		if res := asks(t, http.DefaultClient, "GET", c.url+"/models/analytics"+query, "", nil); res.StatusCode != want {
			t.Errorf("%s: %s, want %d", query, res.Status, want)
		}
	}
	res, err := http.Get(c.url + "/models/analytics/export?period=week") //nolint:noctx // of a test
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	rows, err := csv.NewReader(res.Body).ReadAll()
	if err != nil || len(rows) != 8 || rows[7][0] != "acme/slow" || rows[7][2] != "8" || rows[7][3] != "1.35" {
		t.Errorf("export: %v, %v", rows, err)
	}
	var p client.PerformanceTrends
	asks(t, http.DefaultClient, "GET", c.url+"/models/analytics/performance", "", &p)
	if one := p.Models["acme/slow"]; one.Trend != client.TrendUnknown || one.Score != nil || *one.Lately != 1.35 || *p.System.Downloads != 1 {
		t.Errorf("performance: %+v, %+v", one, p.System)
	}

	said := c.ema("usage", "--period", "day")
	if !strings.Contains(said, "acme/slow  8     8.0      87.5 %     1.35") || !strings.Contains(said, "8 uses of 1 model") {
		t.Errorf("ema usage: %s", said)
	}
	for _, conclusion := range []string{"--cleanup", "--preload", "--performance", "--csv"} {
		if c.ema("usage", conclusion) == "" {
			t.Errorf("ema usage %s says nothing", conclusion)
		}
	}
	c.ends(t)
	if here := c.ema("usage", "acme/slow", "--period", "day"); !strings.Contains(here, "acme/slow  8     8.0      87.5 %     1.35") {
		t.Errorf("without a daemon: %s", here)
	}
}

// What a month ago took a second and takes two now is called slower, and says so.
func TestAModelThatBecameSlowerIsNamed(t *testing.T) {
	l, err := ledger.Open(t.Context(), t.TempDir()+"/ema.db")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	now := time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)
	slower, few := model.ID{Name: "acme/slower"}, model.ID{Name: "acme/few"}
	var b ledger.Batch
	for day := range 30 {
		took := time.Second
		if day < latelyDays {
			took = 2 * time.Second
		}
		b.Uses = append(b.Uses, model.Use{Model: slower, At: now.AddDate(0, 0, -day), By: model.UseByAPI, Duration: took, OK: true})
	}
	b.Uses = append(b.Uses, model.Use{Model: few, At: now, By: model.UseByAPI, Duration: time.Second, OK: true})
	b.ID = "1"
	if err := l.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	all, err := performances(t.Context(), l, now)
	if err != nil {
		t.Fatal(err)
	}
	if p := all[slower]; p.Trend != client.TrendDegrading || *p.Score != 0.5 || len(p.Issues) != 1 || *p.Lately != 2 {
		t.Errorf("%+v", p)
	}
	if p := all[few]; p.Trend != client.TrendUnknown || p.Score != nil {
		t.Errorf("%+v", p)
	}
}
