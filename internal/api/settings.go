package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"ema/client"
)

// offerSettings has what can be asked about the settings of the daemon.
func (s *Server) offerSettings(rt *router) {
	part := func() *huma.Schema {
		return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Description: "A part of a configuration file, as /config/schema describes it."}
	}
	some := map[string]any{"one setting": map[string]any{"download": map[string]any{"max_concurrent_downloads": 4}}}
	register(rt, operation{
		id: opConfig, method: http.MethodGet, path: Base + "/config/current", tag: tagSettings, summary: "See the settings that hold",
		text: "And where each of them comes from. Secrets are not in it.", tagged: true, schema: reflect.TypeFor[client.Settings](),
	}, func(ctx context.Context, _ *struct{}) (*any, error) {
		now, err := s.Settings.Current(ctx)
		return &now, err
	})
	register(rt, operation{
		id: opUpdate, method: http.MethodPut, path: Base + "/config/update", tag: tagSettings, summary: "Change settings",
		text: "The body is merged into what holds. When one of them is wrong, nothing changes, and all mistakes are told.",
		body: part(), asks: some,
		says: Reloaded{Success: true, Updated: []string{"download.max_concurrent_downloads"}, RestartKeys: []string{}},
	}, s.update)
	register(rt, operation{
		id: opConfigProfiles, method: http.MethodGet, path: Base + "/config/profile", tag: tagSettings, summary: "See the profiles, and what each would change here",
		text: "A profile is a set of defaults: what somebody has set counts more, and is not among its changes.",
		says: client.Profiles{Profiles: []client.Profile{{
			Name:    "low_latency",
			Changes: []client.SettingChange{{Key: "api.cache_ttl_seconds", Now: 30, Then: 60}}, Warnings: []client.SettingWarning{},
		}}},
	}, func(ctx context.Context, _ *struct{}) (*client.Profiles, error) {
		all, err := s.Settings.Profiles(ctx)
		return &all, err
	})
	register(rt, operation{
		id: opProfileSet, method: http.MethodPut, path: Base + "/config/profile", tag: tagSettings, summary: "Choose a profile",
		text: "As /config/update does it with optimization_profile. An empty name is no profile.",
		asks: map[string]any{"one": client.ProfileRequest{Profile: "low_latency"}},
		says: Reloaded{Success: true, Updated: []string{"api.cache_ttl_seconds"}, RestartKeys: []string{}},
	}, s.chooseProfile)
	register(rt, operation{
		id: opSchema, method: http.MethodGet, path: Base + "/config/schema", tag: tagSettings, summary: "Get the JSON Schema of a configuration file",
		tagged: true, schema: reflect.TypeFor[map[string]any](),
	}, func(context.Context, *struct{}) (*json.RawMessage, error) {
		schema, err := s.Settings.Schema()
		return &schema, err
	})
	register(rt, operation{
		id: opValidate, method: http.MethodPost, path: Base + "/config/validate", tag: tagSettings, summary: "Judge settings",
		text: "As /config/update would, and nothing changes. Mistakes are a part of the answer and no failure.",
		body: part(), asks: some,
		says: client.Validated{
			Mistakes: []client.SettingMistake{{Key: "download.max_concurent_downloads", Problem: "there is no such key", Nearest: "max_concurrent_downloads"}},
			Warnings: []client.SettingWarning{}, Updated: []string{}, RestartKeys: []string{},
		},
	}, s.validate)
}

// A partOfSettings is the body of a request about settings.
type partOfSettings struct{ Body json.RawMessage }

func (s *Server) update(ctx context.Context, r *partOfSettings) (*Reloaded, error) {
	done, err := s.Settings.Update(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	aim(ctx, strings.Join(done.Updated, ","))
	return listed(done), nil
}

// A choiceOfProfile is the body of a request for a profile.
type choiceOfProfile struct{ Body client.ProfileRequest }

func (s *Server) chooseProfile(ctx context.Context, r *choiceOfProfile) (*Reloaded, error) {
	patch, err := json.Marshal(map[string]string{"optimization_profile": r.Body.Profile})
	if err != nil {
		return nil, err
	}
	return s.update(ctx, &partOfSettings{Body: patch})
}

// listed is r without lists that are null.
func listed(r Reloaded) *Reloaded {
	r.Updated, r.RestartKeys = append([]string{}, r.Updated...), append([]string{}, r.RestartKeys...)
	return &r
}

func (s *Server) validate(ctx context.Context, r *partOfSettings) (*client.Validated, error) {
	v, err := s.Settings.Validate(ctx, r.Body)
	v.Mistakes, v.Warnings = []client.SettingMistake{}, append([]client.SettingWarning{}, v.Warnings...)
	v.Updated, v.RestartKeys = append([]string{}, v.Updated...), append([]string{}, v.RestartKeys...)
	if err == nil {
		v.Valid = true
		return &v, nil
	}
	all, ok := errors.AsType[mistakes](err)
	if !ok {
		return nil, err
	}
	v.Valid = false
	for _, f := range all.Fields() {
		v.Mistakes = append(v.Mistakes, client.SettingMistake{Key: f.Path, Value: f.Value, Problem: f.Problem, Want: f.Want, Nearest: f.Nearest})
	}
	return &v, nil
}
