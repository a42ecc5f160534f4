package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ema/client"
	"ema/internal/api/snapshot"
	"ema/internal/config"
	"ema/internal/event"
	"ema/internal/host"
	"ema/internal/model"
	"ema/internal/store"
	"ema/internal/tier"
)

// moves brings models to other tiers, one after the other: those that somebody asks for first, then those that the rules want.
type moves struct {
	d       *daemon
	threads *host.Pool // on which a move reads and writes, at the priority of its tiers
	wake    chan struct{}
	changed chan struct{} // the rules have

	mu   sync.Mutex
	list []*moving
}

// A moving is one move on its way.
type moving struct {
	id  model.ID
	to  model.Tier
	was model.Move // as the ledger has it
	m   client.ModelMove
	// stop gives it up; stopped says that somebody wanted that.
	stop    context.CancelFunc
	stopped bool
}

func newMoves(d *daemon) *moves {
	return &moves{d: d, threads: d.pools.io, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
}

// Move begins to move a model; see the API.
func (m *moves) Move(ctx context.Context, id model.ID, to model.Tier) (client.ModelMove, bool, error) {
	return m.begin(ctx, model.Move{Model: id, To: to, ByHand: true, Why: "somebody asked for it", Asked: time.Now().UTC()})
}

func (m *moves) begin(ctx context.Context, w model.Move) (client.ModelMove, bool, error) {
	kept, none := m.d.line.Store, client.ModelMove{}
	if !kept.Has(w.To) {
		return none, false, &model.Error{
			Op: "move", Class: model.Usage, Model: w.Model, Err: fmt.Errorf("there is no %s tier", w.To), Hint: "set storage_tiers." + string(w.To) + ".path",
		}
	}
	here, err := kept.Model(w.Model)
	if err != nil {
		return none, false, named("move", err)
	}
	if m.d.downloads(w.Model) {
		return none, false, &model.Error{
			Op: "move", Class: model.Busy, Model: w.Model, Err: errors.New("it is being downloaded"), Hint: "wait until it is here, or cancel its download",
		}
	}
	left := here.Size - here.Tiers[w.To]
	w.From = snapshot.Mostly(here.Tiers)
	one := client.ModelMove{
		Model: w.Model.Public(), From: string(w.From), To: string(w.To), State: client.MoveWaiting, TotalBytes: int64(left), Automatic: !w.ByHand, Reason: w.Why,
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.list {
		if other.id == w.Model && other.to == w.To {
			return other.m, true, nil
		}
		if other.id == w.Model {
			return none, false, &model.Error{
				Op: "move", Class: model.Busy, Model: w.Model, Err: fmt.Errorf("it is on its way to the %s tier", other.to),
				Hint: "wait, or give that up with: ema tier move " + shellWord(w.Model.Public()) + " --cancel",
			}
		}
	}
	if left == 0 {
		one.State, one.ProgressPercent = client.MoveDone, 100
		return one, false, nil
	}
	if err := m.allowed(ctx, w.Model, w.To, left); err != nil {
		return none, false, err
	}
	m.list = append(m.list, &moving{id: w.Model, to: w.To, was: w, m: one})
	m.tell(m.list[len(m.list)-1], event.MoveWaiting)
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return one, false, nil
}

// allowed refuses a move by which a tier's models would take more than they may. The lock is held.
func (m *moves) allowed(ctx context.Context, id model.ID, to model.Tier, more model.Bytes) error {
	most := largest(m.d.settingsNow().StorageTiers, to)
	if most == 0 {
		return nil
	}
	models, err := m.d.line.Store.Models(ctx)
	if err != nil {
		return err
	}
	var held model.Bytes
	for _, k := range models {
		held += k.Tiers[to]
	}
	for _, other := range m.list {
		if other.to == to {
			held += model.Bytes(other.m.TotalBytes - other.m.MovedBytes)
		}
	}
	return overfull(id, to, held, more, most)
}

// StopMove gives up the move of a model; what was moved stays moved.
func (m *moves) StopMove(_ context.Context, id model.ID) (client.ModelMove, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.list, func(one *moving) bool { return one.id == id })
	if i < 0 {
		return client.ModelMove{}, &model.Error{Op: "cancel the move", Class: model.NotFound, Model: id, Err: errors.New("it is not on its way to another tier")}
	}
	one := m.list[i]
	one.stopped = true
	if one.stop != nil {
		one.stop() // it tells its end
	} else {
		m.list = slices.Delete(m.list, i, i+1)
		one.m.State = client.MoveCancelled
		m.tell(one, event.MoveCancelled)
	}
	return one.m, nil
}

// Pin keeps a model where it is, or lets it loose.
func (m *moves) Pin(ctx context.Context, id model.ID, pinned bool) error {
	if _, err := m.d.line.Store.Model(id); err != nil && pinned {
		return named("pin", err)
	}
	if err := m.d.habits.pin(ctx, id, pinned); err != nil {
		return err
	}
	m.d.stored(id, "pinned")
	return nil
}

// pinsFit refuses tiers that may hold less than what is pinned in them.
func (m *moves) pinsFit(set config.StorageTiers) error {
	pinned := map[model.Tier]model.Bytes{}
	for _, id := range m.d.habits.pins() {
		k, err := m.d.line.Store.Model(id)
		if err != nil {
			continue // it is not here any more
		}
		for t, n := range k.Tiers {
			pinned[t] += n
		}
	}
	for _, t := range model.Tiers() {
		if most := largest(set, t); most > 0 && pinned[t] > most {
			return &model.Error{
				Op: "configuration", Class: model.Usage, Err: fmt.Errorf("storage_tiers.%s.max_size_gb allows %s, and the models pinned there take %s", t, most, pinned[t]),
				Hint: "raise it, or let some of them loose with: ema tier unpin MODEL",
			}
		}
	}
	return nil
}

// all are the moves on their way.
func (m *moves) all() []client.ModelMove {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []client.ModelMove
	for _, one := range m.list {
		all = append(all, one.m)
	}
	return all
}

// under are the models that are moved, or wait for that.
func (m *moves) under() map[model.ID]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	on := map[model.ID]bool{}
	for _, one := range m.list {
		on[one.id] = true
	}
	return on
}

