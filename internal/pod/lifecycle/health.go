package lifecycle

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// Current is the sandbox's record as it is true now. One that is ready in the record may have lost what makes it a
// pod: a cleaner has unmounted a pin, or "ip netns delete" was given its name. Then the pod is not ready, with the
// reason, from the first look on; the change is recorded, told as an event, and what the pod holds is given back as
// that of one whose PID 1 has ended. A look costs a few system calls for each pin, for a kubelet lists all pods
// every second.
func (s *Sandboxes) Current(box *pod.Sandbox) *pod.SandboxRecord {
	return current(s.node, box, s.debts)
}

func current(n *pod.Node, box *pod.Sandbox, debts Debts) *pod.SandboxRecord {
	rec := box.Record()
	if rec.State != pod.Ready {
		return rec
	}
	reason := Broken(n, rec)
	if reason == "" {
		return rec
	}
	// An operation that holds the order may be taking the pins off: a stop records the state first.
	if now := box.Record(); now.State != pod.Ready {
		return now
	}
	if box.Order.TryLock() {
		defer box.Order.Unlock()
		if !box.Erased && box.Record().State == pod.Ready {
			n.Log.Warn("sandbox is not ready any more", "sandbox", box.ID, "reason", reason)
			n.NoteSandbox(box, func(r *pod.SandboxRecord) { r.State, r.Reason = pod.Stopped, reason })
			debts.Add(box)
		}
		return box.Record()
	}
	shown := *rec
	shown.State, shown.Reason = pod.Stopped, reason
	return &shown
}

// Broken says what a sandbox lacks that was ready, "" if nothing. A look that fails, for want of a descriptor perhaps,
// says nothing.
func Broken(n *pod.Node, rec *pod.SandboxRecord) string {
	if rec.SharesPID() && !rec.Init.Alive() {
		return initEnded
	}
	for kind, path := range n.NamespacePins(rec) {
		ino, err := n.Pins.Identify(path)
		if NoPin(err) {
			return fmt.Sprintf("its %s namespace is gone: %v", kind, err)
		}
		if err != nil {
			continue
		}
		if made := rec.Pins[kind]; made != 0 && made != ino {
			return fmt.Sprintf("its %s namespace is gone: another one, %s:[%d], is at %s instead of %s:[%d]", kind, kind, ino, path, kind, made)
		}
	}
	if rec.Kinds()&pin.IPC != 0 {
		if shm := n.Mounts.ShmPath(rec.ID); !exists(shm) {
			return fmt.Sprintf("its shared memory is gone: there is no %s", shm)
		}
	}
	return ""
}

// NoPin reports whether Identify's error says that no namespace is pinned there, rather than that it could not look.
func NoPin(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, pin.ErrNotNamespace)
}

// netNSToDetach is the path of the pod's network namespace for the plugins, "" if there is none. They undo what
// they find in it, so another namespace that came to lie at the path, the node's perhaps, is not for them. Where the pod's
// own is gone although the node was not rebooted, a new one stands in: some plugins read in it what they had set up
// on the node.
func netNSToDetach(n *pod.Node, rec *pod.SandboxRecord) (string, error) {
	path := n.PinPath(rec, pin.Net)
	there, err := n.Pins.Identify(path)
	switch made := rec.Pins[pin.Net.String()]; {
	case err == nil && there == made:
		return path, nil
	case made != 0:
		return standIn(n, path)
	case err != nil:
		return "", nil // gone with a reboot, or never made
	}
	own, err := n.Pins.Identify("/proc/thread-self/ns/net")
	if err != nil || there == own {
		return "", err
	}
	return path, nil // a record of an older version, or of a pod that was never ready
}

func standIn(n *pod.Node, path string) (string, error) {
	if err := n.Pins.Unpin(path); err != nil {
		return "", err
	}
	if err := n.Pins.MakeNet(path); err != nil {
		return "", err
	}
	return path, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)
}
