package trust

import "fmt"

// Role is what somebody may do; each role may also do what the lesser ones may. The zero Role is None.
type Role int

// The roles, the least first.
const (
	None      Role = iota // nobody we know: may do nothing
	User                  // reads, and starts downloads
	PowerUser             // manages downloads and storage
	Admin                 // everything
)

var roleNames = [...]string{"", "user", "power_user", "admin"}

// String is the name used in the configuration, in JSON and in the audit trail; None is "".
func (r Role) String() string {
	if r >= 0 && int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", int(r))
}

// ParseRole reads a name; "" is None.
func ParseRole(name string) (Role, error) {
	for r, n := range roleNames {
		if n == name {
			return Role(r), nil
		}
	}
	return None, fmt.Errorf("the role %q is none of user, power_user, admin", name)
}
