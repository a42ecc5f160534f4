package client

import "time"

// FallbackRequest asks which models could stand in for one.
type FallbackRequest struct {
	Model     string  `json:"model_id"`
	Most      int     `json:"max_suggestions,omitempty"`     // 0 is 5
	AlsoAway  bool    `json:"include_unavailable,omitempty"` // also those that are on their way, and will be here before
	Task      string  `json:"task,omitempty"`                // what for, such as "text-generation"; "" is as the model
	MaxSizeGB float64 `json:"max_size_gb,omitempty"`         // 0 is any
}

// Fallbacks answers a FallbackRequest.
type Fallbacks struct {
	Model       string     `json:"original_model"`
	Status      string     `json:"original_status"`       // in the words of availability_status
	Wait        *float64   `json:"expected_wait_seconds"` // until it is here; 0 when it is, null when nobody can tell
	Suggestions []Fallback `json:"suggestions"`           // the best first; never null
}

// A Fallback is a model that could stand in. What nobody knows is null.
type Fallback struct {
	Model         string   `json:"model_id"`
	Score         float64  `json:"score"` // of 1
	Available     bool     `json:"available"`
	Status        string   `json:"availability_status"`
	Wait          *float64 `json:"expected_wait_seconds"`
	SizeMB        float64  `json:"size_mb"`
	Parameters    *float64 `json:"parameters"`
	Bits          *float64 `json:"bits_per_parameter"`
	Task          string   `json:"task,omitempty"`
	Architectures []string `json:"architectures"` // never null
	Reasons       []string `json:"reasons"`       // in words, what speaks most for it first; never null
}

// AwaitRequest asks to be told when a model is available.
type AwaitRequest struct {
	Model   string `json:"model_id"`
	Webhook string `json:"webhook_url,omitempty"`    // is posted to; without one WebSocket tells alone
	Start   bool   `json:"start_download,omitempty"` // have it downloaded, too
}

// Awaited answers an AwaitRequest.
type Awaited struct {
	Success  bool       `json:"success"`
	Message  string     `json:"message"`
	Model    string     `json:"model_id"`
	ID       string     `json:"queue_id"`
	Waiting  bool       `json:"waiting"`                // false when it is available already: then all were told
	Estimate *time.Time `json:"estimated_availability"` // null while nobody can tell
}

// Waiters are those who wait for models.
type Waiters struct {
	Waiting []Waiter `json:"waiting"` // in the order in which they came; never null
}

// A Waiter waits for a model.
type Waiter struct {
	ID      string    `json:"queue_id"`
	Model   string    `json:"model_id"`
	Since   time.Time `json:"since"`
	Webhook bool      `json:"webhook"` // whether one is posted to; its address may be a secret
}
