package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// standIn makes an interface with the attachment's addresses in place of the pod's own, if that is gone although a DEL is
// owed. Plugins of the CNI project, bridge and ptp among them, first delete the interface, and then remove the firewall
// rules for the addresses that it had. If such a DEL is interrupted in between, the next one finds no addresses, reports
// success, and leaves the rules for ever. netns is a live namespace. No earlier plugin runs any more.
func (a *Attachment) standIn(netns string) error {
	r, err := parseResult(a.Result)
	if err != nil {
		return nil // ADD has not returned: its interface is still as it was left
	}
	prefixes := r.prefixes(a.IfName)
	return inNetNS(netns, func() error {
		if _, err := net.InterfaceByName(a.IfName); err == nil {
			return nil
		}
		return makeInterface(a.IfName, prefixes)
	})
}

// inNetNS runs fn on a thread in the namespace. The thread ends afterwards.
func inNetNS(path string, fn func() error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: Go ends the thread with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// Not on the first thread: it does not end, and /proc/self shows its namespaces. While this goroutine has it,
			// the next one gets another.
			done <- inNetNS(path, fn)
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", path, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// makeInterface makes an interface with addresses, of any kind that the kernel has. It only exists to be deleted.
func makeInterface(name string, prefixes []netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, kind := range []string{"veth", "dummy", "bridge"} {
		if err = addLink(fd, name, kind); !errors.Is(err, unix.EOPNOTSUPP) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("make interface %s: %w", name, err)
	}
	link, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("make interface %s: %w", name, err)
	}
	for _, p := range prefixes {
		if err := addAddress(fd, link.Index, p); err != nil {
			return fmt.Errorf("give interface %s address %s: %w", name, p, err)
		}
	}
	return nil
}

// addLink is RTM_NEWLINK of rtnetlink(7).
func addLink(fd int, name, kind string) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	body = attribute(body, unix.IFLA_IFNAME, append([]byte(name), 0))
	body = attribute(body, unix.IFLA_LINKINFO, attribute(nil, unix.IFLA_INFO_KIND, []byte(kind)))
	return netlinkCall(fd, unix.RTM_NEWLINK, body)
}

// addAddress is RTM_NEWADDR of rtnetlink(7).
func addAddress(fd, index int, p netip.Prefix) error {
	body := make([]byte, unix.SizeofIfAddrmsg)
	body[0], body[1], body[2] = unix.AF_INET, byte(p.Bits()), unix.IFA_F_NODAD
	if p.Addr().Is6() {
		body[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(body[4:], uint32(index))
	ip := p.Addr().AsSlice()
	body = attribute(attribute(body, unix.IFA_LOCAL, ip), unix.IFA_ADDRESS, ip)
	return netlinkCall(fd, unix.RTM_NEWADDR, body)
}

// attribute appends one attribute, padded to four bytes.
func attribute(to []byte, kind uint16, value []byte) []byte {
	to = binary.NativeEndian.AppendUint16(to, uint16(unix.SizeofRtAttr+len(value)))
	to = binary.NativeEndian.AppendUint16(to, kind)
	to = append(to, value...)
	for len(to)%unix.RTA_ALIGNTO != 0 {
		to = append(to, 0)
	}
	return to
}

// netlinkCall sends one request and reads its acknowledgement, netlink(7).
func netlinkCall(fd int, kind uint16, body []byte) error {
	head := make([]byte, unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(head, uint32(len(head)+len(body)))
	binary.NativeEndian.PutUint16(head[4:], kind)
	binary.NativeEndian.PutUint16(head[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if err := unix.Sendto(fd, append(head, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("netlink: the answer is not an acknowledgement")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}
