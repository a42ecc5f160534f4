package client

// Settings are the settings that hold, with where each of them came from. Secrets are in neither.
type Settings struct {
	Config   map[string]any    `json:"config"`   // as a configuration file would have it
	Origins  map[string]string `json:"origins"`  // of each key that somebody set, in words
	File     string            `json:"file"`     // that was read; empty for none
	Profile  string            `json:"profile"`  // optimization_profile; empty for none
	Warnings []SettingWarning  `json:"warnings"` // never null
	Inactive []string          `json:"inactive"` // keys that somebody set and that do not act yet; never null
}

// A SettingWarning is a setting that is allowed and will disappoint.
type SettingWarning struct {
	Key     string `json:"key"`
	Message string `json:"message"`
}

// Validated is a judgement about settings.
type Validated struct {
	Valid    bool             `json:"valid"`
	Mistakes []SettingMistake `json:"mistakes"` // all of them; never null
	Warnings []SettingWarning `json:"warnings"` // never null
	// Updated and RestartKeys are what would change, as in Reloaded; never null.
	Updated     []string `json:"updated_settings"`
	RestartKeys []string `json:"restart_keys"`
}

// A SettingMistake is one mistake in settings.
type SettingMistake struct {
	Key     string `json:"key,omitempty"` // the full path, as it was given; empty when it cannot be read at all
	Value   string `json:"value,omitempty"`
	Problem string `json:"problem"`
	Want    string `json:"want,omitempty"`
	Nearest string `json:"nearest,omitempty"` // the known key that is spelled most like it
}

// Profiles are the sets of settings that optimization_profile may name.
type Profiles struct {
	Profile  string    `json:"profile"`  // that holds; empty for none
	Profiles []Profile `json:"profiles"` // never null
}

// A Profile is a set of defaults: what somebody has set counts more.
type Profile struct {
	Name     string           `json:"name"`     // empty: none of them holds then
	Changes  []SettingChange  `json:"changes"`  // what would differ here, if this one held; never null
	Warnings []SettingWarning `json:"warnings"` // about what would hold then; never null
}

// A SettingChange is a key of the configuration with its value, and the one that it would have.
type SettingChange struct {
	Key             string `json:"key"`
	Now             any    `json:"now"`
	Then            any    `json:"then"`
	RestartRequired bool   `json:"restart_required"` // it acts once the daemon is started again
}

// ProfileRequest chooses a profile.
type ProfileRequest struct {
	Profile string `json:"profile" enum:",high_throughput,low_latency,resource_constrained" doc:"Empty for none."`
}
