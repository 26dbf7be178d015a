package network

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/kernel/cgroup"
)

func isCanceled(err error) bool { return errors.Is(err, context.Canceled) }

// reread gives the attachment as a restarted daemon has it: out of its record.
func reread(t *testing.T, a *Attachment) *Attachment {
	t.Helper()
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var b Attachment
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// misbehaviour of a plugin: the order, and what the error is to say.
type misbehaviour struct {
	order string
	class func(error) bool
	says  []string
}

// pluginLimit is the timeout for a plugin that never ends. A loaded machine must be able to
// start the plugin within that time.
const pluginLimit = 2 * time.Second

// endless says whether only a timeout ends it.
func (m misbehaviour) endless() bool { return m.class(context.DeadlineExceeded) }

var misbehaviours = map[string]misbehaviour{
	"fails":                           {"fail 11 no buffers today", errdefs.IsUnavailable, []string{"failed: no buffers today", "CNI error code 11"}},
	"does not like its configuration": {"fail 7 bad mtu", errdefs.IsFailedPrecondition, []string{"failed: bad mtu", "CNI error code 7"}},
	"ends with a status and no answer": {
		"exit 3 panic: out of luck", errdefs.IsUnavailable,
		[]string{"exit status 3", `error output: "panic: out of luck"`},
	},
	"ends without a word":        {"exit 4", errdefs.IsUnavailable, []string{"exit status 4", "printed nothing"}},
	"prints rubbish and fails":   {"print 1 <html>502</html>", errdefs.IsUnavailable, []string{"exit status 1", `output: "<html>502</html>"`}},
	"dies of a signal":           {"signal 15", errdefs.IsUnavailable, []string{"signal: terminated"}},
	"hangs":                      {"hang", errdefs.IsDeadlineExceeded, []string{"had not answered after", "seconds and was ended", "fake["}},
	"hangs with a hanging child": {"fork-hang", errdefs.IsDeadlineExceeded, []string{"had not answered after", "fake["}},
	"prints for ever":            {"flood", errdefs.IsDeadlineExceeded, []string{"had not answered after"}},
	"answers too late":           {"late 1h", errdefs.IsDeadlineExceeded, []string{"had not answered after"}},
}

func TestPluginThatFailsAtADDLeavesNothing(t *testing.T) {
	cases := map[string]misbehaviour{
		"prints rubbish and ends well": {"print 0 hello", errdefs.IsUnavailable, []string{"exit status 0", "cannot be used", `output: "hello"`}},
		"prints nothing":               {"print 0 ", errdefs.IsUnavailable, []string{"exit status 0", "empty result"}},
		"prints null":                  {"print 0 null", errdefs.IsUnavailable, []string{"null result"}},
		"prints null addresses":        {`print 0 {"cniVersion":"0.4.0","ips":[null]}`, errdefs.IsUnavailable, []string{"ips[0] is null"}},
		"prints another version":       {`print 0 {"cniVersion":"7.0.0","ips":[{"address":"10.0.0.1/8"}]}`, errdefs.IsUnavailable, []string{"7.0.0"}},
		"gives no address":             {`print 0 {"cniVersion":"1.0.0"}`, errdefs.IsUnavailable, []string{"gave interface eth0 no address"}},
		"prints a novel": {
			"print 0 " + strings.Repeat("abcdefgh", 400), errdefs.IsUnavailable,
			[]string{"output (first 1024 bytes)", strings.Repeat("abcdefgh", 128) + `"`},
		},
	}
	for name, m := range misbehaviours {
		cases[name] = m
	}
	for name, m := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.fake()
			if m.endless() {
				h.cfg.AttachTimeout = pluginLimit
			}
			h.order("ADD", m.order)
			n := h.network()
			r := h.request()
			a := plan(t, n, r)
			err := n.Attach(t.Context(), a)
			contains(t, err, m.class, append(m.says, "CNI ADD", `network "test"`, "fake", a.SandboxID)...)
			if len(err.Error()) > 3000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			h.assertQuiet()
			if !a.Owed || len(a.Result) > 0 {
				t.Errorf("after a failed ADD: Owed %v, Result %s", a.Owed, a.Result)
			}
			if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
				t.Fatal(err)
			}
			if c := h.calls("DEL"); len(c) != 1 || c[0].Container != a.SandboxID {
				t.Errorf("DEL calls: %v", c)
			}
		})
	}
}

