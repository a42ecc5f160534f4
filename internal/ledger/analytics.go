package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"ema/internal/model"
)

// A Date is a day of the calendar, in whatever time zone a question is about. Dates can be compared with ==.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// DateOf is the day of t in its own time zone.
func DateOf(t time.Time) Date {
	y, m, d := t.Date()
	return Date{y, m, d}
}

// String is the date as in 2026-03-29.
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// Add is the day so many days later.
func (d Date) Add(days int) Date {
	return DateOf(time.Date(d.Year, d.Month, d.Day+days, 0, 0, 0, 0, time.UTC))
}

// Compare is less than 0 when d is earlier than o, 0 when it is the same.
func (d Date) Compare(o Date) int {
	return cmp.Or(cmp.Compare(d.Year, o.Year), cmp.Compare(d.Month, o.Month), cmp.Compare(d.Day, o.Day))
}

// Until is how many days o is later than d.
func (d Date) Until(o Date) int { return int(o.utc().Sub(d.utc()) / (24 * time.Hour)) }

func (d Date) utc() time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }

// A UsageQuestion is about how models were used on some days, both included, of a time zone.
type UsageQuestion struct {
	First, Last Date
	Zone        *time.Location
	Models      []model.ID // nil = all
	// Daily are the days before and with Last that are told one by one; 0 is none.
	Daily int
}

// A UsageSum is the sums of a model's uses.
type UsageSum struct {
	Model model.ID
	Quarter
}

// A UsageDay is the sums of a model's uses on one day.
type UsageDay struct {
	Date Date
	Quarter
}

// A ModelUsage tells how one model was used.
type ModelUsage struct {
	UsageSum
	Hours [24]int64  // uses by the hour of the day, as clocks of the zone showed it
	Days  []UsageDay // the daily ones, the oldest first, those without uses too
}

// A span is a part of a question's days as the days in UTC have them.
type span struct {
	first, last int64   // whole days; none when last < first
	edges       []int64 // days of which only some quarters belong
	within      func(day int64, quarter int) (Date, bool)
}

// spanOf finds the days in UTC that belong to the dates from first to last, which are of a zone.
func spanOf(first, last Date, zone *time.Location) span {
	date := func(day int64, quarter int) Date { return DateOf(quarterAt(day, quarter).In(zone)) }
	inside := func(d Date) bool { return first.Compare(d) <= 0 && d.Compare(last) <= 0 }
	s := span{first: 1, within: func(day int64, quarter int) (Date, bool) {
		d := date(day, quarter)
		return d, inside(d)
	}}
	from, _ := dayOf(first.utc().UnixNano())
	to, _ := dayOf(last.utc().UnixNano())
	const margin = 2 // no clock is more than a day away from UTC: of the days in the middle all belongs
	for day := from - margin; day <= to+margin; day++ {
		all, some := true, true
		if day < from+margin || day > to-margin {
			some = false
			for q := range quartersOfDay {
				in := inside(date(day, q))
				all, some = all && in, some || in
			}
		}
		switch {
		case all && s.last < s.first:
			s.first, s.last = day, day
		case all: // dates follow each other, and so do days that belong as a whole
			s.last = day
		case some:
			s.edges = append(s.edges, day)
		}
	}
	return s
}

// UsageSums are the sums of each model that was used on the days of a question, in the order of their names.
func (l *Ledger) UsageSums(ctx context.Context, q UsageQuestion) ([]UsageSum, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	s := spanOf(q.First, q.Last, q.Zone)
	names, err := l.names(ctx)
	if err != nil {
		return nil, err
	}
	only := q.only(names)
	sums := map[int64]Quarter{}
	if s.first <= s.last {
		rows, err := list(ctx, l, func(rows *sql.Rows) (r struct {
			number int64
			Quarter
		}, err error,
		) {
			var duration float64 // a sum of what people claim may be too large for an integer
			err = rows.Scan(&r.number, &r.Times, &r.Failures, &r.Timed, &duration)
			r.Duration = int64(min(duration, most))
			return r, err
		}, "SELECT model_id, CAST(sum(times) AS BIGINT), CAST(sum(failures) AS BIGINT), CAST(sum(timed) AS BIGINT), sum(CAST(duration_us AS DOUBLE PRECISION)) FROM usage_days "+
			"WHERE day >= $1 AND day <= $2"+only+" GROUP BY model_id", s.first, s.last)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			sums[r.number] = r.Quarter
		}
	}
	for _, day := range s.edges {
		err := l.quarters(ctx, "day = $1"+only, []any{day}, func(number, day int64, quarter int, v Quarter) {
			if _, in := s.within(day, quarter); in {
				sum := sums[number]
				sum.add(v)
				sums[number] = sum
			}
		})
		if err != nil {
			return nil, err
		}
	}
	all := make([]UsageSum, 0, len(sums))
	for number, sum := range sums {
		all = append(all, UsageSum{names[number], sum})
	}
	slices.SortFunc(all, func(a, b UsageSum) int { return compareID(a.Model, b.Model) })
	return all, nil
}

