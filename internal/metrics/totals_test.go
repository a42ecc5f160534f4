package metrics

import (
	"math"
	"reflect"
	"testing"
	"time"

	"ema/internal/model"
)

func TestTotalsAreWhatWasCounted(t *testing.T) {
	m := New(Settings{})
	if got := m.Totals(); !reflect.DeepEqual(got, Totals{Operations: map[string]Count{}}) {
		t.Errorf("at the start: %+v", got)
	}
	m.Received("", 100)
	m.Received("https", 23)
	m.retried(model.Timeout)
	m.retried(model.RateLimited)
	m.Observe("list-models", 200, 2*time.Millisecond)
	m.Observe("list-models", 503, 4*time.Millisecond)
	m.Observe("get-model", 404, time.Millisecond)
	m.Observe("follow", 200, time.Hour)
	got := m.Totals("follow")
	if got.Received != 123 || got.Retries != 2 || got.Answers != 3 || got.Errors != 1 || math.Abs(got.Answering-0.007) > 1e-9 {
		t.Errorf("%+v", got)
	}
	if one := got.Operations["list-models"]; one.Times != 2 || math.Abs(one.Seconds-0.006) > 1e-9 || len(got.Operations) != 2 {
		t.Errorf("by operation: %+v", got.Operations)
	}
	m.ObserveDatabase("save", 3*time.Millisecond)
	if db := m.Totals().Database; db.Times != 1 || math.Abs(db.Seconds-0.003) > 1e-9 {
		t.Errorf("of the database: %+v", db)
	}
	if all := m.Totals(); all.Answers != 4 || all.Answering < 3600 {
		t.Errorf("with streams: %+v", all)
	}
}
