package metrics

import (
	"testing"

	"ema/internal/model"
)

func TestBytesAreCountedByTheKindOfTheirSource(t *testing.T) {
	m := New(Settings{})
	m.Received(model.Hub, 5)
	m.Received(model.Hub, 2)
	m.Received(model.HTTPS, 8)
	m.Received(model.Folder, -3) // a counter may not fall
	m.Received("ftp", 1)
	m.Received("org/name", 2)
	for source, want := range map[string]float64{"huggingface": 7, "https": 8, "file": 0, "other": 3} {
		if got := value(t, m, "ema_received_bytes_total", "source", source); got != want {
			t.Errorf("%v bytes of %s, want %v", got, source, want)
		}
	}
}

func TestVerificationsAndRepairsAreCountedByTheirResult(t *testing.T) {
	m := New(Settings{})
	for range 3 {
		m.Verified(Whole)
		m.Repaired(NothingToMend)
	}
	for range 2 {
		m.Verified(Damaged)
		m.Repaired(Mended)
	}
	m.Verified(Unverified)
	m.Repaired(NotMended)
	for _, want := range []struct {
		name, result string
		n            float64
	}{
		{"ema_verifications_total", "whole", 3},
		{"ema_verifications_total", "damaged", 2},
		{"ema_verifications_total", "failed", 1},
		{"ema_repairs_total", "whole", 3},
		{"ema_repairs_total", "repaired", 2},
		{"ema_repairs_total", "failed", 1},
	} {
		if got := value(t, m, want.name, "result", want.result); got != want.n {
			t.Errorf("%s of %s is %v, want %v", want.name, want.result, got, want.n)
		}
	}
}
