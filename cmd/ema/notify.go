package main

import (
	"fmt"
	"net"
)

// notify tells the service manager that started us how we stand ("READY=1"), as sd_notify(3) describes. Without a
// service manager there is nobody to tell.
func (a *app) notify(state string) error {
	socket := a.getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
