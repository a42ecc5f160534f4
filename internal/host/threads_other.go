//go:build !linux

package host

import (
	"errors"
	"fmt"
	"os"
)

// attributes are nothing that is known of this system.
type attributes struct{}

func readAttributes(int) (attributes, error) { return attributes{}, nil }

func (*attributes) set(_ int, c Class) error {
	if c.Priority == "" && len(c.Cores) == 0 || c.Priority == Normal && len(c.Cores) == 0 {
		return nil
	}
	return fmt.Errorf("priorities and cores of threads: %w on this system", errors.ErrUnsupported)
}

func (*attributes) setIO(p IOPriority) error {
	if p == "" {
		return nil
	}
	return fmt.Errorf("I/O priorities: %w on this system", errors.ErrUnsupported)
}

func threadsOf(pid int) ([]int, error) { return []int{pid}, nil }

// thisThread is the number of the calling one, which nobody asks for where nothing can be set.
func thisThread() int { return os.Getpid() + 1 }

// Cores are the numbers of those that this process may use; nil, since this system does not tell.
func Cores() ([]int, error) { return nil, nil }
