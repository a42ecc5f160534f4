//go:build !linux

package host

// ForgetProgram does nothing: what is mapped of a program is known on Linux only.
func ForgetProgram() error { return nil }
