package store

import (
	"io"
	"io/fs"
)

// Disk is every operation by which a store changes the file system: each of them may be the last
// one before a crash, and a test can stop after any. Reading of names and metadata goes past it,
// straight to the operating system. Errors are as package os returns them.
type Disk interface {
	// OpenFile opens a file without following a symbolic link in its last element. perm is subject
	// to the process's umask.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	// Rename replaces to atomically if it exists.
	Rename(from, to string) error
	Symlink(target, name string) error
	// Link makes name a second name of the file from.
	Link(from, name string) error
	// Remove removes a file, a link or an empty folder.
	Remove(name string) error
	// SyncDir makes the entries of a folder durable.
	SyncDir(name string) error
	// SyncFS makes everything durable that was written to the file system that holds name.
	SyncFS(name string) error
}

// File is one open file of a Disk. ReadAt and WriteAt may be called concurrently.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	// Datasync makes content and size durable, but not the time of modification.
	Datasync() error
	// Sync makes content, size and metadata durable.
	Sync() error
	// Preallocate reserves space for size bytes and makes the file that long, where the file system
	// can; elsewhere it only makes it that long.
	Preallocate(size int64) error
	// StartWriteback begins to write n bytes at off to the device without waiting for them.
	StartWriteback(off, n int64) error
	// DropCache lets go of the page cache's copy of n bytes at off, as far as it is clean.
	DropCache(off, n int64) error
	// TryLock takes an exclusive lock that ends with the file; false if somebody else holds it.
	TryLock() (bool, error)
	// Clone makes this file a copy of from that shares its storage (reflink), or fails with
	// errors.ErrUnsupported.
	Clone(from File) error
	// Dedupe makes the first size bytes of this file share the storage of from's, if the kernel finds them
	// equal; neither file changes otherwise. It fails with errors.ErrUnsupported where it cannot, also of
	// bytes that differ.
	Dedupe(from File, size int64) error
}
