package config

import (
	"time"

	"ema/internal/model"
)

// Numbers keep the unit of their key until they are used; each is converted by its one method. Ranges keep every
// conversion clear of overflow.
type (
	// KB counts KiB.
	KB int64
	// MB counts MiB.
	MB float64
	// GB counts GiB.
	GB float64
	// MBps counts MiB per second.
	MBps float64
	// Millis counts milliseconds.
	Millis float64
	// Seconds counts seconds.
	Seconds float64
	// Hours counts hours.
	Hours float64
	// Days counts days of 24 hours.
	Days float64
)

// Bytes converts to bytes.
func (n KB) Bytes() model.Bytes { return model.Bytes(n) * model.KiB }

// Bytes converts to bytes, rounded down.
func (n MB) Bytes() model.Bytes { return model.Bytes(n * MB(model.MiB)) }

// Bytes converts to bytes, rounded down.
func (n GB) Bytes() model.Bytes { return model.Bytes(n * GB(model.GiB)) }

// PerSecond converts to bytes per second, rounded down.
func (n MBps) PerSecond() model.Bytes { return model.Bytes(n * MBps(model.MiB)) }

// Duration converts to a duration.
func (n Millis) Duration() time.Duration { return time.Duration(n * Millis(time.Millisecond)) }

// Duration converts to a duration.
func (n Seconds) Duration() time.Duration { return time.Duration(n * Seconds(time.Second)) }

// Duration converts to a duration.
func (n Hours) Duration() time.Duration { return time.Duration(n * Hours(time.Hour)) }

// Duration converts to a duration.
func (n Days) Duration() time.Duration { return time.Duration(n * Days(24*time.Hour)) }
