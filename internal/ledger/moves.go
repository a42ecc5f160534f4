package ledger

import (
	"context"
	"errors"
	"math"
	"time"

	"ema/internal/model"
)

// RecordMove inserts m, or replaces the move of that model that was asked for at that time, and returns when that is
// durable. Calls at the same time share commits; when ctx ends before, it returns its error, and m was recorded whole or
// not at all.
func (l *Ledger) RecordMove(ctx context.Context, m model.Move) error {
	if m.Model.IsZero() || m.Asked.IsZero() {
		return &model.Error{Op: "write ledger", Class: model.Usage, Model: m.Model, Err: errors.New("a move has no model or no time")}
	}
	return l.moves.write(ctx, l, m, func(all ...model.Move) error {
		return insert(l, moveSQL, moveRow, all)
	})
}

// Moves are the moves that are over, the newest first: at most limit of them (all when it is 0 or less), after leaving
// out offset.
func (l *Ledger) Moves(ctx context.Context, limit, offset int) ([]model.Move, error) {
	most := int64(limit)
	if limit <= 0 {
		most = math.MaxInt64
	}
	return l.readMoves(ctx, "WHERE ended <> 0 ORDER BY ended DESC, asked DESC, model_name, model_scheme LIMIT $1 OFFSET $2", most, max(offset, 0))
}

// OpenMoves are the moves that are not over, in the order in which they were asked for.
func (l *Ledger) OpenMoves(ctx context.Context) ([]model.Move, error) {
	return l.readMoves(ctx, "WHERE ended = 0 ORDER BY asked, model_name, model_scheme")
}

// PruneMoves forgets moves that were over before a time, and says how many.
func (l *Ledger) PruneMoves(ctx context.Context, before time.Time) (int, error) {
	return l.change(ctx, "prune", "DELETE FROM moves WHERE ended <> 0 AND ended < $1", nanoseconds(before))
}

const moveColumns = "model_scheme, model_name, asked, from_tier, to_tier, by_hand, why, began, ended, bytes, result, error"

const moveSQL = "INSERT INTO moves (" + moveColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) " +
	"ON CONFLICT (model_name, model_scheme, asked) DO UPDATE SET from_tier = excluded.from_tier, to_tier = excluded.to_tier, " +
	"by_hand = excluded.by_hand, why = excluded.why, began = excluded.began, ended = excluded.ended, bytes = excluded.bytes, " +
	"result = excluded.result, error = excluded.error"

// moveRow is m as the columns have it.
func moveRow(m model.Move) ([]any, error) {
	byHand := 0 // not every database takes a boolean where another has none
	if m.ByHand {
		byHand = 1
	}
	return []any{
		string(m.Model.Scheme), m.Model.Name, nanoseconds(m.Asked), string(m.From), string(m.To), byHand, legible(m.Why),
		nanoseconds(m.Began), nanoseconds(m.Ended), int64(m.Bytes), m.Result, legible(m.Error),
	}, nil
}

// readMoves returns the rows that the end of a query selects.
func (l *Ledger) readMoves(ctx context.Context, rest string, values ...any) (found []model.Move, err error) {
	rows, err := l.db.QueryContext(ctx, "SELECT "+moveColumns+" FROM moves "+rest, values...)
	if err != nil {
		return nil, failure("read", l.path, err)
	}
	defer func() {
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			found, err = nil, failure("read", l.path, err)
		}
	}()
	for rows.Next() {
		var m model.Move
		var asked, began, ended int64
		if err := rows.Scan(&m.Model.Scheme, &m.Model.Name, &asked, &m.From, &m.To, &m.ByHand, &m.Why, &began, &ended, &m.Bytes, &m.Result, &m.Error); err != nil {
			return nil, err
		}
		m.Asked, m.Began, m.Ended = moment(asked), moment(began), moment(ended)
		found = append(found, m)
	}
	return found, nil
}
