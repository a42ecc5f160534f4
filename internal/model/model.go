// Package model holds the words that every other package speaks: model ids, digests, files,
// segments, sizes and errors.
//
// Nothing here acts: no input or output, no clock, no goroutine. All types are values, safe to copy
// and to use from several goroutines.
package model
