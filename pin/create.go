package pin

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A Set has the namespaces that Create made. Kinds that were not requested are nil.
type Set struct {
	User, Net, IPC, UTS *Namespace
	// OwnerErr says why User belongs to the caller's user and not to the one that the mappings make
	// root. nil if it belongs to that one.
	OwnerErr error
}

// Close closes all namespaces of the set. It may be repeated, and always returns nil. It does not
// touch namespaces that the caller has taken out (by setting the field to nil) or disowned.
func (s *Set) Close() error {
	for _, n := range []*Namespace{s.User, s.Net, s.IPC, s.UTS} {
		_ = n.Close()
	}
	return nil
}

// Create makes new namespaces of the given kinds (User, Net, IPC, UTS).
//
// With mappings, it always makes a user namespace with these mappings, which owns the others. The
// user namespace belongs to the host's user and group that are ID 0 in it. So its use of per-user
// limits (inotify instances, for example) does not count for the caller. If that is not possible,
// it belongs to the caller, see [Set.OwnerErr]. Without mappings (nil), the others belong to the
// caller's user namespace, and kinds must not contain User.
//
// No process is left in the namespaces. They live as long as their descriptors and pins. After an
// error nothing is left. A caller that is killed inside Create leaves nothing either. Create waits
// for the kernel, some milliseconds for a network namespace, and cannot be interrupted.
//
// Errors: ErrInvalid (and *MappingError) before any side effect; ErrUnsupported, see Probe; and the
// kernel's, wrapped.
func Create(m *Mappings, kinds Kind) (*Set, error) {
	if err := checkRequest(m, kinds); err != nil {
		return nil, fmt.Errorf("create %s namespaces: %w", kinds, err)
	}
	if m != nil {
		kinds |= User
	}
	set, err := create(m, kinds)
	if err != nil {
		return nil, fmt.Errorf("create %s namespaces: %w", kinds, err)
	}
	return set, nil
}

// Probe finds out whether Create can make these kinds now, User included, by doing it once. nil: it
// can. ErrUnsupported: it cannot, and the error has the reason (the kernel, a sysctl, a missing
// privilege). Any other error: it could not find out. It leaves nothing behind.
func Probe(kinds Kind) error {
	if err := checkKinds(kinds); err != nil {
		return fmt.Errorf("probe %s namespaces: %w", kinds, err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := hold(kinds)
	if err != nil {
		return fmt.Errorf("probe %s namespaces: %w", kinds, explainClone(err, kinds))
	}
	return child.kill()
}

func checkRequest(m *Mappings, kinds Kind) error {
	if m == nil {
		if kinds&User != 0 {
			return fmt.Errorf("a user namespace needs mappings: %w", ErrInvalid)
		}
		return checkKinds(kinds)
	}
	if err := m.Validate(); err != nil {
		return err
	}
	return checkKinds(kinds | User)
}

func checkKinds(kinds Kind) error {
	if kinds == 0 {
		return fmt.Errorf("no kind of namespace given: %w", ErrInvalid)
	}
	if other := kinds &^ creatable; other != 0 {
		return fmt.Errorf("%s namespaces cannot be made without a process in them: %w", other, ErrInvalid)
	}
	return nil
}

// create makes a user namespace of the caller's own user if it lacks the rights for another one.
// For example, without CAP_SYS_PTRACE it cannot open the namespaces of another user's child.
func create(m *Mappings, kinds Kind) (*Set, error) {
	if m == nil {
		return createPlain(m, kinds)
	}
	set, err := createOwned(m, kinds)
	if err == nil || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return set, err
	}
	plain, plainErr := createPlain(m, kinds)
	if plainErr != nil {
		return nil, plainErr
	}
	plain.OwnerErr = err
	return plain, nil
}

func createPlain(m *Mappings, kinds Kind) (*Set, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child, err := hold(kinds)
	if err != nil {
		return nil, explainClone(err, kinds)
	}
	return child.finish(m, kinds)
}

// createOwned works on a thread that nothing else uses. If it cannot restore the thread's
// credentials, the thread ends.
func createOwned(m *Mappings, kinds Kind) (*Set, error) {
	type result struct {
		set *Set
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		child, restored, err := rootOf(m).hold(kinds)
		r := result{err: err}
		if err == nil {
			r.set, r.err = child.finish(m, kinds)
		}
		if restored {
			runtime.UnlockOSThread()
		}
		done <- r
	}()
	r := <-done
	return r.set, r.err
}

// finish collects the namespaces and kills the child.
func (h *held) finish(m *Mappings, kinds Kind) (*Set, error) {
	set, err := h.collect(m, kinds)
	if e := h.kill(); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		_ = set.Close()
		return nil, err
	}
	return set, nil
}

// collect sets up and opens the child's namespaces. The set is never nil. With an error it has
// those that were opened.
func (h *held) collect(m *Mappings, kinds Kind) (*Set, error) {
	set := &Set{}
	if m != nil {
		if err := h.writeMaps(m); err != nil {
			return set, err
		}
	}
	for _, info := range kinds.infos() {
		n, err := h.namespace(info)
		if err != nil {
			return set, err
		}
		switch info.kind {
		case User:
			set.User = n
		case Net:
			set.Net = n
		case IPC:
			set.IPC = n
		case UTS:
			set.UTS = n
		}
	}
	return set, nil
}

// explainClone adds the likely cause to an error of clone3. It adds ErrUnsupported if another
// attempt cannot succeed.
func explainClone(err error, kinds Kind) error {
	var hint string
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		var zero bool
		if hint, zero = limitsHint(kinds); !zero {
			return fmt.Errorf("clone3: %w: %s", err, hint)
		}
	case errors.Is(err, unix.EPERM):
		hint = "needs CAP_SYS_ADMIN, no chroot, and no security policy (AppArmor, SELinux, seccomp) against it"
	case errors.Is(err, unix.ENOSYS):
		hint = "Linux before 5.3, or a seccomp filter without clone3"
	case errors.Is(err, unix.EINVAL):
		hint = "the kernel is built without one of these namespaces"
	default:
		return fmt.Errorf("clone3: %w", err)
	}
	return fmt.Errorf("clone3: %w: %s: %w", err, hint, ErrUnsupported)
}

// limitsHint names the sysctls that limit the kinds, namespaces(7). It reports whether one of them
// is zero, which forbids that kind.
func limitsHint(kinds Kind) (hint string, zero bool) {
	var limits []string
	for _, info := range kinds.infos() {
		name := "max_" + info.name + "_namespaces"
		value, err := os.ReadFile("/proc/sys/user/" + name)
		if err != nil {
			continue
		}
		text := strings.TrimSpace(string(value))
		if text == "0" {
			return "sysctl user." + name + " is 0", true
		}
		limits = append(limits, "user."+name+" = "+text)
	}
	return "a limit is reached (sysctl " + strings.Join(limits, ", ") +
		", the same in a parent user namespace, or 32 nested user namespaces)", false
}
