package pair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/pinder/filter"
	"github.com/pinfold-run/pinfold/internal/pinder/spawn"
	"github.com/pinfold-run/pinfold/internal/pinder/wire"
)

// withFilter gives the container a seccomp profile.
func withFilter(profile func() any) tweak {
	return func(spec map[string]any, _ *wire.Create) { spec["linux"].(map[string]any)["seccomp"] = profile() }
}

func withoutNewPrivileges(spec map[string]any, _ *wire.Create) {
	spec["process"].(map[string]any)["noNewPrivileges"] = true
}

// handWritten forbids a few calls, each in another way.
func handWritten() any {
	arg := func(index int, value, two uint64, op string) map[string]any {
		return map[string]any{"index": index, "value": value, "valueTwo": two, "op": op}
	}
	return map[string]any{
		"defaultAction": "SCMP_ACT_ALLOW",
		"architectures": []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"},
		"syscalls": []map[string]any{
			{"names": []string{"mkdir", "mkdirat"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
			{"names": []string{"sync"}, "action": "SCMP_ACT_KILL_PROCESS"},
			{"names": []string{"symlink", "symlinkat"}, "action": "SCMP_ACT_TRAP"},
			{"names": []string{"kill"}, "action": "SCMP_ACT_ERRNO", "args": []any{arg(1, 10, 0, "SCMP_CMP_EQ")}},
			{"names": []string{"umask"}, "action": "SCMP_ACT_ERRNO", "args": []any{arg(0, 0o700, 0o100, "SCMP_CMP_MASKED_EQ")}},
			{"names": []string{"sethostname"}, "action": "SCMP_ACT_ERRNO", "args": []any{arg(1, 1<<40, 0, "SCMP_CMP_GT")}},
			{"names": []string{"no_such_call"}, "action": "SCMP_ACT_KILL"},
		},
	}
}

// ofMoby is the profile that RuntimeDefault is, for so many capabilities.
func ofMoby(t *testing.T, capabilities ...string) func() any {
	return func() any {
		profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{
			Capabilities: &specs.LinuxCapabilities{Bounding: capabilities},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return profile
	}
}

// filterOf reads the seccomp program of a process.
func filterOf(t *testing.T, pid int) (program []byte, flags uintptr) {
	t.Helper()
	l, err := spawn.NewList(filter.Memory)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	q := filter.Ask(l, pid)
	child, err := l.Start(spawn.Place{Namespaces: -1, Cgroup: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child.Pidfd) //nolint:errcheck // a test's
	for {
		if _, err := unix.Wait4(child.PID, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if program, flags, err = q.Answer(); err != nil {
		t.Fatal(err)
	}
	return program, flags
}

// verdict carries a program out as the kernel does, with the instructions that libseccomp and runc use.
// asked says that it looked at an argument: else the verdict is the same for all.
func verdict(t *testing.T, program []byte, data []uint32) (k uint32, asked bool) {
	t.Helper()
	var a uint32
	for at := 0; at*8 < len(program); at++ {
		i := program[at*8:]
		op, jt, jf, k := binary.NativeEndian.Uint16(i), int(i[2]), int(i[3]), binary.NativeEndian.Uint32(i[4:])
		jump := func(yes bool) {
			if yes {
				at += jt
			} else {
				at += jf
			}
		}
		switch op {
		case 0x20: // ld [k]
			a, asked = data[k/4], asked || k >= 16
		case 0x54: // and #k
			a &= k
		case 0x05: // ja
			at += int(k)
		case 0x15:
			jump(a == k)
		case 0x25:
			jump(a > k)
		case 0x35:
			jump(a >= k)
		case 0x45:
			jump(a&k != 0)
		case 0x06:
			return k, asked
		default:
			t.Fatalf("instruction %#x", op)
		}
	}
	t.Fatal("the program has no end")
	return 0, false
}

// constants are the numbers that a program compares calls (false) and arguments (true) with, and their neighbours.
func constants(program []byte) map[bool][]uint32 {
	lists := map[bool][]uint32{false: {0, 1, ^uint32(0)}, true: {0, 1, ^uint32(0)}}
	argument := false
	for at := 0; at < len(program); at += 8 {
		op, k := program[at], binary.NativeEndian.Uint32(program[at+4:])
		switch {
		case op == 0x20:
			argument = k >= 16
		case op&7 == 5 && op != 5 || op == 0x54:
			lists[argument] = append(lists[argument], k-1, k, k+1)
		}
	}
	for argument, list := range lists {
		slices.Sort(list)
		lists[argument] = slices.Compact(list)
	}
	return lists
}

// sameVerdicts compares two programs for all calls of all architectures, with arguments around what they compare with.
func sameVerdicts(t *testing.T, a, b []byte) {
	t.Helper()
	// x86-64, i386, aarch64, arm, s390x
	architectures := []uint32{0xc000003e, 0x40000003, 0xc00000b7, 0x40000028, 0x80000016}
	known := constants(append(slices.Clone(a), b...))
	numbers := known[false]
	for n := range uint32(1024) {
		numbers = append(numbers, n, n|1<<30)
	}
	data := make([]uint32, 16)
	same := func(number, arch, low, high uint32) (asked bool) {
		data[0], data[1] = number, arch
		for word := 4; word < 16; word += 2 {
			data[word], data[word+1] = low, high
		}
		x, asksA := verdict(t, a, data)
		y, asksB := verdict(t, b, data)
		if x != y {
			t.Fatalf("%#x: %#x and %#x", data, x, y)
		}
		return asksA || asksB
	}
	for _, arch := range architectures {
		for _, number := range numbers {
			if !same(number, arch, 0, 0) {
				continue
			}
			for _, low := range known[true] {
				for _, high := range []uint32{0, 1, low} {
					same(number, arch, low, high)
				}
			}
		}
	}
}

func TestADirectExecHasTheRuntimesOwnFilter(t *testing.T) {
	for name, profile := range map[string]func() any{
		"hand-written":            handWritten,
		"default":                 ofMoby(t, "CAP_CHOWN", "CAP_KILL"),
		"default, with SYS_ADMIN": ofMoby(t, "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"),
		"default, without any":    ofMoby(t),
		"nothing, logged": func() any {
			return map[string]any{"defaultAction": "SCMP_ACT_LOG", "flags": []string{"SECCOMP_FILTER_FLAG_LOG"}}
		},
		"nothing but an empty list": func() any { return map[string]any{"defaultAction": "SCMP_ACT_ALLOW", "flags": []string{}} },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			init := n.run("a", "sleep 1000", withCapabilities(), withWitness, withFilter(profile))
			var programs [2][]byte
			var flags [2]uintptr
			for i, direct := range []bool{false, true} {
				e, err := n.client.Exec(n.ctx(), wire.Exec{
					ID: "a", ExecID: fmt.Sprint("f", i), Process: mustJSON(t, capable(process("sleep", "1000"))), Direct: direct, Group: true, TimeoutMillis: 20_000,
				})
				if err != nil {
					t.Fatal(err)
				}
				programs[i], flags[i] = filterOf(t, e.PID)
				if err := e.Kill(n.ctx()); err != nil {
					t.Error(err)
				}
				if _, err := e.Wait(n.ctx()); err != nil {
					t.Error(err)
				}
				_, _ = e.Stdout.Close(), e.Stderr.Close()
			}
			if calls := n.runtimeExecs("a"); calls != 1 {
				t.Errorf("the runtime made %d execs", calls)
			}
			if ofInit, _ := filterOf(t, init.PID); !slices.Equal(ofInit, programs[1]) {
				t.Error("the direct exec has another program than the container")
			}
			if flags[0] != flags[1] {
				t.Errorf("flags %#x by the runtime, %#x directly", flags[0], flags[1])
			}
			sameVerdicts(t, programs[0], programs[1])
		})
	}
}

func TestForbiddenCallsAreAnsweredAsTheRuntimesFilterDoes(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", withCapabilities(), withWitness, withFilter(handWritten))
	for script, want := range map[string]string{
		"busybox mkdir /tmp/x":                       "No space left on device",
		"busybox sync; echo $?":                      "159", // SIGSYS
		"busybox ln -s a /tmp/b; echo $?":            "159",
		"busybox kill -USR1 $$ 2>/dev/null; echo $?": "1",
		"busybox kill -0 $$ && echo it is permitted": "it is permitted",
	} {
		for _, nnp := range []bool{false, true} {
			p := capable(process("sh", "-c", script))
			p["noNewPrivileges"] = nnp
			before := n.runtimeExecs("a")
			byRuntime, direct := n.execIn("a", p, false), n.execIn("a", p, true)
			if byRuntime.err != nil || direct.err != nil || n.runtimeExecs("a") != before+1 {
				t.Fatal(byRuntime.err, direct.err, n.runtimeExecs("a")-before)
			}
			if byRuntime.out != direct.out || byRuntime.stderr != direct.stderr || byRuntime.exit.Code != direct.exit.Code {
				t.Errorf("%s: %+v by the runtime, %+v directly", script, byRuntime, direct)
			}
			if !strings.Contains(direct.out+direct.stderr, want) {
				t.Errorf("%s: %q %q", script, direct.out, direct.stderr)
			}
		}
	}
}

func TestAFilterThatCannotBeReadNowIsReadLater(t *testing.T) {
	n := newNode(t)
	n.run("a", "sleep 1000", withCapabilities(), withWitness, withFilter(handWritten))
	n.run("b", "sleep 1000", withCapabilities(), withWitness, withFilter(handWritten))
	thaw := n.freeze("a")
	if e, err := n.client.Exec(n.ctx(), wire.Exec{
		ID: "a", ExecID: "frozen", Process: mustJSON(t, capable(process("true"))), Direct: true, Group: true, TimeoutMillis: 3000,
	}); err == nil {
		t.Error("a command runs in a frozen container", e.PID)
	}
	if r := n.execIn("b", capable(process("true")), true); r.err != nil || r.exit.Code != 0 || n.runtimeExecs("b") != 0 {
		t.Error(r.err, r.exit, n.runtimeExecs("b"))
	}
	thaw()
	until(t, "commands are started directly", func() bool {
		before := n.runtimeExecs("a")
		r := n.execIn("a", capable(process("true")), true)
		if r.err != nil || r.exit.Code != 0 {
			t.Fatal(r.err, r.exit)
		}
		return n.runtimeExecs("a") == before
	})
}
