// Package verify proves bytes and structure, finds damage, and names the segments to fetch again.
//
// It trusts neither network nor disk: every length it reads is checked against the file before it is
// used, what it reads and keeps is bounded whatever the file says, and nothing it reads is executed.
// Hashes decide whether a file is the promised one (Blob, Files); Structure says in words whether
// the promised file is any good.
package verify
