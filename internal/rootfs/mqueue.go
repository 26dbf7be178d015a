package rootfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// OwnQueues gives the directory of an IPC namespace's message queues, which is what /dev/mqueue shows
// (mq_overview(7)), to the root of the user namespace that owns it. The kernel makes the directory together with the
// namespace, for the thread that makes that (mq_init_ns in ipc/mqueue.c). There is one for all mounts.
func OwnQueues(ipc *pin.Namespace, owner Owner) error {
	err := ipc.Do(func() error {
		c, err := openFS("mqueue")
		if err != nil {
			return err
		}
		defer c.close()
		mnt, err := c.mount(unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
		if err != nil {
			return err
		}
		defer func() { _ = mnt.Close() }()
		return unix.Fchownat(int(mnt.Fd()), "", int(owner.UID), int(owner.GID), unix.AT_EMPTY_PATH)
	})
	if err != nil {
		return fmt.Errorf("owner of the message queues: %w", err)
	}
	return nil
}
