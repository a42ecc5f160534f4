package model

import (
	"fmt"
	"slices"
)

// A Tier is one of the storage folders by speed. The hot one is the store's own folder; paths that are handed out always
// lead through it, wherever the bytes lie.
type Tier string

// The tiers.
const (
	Hot  Tier = "hot"
	Warm Tier = "warm"
	Cold Tier = "cold"
)

// Tiers are all tiers, the fastest first.
func Tiers() []Tier { return []Tier{Hot, Warm, Cold} }

// ParseTier is the tier with a name, which is written as it is here.
func ParseTier(name string) (Tier, error) {
	if t := Tier(name); slices.Contains(Tiers(), t) {
		return t, nil
	}
	return "", fmt.Errorf("%q is no tier: want hot, warm or cold", name)
}

// Colder reports whether t is further from the processor than o.
func (t Tier) Colder(o Tier) bool { return slices.Index(Tiers(), t) > slices.Index(Tiers(), o) }
