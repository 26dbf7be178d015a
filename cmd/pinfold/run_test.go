package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func parseRun(args []string) (*runOptions, error) {
	o := &runOptions{}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	o.pod.addTo(flags)
	o.container.addTo(flags)
	o.addTo(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return o, o.take(flags, flags.Args())
}

func TestARunHasAUserNamespaceUnlessHostUsersAreAskedFor(t *testing.T) {
	for args, hostUsers := range map[string]bool{
		"":                                    false,
		"--userns":                            false,
		"--userns=true":                       false,
		"--userns=false":                      true,
		"--host-users":                        true,
		"--host-users=false":                  false,
		"--host-users --userns=false":         true,
		"--userns --host-users=false":         false,
		"--host-network":                      false,
		"--userns-range 3000000:65536 --keep": false,
	} {
		o, err := parseRun(append(strings.Fields(args), "image"))
		if err != nil || o.pod.hostUsers != hostUsers {
			t.Errorf("%q: %+v %v", args, o, err)
		}
	}
	if _, err := parseRun([]string{"--userns", "--host-users", "image"}); err == nil || !strings.Contains(err.Error(), "--host-users") {
		t.Errorf("a contradiction: %v", err)
	}
}

func TestARunIsConfinedByDefault(t *testing.T) {
	sc := (&containerOptions{}).confined(&runtimeapi.PodSandboxConfig{})
	if sc.GetSeccomp().GetProfileType() != runtimeapi.SecurityProfile_RuntimeDefault || sc.GetSeccomp() == nil {
		t.Errorf("seccomp is %v", sc.GetSeccomp())
	}
	if len(sc.MaskedPaths) == 0 || len(sc.ReadonlyPaths) == 0 || sc.Privileged {
		t.Errorf("the context is %v", sc)
	}
}

func TestTheNameOfARunIsOneElementOfAPath(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "../../etc", "a/b", "/etc"} {
		if _, err := parseRun([]string{"--name", bad, "--log-dir", "/x", "image"}); err == nil {
			t.Errorf("--name %q was accepted", bad)
		}
	}
}

func TestForeignTextCannotSteerTheTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"plain-name.x":              "plain-name.x",
		"käse 山":                    "käse 山",
		"a\x1b[2Jb":                 `a\x1b[2Jb`,
		"a\nb\tc\rd":                `a\nb\tc\rd`,
		"c1 \u009b31m":              `c1 \u009b31m`,
		"turned \u202e":             `turned \u202e`,
		"bell \a del \x7f bad \xff": `bell \a del \x7f bad �`,
	} {
		if got := visible(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if got := visibleLines("a\nb\tc\x1b"); got != "a\nb\tc"+`\x1b` {
		t.Errorf("several lines became %q", got)
	}
}

func TestEachSignalIsMoreUrgentAndADoubleOneCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal)
		var told []int
		u := heed(t.Context(), signals, func(number int) { told = append(told, number) })
		defer u.close()
		send := func(s os.Signal, gentle, now, last bool) {
			t.Helper()
			signals <- s
			synctest.Wait()
			if (u.gentle.Err() != nil) != gentle || (u.now.Err() != nil) != now || (u.last.Err() != nil) != last {
				t.Errorf("after %v: %v %v %v, told %v", s, u.gentle.Err(), u.now.Err(), u.last.Err(), told)
			}
		}
		if _, ok := u.signal(); ok {
			t.Error("a signal that never came")
		}
		send(syscall.SIGTERM, true, false, false)
		send(syscall.SIGTERM, true, false, false)
		time.Sleep(time.Second)
		send(syscall.SIGINT, true, true, false)
		time.Sleep(time.Second)
		send(syscall.SIGINT, true, true, true)
		if s, ok := u.signal(); !ok || s.signal != syscall.SIGTERM || len(told) != 3 {
			t.Errorf("%v %v %v", s, ok, told)
		}
	})
}
