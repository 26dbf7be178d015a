package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend"
	"golang.org/x/sys/unix"
)

// store is the directory in which host-local keeps which address belongs to whom: a file for each, named after the address,
// with the container and its interface as content. It is the same directory, with the same files, that the plugin uses, and
// the lock is the same. It reads only regular files, of a few bytes, because the daemon must not hang or grow at another's
// file. [backend/disk] of the plugin's own would.
type store struct {
	dir  string
	lock *os.File
	// owners is what each file said when it was last read, by name.
	owners map[string]string
}

var _ backend.Store = (*store)(nil)

const (
	defaultDataDir = "/var/lib/cni/networks"
	lastAddress    = "last_reserved_ip."
	lockFile       = "lock"
	// lineBreak is between the container and its interface.
	lineBreak = "\r\n"
	// maxLease is the largest file that can be a lease: the IDs in it are names of files elsewhere.
	maxLease = 1 << 10
)

// openStore opens the store of a network and locks it, against other calls in this process and against the plugin. The
// caller closes it.
func (p *Plugins) openStore(ctx context.Context, dataDir, network string) (s *store, done func(), err error) {
	if dataDir == "" {
		dataDir = defaultDataDir
	}
	dir := filepath.Join(dataDir, network)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	unlock, err := p.stores.lock(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	f, err := lockedFile(ctx, filepath.Join(dir, lockFile))
	if err != nil {
		unlock()
		return nil, nil, fmt.Errorf("lock the addresses in %s: %w", dir, err)
	}
	return &store{dir: dir, lock: f}, func() {
		_ = f.Close() // which also unlocks it
		unlock()
	}, nil
}

// lockedFile opens a file and waits for its lock, flock(2). Other holders are plugins, which have it for milliseconds.
func lockedFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY|unix.O_NONBLOCK, 0o750)
	if err != nil {
		return nil, err
	}
	wait := pauses{first: time.Millisecond, most: 20 * time.Millisecond}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = wait.pause(ctx)
		} else if errors.Is(err, unix.EINTR) {
			err = nil
		}
		if err != nil {
			_ = f.Close()
			return nil, err
		}
	}
}

// Lock, Unlock and Close are those of backend.Store. The lock is held from openStore on.
func (s *store) Lock() error { return nil }

// Unlock does nothing, see Lock.
func (s *store) Unlock() error { return nil }

// Close does nothing, see Lock.
func (s *store) Close() error { return nil }

// Reserve takes an address, unless it is taken.
func (s *store) Reserve(id, ifname string, ip net.IP, rangeID string) (bool, error) {
	path := filepath.Join(s.dir, ip.String())
	f, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(lease(id, ifname))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = os.Remove(path)
		return false, err
	}
	return true, os.WriteFile(filepath.Join(s.dir, lastAddress+rangeID), []byte(ip.String()), 0o600)
}

// lease is the content of a file.
func lease(id, ifname string) string { return strings.TrimSpace(id) + lineBreak + ifname }

// LastReservedIP returns the address that was taken last. If that cannot be read, the search begins at the first.
func (s *store) LastReservedIP(rangeID string) (net.IP, error) {
	text, ok := readLease(filepath.Join(s.dir, lastAddress+rangeID))
	if !ok {
		return nil, fs.ErrNotExist
	}
	return net.ParseIP(text), nil
}

// ReleaseByID gives back all addresses of an interface of a container. A file of before releases wrote interfaces names the
// container alone, and counts if there is no other.
func (s *store) ReleaseByID(id, ifname string) error {
	if err := s.read(); err != nil {
		return err
	}
	for _, owner := range []string{lease(id, ifname), strings.TrimSpace(id)} {
		found := false
		for name, has := range s.owners {
			if has != owner {
				continue
			}
			if os.Remove(filepath.Join(s.dir, name)) == nil {
				found = true
				delete(s.owners, name)
			}
		}
		if found {
			break
		}
	}
	return nil
}

// GetByID returns the addresses of an interface of a container.
func (s *store) GetByID(id, ifname string) []net.IP {
	var ips []net.IP
	if s.read() != nil {
		return nil
	}
	for name, has := range s.owners {
		if has != lease(id, ifname) && has != strings.TrimSpace(id) {
			continue
		}
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		}
	}
	return ips
}

// read reads all files, once while the lock is held: nobody else changes them.
func (s *store) read() error {
	if s.owners != nil {
		return nil
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	s.owners = make(map[string]string, len(names))
	for _, name := range names {
		if name == lockFile || strings.HasPrefix(name, lastAddress) {
			continue
		}
		if text, ok := readLease(filepath.Join(s.dir, name)); ok {
			s.owners[name] = strings.TrimSpace(text)
		}
	}
	return nil
}

// readLease reads a file that the plugin may have written.
func readLease(path string) (string, bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxLease {
		return "", false
	}
	data, err := io.ReadAll(io.LimitReader(f, maxLease))
	return string(data), err == nil
}
