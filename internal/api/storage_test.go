package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/api/trust"
	"ema/internal/event"
	"ema/internal/model"
)

// A rack has a hot and a cold tier. acme/going is being downloaded, acme/moving on its way to the cold tier, and
// acme/large fits nowhere.
type rack struct{ pinned map[model.ID]bool }

func (r *rack) Move(_ context.Context, id model.ID, to model.Tier) (client.ModelMove, bool, error) {
	m := client.ModelMove{Model: id.Public(), From: "hot", To: string(to), State: client.MoveWaiting, TotalBytes: 5}
	fail := func(class model.Class, why string) (client.ModelMove, bool, error) {
		return client.ModelMove{}, false, &model.Error{Op: "move", Class: class, Model: id, Err: errors.New(why), Short: 7 * model.Bytes(class/model.DiskFull)}
	}
	switch {
	case id == hub("acme/none"):
		return fail(model.NotFound, "it is not here")
	case to == model.Warm:
		return fail(model.Usage, "there is no warm tier")
	case id == hub("acme/going"):
		return fail(model.Busy, "it is being downloaded")
	case id == hub("acme/large"):
		return fail(model.DiskFull, "7 B too few")
	case id == hub("acme/moving") && to == model.Cold:
		m.State, m.ProgressPercent = client.MoveMoving, 50
		return m, true, nil
	case id == hub("acme/moving"):
		return fail(model.Busy, "it is on its way to the cold tier")
	case to == model.Hot:
		m.State, m.To = client.MoveDone, "hot"
	}
	return m, false, nil
}

func (r *rack) StopMove(_ context.Context, id model.ID) (client.ModelMove, error) {
	if id == hub("acme/none") {
		return client.ModelMove{}, &model.Error{Op: "cancel", Class: model.NotFound, Model: id, Err: errors.New("it is not being moved")}
	}
	return client.ModelMove{Model: id.Public(), From: "hot", To: "cold", State: client.MoveCancelled}, nil
}

func (r *rack) Pin(_ context.Context, id model.ID, pinned bool) error {
	if id == hub("acme/none") {
		return &model.Error{Op: "pin", Class: model.NotFound, Model: id, Err: errors.New("it is not here")}
	}
	if r.pinned == nil {
		r.pinned = map[model.ID]bool{}
	}
	r.pinned[id] = pinned
	return nil
}

// sweep removes acme/old, and keeps acme/here.
func sweep(_ context.Context, c Cleaning) ([]Cleaned, error) {
	return []Cleaned{
		{Model: hub("acme/old"), Action: client.CleanupRemoveModel, Reason: "nobody has used it for 90 days", Freed: 3 * model.GiB},
		{Model: hub("acme/here"), Action: client.CleanupKeep, Reason: "it is pinned"},
	}, nil
}

