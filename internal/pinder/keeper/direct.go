package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/kernel/mountinfo"
	"github.com/pinfold-run/pinfold/internal/kernel/proc"
	"github.com/pinfold-run/pinfold/internal/pinder/descriptor"
	"github.com/pinfold-run/pinfold/internal/pinder/entry"
	"github.com/pinfold-run/pinfold/internal/pinder/oci"
	"github.com/pinfold-run/pinfold/internal/pinder/program"
	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// direct is one exec without the OCI runtime: a child carries out a list of system calls (packages spawn and entry).
//
//	the child                          this process
//	does all but run the program
//	writes a byte                      records the process, so that no death of pinder's loses it
//	reads a byte                       writes a byte
//	runs the program                   sees the end of the child's pipe
//
// If this process ends before that, the child reads no byte, and ends. If anything fails, the child is ended and the
// runtime makes the exec: it has the better words for the reason.
type direct struct {
	p         *process // the exec
	container *process
	way       *entrance
	process   *entry.Process
	deadline  time.Time
	child     spawn.Child
	ready     *os.File // the child says here that all is ready
	gate      int      // the child waits for a byte of this
}

// run makes the exec. With a terminal its master becomes a handle of the exec. The error is entry.ErrRuntime if the
// runtime has to make it: then nothing is left.
func (d *direct) run(streams *oci.ChildEnds) (err error) {
	if !spawn.Supported {
		return left("this architecture has no direct execs")
	}
	if !program.OutOfReach() {
		return left("a container could write to pinder's own file")
	}
	d.way = &d.container.way
	if err := d.way.known(d.container); err != nil {
		return err
	}
	if d.way.Namespaces&unix.CLONE_NEWUSER == 0 && d.process.Capabilities.MayTrace() {
		return left("the command may trace processes, and has no user namespace")
	}
	children := d.p.keeper.calls.Children
	n := children.BeginCall() // no ended child is reaped before it is claimed
	defer children.EndCall(n)
	env, err := d.environment()
	if err != nil {
		return err
	}
	c := d.way.Container
	c.Filter = d.way.filter.get()
	if c.Pidfd, err = d.container.handles.duplicate(kindPidfd); err != nil || c.Pidfd < 0 {
		return left("the container's pidfd: %v", err)
	}
	defer unix.Close(c.Pidfd) //nolint:errcheck // a failed close cannot be handled
	list, err := spawn.NewList(entry.Memory(d.process, &c, env))
	if err != nil {
		return left("%v", err)
	}
	ended := false
	defer func() {
		if ended {
			list.Close()
		} // else a child that cannot be killed may still read it
	}()
	terminal, err := d.start(list, &c, env, streams)
	if err != nil {
		ended = true
		return err
	}
	defer d.close(terminal)
	err = d.finish(list, terminal)
	ended = err == nil || d.end()
	return err
}

// environment is what the program gets. Where the user's home is looked up in the container's /etc/passwd, the root of the
// init has to be a file system that answers: the init may have made one its root that does not.
func (d *direct) environment() ([]string, error) {
	dir := fmt.Sprintf("/proc/%d/", d.container.snapshot().PID)
	if err := answers(dir + "mountinfo"); err != nil {
		return nil, err
	}
	root, err := unix.Open(dir+"root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, left("the container's root: %v", err)
	}
	defer unix.Close(root) //nolint:errcheck // a failed close cannot be handled
	return entry.Environment(root, d.process)
}

// answering are types of file systems that need no process and no network to answer.
var answering = []string{"overlay", "ext4", "xfs", "btrfs", "tmpfs", "f2fs", "zfs"}

// maxMountinfo is how much of a container's mount table is read, in bytes.
const maxMountinfo = 1 << 20

// answers checks the type of the mount that is a process's root. A mount whose own root is not in the table, as after
// chroot(2), is left to the runtime, too: the command begins at the root of the mount namespace.
func answers(table string) error {
	f, err := os.Open(table)
	if err != nil {
		return left("the container's mounts: %v", err)
	}
	defer f.Close()
	mounts, err := mountinfo.Parse(io.LimitReader(f, maxMountinfo), func(m mountinfo.Mount) bool { return m.Point == "/" })
	if err != nil && !errors.Is(err, mountinfo.ErrLine) || len(mounts) == 0 {
		return left("the container's root is not in its mount table (%v)", err)
	}
	if last := mounts[len(mounts)-1]; !slices.Contains(answering, last.Type) {
		return left("the container's root is of type %s", last.Type)
	}
	return nil
}

