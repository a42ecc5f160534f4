// Package tier says how near each model lives, and who leaves when space is short.
//
// It decides purely and acts elsewhere: uses.go counts what is used, policy.go judges which model belongs to which tier,
// clean.go which could go, and mover.go carries moves out, one after the other and gently.
package tier
