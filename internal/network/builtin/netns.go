package builtin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/fault"
)

// hostNS is the network namespace of this process.
const hostNS = "/proc/self/ns/net"

// errNoNetNS: there is no namespace at that path.
var errNoNetNS = errors.New("no network namespace is there")

// openNetNS opens a pod's network namespace, and refuses that of the host, or if it cannot tell. The caller closes the file.
func openNetNS(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errNoNetNS, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := isPods(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("network namespace %s: %w", path, err)
	}
	return f, nil
}

func isPods(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return errors.New("it is a file")
	}
	var pods, hosts unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &pods); err != nil {
		return err
	}
	if err := unix.Stat(hostNS, &hosts); err != nil {
		return err
	}
	if pods.Dev == hosts.Dev && pods.Ino == hosts.Ino {
		return errors.New("it is the host's")
	}
	return nil
}

// Inside runs fn on a thread in the network namespace. The thread ends afterwards.
func Inside(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: Go ends the thread with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// Not on the first thread: it does not end, and /proc/self shows its namespaces. While this goroutine has it,
			// the next one gets another.
			done <- Inside(ns, fn)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", ns.Name(), err)
			return
		}
		done <- fault.Guard(fn)
	}()
	return <-done
}

// inside is Inside with a netlink socket of the namespace.
func inside(ns *os.File, fn func(h *netlink.Handle) error) error {
	return Inside(ns, func() error {
		h, err := routes()
		if err != nil {
			return err
		}
		defer h.Close()
		return fn(h)
	})
}

// routes opens a socket of rtnetlink(7) in the namespace of the calling thread. The caller closes it.
func routes() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return h, nil
}

// again repeats a reading that the kernel says it was interrupted in, because something changed meanwhile
// (NLM_F_DUMP_INTR of netlink(7)). What such a reading returns may lack something, so the last one is an error.
func again[T any](read func() (T, error)) (T, error) {
	const most = 20
	for range most {
		got, err := read()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	var none T
	return none, fmt.Errorf("the kernel's list changed during each of %d readings: %w", most, netlink.ErrDumpInterrupted)
}
