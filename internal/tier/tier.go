// Package tier says how near each model lives, and who leaves when space is short.
//
// It decides and acts elsewhere: uses.go counts what is used, observe.go makes uses of opened files, policy.go judges which model
// belongs to which tier, and clean.go which could go. Only resident.go acts itself: it keeps models in memory.
package tier