// tell tells how a move stands. The lock is held.
func (m *moves) tell(one *moving, state string) {
	m.d.bus.Tell(event.Event{Kind: event.KindMove, Model: one.id, Data: event.Move{
		From: one.was.From, To: one.to, Done: model.Bytes(one.m.MovedBytes), Total: model.Bytes(one.m.TotalBytes), State: state, Error: one.m.Error,
	}})
}

// run moves until ctx ends. What a stop or a crash has cut short goes on.
func (m *moves) run(ctx context.Context) error {
	unfinished, err := m.d.line.Store.Resume()
	if err != nil {
		m.d.log.Warn("moves", "error", err.Error())
	}
	for _, u := range unfinished {
		_, _, err := m.begin(ctx, model.Move{Model: u.ID, To: u.To, ByHand: true, Why: "it was stopped half way", Asked: time.Now().UTC()})
		if err != nil {
			m.d.log.Warn("move not continued", "model", u.ID.Public(), "error", err.Error())
		}
	}
	for {
		one, under := m.next(ctx)
		if one != nil {
			m.carryOut(under, one)
			continue
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// next is the move whose turn it is: the first that a person asked for, else the first; nil when there is none.
func (m *moves) next(ctx context.Context) (*moving, context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == 0 || ctx.Err() != nil {
		return nil, nil
	}
	i := max(0, slices.IndexFunc(m.list, func(one *moving) bool { return one.was.ByHand }))
	one := m.list[i]
	var under context.Context
	under, one.stop = context.WithCancel(ctx)
	one.m.State = client.MoveMoving
	one.was.Began = time.Now().UTC()
	return one, under
}

// carryOut does one move, and tells and records how it went.
func (m *moves) carryOut(ctx context.Context, one *moving) {
	defer one.stop()
	done := m.d.heap.work()
	moved, err := m.move(ctx, one)
	done()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = slices.DeleteFunc(m.list, func(other *moving) bool { return other == one })
	state := event.MoveDone
	switch {
	case err == nil:
		one.m.State, one.m.ProgressPercent, one.m.MovedBytes = client.MoveDone, 100, one.m.TotalBytes
	case one.stopped && model.ClassOf(err) == model.Cancelled:
		state, one.m.State = event.MoveCancelled, client.MoveCancelled
	case ctx.Err() != nil:
		return // the daemon stops: it goes on at the next start
	default:
		state, one.m.State, one.m.Error = event.MoveFailed, client.MoveFailed, err.Error()
		m.d.log.Warn("move failed", "model", one.id.Public(), "to", string(one.to), "error", err.Error())
	}
	one.was.Ended, one.was.Result, one.was.Error, one.was.Bytes = time.Now().UTC(), state, one.m.Error, moved.Bytes
	record := context.WithoutCancel(ctx)
	if err := m.d.ledger.RecordMove(record, one.was); err != nil {
		m.d.log.Warn("move not recorded", "model", one.id.Public(), "error", err.Error())
	}
	if state != event.MoveDone {
		if err := m.d.line.Writer.Abandon(one.id); err != nil {
			m.d.log.Warn("move not given up", "model", one.id.Public(), "error", err.Error())
		}
	}
	m.tell(one, state)
	m.d.stored(one.id, "moved")
	if state == event.MoveDone {
		m.d.log.Info("moved", "model", one.id.Public(), "to", string(one.to), "bytes", moved.Bytes.String(), "why", one.was.Why)
	}
}

// moveToldEvery is how often the progress of a move is told.
const moveToldEvery = 250 * time.Millisecond

func (m *moves) move(ctx context.Context, one *moving) (moved store.Moved, err error) {
	leave, err := m.d.door.enter(ctx, one.id) // so that nothing of it is removed meanwhile
	if err != nil {
		return moved, err
	}
	defer leave()
	m.mu.Lock()
	m.tell(one, event.MoveMoving)
	m.mu.Unlock()
	told := time.Now()
	progress := func(n int64) {
		m.mu.Lock()
		defer m.mu.Unlock()
		one.m.MovedBytes += n
		one.m.ProgressPercent = float64(min(1000, 1000*one.m.MovedBytes/max(one.m.TotalBytes, 1))) / 10
		if now := time.Now(); now.Sub(told) >= moveToldEvery {
			told = now
			m.tell(one, event.MoveMoving)
		}
	}
	set := m.d.settingsNow().StorageTiers
	how := store.Moving{Progress: progress, Pace: paceOf(set, one.was.From, one.to, folders(m.d.line.Store)...)}
	err = m.threads.DoAt(ctx, slower(set, one.was.From, one.to), func(ctx context.Context) (err error) {
		moved, err = m.d.line.Writer.Move(ctx, one.id, one.to, how)
		return err
	})
	return moved, err
}

// slower is the I/O priority of a move between two tiers: the lower of both.
func slower(set config.StorageTiers, from, to model.Tier) host.IOPriority {
	one, other := section(set, from).IOPriority, section(set, to).IOPriority
	for _, p := range []host.IOPriority{host.IOLow, host.IONormal} {
		if one == string(p) || other == string(p) {
			return p
		}
	}
	return host.IOHigh
}

// downloads reports whether a model is being downloaded, or waits for that.
func (d *daemon) downloads(id model.ID) bool {
	return slices.ContainsFunc(d.queue.List(), func(dl model.Download) bool { return dl.Model == id })
}

// rule moves by the rules, every time that they say, until ctx ends.
func (m *moves) rule(ctx context.Context) error {
	for {
		c := m.d.settingsNow()
		set, management := c.StorageTiers, c.TierManagement
		m.d.habits.uses.Keep(windowOfUses(set))
		wait := management.CheckIntervalHours.Duration()
		if !management.AutoTieringEnabled || len(m.d.line.Store.Tiers()) < 2 {
			wait = 0
		} else if err := m.plan(ctx, set, management); err != nil && ctx.Err() == nil {
			m.d.log.Warn("tiers", "error", err.Error())
		}
		if !m.sleep(ctx, wait) {
			return nil
		}
	}
}

// sleep waits so long, or until the rules change; 0 is for ever. It reports whether ctx goes on.
func (m *moves) sleep(ctx context.Context, wait time.Duration) bool {
	var over <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		over = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-over:
	case <-m.changed:
	}
	return ctx.Err() == nil
}

// reconsider looks at the rules again, which have changed.
func (m *moves) reconsider() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// plan begins the moves that the rules want now.
func (m *moves) plan(ctx context.Context, set config.StorageTiers, management config.TierManagement) error {
	models, err := m.d.line.Store.Models(ctx)
	if err != nil {
		return err
	}
	arrived, err := m.arrivals(ctx)
	if err != nil {
		return err
	}
	on := m.under()
	var facts []tier.Facts
	for _, k := range models {
		f := tier.Facts{ID: k.ID, Tier: snapshot.Mostly(k.Tiers), Size: k.Size, Since: arrived[k.ID], Pinned: m.d.habits.isPinned(k.ID)}
		f.Busy = k.Size == 0 || len(k.Revisions) == 0 || k.Incomplete > 0 || k.Away != "" || on[k.ID] || m.d.downloads(k.ID)
		for _, r := range k.Revisions {
			if r.State == store.Damaged || r.State == store.Incomplete {
				f.Busy = true
			}
			if r.Record != nil && r.Record.CompletedAt.After(f.Since) {
				f.Since = r.Record.CompletedAt
			}
		}
		facts = append(facts, f)
	}
	for _, w := range tier.Plan(time.Now(), facts, m.d.habits.uses, rules(m.d.line.Store.Tiers(), set, management)) {
		w.Asked = time.Now().UTC()
		if _, _, err := m.begin(ctx, w); err != nil {
			m.d.log.Info("not moved", "model", w.Model.Public(), "to", string(w.To), "why", w.Why, "error", err.Error())
		}
	}
	return nil
}

// arrivals are when models came to the tier where they lie.
func (m *moves) arrivals(ctx context.Context) (map[model.ID]time.Time, error) {
	history, err := m.d.ledger.Moves(ctx, 0, 0)
	at := map[model.ID]time.Time{}
	for _, w := range history { // the newest first
		if _, newer := at[w.Model]; !newer && w.Result == event.MoveDone {
			at[w.Model] = w.Ended
		}
	}
	return at, err
}

// rules are those of the tiers that can be used now.
func rules(tiers []store.TierState, set config.StorageTiers, management config.TierManagement) tier.Rules {
	r := tier.Rules{
		Tiers: map[model.Tier]tier.Rule{}, Promotion: management.PromotionThreshold, Demotion: management.DemotionThreshold,
		Residency: tier.Residency(management.CheckIntervalHours.Duration()),
	}
	for _, t := range tiers {
		if t.State == store.TierMissing || t.State == store.TierReadOnly {
			continue
		}
		r.Tiers[t.Tier] = ruleOf(section(set, t.Tier))
	}
	return r
}