func TestPluginThatFailsAtDELIsADebtUntilItWorks(t *testing.T) {
	for name, m := range misbehaviours {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.fake()
			unlimited := h.network()
			if m.endless() {
				h.cfg.DetachTimeout = pluginLimit
			}
			n := h.network()
			r := h.request()
			a := plan(t, n, r)
			if err := n.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			h.order("DEL", m.order)
			for try := 1; try <= 2; try++ {
				err := n.Detach(t.Context(), a, r.NetNS)
				contains(t, err, m.class, append(m.says, "CNI DEL", `network "test"`, "plugin fake", a.SandboxID)...)
				h.assertQuiet()
				if !a.Owed || a.Attempts != try || a.LastError != err.Error() || a.LastTry.IsZero() {
					t.Fatalf("the book entry after %d tries: %+v", try, a)
				}
			}
			h.order("DEL", "")
			a = reread(t, a)
			if err := unlimited.Detach(t.Context(), a, ""); err != nil {
				t.Fatal(err)
			}
			if a.Owed || a.LastError != "" {
				t.Errorf("the debt is paid, yet: %+v", a)
			}
		})
	}
}

func TestDetachWithoutThePluginIsADebt(t *testing.T) {
	h := newHost(t)
	h.fake()
	n := h.network()
	r := h.request()
	a := plan(t, n, r)
	if err := n.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	h.cfg.BinDirs = []string{filepath.Join(h.dir, "no-such-dir")}
	then := a.BinDirs
	a.BinDirs = nil
	contains(t, h.network().Detach(t.Context(), a, r.NetNS), errdefs.IsFailedPrecondition, "CNI DEL", `"fake" is missing`, "no-such-dir")
	// Where it was at ADD is as good.
	a.BinDirs = then
	if err := h.network().Detach(t.Context(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
}

func TestCancelledAttachEndsThePlugin(t *testing.T) {
	h := newHost(t)
	h.fake()
	h.order("ADD", "fork-hang")
	n := h.network()
	r := h.request()
	a := plan(t, n, r)
	contains(t, n.Attach(h.untilForked(), a), isCanceled, "was still running when the request was cancelled", "plugin fake", `network "test"`)
	h.assertQuiet()
	if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
}

func TestProcessesLeftByASuccessfulPluginEndWithTheSandbox(t *testing.T) {
	for _, order := range []string{"leak", "daemon"} {
		t.Run(order, func(t *testing.T) {
			h := newHost(t)
			h.fake()
			h.order("ADD", order)
			n := h.network()
			r := h.request()
			a := plan(t, n, r)
			if err := n.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if len(a.IPs()) != 1 || !h.forked() {
				t.Fatalf("IPs %v, processes %v", a.IPs(), h.running())
			}
			if !strings.Contains(h.log.String(), "left processes running") {
				t.Error("nothing is logged")
			}
			if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
				t.Fatal(err)
			}
			h.assertQuiet()
		})
	}
}

func TestAttachIsForOneTimeOnly(t *testing.T) {
	h := newHost(t)
	h.fake()
	n := h.network()
	r := h.request()
	a := plan(t, n, r)
	if err := n.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	contains(t, n.Attach(t.Context(), a), errdefs.IsAlreadyExists, a.SandboxID)
	if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
	a.Result = nil
	contains(t, n.Attach(t.Context(), a), errdefs.IsFailedPrecondition, "is detached")
}

// runHelper is the daemon that is killed: it plans, stores and attaches.
func runHelper() int {
	var in struct {
		Cfg     Config
		Request Request
		Record  string
	}
	if err := json.Unmarshal([]byte(os.Getenv(helper)), &in); err != nil {
		return 3
	}
	n, err := New(in.Cfg)
	if err != nil {
		return 4
	}
	a, err := n.Plan(in.Request)
	if err != nil {
		return 5
	}
	data, err := json.Marshal(a)
	if err != nil {
		return 6
	}
	if os.WriteFile(in.Record, data, 0o600) != nil || n.Attach(context.Background(), &a) != nil {
		return 7
	}
	return 0
}

func TestDaemonKilledDuringADDIsUndoneByTheNext(t *testing.T) {
	h := newHost(t)
	h.fake()
	// The child takes the lease after the daemon is dead: a DEL that does not
	// end it first frees nothing.
	h.order("ADD", "fork-lease 1s")
	r := h.request()
	record := filepath.Join(h.dir, "record")
	cfg := h.cfg
	cfg.Log = nil
	in, err := json.Marshal(map[string]any{"Cfg": cfg, "Request": r, "Record": record})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helper+"="+string(in))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin has forked", h.forked)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !h.forked() {
		t.Fatal("the plugin's child did not survive the daemon: this test shows nothing")
	}
	if !cgroup.Group(filepath.Join(h.cgroup(), "net-"+r.SandboxID)).Exists() {
		t.Fatal("the plugin is not in its cgroup")
	}
	var a Attachment
	data, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &a); err != nil {
		t.Fatal(err)
	}
	if err := h.network().Detach(t.Context(), &a, r.NetNS); err != nil {
		t.Fatal(err)
	}
	h.assertQuiet() // and so nobody is there to take the lease
	if c := h.calls("DEL"); len(c) != 1 {
		t.Errorf("DEL calls: %v", c)
	}
}

