package lifecycle

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/pin"
)

// Health looks whether sandboxes still have what makes them pods.
type Health struct {
	places  *pod.Places
	records *pod.Records
	pins    interface {
		Identify(path string) (inode uint64, err error)
	}
	mounts interface{ ShmPath(id string) string }
	debts  Debts
	log    *slog.Logger
}

// Current is the sandbox's record as it is true now. One that is ready in the record may have lost what makes it a pod:
// a cleaner has unmounted a pin, or "ip netns delete" was given its name. Then the pod is not ready, with the reason,
// from the first look on. The change is recorded and told as an event, and what the pod holds is removed as that of one
// whose PID 1 has ended. A look costs a few system calls for each pin, for a kubelet lists all pods every second.
func (h *Health) Current(box *pod.Sandbox) *pod.SandboxRecord {
	rec := box.Record()
	if rec.State != pod.Ready {
		return rec
	}
	reason := h.Broken(rec)
	if reason == "" {
		return rec
	}
	// An operation that holds the order may be taking the pins off: a stop records the state first.
	if now := box.Record(); now.State != pod.Ready {
		return now
	}
	if box.Order.TryLock() {
		defer box.Order.Unlock()
		h.lost(box, reason)
		return box.Record()
	}
	shown := *rec
	shown.State, shown.Reason = pod.Stopped, reason
	return &shown
}

// lost records that a ready sandbox is ready no more. The caller holds its order.
func (h *Health) lost(box *pod.Sandbox, reason string) {
	if box.Removed || box.Record().State != pod.Ready {
		return
	}
	h.records.NoteSandbox(box, func(r *pod.SandboxRecord) { r.State, r.Reason = pod.Stopped, reason })
	h.debts.Add(box)
}

const initEnded = "its PID 1 has ended"

// Broken says what a sandbox lacks that was ready, "" if nothing. A look that fails, for want of a descriptor perhaps,
// says nothing.
func (h *Health) Broken(rec *pod.SandboxRecord) string {
	if rec.SharesPID() && !rec.Init.Alive() {
		return initEnded
	}
	for kind, path := range h.places.NamespacePins(rec) {
		ino, err := h.pins.Identify(path)
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
		if shm := h.mounts.ShmPath(rec.ID); !exists(shm) {
			return fmt.Sprintf("its shared memory is gone: there is no %s", shm)
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)
}
