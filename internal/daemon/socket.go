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

	"google.golang.org/grpc"
)

// socketLook is how often the daemon checks that its socket is still at its path.
const socketLook = 2 * time.Second

// socket is the path at which the daemon serves, and the identity of the socket that it made there
// last. The daemon holds the lock of the path.
type socket struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	made os.FileInfo
}

// listen makes the socket. It first removes what a dead daemon left at the path.
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
		err = os.Chmod(s.path, 0o660)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
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
func (s *socket) keep(ctx context.Context, server *grpc.Server) {
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
			if err := s.again(server); err != nil {
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

func (s *socket) again(server *grpc.Server) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o711); err != nil {
		return fmt.Errorf("its directory: %w", err)
	}
	l, err := s.listen()
	if err != nil {
		return err
	}
	go func() { _ = server.Serve(&boundedListener{Listener: l, log: s.log}) }()
	return nil
}
