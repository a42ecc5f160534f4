package ledger_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"ema/internal/ledger"
	"ema/internal/model"
)

func keepsPins(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	link := model.ID{Scheme: model.HTTPS, Name: "https://host.example/acme/a?sig='; --"}
	for _, id := range []model.ID{acme("b"), link, acme("a"), acme("c"), acme("a")} {
		if err := l.SetPin(t.Context(), id, true); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := l.SetPin(t.Context(), acme("c"), false); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, l)
	l = open()
	defer shut(t, l)
	if got, err := l.Pins(t.Context()); err != nil || !slices.Equal(got, []model.ID{acme("a"), acme("b"), link}) {
		t.Errorf("pinned are %v, %v", got, err)
	}
	if err := l.SetPin(t.Context(), model.ID{}, true); model.ClassOf(err) != model.Usage {
		t.Errorf("pinning nothing: %v", err)
	}
}

// moved is a move that was asked for so many minutes after noon, with something in every field.
func moved(name string, minutes int) model.Move {
	asked := noon().Add(time.Duration(minutes) * time.Minute)
	return model.Move{
		Model: acme(name), From: model.Hot, To: model.Cold, ByHand: true, Why: "asked for; ü 模型 '",
		Asked: asked, Began: asked.Add(time.Second), Ended: asked.Add(time.Hour), Bytes: 7 * model.GiB, Result: "failed", Error: "cold is full",
	}
}

func recordMoves(t *testing.T, l *ledger.Ledger, moves ...model.Move) {
	t.Helper()
	for _, m := range moves {
		if err := l.RecordMove(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func keepsMoves(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	waiting, begun := moved("waits", 9), moved("moves", 8)
	waiting.Began, waiting.Ended, waiting.Result, waiting.Error, waiting.Bytes, waiting.ByHand = time.Time{}, time.Time{}, "", "", 0, false
	begun.Ended, begun.Result, begun.Error = time.Time{}, "", ""
	before := moved("a", 1)
	before.Began, before.Ended, before.Result = time.Time{}, time.Time{}, ""
	recordMoves(t, l, waiting, begun, before, moved("a", 2), moved("b", 3), moved("a", 1))
	shut(t, l)
	l = open()
	defer shut(t, l)
	if got, err := l.OpenMoves(t.Context()); err != nil || !reflect.DeepEqual(got, []model.Move{begun, waiting}) {
		t.Errorf("open are %+v, %v", got, err)
	}
	history := []model.Move{moved("b", 3), moved("a", 2), moved("a", 1)}
	for _, c := range []struct {
		limit, offset int
		want          []model.Move
	}{
		{0, 0, history}, {-1, -1, history}, {2, 0, history[:2]}, {2, 2, history[2:]}, {2, 3, nil},
	} {
		if got, err := l.Moves(t.Context(), c.limit, c.offset); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("limit %d offset %d: %+v, %v; want %+v", c.limit, c.offset, got, err, c.want)
		}
	}
	for _, nothing := range []model.Move{{Asked: noon()}, {Model: acme("a")}} {
		if err := l.RecordMove(t.Context(), nothing); model.ClassOf(err) != model.Usage {
			t.Errorf("%+v: %v", nothing, err)
		}
	}
}

func prunesMoves(t *testing.T, open func() *ledger.Ledger) {
	l := open()
	defer shut(t, l)
	begun := moved("moves", 0)
	begun.Ended = time.Time{}
	recordMoves(t, l, begun, moved("a", 1), moved("b", 2), moved("c", 3))
	if n, err := l.PruneMoves(t.Context(), moved("b", 2).Ended); n != 1 || err != nil {
		t.Errorf("forgot %d, %v; want 1", n, err)
	}
	if got, err := l.Moves(t.Context(), 0, 0); err != nil || len(got) != 2 {
		t.Errorf("left are %+v, %v", got, err)
	}
	if got, err := l.OpenMoves(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("open are %+v, %v", got, err)
	}
}
