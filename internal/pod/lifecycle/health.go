package lifecycle

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/fault"
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
	table  MountTable
	debts  Debts
	log    *slog.Logger
}

// trusted is how long a look at a pod counts as long as nothing was mounted or unmounted. Pins are mounts, so they cannot go
// without a change of the mount table. But the directory above them can be renamed.
const trusted = time.Minute

// Current is the sandbox's record as it is true now. One that is ready in the record may have lost what makes it a pod:
// a cleaner has unmounted a pin, or "ip netns delete" was given its name. Then the pod is not ready, with the reason,
// from the first look on. The change is recorded and told as an event, and what the pod holds is removed as that of one
// whose PID 1 has ended. A kubelet lists all pods every second, so pins are looked at again only after the mount table has
// changed.
func (h *Health) Current(box *pod.Sandbox) *pod.SandboxRecord {
	rec := box.Record()
	if rec.State != pod.Ready {
		return rec
	}
	reason := h.Lacks(box)
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

// LookAhead looks at ready sandboxes, several at once, so that Lacks need not. Where looks are not remembered it does
// nothing.
func (h *Health) LookAhead(boxes []*pod.Sandbox) {
	if h.table == nil {
		return
	}
	var next atomic.Int64
	var lookers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(boxes)) {
		lookers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(boxes); i = int(next.Add(1)) - 1 {
				if box := boxes[i]; box.Record().State == pod.Ready {
					fault.Logged(h.log, func() { h.Lacks(box) }, "pod_id", box.ID)
				}
			}
		})
	}
	lookers.Wait()
}

// Lacks says what a ready sandbox lacks, "" if nothing, and does not repeat a look that still counts.
func (h *Health) Lacks(box *pod.Sandbox) string {
	rec := box.Record()
	if h.table == nil {
		return h.Broken(rec)
	}
	// The count comes before the look: what changes meanwhile makes the next look a new one.
	now := pod.Whole{Record: rec, Mounts: h.table.Changes(), At: time.Now()}
	last := box.Whole.Load()
	if last != nil && last.Record == rec && last.Mounts == now.Mounts && now.At.Sub(last.At) < trusted {
		return h.brokenInit(rec)
	}
	reason, sure := h.look(rec)
	if reason == "" && sure {
		box.Whole.Store(&now)
	}
	return reason
}

// Broken says what a sandbox lacks that was ready, "" if nothing. A look that fails, for want of a descriptor perhaps,
// says nothing.
func (h *Health) Broken(rec *pod.SandboxRecord) string {
	reason, _ := h.look(rec)
	return reason
}

func (h *Health) brokenInit(rec *pod.SandboxRecord) string {
	if rec.SharesPID() && !rec.Init.Alive() {
		return initEnded
	}
	return ""
}

// look is Broken. It is not sure if something could not be looked at.
func (h *Health) look(rec *pod.SandboxRecord) (reason string, sure bool) {
	if reason := h.brokenInit(rec); reason != "" {
		return reason, true
	}
	sure = true
	for kind, path := range h.places.NamespacePins(rec) {
		ino, err := h.pins.Identify(path)
		if NoPin(err) {
			return fmt.Sprintf("its %s namespace is gone: %v", kind, err), true
		}
		if err != nil {
			sure = false
			continue
		}
		if made := rec.Pins[kind]; made != 0 && made != ino {
			return fmt.Sprintf("its %s namespace is gone: another one, %s:[%d], is at %s instead of %s:[%d]", kind, kind, ino, path, kind, made), true
		}
	}
	if rec.Kinds()&pin.IPC != 0 {
		if shm := h.mounts.ShmPath(rec.ID); !exists(shm) {
			return fmt.Sprintf("its shared memory is gone: there is no %s", shm), true
		}
	}
	return "", sure
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)
}
