package tier

import (
	"testing"
	"time"

	"ema/internal/model"
)

func heavy() bool { return true }

func light() bool { return false }

func TestALoaderThatOpensAFileManyTimesUsesItsModelOnce(t *testing.T) {
	id, other := model.ID{Name: "acme/a"}, model.ID{Name: "acme/b"}
	const large = 5 * model.GiB
	for promise, c := range map[string]struct {
		every time.Duration
		opens int
		want  int
	}{
		"two hundred times at once":       {time.Millisecond, 200, 1},
		"for minutes":                     {59 * time.Second, 50, 1},
		"twice, after a minute of quiet":  {61 * time.Second, 2, 2},
		"for three hours without a break": {time.Minute, 181, 4},
	} {
		t.Run(promise, func(t *testing.T) {
			o, at, uses := NewObserver(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), 0
			for range c.opens {
				if o.Opened(id, large, heavy, at) {
					uses++
				}
				at = at.Add(c.every)
			}
			if uses != c.want {
				t.Errorf("%d uses, want %d", uses, c.want)
			}
			if !o.Opened(other, large, heavy, at) {
				t.Error("another model is not used")
			}
		})
	}
}

func TestALookAtTheConfigurationIsNoUse(t *testing.T) {
	o, now := NewObserver(), time.Now()
	id := model.ID{Name: "acme/a"}
	if o.Opened(id, model.KiB, heavy, now) {
		t.Error("a small file of a large model counts")
	}
	if !o.Opened(id, model.MiB+1, heavy, now) {
		t.Error("a large one does not")
	}
	if !o.Opened(model.ID{Name: "acme/small"}, model.KiB, light, now) {
		t.Error("a model of small files is never used")
	}
	o.Withdraw(id)
	if !o.Opened(id, model.GiB, heavy, now.Add(time.Second)) {
		t.Error("what was withdrawn counts")
	}
	o.Opened(id, model.GiB, heavy, now.Add(time.Hour))
	if len(o.bursts) != 1 {
		t.Errorf("%d models are remembered", len(o.bursts))
	}
}

func TestAModelOfManySmallFilesIsLookedAtOnceInAUse(t *testing.T) {
	o, at, asked, uses := NewObserver(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), 0, 0
	for range 2000 {
		if o.Opened(model.ID{Name: "acme/small"}, model.KiB, func() bool { asked++; return false }, at) {
			uses++
		}
		at = at.Add(time.Millisecond)
	}
	if uses != 1 || asked != 1 {
		t.Errorf("2000 opens are %d uses, and the model's files are looked at %d times", uses, asked)
	}
}

func TestALookAtTheConfigurationDoesNotLengthenAUse(t *testing.T) {
	o, at := NewObserver(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	id := model.ID{Name: "acme/a"}
	o.Opened(id, model.GiB, heavy, at)
	o.Opened(id, model.KiB, heavy, at.Add(50*time.Second))
	if !o.Opened(id, model.GiB, heavy, at.Add(100*time.Second)) {
		t.Error("weights that are opened after a minute of quiet are no new use")
	}
}
