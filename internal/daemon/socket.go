package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// socketLook is how often the daemon checks that its socket is still at its path.
const socketLook = 2 * time.Second

// socket is a path at which the daemon serves, and the identity of the socket that it made there
// last. The daemon holds the lock of the path.
type socket struct {
	path string
	mode fs.FileMode
	// most is how many connections are served at once.
	most int64
	log  *slog.Logger

	mu   sync.Mutex
	made os.FileInfo
}

// listen makes the socket. It first removes what a dead daemon left at the path. The listener has a
// bound on its connections.
func (s *socket) listen() (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// By default Go removes whatever is at the path on Close.
	l.SetUnlinkOnClose(false)
	if s.made, err = os.Lstat(s.path); err == nil {
		err = os.Chmod(s.path, s.mode)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &boundedListener{Listener: l, most: s.most, log: s.log}, nil
}

// remove removes the socket, if it is still this daemon's.
func (s *socket) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(s.made, now) {
		_ = os.Remove(s.path)
	}
}

// keep makes the socket again if another program removes it, as cleaners of /run do. If something
// else is at the path, it logs that once. Open connections are kept.
func (s *socket) keep(ctx context.Context, serve func(net.Listener) error) {
	ticker := time.NewTicker(socketLook)
	defer ticker.Stop()
	said := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := os.Lstat(s.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := s.again(serve); err != nil {
				s.log.Error("another program removed the socket, and it cannot be made again", "socket", s.path, "error", err)
				continue
			}
			s.log.Warn("another program removed the socket; it was made again", "socket", s.path)
		case err == nil && !os.SameFile(s.made, now) && !said:
			said = true
			s.log.Error("something else is at the socket's path: new clients do not reach this daemon", "socket", s.path)
		}
	}
}

func (s *socket) again(serve func(net.Listener) error) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o711); err != nil {
		return fmt.Errorf("its directory: %w", err)
	}
	l, err := s.listen()
	if err != nil {
		return err
	}
	go func() { _ = serve(l) }()
	return nil
}
