package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The two ends of a link: who connects to linkThere reaches who listens on linkHere, and takes him for linkThere.
const (
	linkHere  = "10.213.77.1"
	linkThere = "10.213.77.2"
)

// distance makes a link whose round trip takes rtt, in the network namespace of this process, which should be one of its own: what is
// sent to one end comes back after a while with its addresses exchanged. Checksums stay right, since a sum knows no order. For the
// kernel's TCP that is a long way, with windows and all. It needs root, and lasts as long as the test.
func distance(t *testing.T, rtt time.Duration) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	set := func(name string, at int, request uint, value func(*unix.Ifreq) error) {
		t.Helper()
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			err = value(ifr)
		}
		if err == nil {
			err = unix.IoctlIfreq(at, request, ifr)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	flags := func(f uint16) func(*unix.Ifreq) error {
		return func(i *unix.Ifreq) error { i.SetUint16(f); return nil }
	}
	set("ema-test", fd, unix.TUNSETIFF, flags(unix.IFF_TUN|unix.IFF_NO_PI))
	set("ema-test", socket, unix.SIOCSIFADDR, func(i *unix.Ifreq) error { return i.SetInet4Addr([]byte{10, 213, 77, 1}) })
	set("ema-test", socket, unix.SIOCSIFNETMASK, func(i *unix.Ifreq) error { return i.SetInet4Addr([]byte{255, 255, 255, 0}) })
	set("ema-test", socket, unix.SIOCSIFFLAGS, flags(unix.IFF_UP|unix.IFF_RUNNING))
	set("lo", socket, unix.SIOCSIFFLAGS, flags(unix.IFF_UP|unix.IFF_RUNNING))
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	tun := os.NewFile(uintptr(fd), "tun")

	type packet struct {
		due   time.Time
		bytes []byte
	}
	late := make(chan packet, 1<<16)
	over := make(chan struct{})
	go func() {
		defer close(late)
		for {
			p := packet{bytes: make([]byte, 2048)}
			n, err := tun.Read(p.bytes)
			if err != nil {
				return // the test is over
			}
			if p.bytes = p.bytes[:n]; n < 20 || p.bytes[0]>>4 != 4 {
				continue
			}
			var from [4]byte
			copy(from[:], p.bytes[12:16])
			copy(p.bytes[12:16], p.bytes[16:20])
			copy(p.bytes[16:20], from[:])
			p.due = time.Now().Add(rtt / 2)
			late <- p
		}
	}()
	go func() {
		defer close(over)
		for p := range late {
			time.Sleep(time.Until(p.due)) // it is what a long way does
			if _, err := tun.Write(p.bytes); err != nil {
				continue // the test is over
			}
		}
	}()
	t.Cleanup(func() {
		if err := tun.Close(); err != nil {
			t.Error(err)
		}
		<-over
	})
}
