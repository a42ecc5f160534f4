package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// A Quarter is the sums of a quarter of an hour: since 2012 no time zone has begun its days or its hours at another
// moment than one of these.
type Quarter struct {
	Times    int64 // uses, failed ones too
	Failures int64 // of these
	Timed    int64 // of these, how many have a duration
	Duration int64 // microseconds of the timed ones together
}

// quartersOfDay is how many a day in UTC has.
const quartersOfDay = 96

// quarterHour is how long one lasts.
const quarterHour = 15 * time.Minute

// dayOf is the number of a day, and of a quarter in it, of a time in nanoseconds since 1970.
func dayOf(at int64) (day int64, quarter int) {
	n := at / int64(quarterHour)
	if at%int64(quarterHour) < 0 {
		n--
	}
	day, quarter = n/quartersOfDay, int(n%quartersOfDay)
	if quarter < 0 {
		day, quarter = day-1, quarter+quartersOfDay
	}
	return day, quarter
}

// quarterAt is when a quarter of a day begins.
func quarterAt(day int64, quarter int) time.Time {
	return time.Unix((day*quartersOfDay+int64(quarter))*int64(quarterHour/time.Second), 0).UTC()
}

// A usageDay is a row of usage_days.
type usageDay struct {
	sum         Quarter
	bytes, last int64
	quarters    [quartersOfDay]Quarter
}

// add adds what happened in a quarter.
func (d *usageDay) add(quarter int, q Quarter, bytes, last int64) {
	if d.sum.Times == 0 {
		d.last = math.MinInt64
	}
	d.sum.add(q)
	d.quarters[quarter].add(q)
	d.bytes = plus(d.bytes, bytes)
	d.last = max(d.last, last)
}

// merge adds another of the same day.
func (d *usageDay) merge(o *usageDay) {
	for i, q := range o.quarters {
		d.quarters[i].add(q)
	}
	d.sum.add(o.sum)
	d.bytes = plus(d.bytes, o.bytes)
	d.last = max(d.last, o.last)
}

func (q *Quarter) add(o Quarter) {
	q.Times = plus(q.Times, o.Times)
	q.Failures = plus(q.Failures, o.Failures)
	q.Timed = plus(q.Timed, o.Timed)
	q.Duration = plus(q.Duration, o.Duration)
}

// encodeQuarters is the form in which quarters are stored: of each that has uses its number and its four figures, as
// variable-length integers. Most models are used in a few quarters of a day.
func encodeQuarters(all *[quartersOfDay]Quarter) []byte {
	out := []byte{}
	for i, q := range all {
		if q == (Quarter{}) {
			continue
		}
		out = append(out, byte(i))
		for _, v := range []int64{q.Times, q.Failures, q.Timed, q.Duration} {
			out = binary.AppendUvarint(out, uint64(v))
		}
	}
	return out
}

// decodeQuarters is the reverse: it calls f with each quarter that has uses, in their order.
func decodeQuarters(raw []byte, f func(quarter int, q Quarter)) error {
	last := -1
	for len(raw) > 0 {
		i := int(raw[0])
		if i <= last || i >= quartersOfDay {
			return fmt.Errorf("the quarter %d of a day stands after the quarter %d", i, last)
		}
		last, raw = i, raw[1:]
		var v [4]int64
		for k := range v {
			n, size := binary.Uvarint(raw)
			if size <= 0 || n > most {
				return errors.New("a figure of a quarter cannot be read")
			}
			v[k], raw = int64(n), raw[size:]
		}
		f(i, Quarter{Times: v[0], Failures: v[1], Timed: v[2], Duration: v[3]})
	}
	return nil
}
