package model

import "time"

// AuditEntry is one line of the audit trail: who changed what, and how that went. It holds no key and no token.
type AuditEntry struct {
	At        time.Time
	Who       string // name of the key; "" where none is needed
	Role      string // with which role: "user", "power_user", "admin"
	Action    string // what was done, such as "download.start"
	Target    string // to what: a model, a key of the configuration
	Result    string // "ok", or the code of the error
	RequestID string // the X-Request-Id of the answer
	Remote    string // the address from which it came, without its port; "" for the daemon's socket
}