func TestAMoveIsBegunAndToldHowItStands(t *testing.T) {
	s, _, _ := whole(t)
	for body, want := range map[string]client.Moved{
		`{"model_id":"acme/here","tier":"cold"}`: {
			Message: "acme/here: is moved to the cold tier", ModelMove: client.ModelMove{Model: "acme/here", From: "hot", To: "cold", State: "waiting", TotalBytes: 5},
		},
		`{"model_id":"acme/moving","tier":"cold"}`: {
			Message: "acme/moving: is on its way to the cold tier already", Existing: true,
			ModelMove: client.ModelMove{Model: "acme/moving", From: "hot", To: "cold", State: "moving", ProgressPercent: 50, TotalBytes: 5},
		},
		`{"model_id":"acme/here","tier":"hot"}`: {
			Message: "acme/here: is in the hot tier already", ModelMove: client.ModelMove{Model: "acme/here", From: "hot", To: "hot", State: "done", TotalBytes: 5},
		},
		`{"model_id":"acme/moving","cancel":true}`: {
			Message: "acme/moving: its move is given up", ModelMove: client.ModelMove{Model: "acme/moving", From: "hot", To: "cold", State: "cancelled"},
		},
	} {
		want.Success = true
		var got client.Moved
		read(t, ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/storage/move", body), &got)
		if got != want {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

func TestAMoveThatCannotBeIsRefusedWithTheReason(t *testing.T) {
	for promise, c := range map[string]struct {
		body   string
		status int
		code   Code
		path   string // of the wrong field
		says   string
	}{
		"an unknown model":               {`{"model_id":"acme/none","tier":"cold"}`, 404, ModelNotFound, "", "it is not here"},
		"a tier that is none":            {`{"model_id":"acme/here","tier":"lukewarm"}`, 422, Invalid, "tier", `"hot, warm, cold", not "lukewarm"`},
		"a tier that is not configured":  {`{"model_id":"acme/here","tier":"warm"}`, 422, Invalid, "tier", "there is no warm tier"},
		"no tier":                        {`{"model_id":"acme/here"}`, 422, Invalid, "tier", "it is missing"},
		"a tier and its contrary":        {`{"model_id":"acme/here","tier":"cold","cancel":true}`, 422, Invalid, "cancel", "instead of tier"},
		"a model that is none":           {`{"model_id":"a/b/c","tier":"cold"}`, 422, Invalid, "model_id", "slash"},
		"a tier without room":            {`{"model_id":"acme/large","tier":"cold"}`, 507, NoSpace, "", "7 B too few"},
		"a model that is downloaded":     {`{"model_id":"acme/going","tier":"cold"}`, 409, WrongState, "", "it is being downloaded"},
		"a model that is moved":          {`{"model_id":"acme/moving","tier":"hot"}`, 409, WrongState, "", "on its way to the cold tier"},
		"a move that is not to be found": {`{"model_id":"acme/none","cancel":true}`, 404, ModelNotFound, "", "it is not being moved"},
	} {
		s, _, _ := whole(t)
		res := ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/storage/move", c.body)
		e := no(t, res)
		if res.StatusCode != c.status || e.Code != c.code || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %s, %+v", promise, res.Status, e)
		}
		if c.path != "" && (len(e.Details.Fields) != 1 || e.Details.Fields[0].Path != c.path) {
			t.Errorf("%s: the fields are %+v, want %s", promise, e.Details.Fields, c.path)
		}
		switch promise {
		case "a tier without room":
			if e.Details.ShortBytes != 7 || e.Details.Model != "acme/large" {
				t.Errorf("%s: %+v", promise, e.Details)
			}
		case "a model that is downloaded":
			if e.Details.State != "DOWNLOADING" || !strings.Contains(strings.Join(e.Details.Allowed, " "), "pause") {
				t.Errorf("%s: %+v", promise, e.Details)
			}
		case "a model that is moved":
			if e.Details.State != "MOVING" || e.Details.Allowed[0] != "cancel" {
				t.Errorf("%s: %+v", promise, e.Details)
			}
		}
	}
}

func TestAPinHoldsUntilItIsTakenBack(t *testing.T) {
	s, _, _ := whole(t)
	r := &rack{}
	s.Tiers = r
	for _, pinned := range []string{"true", "false"} {
		var got client.Pinned
		read(t, ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/storage/pin", `{"model_id":"acme/here","pinned":`+pinned+`}`), &got)
		if !got.Success || got.Model != "acme/here" || got.Pinned != (pinned == "true") || r.pinned[hub("acme/here")] != got.Pinned {
			t.Errorf("%s: %+v, %v", pinned, got, r.pinned)
		}
	}
	if res := ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/storage/pin", `{"model_id":"acme/here"}`); res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("without pinned: %s", res.Status)
	}
}

func TestACleanupIsAskedForAsItWasMeant(t *testing.T) {
	day := 24 * time.Hour
	for body, want := range map[string]Cleaning{
		`{"cleanup_type":"auto"}`: {KeepFrequent: true},
		`{"cleanup_type":"auto","min_unused_days":1.5,"preserve_frequently_used":false,"dry_run":true}`: {MinUnused: new(36 * time.Hour), DryRun: true},
		`{"cleanup_type":"auto","min_unused_days":0}`:                                                   {MinUnused: new(0 * day), KeepFrequent: true},
		`{"cleanup_type":"manual","models_to_remove":["acme/here","acme/old","acme/here"]}`:             {Models: []model.ID{hub("acme/here"), hub("acme/old")}, KeepFrequent: true},
	} {
		s, _, _ := whole(t)
		var got *Cleaning
		s.Clean = func(_ context.Context, c Cleaning) ([]Cleaned, error) {
			got = &c
			return nil, nil
		}
		res := ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/cleanup", body)
		if got == nil {
			t.Errorf("%s: %s", body, res.Status)
			continue
		}
		same := got.KeepFrequent == want.KeepFrequent && got.DryRun == want.DryRun && len(got.Models) == len(want.Models) && (got.MinUnused == nil) == (want.MinUnused == nil)
		if !same || want.MinUnused != nil && *got.MinUnused != *want.MinUnused {
			t.Errorf("%s: %+v, want %+v", body, got, want)
		}
	}
}

func TestACleanupThatContradictsItselfRemovesNothing(t *testing.T) {
	for body, path := range map[string]string{
		`{}`:                            "cleanup_type",
		`{"cleanup_type":"everything"}`: "cleanup_type",
		`{"cleanup_type":"manual"}`:     "models_to_remove",
		`{"cleanup_type":"manual","models_to_remove":[]}`:                                            "models_to_remove",
		`{"cleanup_type":"manual","models_to_remove":["acme/here","a/b/c"]}`:                         "models_to_remove[1]",
		`{"cleanup_type":"auto","models_to_remove":["acme/here"]}`:                                   "models_to_remove",
		`{"cleanup_type":"manual","models_to_remove":["acme/here"],"min_unused_days":3}`:             "min_unused_days",
		`{"cleanup_type":"manual","models_to_remove":["acme/here"],"preserve_frequently_used":true}`: "preserve_frequently_used",
		`{"cleanup_type":"auto","min_unused_days":-1}`:                                               "min_unused_days",
		`{"cleanup_type":"auto","dryrun":true}`:                                                      "dryrun",
	} {
		s, _, _ := whole(t)
		s.Clean = func(context.Context, Cleaning) ([]Cleaned, error) {
			t.Errorf("%s cleans up", body)
			return nil, nil
		}
		res := ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/cleanup", body)
		if e := no(t, res); res.StatusCode != http.StatusUnprocessableEntity || len(e.Details.Fields) != 1 || e.Details.Fields[0].Path != path {
			t.Errorf("%s: %s, %+v", body, res.Status, e.Details.Fields)
		}
	}
}

func TestEachModelOfACleanupCountsOnce(t *testing.T) {
	s, _, _ := whole(t)
	decided := []Cleaned{
		{Action: client.CleanupCollect, Reason: "no revision needs it", Freed: 1},
		{Model: hub("acme/gone"), Action: client.CleanupCollect, Reason: "no revision needs it", Freed: 2},
		{Model: hub("acme/gone"), Action: client.CleanupRemoveModel, Reason: "unused", Freed: 4},
		{Model: hub("acme/old"), Action: client.CleanupRemoveRevision, Reason: "superseded", Freed: 8},
		{Model: hub("acme/old"), Action: client.CleanupKeep, Reason: "used today", Freed: 16},
		{Model: hub("acme/kept"), Action: client.CleanupKeep, Reason: "pinned", Freed: 32},
		{Model: hub("acme/bad"), Action: client.CleanupCollect, Reason: "no revision needs it", Freed: 64},
		{Model: hub("acme/bad"), Action: client.CleanupRemoveModel, Reason: "unused", Freed: 128, Err: errors.New("the disk is gone")},
	}
	s.Clean = func(context.Context, Cleaning) ([]Cleaned, error) { return decided, nil }
	var got client.CleanedUp
	read(t, ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/cleanup", `{"cleanup_type":"auto"}`), &got)
	if got.Success || strings.Join(got.Removed, " ") != "acme/gone" || strings.Join(got.Preserved, " ") != "acme/old acme/kept" || got.FreedBytes != 1+2+4+8+64 ||
		got.Summary != (client.CleanupSummary{Processed: 4, Removed: 1, Preserved: 2, Errors: 1}) || len(got.Items) != len(decided) || !strings.HasPrefix(got.ID, "cl_") {
		t.Errorf("%+v", got)
	}
	if last := got.Items[7]; last.Error != "the disk is gone" || last.FreedBytes != 0 {
		t.Errorf("what failed is told as %+v", last)
	}
	decided = decided[:3]
	read(t, ask(t, s.Handler(), trust.PowerUser, "POST", Base+"/models/cleanup", `{"cleanup_type":"auto","dry_run":true}`), &got)
	if !got.Success || !got.DryRun || got.Message != "would remove 1, keep 0 and free 7 B" {
		t.Errorf("%+v", got)
	}
}

func TestAUseIsCountedAsItWasTold(t *testing.T) {
	for body, want := range map[string]model.Use{
		`{"model_id":"acme/here"}`: {OK: true},
		`{"model_id":"acme/here","operation":"generate","duration_ms":12.5,"success":false,"bytes":4096}`: {Operation: "generate", Duration: 12500 * time.Microsecond, Bytes: 4096},
	} {
		s, _, _ := whole(t)
		var got model.Use
		s.Use = func(_ context.Context, u model.Use) error {
			got = u
			return nil
		}
		var told client.Used
		read(t, ask(t, s.Handler(), trust.User, "POST", Base+"/models/usage", body), &told)
		want.Model, want.By, want.At = hub("acme/here"), model.UseByAPI, got.At
		if got != want || !told.Success || !told.At.Equal(got.At) || time.Since(got.At) > time.Minute {
			t.Errorf("%s: %+v, want %+v; told %+v", body, got, want, told)
		}
	}
}

func TestWhatIsToldOfMovesAndTiersGoesOverTheWire(t *testing.T) {
	e := tell(event.Event{Kind: event.KindMove, Model: hub("acme/here"), Data: event.Move{
		From: model.Hot, To: model.Cold, Done: 1, Total: 4, State: event.MoveMoving,
	}}, nil)
	if e.Type != "move" || e.Model != "acme/here" || *e.Move != (client.MoveEvent{From: "hot", To: "cold", State: client.MoveMoving, ProgressPercent: 25, MovedBytes: 1, TotalBytes: 4}) {
		t.Errorf("%+v", e)
	}
	e = tell(event.Event{Kind: event.KindTier, Data: event.Tier{Tier: model.Cold, State: "missing", Problem: "mount it"}}, nil)
	if e.Type != "tier" || *e.Tier != (client.TierEvent{Tier: "cold", State: client.TierMissing, Problem: "mount it"}) {
		t.Errorf("%+v", e)
	}
	for there, want := range map[string]string{
		event.MoveWaiting: client.MoveWaiting, event.MoveMoving: client.MoveMoving, event.MoveDone: client.MoveDone,
		event.MoveFailed: client.MoveFailed, event.MoveCancelled: client.MoveCancelled,
	} {
		if there != want {
			t.Errorf("clients read %q as %q", there, want)
		}
	}
}
