package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// manageRequest is what a start and a cancel send.
type manageRequest struct {
	ModelID string `json:"model_id"`
	Action  string `json:"action"`
}

// downloading reports whether the server has a download of that model that is not over.
func (d *door) downloading(ctx context.Context, id string) (bool, error) {
	res, body, err := d.ask(ctx, http.MethodGet, activePath, nil)
	if err != nil {
		return false, err
	}
	var answer struct {
		Downloads []struct {
			ModelID string `json:"model_id"`
		} `json:"active_downloads"`
	}
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("GET %s: %s", activePath, res.Status)
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Downloads == nil {
		return false, fmt.Errorf("GET %s: the answer has no list of downloads", activePath)
	}
	for _, download := range answer.Downloads {
		if download.ModelID == id {
			return true, nil
		}
	}
	return false, nil
}

// A beginning is what was known of the model's download before the test.
type beginning struct {
	existed bool
	err     error // why nobody knows
}

// clearAway cancels the download that the test has started, unless it is to be kept or may be somebody else's. It does
// so even when ctx has ended.
func (d *door) clearAway(ctx context.Context, id string, before beginning, keep bool) *Trace {
	trace := &Trace{Model: id}
	switch {
	case before.err != nil:
		trace.Outcome, trace.Why = "unknown", before.err.Error()
		return trace
	case before.existed:
		trace.Outcome = "existed"
		return trace
	case keep:
		trace.Outcome = "kept"
		return trace
	}
	ctx = context.WithoutCancel(ctx) // Ctrl-C ends the test, not its manners
	still, err := d.downloading(ctx, id)
	if err == nil && !still {
		trace.Outcome = "over"
		return trace
	}
	if err == nil {
		trace.Outcome, err = d.cancel(ctx, id)
	}
	if err != nil {
		trace.Outcome, trace.Why = "failed", err.Error()
	}
	return trace
}

// cancel ends the download of a model, and says what has become of it.
func (d *door) cancel(ctx context.Context, id string) (outcome string, err error) {
	body, err := json.Marshal(manageRequest{id, "cancel"})
	if err != nil {
		return "", err
	}
	res, _, err := d.ask(ctx, http.MethodPost, managePath, body)
	switch {
	case err != nil:
		return "", err
	case res.StatusCode == http.StatusNotFound, res.StatusCode == http.StatusConflict:
		return "over", nil // since we looked
	case res.StatusCode >= 300:
		return "", fmt.Errorf("cancel: %s", res.Status)
	}
	return "cancelled", nil
}