func TestWithoutCgroup2AHangingPluginIsStillEnded(t *testing.T) {
	h := newHost(t)
	h.fake()
	h.order("ADD", "hang")
	h.cfg.AttachTimeout = pluginLimit
	n := start(h.cfg, h.cfg.Log, &cgroups{}, usualPace)
	t.Cleanup(func() { _ = n.Close() })
	r := h.request()
	a := plan(t, n, r)
	contains(t, n.Attach(t.Context(), a), errdefs.IsDeadlineExceeded, "plugin fake")
	h.assertQuiet()
	if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
}

func TestBinaryThatIsBeingReplacedIsTriedAgain(t *testing.T) {
	h := newHost(t)
	bin := filepath.Join(h.dir, "bin")
	data, err := os.ReadFile(filepath.Join(h.cfg.BinDirs[0], "fake"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "fake"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	h.cfg.BinDirs = []string{bin}
	h.fake()
	writer, err := os.OpenFile(filepath.Join(bin, "fake"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := h.network()
	r := h.request()
	a := plan(t, n, r)
	timer := time.AfterFunc(300*time.Millisecond, func() { _ = writer.Close() })
	defer timer.Stop()
	if err := n.Attach(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
}

func TestBinaryThatIsNoProgram(t *testing.T) {
	h := newHost(t)
	bin := filepath.Join(h.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "fake"), []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.fake()
	good := h.cfg.BinDirs
	h.cfg.BinDirs = []string{bin}
	n := h.network()
	r := h.request()
	a := plan(t, n, r)
	err := n.Attach(t.Context(), a)
	contains(t, err, errdefs.IsFailedPrecondition, "plugin fake cannot be started", syscall.ENOEXEC.Error())
	if err := os.Chmod(filepath.Join(bin, "fake"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = n.Plan(r)
	contains(t, err, errdefs.IsFailedPrecondition, "is not executable", bin)
	h.cfg.BinDirs = good
	if err := h.network().Detach(t.Context(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
}

func TestLoopbackComesUpInTheThreadsNamespaceOnly(t *testing.T) {
	h := newHost(t)
	netns := h.netns()
	up := func() (on bool) {
		inside(t, netns, func() error {
			lo, err := net.InterfaceByName("lo")
			on = err == nil && lo.Flags&net.FlagUp != 0
			return err
		})
		return on
	}
	if up() {
		t.Fatal("loopback is up in a new namespace")
	}
	for range 2 {
		inside(t, netns, LoopbackUp)
		if !up() {
			t.Fatal("loopback is not up")
		}
	}
}
