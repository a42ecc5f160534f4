package fallback

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/goccy/go-yaml"

	"ema/internal/model"
)

// FromConfig adds what a model's config.json tells.
func (f Facts) FromConfig(raw []byte) Facts {
	var c struct {
		Architectures []string `json:"architectures"`
		Type          string   `json:"model_type"`
		Quantisation  struct {
			Bits json.Number `json:"bits"`
		} `json:"quantization_config"`
	}
	if json.Unmarshal(raw, &c) != nil {
		return f
	}
	for _, a := range append(c.Architectures, c.Type) {
		if a != "" && len(a) < 200 && !slices.Contains(f.Architectures, a) && len(f.Architectures) < 20 {
			f.Architectures = append(f.Architectures, a)
		}
	}
	if b, err := c.Quantisation.Bits.Float64(); err == nil && b >= 1 && b <= 64 {
		f.Bits = b
	}
	return f
}

// FromCard adds what the head of a model's README.md tells: the YAML between two lines of dashes.
func (f Facts) FromCard(raw []byte) Facts {
	head, ok := bytes.CutPrefix(bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n")), []byte("---\n"))
	if !ok {
		return f
	}
	if head, _, ok = bytes.Cut(head, []byte("\n---")); !ok {
		return f
	}
	var c struct {
		Task    any `yaml:"pipeline_tag"`
		Library any `yaml:"library_name"`
		License any `yaml:"license"`
		Base    any `yaml:"base_model"`
	}
	if yaml.Unmarshal(head, &c) != nil {
		return f
	}
	for into, value := range map[*string]any{&f.Task: c.Task, &f.Library: c.Library, &f.License: c.License} {
		if text, ok := value.(string); ok && *into == "" && len(text) < 200 {
			*into = text
		}
	}
	bases, ok := c.Base.([]any)
	if !ok {
		bases = []any{c.Base}
	}
	for _, base := range bases[:min(len(bases), 100)] {
		if name, ok := base.(string); ok {
			if id, err := model.ParseID(name); err == nil && !slices.Contains(f.Bases, id) {
				f.Bases = append(f.Bases, id)
			}
		}
	}
	return f
}

// FromSource adds what the source of a model has told.
func (f Facts) FromSource(c model.Card) Facts {
	for into, value := range map[*string]string{&f.Task: c.Task, &f.Library: c.Library, &f.License: c.License} {
		if *into == "" {
			*into = value
		}
	}
	for _, id := range c.Bases {
		if !slices.Contains(f.Bases, id) {
			f.Bases = append(f.Bases, id)
		}
	}
	return f
}

// FromTensors adds what the headers of a model's files tell: how many numbers its tensors have, in how many bytes, and of which
// architecture they say that they are.
func (f Facts) FromTensors(elements, bytes uint64, architecture string) Facts {
	if elements > 0 {
		f.Parameters, f.Bits = float64(elements), 8*float64(bytes)/float64(elements)
	}
	if architecture != "" && !slices.Contains(f.Architectures, architecture) {
		f.Architectures = append(f.Architectures, architecture)
	}
	return f
}
