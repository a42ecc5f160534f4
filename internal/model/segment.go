package model

import "fmt"

// A Segment is a half-open span of a file's bytes; the zero Segment is empty.
type Segment struct{ Start, End int64 }

// Len is the number of bytes in s.
func (s Segment) Len() int64 { return s.End - s.Start }

// Header is the value of the Range header that asks for s (RFC 9110, section 14.2). s must not be empty.
func (s Segment) Header() string { return fmt.Sprintf("bytes=%d-%d", s.Start, s.End-1) }

// String shows s as "[start, end)".
func (s Segment) String() string { return fmt.Sprintf("[%d, %d)", s.Start, s.End) }
