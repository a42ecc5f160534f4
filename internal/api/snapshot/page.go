package snapshot

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"ema/client"
	"ema/internal/model"
)

// A page is how all models stood at one time, encoded. It is never changed once others can see it.
type page struct {
	changes uint64        // all that had happened before is in it
	at      time.Duration // when it was begun
	held    uint64        // the number of the store's facts in it; 0 for none that others are made of
	uses    uint64        // the number of uses that are in it
	moving  bool          // there are downloads, of which not every change is told
	dated   bool          // it tells uses per day

	answer
	fragments []*fragment // in the order of their names
	index     map[string]int
}

// A fragment is the encoded answer about one model.
type fragment struct {
	facts  facts  // of which it was made
	member []byte // "name":{…}, as it stands in the whole
	stock  []byte // {…} in the answer about storage; nil when nothing is here
	answer        // {…} alone
}

// An answer is bytes, and the headers that go with them. The slices are shared by all requests that it answers.
type answer struct {
	body              []byte
	tag, kind, length []string
	control           []string
}

func (m *Models) seal(body []byte) answer {
	return answer{
		body: body, tag: []string{`"` + m.boot + "-" + strconv.FormatUint(m.tags.Add(1), 36) + `"`},
		kind: []string{"application/json"}, length: []string{strconv.Itoa(len(body))}, control: []string{"no-cache"},
	}
}

// bootName is different in every process, so that a tag of an earlier one matches nothing.
func bootName() string { return strings.ToLower(rand.Text()[:12]) }

// assemble fills p with what is known of all models: what the store holds, what is on its way and what has failed. It
// may change failures. What stands in old and has not changed is taken from there.
func (m *Models) assemble(p *page, kept map[model.ID]*holding, failures map[model.ID]string, old *page) error {
	all := m.gather(failures, kept)
	p.fragments, p.index = make([]*fragment, len(all)), make(map[string]int, len(all))
	size, same := 0, old != nil && len(old.fragments) == len(all)
	for i, f := range all {
		one, err := m.fragment(f, old)
		if err != nil {
			return err
		}
		p.fragments[i], p.index[f.name] = one, i
		p.moving = p.moving || f.motion.id != ""
		size += len(one.member) + 1
		same = same && one == old.fragments[i]
	}
	if same {
		p.answer = old.answer
		return nil
	}
	body, err := splice(p.fragments, size)
	if err != nil {
		return err
	}
	if old != nil && bytes.Equal(old.body, body) {
		p.answer = old.answer // who has it already need not fetch it again
		return nil
	}
	p.answer = m.seal(body)
	return nil
}

// gather is what is known of each model, in the order of their names.
func (m *Models) gather(failures map[model.ID]string, kept map[model.ID]*holding) []facts {
	motions := map[model.ID]motion{}
	for _, d := range m.set.Downloads.List() {
		if _, earlier := motions[d.Model]; !earlier { // the list begins with what runs
			motions[d.Model] = move(d, m.set.Figures)
		}
	}
	all := make([]facts, 0, len(kept)+len(motions)+len(failures))
	for id, h := range kept {
		all = append(all, facts{id: id, name: id.Public(), holding: h, motion: motions[id], failure: failures[id]})
		delete(motions, id)
		delete(failures, id)
	}
	for id, d := range motions {
		all = append(all, facts{id: id, name: id.Public(), motion: d, failure: failures[id]})
		delete(failures, id)
	}
	for id, why := range failures {
		all = append(all, facts{id: id, name: id.Public(), failure: why})
	}
	all = tidy(all)
	if m.set.Uses != nil {
		for i := range all {
			u := m.set.Uses.Use(all[i].id)
			all[i].perDay, all[i].pinned, all[i].latest, all[i].well = u.PerDay, u.Pinned, u.Latest, u.Wellbeing
			if !u.Last.IsZero() {
				all[i].used = u.Last.UnixNano()
			}
		}
	}
	return all
}

// tidy sorts by name and leaves one of each: of signed links that differ in what is not shown, one that is here stands
// for all. Which one does not depend on downloads, so that the same store always takes the same space.
func tidy(all []facts) []facts {
	slices.SortFunc(all, func(a, b facts) int {
		if by := cmp.Compare(a.name, b.name); by != 0 {
			return by
		}
		if (a.holding != nil) != (b.holding != nil) {
			if a.holding != nil {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.id.Name, b.id.Name)
	})
	tidied := all[:0]
	for _, f := range all {
		if n := len(tidied); n > 0 && tidied[n-1].name == f.name {
			last := &tidied[n-1]
			if last.motion.id == "" {
				last.motion = f.motion
			}
			last.failure = cmp.Or(last.failure, f.failure)
			continue
		}
		tidied = append(tidied, f)
	}
	return tidied
}

// fragment encodes what is known of one model, unless old has done so.
func (m *Models) fragment(f facts, old *page) (*fragment, error) {
	var was *fragment
	if old != nil {
		if i, there := old.index[f.name]; there {
			was = old.fragments[i]
			if was.facts == f {
				return was, nil
			}
		}
	}
	told := f.tell()
	member, err := encode(f.name)
	if err != nil {
		return nil, err
	}
	body, err := encode(told)
	if err != nil {
		return nil, err
	}
	n := &fragment{facts: f}
	if f.holding != nil {
		if n.stock, err = encode(f.stock()); err != nil {
			return nil, err
		}
	}
	n.member = slices.Concat(member, []byte{':'}, body)
	body = n.member[len(member)+1:]
	if was != nil && bytes.Equal(was.body, body) {
		n.member, n.answer = was.member, was.answer
	} else {
		n.answer = m.seal(body)
	}
	return n, nil
}

// splice is the whole answer made of those about each model.
func splice(all []*fragment, size int) ([]byte, error) {
	var sum client.StatusSummary
	var stored model.Bytes
	for _, f := range all {
		sum.Total++
		if f.facts.holding.first().complete() {
			sum.Available++
		}
		if f.facts.motion.id != "" {
			sum.Downloading++
		}
		if h := f.facts.holding; h != nil {
			stored += h.size
			if h.damaged() {
				sum.Corrupted++
			}
		}
	}
	sum.TotalStorageGB = gb(stored)
	end, err := encode(sum)
	if err != nil {
		return nil, err
	}
	const head, middle, tail = `{"models":{`, `},"summary":`, `}`
	body := make([]byte, 0, len(head)+size+len(middle)+len(end)+len(tail))
	body = append(body, head...)
	for i, f := range all {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, f.member...)
	}
	body = append(body, middle...)
	body = append(body, end...)
	return append(body, tail...), nil
}

// encode is v in JSON as the rest of the API writes it.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}
