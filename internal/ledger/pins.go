package ledger

import (
	"context"
	"errors"
	"time"

	"ema/internal/model"
)

// SetPin pins a model, or lets it loose, and returns when that is durable. Doing so twice does no harm.
func (l *Ledger) SetPin(ctx context.Context, id model.ID, pinned bool) error {
	if id.IsZero() {
		return &model.Error{Op: "write ledger", Class: model.Usage, Err: errors.New("a pin has no model")}
	}
	statement, values := "DELETE FROM pins WHERE model_scheme = $1 AND model_name = $2", []any{string(id.Scheme), id.Name}
	if pinned {
		statement = "INSERT INTO pins (model_scheme, model_name, pinned) VALUES ($1, $2, $3) ON CONFLICT (model_name, model_scheme) DO NOTHING"
		values = append(values, nanoseconds(time.Now()))
	}
	_, err := l.change(ctx, "write", statement, values...)
	return err
}

// Pins are the pinned models, in the order of their names.
func (l *Ledger) Pins(ctx context.Context) (pinned []model.ID, err error) {
	rows, err := l.db.QueryContext(ctx, "SELECT model_scheme, model_name FROM pins ORDER BY model_name, model_scheme")
	if err != nil {
		return nil, failure("read", l.path, err)
	}
	defer func() {
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			pinned, err = nil, failure("read", l.path, err)
		}
	}()
	for rows.Next() {
		var id model.ID
		if err := rows.Scan(&id.Scheme, &id.Name); err != nil {
			return nil, err
		}
		pinned = append(pinned, id)
	}
	return pinned, nil
}
