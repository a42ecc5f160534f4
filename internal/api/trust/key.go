package trust

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Key lets somebody in. Only its hash is kept.
type Key struct {
	Name   string // whose it is; for the audit trail
	SHA256 string // of the key, 64 hexadecimal digits
	Role   Role   // not None
}

// Subprotocol begins the WebSocket subprotocol that bears a key, for browsers: they cannot set Authorization there. A
// page asks for the subprotocols it wants to speak and, besides, for this one followed by its key, which must consist
// of characters that may stand there: letters, digits and !#$%&'*+-.^_`|~ are. The Guard takes it out.
const Subprotocol = "bearer."

// How often one address may be wrong about a key: that many times at once, and again every few seconds.
const (
	wrongAtOnce = 10
	wrongEvery  = 6 * time.Second
)

// A secret is a Key, made ready.
type secret struct {
	name string
	role Role
	sum  [sha256.Size]byte
}

func (k Key) secret() (s secret, err error) {
	sum, err := hex.DecodeString(k.SHA256)
	if err != nil || len(sum) != len(s.sum) {
		// Not what it is: people paste the key itself.
		return s, fmt.Errorf("the sha256 of the key %q is not 64 hexadecimal digits; give what sha256sum prints for the key", k.Name)
	}
	if k.Name == "" || k.Role <= None || k.Role > Admin {
		return s, fmt.Errorf("the key %q needs a name and a role: user, power_user or admin", k.Name)
	}
	return secret{k.Name, k.Role, [sha256.Size]byte(sum)}, nil
}

// shown is the key that a request bears. It does not print what it is.
type shown struct {
	text  string
	any   bool // something was shown
	valid bool // and understood
}

// String hides the key from whoever prints it.
func (shown) String() string { return "a key" }

// GoString hides it too.
func (shown) GoString() string { return "a key" }

// takeKey returns the key that r bears, and r without it: what is not there, nobody behind the guard can log.
func takeKey(r *http.Request) (shown, *http.Request) {
	offered := r.Header.Values("Sec-Websocket-Protocol")
	bearsOne := strings.Contains(strings.Join(offered, ","), Subprotocol)
	values, any := r.Header["Authorization"]
	if !any && !bearsOne {
		return shown{}, r
	}
	r = r.WithContext(r.Context()) // a copy
	r.Header = r.Header.Clone()
	r.Header.Del("Authorization")
	key := shown{any: any}
	if len(values) == 1 {
		scheme, text, _ := strings.Cut(values[0], " ")
		key.text = strings.TrimLeft(text, " ")
		key.valid = strings.EqualFold(scheme, "Bearer") && key.text != ""
	}
	if !bearsOne {
		return key, r
	}
	r.Header.Del("Sec-Websocket-Protocol")
	var others []string
	for protocol := range strings.SplitSeq(strings.Join(offered, ","), ",") {
		protocol = strings.TrimSpace(protocol)
		text, bears := strings.CutPrefix(protocol, Subprotocol)
		switch {
		case !bears && protocol != "":
			others = append(others, protocol)
		case bears && !any && strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
			key = shown{text: text, any: true, valid: text != "" && !key.any}
		}
	}
	if len(others) > 0 {
		r.Header.Set("Sec-Websocket-Protocol", strings.Join(others, ", "))
	}
	return key, r
}

// identify says who shows a key.
func (g *Guard) identify(rules *rules, key shown, from peer, now time.Time, open bool) (Identity, error) {
	if len(rules.keys) == 0 {
		if rules.DefaultRole != None && !rules.Loopback && !from.loopback {
			return Identity{Role: rules.DefaultRole}, nil
		}
		return Identity{Role: Admin}, nil
	}
	if !key.any || open {
		if rules.DefaultRole == None && !open {
			return Identity{}, stranger(User)
		}
		return Identity{Role: rules.DefaultRole}, nil
	}
	found := rules.find(key)
	if err := g.suspect(from).judge(found, now); err != nil {
		return Identity{}, err
	}
	return Identity{Name: found.name, Role: found.role}, nil
}

// find is the secret that key is; nil when it is none. How long it takes says nothing about the keys: all are
// compared in full.
func (r *rules) find(key shown) *secret {
	sum := sha256.Sum256([]byte(key.text))
	place := len(r.keys)
	for i := range r.keys {
		place = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], r.keys[i].sum[:]), i, place)
	}
	if place == len(r.keys) || !key.valid {
		return nil
	}
	return &r.keys[place]
}

// A suspect is an address that has shown keys.
type suspect struct {
	mu    sync.Mutex
	wrong *rate.Limiter
	right map[[sha256.Size]byte]struct{} // keys that were right, from here
}

// suspect is what we know of an address.
func (g *Guard) suspect(from peer) *suspect {
	if s, ok := g.suspects.Get(from.address); ok {
		return s
	}
	s := &suspect{wrong: rate.NewLimiter(rate.Every(wrongEvery), wrongAtOnce), right: map[[sha256.Size]byte]struct{}{}}
	if first, ok, _ := g.suspects.PeekOrAdd(from.address, s); ok {
		return first
	}
	return s
}

// judge refuses who shows a wrong key. Who has been wrong too often is refused whatever he shows, so that guessing on
// gains nothing; but not with a key that was right before, because somebody else may ask from the same address.
func (s *suspect) judge(found *secret, now time.Time) *Denied {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found != nil {
		if _, known := s.right[found.sum]; known {
			return nil
		}
	}
	if tokens := s.wrong.TokensAt(now); tokens < 1 {
		return &Denied{
			Status: http.StatusTooManyRequests, Message: "too many wrong keys came from this address",
			Hint: "wait, and check the key", After: time.Duration((1 - tokens) * float64(wrongEvery)),
		}
	}
	if found == nil {
		s.wrong.AllowN(now, 1)
		return &Denied{
			Status: http.StatusUnauthorized, Message: "no such key is known here",
			Hint: `send "Authorization: Bearer KEY" with a key whose sha256 is in auth.api_keys`,
		}
	}
	s.right[found.sum] = struct{}{}
	return nil
}
