package ocispec

import (
	_ "embed" // syscalls.txt
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The words of a seccomp filter that OCI runtimes know. If a word is unknown, some of them fail and
// others ignore the rule.
var (
	seccompActions = []specs.LinuxSeccompAction{
		specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace,
		specs.ActAllow, specs.ActLog, specs.ActNotify,
	}
	seccompOperators = []specs.LinuxSeccompOperator{
		specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan,
		specs.OpMaskedEqual,
	}
	seccompFlags = []specs.LinuxSeccompFlag{
		specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow, specs.LinuxSeccompFlagWaitKillableRecv,
		"SECCOMP_FILTER_FLAG_TSYNC",
	}
	seccompArches = []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64,
		specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	}
	// conditionArches are the names in conditions (Docker's, taken from libseccomp).
	conditionArches = []string{
		"x86", "amd64", "x32", "arm", "arm64", "loongarch64", "mips", "mips64", "mips64n32", "mipsel", "mipsel64", "mipsel64n32",
		"mips3l64n32", "ppc", "ppc64", "ppc64le", "riscv64", "s390", "s390x",
	}
	syscallName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,63}$`)
)

const (
	// maxErrno is MAX_ERRNO, include/linux/err.h: seccomp(2) returns no greater value.
	maxErrno = 4095
	// maxSyscallArg is the index of a system call's last argument.
	maxSyscallArg = 5
)

// syscallNames are the system calls of Linux on the architectures of golang.org/x/sys/unix (zsysnum_linux_*.go), and
// those of github.com/moby/profiles/seccomp.
//
//go:embed syscalls.txt
var syscallNames string

var knownSyscalls = sync.OnceValue(func() map[string]bool {
	known := map[string]bool{}
	for name := range strings.Lines(syscallNames) {
		known[strings.TrimSpace(name)] = true
	}
	return known
})

// CheckSeccomp refuses a filter that an OCI runtime would not load as it is written, or that
// filters nothing: with such a filter the container would run unconfined without a warning. Error:
// ErrInvalidArgument, with the field.
func CheckSeccomp(filter *specs.LinuxSeccomp) error {
	if filter.DefaultAction == "" {
		return invalid("defaultAction", "it is missing; without it nothing is filtered")
	}
	if !slices.Contains(seccompActions, filter.DefaultAction) || filter.DefaultAction == specs.ActNotify {
		return invalid("defaultAction", "%q is not one of %v without SCMP_ACT_NOTIFY", filter.DefaultAction, seccompActions)
	}
	if err := checkErrno("defaultErrnoRet", filter.DefaultErrnoRet); err != nil {
		return err
	}
	for i, arch := range filter.Architectures {
		if !slices.Contains(seccompArches, arch) {
			return invalid(indexed("architectures", i), "%q is not an architecture", arch)
		}
	}
	for i, flag := range filter.Flags {
		if !slices.Contains(seccompFlags, flag) {
			return invalid(indexed("flags", i), "%q is not one of %v", flag, seccompFlags)
		}
	}
	if filter.ListenerPath != "" && !path.IsAbs(filter.ListenerPath) {
		return invalid("listenerPath", "%q is not an absolute path", filter.ListenerPath)
	}
	restricts := filter.DefaultAction != specs.ActAllow
	for i, rule := range filter.Syscalls {
		if err := checkSyscall(indexed("syscalls", i), rule, filter.ListenerPath); err != nil {
			return err
		}
		known := slices.ContainsFunc(rule.Names, func(name string) bool { return knownSyscalls()[name] })
		restricts = restricts || known && rule.Action != specs.ActAllow
	}
	if !restricts {
		return invalid("syscalls", "it filters nothing: all is allowed, and no rule restricts a known system call (to ask for that, use the profile type Unconfined)")
	}
	return nil
}

func checkSyscall(field string, rule specs.LinuxSyscall, listener string) error {
	if len(rule.Names) == 0 {
		return invalid(field+".names", "the rule names no system call")
	}
	for i, name := range rule.Names {
		if !syscallName.MatchString(name) {
			return invalid(indexed(field+".names", i), "%.80q is not the name of a system call", name)
		}
	}
	if !slices.Contains(seccompActions, rule.Action) {
		return invalid(field+".action", "%q is not one of %v", rule.Action, seccompActions)
	}
	if rule.Action == specs.ActNotify && listener == "" {
		return invalid(field+".action", "%q without a listenerPath", rule.Action)
	}
	for i, arg := range rule.Args {
		at := indexed(field+".args", i)
		if arg.Index > maxSyscallArg {
			return invalid(at+".index", "%d is not in 0-%d", arg.Index, maxSyscallArg)
		}
		if !slices.Contains(seccompOperators, arg.Op) {
			return invalid(at+".op", "%q is not one of %v", arg.Op, seccompOperators)
		}
	}
	return checkErrno(field+".errnoRet", rule.ErrnoRet)
}

func checkErrno(field string, errno *uint) error {
	if errno != nil && *errno > maxErrno {
		return invalid(field, "%d is not in 0-%d", *errno, maxErrno)
	}
	return nil
}

// checkConditions refuses a condition that can never be true because of a mistake: its rule would
// be left out without a warning.
func checkConditions(field string, f *seccomp.Filter) error {
	if f == nil {
		return nil
	}
	for i, name := range f.Caps {
		if !slices.Contains(knownCapabilities, name) {
			return invalid(indexed(field+".caps", i), "%q is not a capability", name)
		}
	}
	for i, name := range f.Arches {
		if !slices.Contains(conditionArches, name) {
			return invalid(indexed(field+".arches", i), "%q is not one of %v", name, conditionArches)
		}
	}
	return nil
}

// secondNames are the second names of error numbers that have two.
var secondNames = map[string]unix.Errno{"EOPNOTSUPP": unix.EOPNOTSUPP, "EWOULDBLOCK": unix.EWOULDBLOCK, "EDEADLOCK": unix.EDEADLOCK}

// checkErrnoName refuses the name of an error (profiles of the containers project have names) that
// does not match the number. OCI runtimes use the number, or EPERM without one.
func checkErrnoName(field, name string, number *uint) error {
	errno := unix.EPERM
	if number != nil && *number <= maxErrno {
		errno = unix.Errno(*number)
	}
	if name == "" || unix.ErrnoName(errno) == name || secondNames[name] == errno {
		return nil
	}
	return invalid(field, "%q is not the name of the given error number; runtimes use only the number", name)
}
