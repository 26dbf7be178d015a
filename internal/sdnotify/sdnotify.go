// Package sdnotify tells the service manager how the daemon is, by sd_notify(3): one datagram for
// each message, to the socket in $NOTIFY_SOCKET. Without that variable nothing is sent.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sendTimeout limits the wait for a manager that does not read its socket.
const sendTimeout = time.Second

// maxStatus limits a status text, in bytes.
const maxStatus = 512

// Notifier sends to the service manager. The zero value and nil send nothing.
type Notifier struct {
	socket   string
	watchdog time.Duration
}

// New reads the variables, and unsets them: they are not for the processes that this one starts.
func New() *Notifier {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	pid := os.Getenv("WATCHDOG_PID")
	if err == nil && usec > 0 && usec <= int64(maxWatchdog/time.Microsecond) && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(usec) * time.Microsecond
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name)
	}
	return n
}

// maxWatchdog is an interval that is as good as none.
const maxWatchdog = 24 * time.Hour

// Interval is the time within which the manager expects each call of Alive; 0 if it expects none.
func (n *Notifier) Interval() time.Duration {
	if n == nil || n.socket == "" {
		return 0
	}
	return n.watchdog
}

// Ready says that the daemon serves.
func (n *Notifier) Ready(status string) error { return n.send("READY=1", say(status)) }

// Reloading says that the daemon reads its configuration again. Ready must follow.
func (n *Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10), say("Reading the configuration again"))
}

// Stopping says that the daemon ends.
func (n *Notifier) Stopping(status string) error { return n.send("STOPPING=1", say(status)) }

// Status says in words how the daemon is.
func (n *Notifier) Status(status string) error { return n.send(say(status)) }

// Alive says that the daemon works.
func (n *Notifier) Alive() error { return n.send("WATCHDOG=1") }

// Dead asks the manager to end the daemon as if Alive had not been called in time.
func (n *Notifier) Dead(status string) error { return n.send("WATCHDOG=trigger", say(status)) }

// say is the assignment of a status text: one line.
func say(status string) string {
	status = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(status, "?"))
	if len(status) > maxStatus {
		status = strings.ToValidUTF8(status[:maxStatus], "") + "…"
	}
	return "STATUS=" + status
}

func (n *Notifier) send(assignments ...string) error {
	if n == nil || n.socket == "" {
		return nil
	}
	// "@" stands for the zero byte of an abstract address, here as in package net.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(strings.Join(assignments, "\n"))); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}
