package model

import "fmt"

// Bytes is a size in bytes.
type Bytes int64

// Binary multiples. Keys that end in _mb and _gb count in these, and so does everything ema prints.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
	TiB Bytes = 1 << 40
)

// String formats b with one decimal in the largest fitting binary unit, e.g. "14.2 GiB" or "312 B".
func (b Bytes) String() string {
	n, sign := b, ""
	if n < 0 {
		n, sign = -n, "-"
	}
	switch {
	case n < 0: // the smallest int64 has no positive counterpart
		return fmt.Sprintf("%d B", int64(b))
	case n < KiB:
		return fmt.Sprintf("%s%d B", sign, int64(n))
	case n < MiB:
		return fmt.Sprintf("%s%.1f KiB", sign, float64(n)/float64(KiB))
	case n < GiB:
		return fmt.Sprintf("%s%.1f MiB", sign, float64(n)/float64(MiB))
	case n < TiB:
		return fmt.Sprintf("%s%.1f GiB", sign, float64(n)/float64(GiB))
	}
	return fmt.Sprintf("%s%.1f TiB", sign, float64(n)/float64(TiB))
}
