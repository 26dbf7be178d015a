package entry

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// terminal makes a terminal of the container's own devpts, sends its master to the socket, and makes it the session's.
// The child does it, because a file system of the container may not answer.
func (w *writer) terminal() {
	open := w.l.Call("open /dev/pts/ptmx", unix.SYS_OPENAT, atCwd, w.l.String("/dev/pts/ptmx"),
		unix.O_RDWR|unix.O_NOCTTY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	stat, _ := w.l.Buffer(256)
	w.l.Call("ask for the file system of /dev/pts", unix.SYS_FSTATFS, 0, stat).From(open)
	w.l.Word("/dev/pts is a devpts", stat, unix.DEVPTS_SUPER_MAGIC)
	w.l.Call("unlock the terminal", unix.SYS_IOCTL, 0, unix.TIOCSPTLCK, w.l.Bytes(make([]byte, 4))).From(open)
	peer := w.l.Call("open the terminal", unix.SYS_IOCTL, 0, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC).From(open)
	message, descriptor := w.message()
	open.Store(descriptor)
	w.l.Call("send the terminal", unix.SYS_SENDMSG, uintptr(w.e.Terminal), message, 0).Want(1)
	w.l.Call("close the master", unix.SYS_CLOSE).From(open)
	w.l.Call("close the socket", unix.SYS_CLOSE, uintptr(w.e.Terminal))
	for to := range uintptr(3) {
		w.l.Call("take the terminal", unix.SYS_DUP3, 0, to, 0).From(peer)
	}
	w.l.Call("close the terminal", unix.SYS_CLOSE).From(peer)
	w.l.Call("give the terminal to the user", unix.SYS_FCHOWN, 0, uintptr(w.p.User.UID), ^uintptr(0)).Soft()
	w.l.Call("make it the session's terminal", unix.SYS_IOCTL, 0, unix.TIOCSCTTY, 0)
}

// message is a struct msghdr with one byte and one descriptor, which is to be written at the second address.
func (w *writer) message() (header, descriptor uintptr) {
	vector := w.l.Address(nil, w.l.String("t"))
	vector = binary.NativeEndian.AppendUint64(vector, 1)
	// struct cmsghdr, then a descriptor of four bytes and padding: the child writes it as a word of eight.
	control := binary.NativeEndian.AppendUint64(nil, uint64(unix.CmsgLen(4)))
	control = binary.NativeEndian.AppendUint32(control, unix.SOL_SOCKET)
	control = binary.NativeEndian.AppendUint32(control, unix.SCM_RIGHTS)
	control = binary.NativeEndian.AppendUint64(control, 0)
	at := w.l.Bytes(control)
	var b []byte
	b = binary.NativeEndian.AppendUint64(b, 0) // msg_name
	b = binary.NativeEndian.AppendUint64(b, 0) // msg_namelen
	b = w.l.Address(b, w.l.Bytes(vector))
	b = binary.NativeEndian.AppendUint64(b, 1)
	b = w.l.Address(b, at)
	b = binary.NativeEndian.AppendUint64(b, uint64(unix.CmsgSpace(4)))
	b = binary.NativeEndian.AppendUint64(b, 0) // msg_flags
	return w.l.Bytes(b), at + uintptr(unix.CmsgLen(0))
}
