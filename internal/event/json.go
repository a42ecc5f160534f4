package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"ema/internal/model"
)

// The forms below are those of the wire: names carry units, and a time that is unknown is left out.

type wireEvent struct {
	Seq      uint64          `json:"seq"`
	At       time.Time       `json:"at"`
	Kind     Kind            `json:"kind"`
	Download string          `json:"download,omitempty"`
	Model    string          `json:"model,omitempty"`
	Data     json.RawMessage `json:"data,omitempty"`
}

type wireProgress struct {
	State       model.State `json:"state"`
	Done        model.Bytes `json:"done_bytes"`
	Total       model.Bytes `json:"total_bytes"`
	Rate        float64     `json:"bytes_per_second"`
	ETA         float64     `json:"eta_seconds"`
	Connections int         `json:"connections"`
	Note        string      `json:"note,omitempty"`
}

type wireChange struct {
	From    model.State `json:"from"`
	To      model.State `json:"to"`
	Reason  string      `json:"reason,omitempty"`
	NextTry time.Time   `json:"next_try,omitzero"`
}

type wireRetry struct {
	Host  string  `json:"host,omitempty"`
	Class string  `json:"class"`
	Error string  `json:"error"`
	Wait  float64 `json:"wait_seconds"`
}

type wireLimit struct {
	Rate model.Bytes `json:"bytes_per_second"`
	Why  string      `json:"why"`
}

type wireSpace struct {
	Short  model.Bytes `json:"short_bytes"`
	Reason string      `json:"reason"`
}

type wireStored struct {
	Why string `json:"why"`
}

type wireMove struct {
	From  model.Tier  `json:"from"`
	To    model.Tier  `json:"to"`
	Done  model.Bytes `json:"done_bytes"`
	Total model.Bytes `json:"total_bytes"`
	State string      `json:"state"`
	Error string      `json:"error,omitempty"`
}

type wireTier struct {
	Tier    model.Tier `json:"tier"`
	State   string     `json:"state"`
	Problem string     `json:"problem,omitempty"`
}

type wireBenchmark struct {
	ID    string  `json:"id"`
	State string  `json:"state"`
	Suite string  `json:"suite,omitempty"`
	Step  string  `json:"step,omitempty"`
	Part  float64 `json:"part"`
	Took  float64 `json:"elapsed_seconds"`
	Left  float64 `json:"left_seconds"`
	Error string  `json:"error,omitempty"`
}

type wireOptimization struct {
	ID     string  `json:"optimization_id"`
	Rule   string  `json:"type"`
	Key    string  `json:"setting"`
	From   string  `json:"from"`
	To     string  `json:"to"`
	Status string  `json:"status"`
	Reason string  `json:"reason"`
	Figure string  `json:"metric"`
	Better float64 `json:"improvement"`
}

