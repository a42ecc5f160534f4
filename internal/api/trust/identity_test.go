package trust

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestARoleMayDoWhatLesserRolesMay(t *testing.T) {
	for role := None; role <= Admin; role++ {
		ctx := With(t.Context(), Identity{Name: "jo", Role: role})
		for least := User; least <= Admin; least++ {
			err := Permit(ctx, least)
			if (err == nil) != (role >= least) {
				t.Errorf("%v for what needs %v: %v", role, least, err)
			}
			want := http.StatusForbidden
			if role == None {
				want = http.StatusUnauthorized
			}
			if d, ok := errors.AsType[*Denied](err); err != nil && (!ok || d.Status != want || !strings.Contains(err.Error(), least.String())) {
				t.Errorf("%v for what needs %v is answered %v", role, least, err)
			}
		}
	}
}

func TestWithoutAGuardNobodyIsAnything(t *testing.T) {
	if i := From(context.Background()); i != (Identity{}) || Permit(context.Background(), User) == nil {
		t.Errorf("%+v asks", i)
	}
}

func TestRolesHaveTheNamesOfTheConfiguration(t *testing.T) {
	for role, name := range map[Role]string{None: "", User: "user", PowerUser: "power_user", Admin: "admin"} {
		if got, err := ParseRole(name); got != role || err != nil || role.String() != name {
			t.Errorf("%q is %v, %v; %v prints %q", name, got, err, role, role.String())
		}
	}
	for _, name := range []string{"root", "Admin", "admin "} {
		if r, err := ParseRole(name); err == nil || r != None {
			t.Errorf("%q is %v", name, r)
		}
	}
}
