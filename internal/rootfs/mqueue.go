package rootfs

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// OwnQueues gives the directory of an IPC namespace's message queues to the root of the user namespace that owns the IPC
// namespace. /dev/mqueue shows that directory (mq_overview(7)). The kernel makes it with the namespace, and gives it to
// the thread that makes the namespace (mq_init_ns in ipc/mqueue.c). All mounts show the same directory.
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
