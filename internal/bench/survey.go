package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"ema/internal/model"
)

// survey asks which endpoints of the mix the server has, and returns the mix without the others. It starts nothing.
func (d *door) survey(ctx context.Context, m Mix) (Mix, []Left, error) {
	left := []Left{}
	for c, r := range routes() {
		weight := m.weight(r.name)
		if *weight == 0 {
			continue
		}
		has, err := d.has(ctx, call(c))
		if err != nil {
			return Mix{}, nil, err
		}
		if !has {
			*weight = 0
			left = append(left, Left{r.name, "the server has no " + r.String()})
		}
	}
	if m == (Mix{}) {
		return Mix{}, nil, d.stranger(errors.New("none of the endpoints is there: " + reasons(left)))
	}
	return m, left, nil
}

func reasons(left []Left) string {
	var all []string
	for _, l := range left {
		all = append(all, l.Reason)
	}
	return strings.Join(all, ", ")
}

// has reports whether the server has that endpoint. Only reading is tried for real: what changes something is looked up
// in the server's own description, else asked without saying what to change.
func (d *door) has(ctx context.Context, c call) (bool, error) {
	r := routes()[c]
	var body []byte
	if r.method != http.MethodGet {
		described, err := d.describes(ctx, r)
		if described || err != nil {
			return described, err
		}
		body = []byte("{}")
	}
	res, answer, err := d.ask(ctx, r.method, r.path, body)
	if err != nil {
		return false, err
	}
	switch {
	case slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, res.StatusCode):
		return false, nil
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return false, d.stranger(fmt.Errorf("%s is redirected to %q", r, model.Redact(res.Header.Get("Location"))))
	case res.StatusCode < 300 && len(answer) < sampleSize:
		if err := checkAnswer(r, res.Header, answer); err != nil {
			return false, d.stranger(err)
		}
	}
	return true, nil
}

// describes reports whether the server's OpenAPI document, if it has one, names that endpoint.
func (d *door) describes(ctx context.Context, r route) (bool, error) {
	res, body, err := d.ask(ctx, http.MethodGet, "/openapi.json", nil)
	if model.ClassOf(err) == model.Auth {
		return false, nil // the document may be for others than the endpoint
	}
	if err != nil {
		return false, err
	}
	var document struct {
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, &document) != nil {
		return false, nil
	}
	_, found := document.Paths[r.path][strings.ToLower(r.method)]
	return found, nil
}

// stranger is the sentence about a server that is not ema.
func (d *door) stranger(why error) error {
	return &model.Error{
		Op: "load test", Class: model.NotFound, URL: d.base.String(), Err: why,
		Hint: "this is not how ema answers; is it the address of the right server?",
	}
}
