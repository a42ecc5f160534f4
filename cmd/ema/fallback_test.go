package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ema/client"
	"ema/internal/demohub"
)

// tensors is a safetensors file with one tensor of so many numbers of two bytes.
func tensors(n int) []byte {
	header := `{"w":{"dtype":"F16","shape":[` + decimal(n) + `],"data_offsets":[0,` + decimal(2*n) + `]}}`
	for len(header)%8 != 0 {
		header += " "
	}
	size := make([]byte, 8)
	size[0], size[1] = byte(len(header)), byte(len(header)>>8)
	return append(append(size, header...), make([]byte, 2*n)...)
}

func decimal(n int) string {
	text, _ := json.Marshal(n) //nolint:errchkjson // a number
	return string(text)
}

func TestAModelThatIsHereStandsInUntilTheOtherOneIs(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	config := demohub.Bytes("config.json", []byte(`{"architectures":["LlamaForCausalLM"]}`))
	hub := demohub.New(
		demohub.Repo("acme/llama-8b", config, demohub.Bytes("model.safetensors", tensors(4000)), demohub.Card("text-generation", "transformers", "license:mit")),
		demohub.Repo("acme/llama-8b-small", config, demohub.Bytes("model.safetensors", tensors(3000)), demohub.Card("text-generation", "transformers", "license:mit", "base_model:quantized:acme/llama-8b")),
		demohub.Repo("acme/painter-8b", demohub.Bytes("model.safetensors", tensors(4001)), demohub.Card("text-to-image", "diffusers")),
		demohub.Repo("acme/other", demohub.Bytes("README.md", []byte("---\npipeline_tag: text-generation\nlicense: mit\n---\n"))))
	srv := httptest.NewServer(hub)
	t.Cleanup(srv.Close)
	c := &tidy{t: t, hub: hub, environ: []string{"HOME=" + t.TempDir(), "HF_ENDPOINT=" + srv.URL, "GORACE=" + noRest, anyPort, anyMetricsPort}}
	c.process = serving(ctx, t, c.environ)
	c.url = c.address(t) + client.Base
	for _, name := range []string{"acme/llama-8b-small", "acme/painter-8b", "acme/other"} {
		c.ema("pull", name, "--quiet")
	}
	suggest := func(body string) (f client.Fallbacks) {
		t.Helper()
		if res := asks(t, http.DefaultClient, "POST", c.url+"/models/fallback/suggest", body, &f); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", body, res.Status)
		}
		return f
	}
	f := suggest(`{"model_id":"acme/llama-8b"}`)
	if f.Status != client.AvailabilityMissing || f.Wait != nil || len(f.Suggestions) == 0 {
		t.Fatalf("%+v", f)
	}
	if s := f.Suggestions[0]; s.Model != "acme/llama-8b-small" || *s.Parameters != 3000 || *s.Bits != 16 || s.Task != "text-generation" || !s.Available || !strings.Contains(strings.Join(s.Reasons, ";"), "made from the other") {
		t.Errorf("%+v", s)
	}
	if f := suggest(`{"model_id":"acme/llama-8b","task":"text-to-image"}`); len(f.Suggestions) != 1 || f.Suggestions[0].Model != "acme/painter-8b" {
		t.Errorf("for another task: %+v", f)
	}
	if f := suggest(`{"model_id":"acme/llama-8b","max_size_gb":0.000001,"task":"text-generation"}`); len(f.Suggestions) > 1 {
		t.Errorf("small ones: %+v", f)
	}
	if said := c.ema("fallback", "acme/llama-8b", "--task", "text-generation"); !strings.Contains(said, "acme/llama-8b-small") {
		t.Errorf("ema fallback: %s", said)
	}

	// Who waits is told once, also after a restart.
	told := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m struct{ Type, Model, Queue string }
		var raw map[string]string
		if err := json.NewDecoder(r.Body).Decode(&raw); err != nil {
			t.Error(err)
		}
		m.Type, m.Model, m.Queue = raw["type"], raw["model_id"], raw["queue_id"]
		told <- m.Type + " " + m.Model + " " + m.Queue
	}))
	t.Cleanup(hook.Close)
	var a, given client.Awaited
	asks(t, http.DefaultClient, "POST", c.url+"/models/fallback/queue", `{"model_id":"acme/llama-8b","webhook_url":"`+hook.URL+`"}`, &a)
	asks(t, http.DefaultClient, "POST", c.url+"/models/fallback/queue", `{"model_id":"acme/llama-8b"}`, &given)
	if !a.Waiting || !given.Waiting || a.ID == given.ID {
		t.Fatalf("%+v, %+v", a, given)
	}
	c.ends(t)
	c.process = serving(ctx, t, c.environ)
	c.url = c.address(t) + client.Base
	var w client.Waiters
	asks(t, http.DefaultClient, "GET", c.url+"/models/fallback/queue", "", &w)
	if len(w.Waiting) != 2 || w.Waiting[0].ID != a.ID || !w.Waiting[0].Webhook || w.Waiting[1].Webhook {
		t.Errorf("after a restart: %+v", w)
	}
	for _, want := range []int{http.StatusOK, http.StatusNotFound} {
		if res := asks(t, http.DefaultClient, "DELETE", c.url+"/models/fallback/queue/"+given.ID, "", nil); res.StatusCode != want {
			t.Errorf("giving up: %s, want %d", res.Status, want)
		}
	}
	if res := asks(t, http.DefaultClient, "POST", c.url+"/models/fallback/queue", `{"model_id":"acme/llama-8b","webhook_url":"ftp://x"}`, nil); res.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("no webhook: %s", res.Status)
	}
	c.ema("pull", "acme/llama-8b", "--quiet")
	select {
	case said := <-told:
		if said != "model_available acme/llama-8b "+a.ID {
			t.Errorf("told %s", said)
		}
	case <-ctx.Done():
		t.Fatal("nobody was told")
	}
	for asks(t, http.DefaultClient, "GET", c.url+"/models/fallback/queue", "", &w); len(w.Waiting) > 0; asks(t, http.DefaultClient, "GET", c.url+"/models/fallback/queue", "", &w) {
		if pause(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("still waiting: %+v", w)
		}
	}
	asks(t, http.DefaultClient, "POST", c.url+"/models/fallback/queue", `{"model_id":"acme/llama-8b"}`, &a)
	if a.Waiting {
		t.Error("waits for what is here")
	}
	if path := c.ema("fallback", "acme/llama-8b", "--wait"); !strings.Contains(path, "snapshots") {
		t.Errorf("ema fallback --wait: %s", path)
	}
	c.ends(t)
	if said := c.ema("fallback", "acme/llama-8b"); !strings.Contains(said, "acme/llama-8b-small") {
		t.Errorf("without a daemon: %s", said)
	}
	if got := len(told); got > 0 {
		t.Errorf("told %d times more", got)
	}
}