// start makes the child. terminal is where the terminal's master will come from, -1 without one.
func (d *direct) start(list *spawn.List, c *entry.Container, env []string, streams *oci.ChildEnds) (terminal int, err error) {
	ends := entry.Ends{Terminal: -1, Ready: -1, Gate: -1}
	terminal, d.gate = -1, -1
	ready := -1
	var place spawn.Place
	defer func() {
		closeAll(append(ends.Groups, ends.Terminal, ends.Ready, ends.Gate), place.Cgroup)
		if err != nil {
			closeAll([]int{terminal, d.gate}, ready)
		}
	}()
	pair := func(ours, theirs *int, ourEnd int) error {
		var p [2]int
		err := unix.Pipe2(p[:], unix.O_CLOEXEC)
		if err == nil {
			*ours, *theirs = p[ourEnd], p[1-ourEnd]
		}
		return err
	}
	if err := errors.Join(pair(&ready, &ends.Ready, 0), pair(&d.gate, &ends.Gate, 1)); err != nil {
		return -1, left("pipe: %v", err)
	}
	if d.process.Terminal {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, left("socketpair: %v", err)
		}
		terminal, ends.Terminal = p[0], p[1]
	} else {
		ends.Streams = [3]int{streams.Stdin, streams.Stdout, streams.Stderr}
	}
	place = spawn.Place{Namespaces: -1, Cgroup: -1}
	if ends.Groups, place, err = d.way.groups(d.p.snapshot().Group); err != nil {
		return terminal, err
	}
	if c.Namespaces&unix.CLONE_NEWPID != 0 {
		place.Namespaces = c.Pidfd
	}
	if err := entry.Write(list, d.process, c, &ends, env); err != nil {
		return terminal, err
	}
	if d.child, err = list.Start(place); err != nil {
		return terminal, left("%v", err)
	}
	d.p.keeper.calls.Children.Claim(d.child.PID)
	h, err := descriptor.Pollable(ready, "exec")
	if err != nil {
		d.end()
		return terminal, left("%v", err)
	}
	d.ready = h.File
	return terminal, nil
}

func (d *direct) close(terminal int) {
	_ = d.ready.Close()
	closeAll([]int{terminal}, d.gate)
}

// finish waits until the program runs.
func (d *direct) finish(list *spawn.List, terminal int) error {
	_ = d.ready.SetReadDeadline(d.deadline)
	var b [1]byte
	if n, err := d.ready.Read(b[:]); n != 1 {
		return d.failure(list, err)
	}
	if err := d.take(terminal); err != nil {
		return left("%v", err)
	}
	if _, err := unix.Write(d.gate, []byte{1}); err != nil {
		return d.failure(list, err)
	}
	if _, err := d.ready.Read(b[:]); errors.Is(err, os.ErrDeadlineExceeded) || list.Failure() != nil {
		return d.failure(list, err)
	}
	return nil
}

// failure says why the program does not run. If the time is over, the runtime gets none either.
func (d *direct) failure(list *spawn.List, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return wire.Errorf(wire.CodeDeadlineExceeded, "exec: %s: the program was not started in time; is the container frozen?", d.p.describe())
	}
	if f := list.Failure(); f != nil {
		return left("%v", f)
	}
	return left("the child has ended (%v)", err)
}

// take records the process and its descriptors.
func (d *direct) take(terminal int) error {
	p := d.p
	if terminal >= 0 {
		fd, err := receive(terminal)
		if err != nil {
			return fmt.Errorf("receive the terminal: %w", err)
		}
		h, err := descriptor.Pollable(fd, kindTTY)
		if err != nil {
			_ = unix.Close(fd)
			return err
		}
		p.handles.set(kindTTY, h)
	}
	h, err := descriptor.Pollable(d.child.Pidfd, kindPidfd)
	if err != nil {
		return err
	}
	d.child.Pidfd = -1
	p.handles.set(kindPidfd, h)
	return p.identify(d.child.PID)
}

// receive takes a descriptor that the child has sent before it said that it is ready.
func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("%d messages (%w)", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%d descriptors (%w)", len(fds), err)
	}
	return fds[0], nil
}

// end kills the child, and takes back what was recorded. It reports whether the child has ended: in a frozen cgroup it
// cannot. Then it is reaped later.
func (d *direct) end() bool {
	p := d.p
	_ = unix.Kill(d.child.PID, unix.SIGKILL) // our unreaped child
	ended := false
	for giveUp := time.Now().Add(oci.KillGrace); !ended && time.Now().Before(giveUp); {
		if got, _, err := proc.Peek(unix.P_PID, d.child.PID); err != nil || got != 0 {
			ended = true
			break
		}
		time.Sleep(time.Millisecond)
	}
	closeAll(nil, d.child.Pidfd)
	p.handles.set(kindPidfd, nil)
	p.handles.set(kindTTY, nil)
	_ = p.update(func(m *meta) { m.Process, m.Phase = proc.Process{}, wire.PhaseCreating })
	_ = p.keep()
	if ended {
		_, _, _ = proc.Reap(unix.P_PID, d.child.PID)
	}
	p.keeper.calls.Children.Unclaim(d.child.PID)
	return ended
}
