package ledger

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"ema/internal/model"
)

// longest is how much of a field of the audit trail is kept, in bytes: requests that are refused are recorded too, and
// must not fill the disk.
const longest = 512

// Record adds e to the audit trail, and returns when that is durable. Calls at the same time share commits; when ctx
// ends before, Record returns its error, and e was recorded whole or not at all. Fields longer than 512 bytes are cut,
// and a Target that is a URL loses its user and its query, which may be secrets.
func (l *Ledger) Record(ctx context.Context, e model.AuditEntry) error {
	return l.audits.write(ctx, l, e, func(all ...model.AuditEntry) error {
		return insert(l, recordSQL, auditRow, all)
	})
}

// Audit is the audit trail, the newest first: at most limit entries (all when it is 0 or less), after leaving out
// offset.
func (l *Ledger) Audit(ctx context.Context, limit, offset int) (trail []model.AuditEntry, err error) {
	most := int64(limit)
	if limit <= 0 {
		most = math.MaxInt64
	}
	rows, err := l.db.QueryContext(ctx, "SELECT at, who, role, action, target, result, request_id, remote FROM audit ORDER BY at DESC, number DESC LIMIT $1 OFFSET $2", most, max(offset, 0))
	if err != nil {
		return nil, failure("read", l.path, err)
	}
	defer func() {
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			trail, err = nil, failure("read", l.path, err)
		}
	}()
	for rows.Next() {
		var e model.AuditEntry
		var at int64
		if err := rows.Scan(&at, &e.Who, &e.Role, &e.Action, &e.Target, &e.Result, &e.RequestID, &e.Remote); err != nil {
			return nil, err
		}
		e.At = moment(at)
		trail = append(trail, e)
	}
	return trail, nil
}

// PruneAudit forgets what was audited before a time, and says how many entries that were.
func (l *Ledger) PruneAudit(ctx context.Context, before time.Time) (int, error) {
	return l.change(ctx, "prune", "DELETE FROM audit WHERE at < $1", nanoseconds(before))
}

// The number orders entries of the same moment. Databases count by themselves in different words; one writer can do
// it in words that all understand.
const recordSQL = "INSERT INTO audit (number, at, who, role, action, target, result, request_id, remote) " +
	"VALUES ((SELECT coalesce(max(number), 0) + 1 FROM audit), $1, $2, $3, $4, $5, $6, $7, $8)"

// auditRow is e as the columns have it.
func auditRow(e model.AuditEntry) ([]any, error) {
	if strings.Contains(e.Target, "://") {
		e.Target = model.Redact(e.Target)
	}
	values := []any{nanoseconds(e.At)}
	for _, text := range []string{e.Who, e.Role, e.Action, e.Target, e.Result, e.RequestID, e.Remote} {
		values = append(values, legible(text))
	}
	return values, nil
}

// legible is text as every database takes it, and not too long.
func legible(text string) string {
	const more = "…"
	if len(text) > longest {
		text = text[:longest-len(more)] + more // half a character is mended below
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
}