// MarshalJSON writes an object with seq, at, kind, download, model and data. The model of a signed
// link appears without its secret.
func (e Event) MarshalJSON() ([]byte, error) {
	w := wireEvent{Seq: e.Seq, At: e.At.UTC(), Kind: e.Kind, Download: e.Download}
	if !e.Model.IsZero() {
		w.Model = e.Model.Public()
	}
	if e.Data != nil {
		data, err := json.Marshal(e.Data)
		if err != nil {
			return nil, err
		}
		w.Data = data
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads what MarshalJSON wrote, with Data of the type that belongs to the kind. Data of
// a kind that is not known here, of a newer version, stays a json.RawMessage.
func (e *Event) UnmarshalJSON(b []byte) error {
	var w wireEvent
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	read := Event{Seq: w.Seq, At: w.At, Kind: w.Kind, Download: w.Download}
	if w.Model != "" {
		id, err := model.ParseID(w.Model)
		if err != nil {
			return err
		}
		read.Model = id
	}
	if len(w.Data) > 0 && !bytes.Equal(w.Data, []byte("null")) {
		data, err := parseData(w.Kind, w.Data)
		if err != nil {
			return fmt.Errorf("event %d: data of kind %q: %w", w.Seq, w.Kind, err)
		}
		read.Data = data
	}
	*e = read
	return nil
}

func parseData(kind Kind, b json.RawMessage) (any, error) {
	switch kind {
	case KindProgress:
		return parse[Progress](b)
	case KindState:
		return parse[Change](b)
	case KindRetry:
		return parse[Retry](b)
	case KindLimit:
		return parse[Limit](b)
	case KindSpace:
		return parse[Space](b)
	case KindStored:
		return parse[Stored](b)
	case KindMove:
		return parse[Move](b)
	case KindTier:
		return parse[Tier](b)
	case KindBench:
		return parse[Benchmark](b)
	case KindOptimization:
		return parse[Optimization](b)
	}
	return b, nil
}

func parse[T any](b []byte) (any, error) {
	var v T
	err := json.Unmarshal(b, &v)
	return v, err
}

// MarshalJSON writes the form of the wire.
func (p Progress) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireProgress{p.State, p.Done, p.Total, p.Rate, p.ETA.Seconds(), p.Connections, p.Note})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Progress) UnmarshalJSON(b []byte) error {
	var w wireProgress
	err := json.Unmarshal(b, &w)
	*p = Progress{w.State, w.Done, w.Total, w.Rate, seconds(w.ETA), w.Connections, w.Note}
	return err
}

// MarshalJSON writes the form of the wire.
func (c Change) MarshalJSON() ([]byte, error) { return json.Marshal(wireChange(c)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (c *Change) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*wireChange)(c)) }

// MarshalJSON writes the form of the wire.
func (r Retry) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireRetry{r.Host, r.Class.String(), r.Error, r.Wait.Seconds()})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Retry) UnmarshalJSON(b []byte) error {
	var w wireRetry
	err := json.Unmarshal(b, &w)
	*r = Retry{w.Host, parseClass(w.Class), w.Error, seconds(w.Wait)}
	return err
}

// MarshalJSON writes the form of the wire.
func (l Limit) MarshalJSON() ([]byte, error) { return json.Marshal(wireLimit(l)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (l *Limit) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*wireLimit)(l)) }

// MarshalJSON writes the form of the wire.
func (s Space) MarshalJSON() ([]byte, error) { return json.Marshal(wireSpace(s)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Space) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*wireSpace)(s)) }

// MarshalJSON writes the form of the wire.
func (s Stored) MarshalJSON() ([]byte, error) { return json.Marshal(wireStored(s)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (s *Stored) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*wireStored)(s)) }

// MarshalJSON writes the form of the wire.
func (m Move) MarshalJSON() ([]byte, error) { return json.Marshal(wireMove(m)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *Move) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*wireMove)(m)) }

// MarshalJSON writes the form of the wire.
func (t Tier) MarshalJSON() ([]byte, error) { return json.Marshal(wireTier(t)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (t *Tier) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*wireTier)(t)) }

// MarshalJSON writes the form of the wire.
func (b Benchmark) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireBenchmark{b.ID, b.State, b.Suite, b.Step, b.Part, b.Took.Seconds(), b.Left.Seconds(), b.Error})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (b *Benchmark) UnmarshalJSON(raw []byte) error {
	var w wireBenchmark
	err := json.Unmarshal(raw, &w)
	*b = Benchmark{w.ID, w.State, w.Suite, w.Step, w.Part, seconds(w.Took), seconds(w.Left), w.Error}
	return err
}

// MarshalJSON writes the form of the wire.
func (o Optimization) MarshalJSON() ([]byte, error) { return json.Marshal(wireOptimization(o)) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (o *Optimization) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, (*wireOptimization)(o))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// parseClass finds the class of that name; a name not known here, of a newer version, is Other.
func parseClass(name string) model.Class {
	for c := model.Other; c <= model.Offline; c++ {
		if c.String() == name {
			return c
		}
	}
	return model.Other
}
