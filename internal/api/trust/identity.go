package trust

import (
	"context"
	"net/http"
)

// An Identity is who asks. The zero Identity is a stranger, who may do nothing.
type Identity struct {
	Name  string // of the key that was shown; for the audit trail
	Role  Role
	Local bool // asks from this machine
}

type identityKey struct{}

// With is ctx for what i asks for.
func With(ctx context.Context, i Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, i)
}

// From is who asks for what happens under ctx; a stranger when With never said, so that what was forgotten to be
// guarded stays shut.
func From(ctx context.Context) Identity {
	i, _ := ctx.Value(identityKey{}).(Identity) //nolint:errcheck // the zero value is what is meant
	return i
}

// Permit is nil when whoever asks has that role or a greater one; otherwise a *Denied: 401 for strangers, 403 for
// those whom we know.
func Permit(ctx context.Context, least Role) error {
	switch who := From(ctx); {
	case who.Role >= least:
		return nil
	case who.Role == None:
		return stranger(least)
	default:
		return &Denied{
			Status: http.StatusForbidden, Message: "this needs the role " + least.String() + ", and " + who.called() + " has the role " + who.Role.String(),
			Hint: "use a key of that role, or have an admin raise this one's role in auth.api_keys",
		}
	}
}

// stranger refuses who shows no key.
func stranger(least Role) *Denied {
	return &Denied{
		Status: http.StatusUnauthorized, Message: "this needs a key with the role " + least.String(),
		Hint: `send "Authorization: Bearer KEY"`,
	}
}

// called is i in a sentence.
func (i Identity) called() string {
	if i.Name == "" {
		return "who shows no key"
	}
	return "the key of " + i.Name
}