// UsageOf tells of each of a question's models how it was used, in their order. It is for a page of models: a question
// without models is about none.
func (l *Ledger) UsageOf(ctx context.Context, q UsageQuestion) ([]ModelUsage, error) {
	if err := q.check(); err != nil || len(q.Models) == 0 {
		return nil, err
	}
	daily := q.Last.Add(1 - q.Daily)
	earliest := q.First
	if daily.Compare(earliest) < 0 {
		earliest = daily
	}
	names, err := l.names(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]ModelUsage, len(q.Models))
	place := map[model.ID]*ModelUsage{}
	for i, id := range q.Models {
		all[i].Model = id
		for d := range q.Daily {
			all[i].Days = append(all[i].Days, UsageDay{Date: daily.Add(d)})
		}
		place[id] = &all[i]
	}
	from, _ := dayOf(earliest.utc().UnixNano())
	to, _ := dayOf(q.Last.utc().UnixNano())
	clock := clocks(q.Zone)
	err = l.quarters(ctx, "day >= $1 AND day <= $2"+q.only(names), []any{from - 1, to + 1}, func(number, day int64, quarter int, v Quarter) {
		m := place[names[number]]
		if m == nil {
			return
		}
		date, hour := clock(day, quarter)
		if q.First.Compare(date) <= 0 && date.Compare(q.Last) <= 0 {
			m.add(v)
			m.Hours[hour] = plus(m.Hours[hour], v.Times)
		}
		if i := daily.Until(date); i >= 0 && i < len(m.Days) {
			m.Days[i].add(v)
		}
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// clocks tells date and hour of quarters. The same days come up for each model: they are worked out once.
func clocks(zone *time.Location) func(day int64, quarter int) (Date, int) {
	type shown struct {
		date Date
		hour int
	}
	known := map[int64]*[quartersOfDay]shown{}
	return func(day int64, quarter int) (Date, int) {
		of := known[day]
		if of == nil {
			of = new([quartersOfDay]shown)
			for i := range of {
				t := quarterAt(day, i).In(zone)
				of[i] = shown{DateOf(t), t.Hour()}
			}
			known[day] = of
		}
		return of[quarter].date, of[quarter].hour
	}
}

// check refuses questions that mean nothing.
func (q UsageQuestion) check() error {
	if q.Last.Compare(q.First) < 0 || q.Zone == nil || q.Daily < 0 {
		return &model.Error{Op: "read ledger", Class: model.Usage, Err: fmt.Errorf("the days from %s to %s are none", q.First, q.Last)}
	}
	return nil
}

// only is a condition for the models of a question, by their numbers.
func (q UsageQuestion) only(names map[int64]model.ID) string {
	if q.Models == nil {
		return ""
	}
	wanted := make(map[model.ID]bool, len(q.Models))
	for _, id := range q.Models {
		wanted[id] = true
	}
	numbers := []string{"-1"} // which is none's
	for n, id := range names {
		if wanted[id] {
			numbers = append(numbers, strconv.FormatInt(n, 10))
		}
	}
	return " AND model_id IN (" + strings.Join(numbers, ",") + ")"
}

// quarters calls f with each quarter of an hour that has uses, of the days that fit.
func (l *Ledger) quarters(ctx context.Context, where string, values []any, f func(number, day int64, quarter int, q Quarter)) error {
	rows, err := l.db.QueryContext(ctx, "SELECT model_id, day, quarters FROM usage_days WHERE "+where, values...)
	if err != nil {
		return failure("read", l.path, err)
	}
	for err == nil && rows.Next() {
		var number, day int64
		var raw sql.RawBytes
		if err = rows.Scan(&number, &day, &raw); err == nil {
			err = decodeQuarters(raw, func(quarter int, q Quarter) { f(number, day, quarter, q) })
		}
	}
	if err = errors.Join(err, closing(rows)); err != nil {
		return failure("read", l.path, err)
	}
	return nil
}

// names are the models by their numbers.
func (l *Ledger) names(ctx context.Context) (map[int64]model.ID, error) {
	type named struct {
		number int64
		id     model.ID
	}
	rows, err := list(ctx, l, func(rows *sql.Rows) (n named, err error) {
		return n, rows.Scan(&n.number, &n.id.Scheme, &n.id.Name)
	}, "SELECT number, model_scheme, model_name FROM models")
	if err != nil {
		return nil, err
	}
	all := make(map[int64]model.ID, len(rows))
	for _, n := range rows {
		all[n.number] = n.id
	}
	return all, nil
}

// compareID orders models by their names.
func compareID(a, b model.ID) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Scheme, b.Scheme))
}

// RawUses calls f with each use that is kept from one time until before another, in the order of their times, until f returns
// an error, which RawUses then returns.
func (l *Ledger) RawUses(ctx context.Context, from, to time.Time, f func(model.Use) error) error {
	rows, err := l.db.QueryContext(ctx, "SELECT m.model_scheme, m.model_name, u.timestamp, u.source, u.operation, u.duration_us, u.bytes, u.success "+
		"FROM model_usage AS u JOIN models AS m ON m.number = u.model_id WHERE u.timestamp >= $1 AND u.timestamp < $2 ORDER BY u.timestamp", nanoseconds(from), nanoseconds(to))
	if err != nil {
		return failure("read", l.path, err)
	}
	var stopped error // by f: no failure of the ledger
	for err == nil && stopped == nil && rows.Next() {
		var u model.Use
		var at, duration int64
		var ok int
		if err = rows.Scan(&u.Model.Scheme, &u.Model.Name, &at, &u.By, &u.Operation, &duration, &u.Bytes, &ok); err == nil {
			u.At, u.Duration, u.OK = moment(at), time.Duration(duration)*time.Microsecond, ok == 1
			stopped = f(u)
		}
	}
	if err = errors.Join(err, closing(rows)); err != nil {
		return failure("read", l.path, err)
	}
	return stopped
}
