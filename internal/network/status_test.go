package network

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// becomes waits until the status says so; "" is ready.
func becomes(t *testing.T, n *Network, says string) {
	t.Helper()
	var last string
	defer func() {
		if t.Failed() {
			t.Logf("last status: %q", last)
		}
	}()
	eventually(t, "status says "+says, func() bool {
		last = errText(n.Status(t.Context()))
		return says == "" && last == "" || says != "" && strings.Contains(last, says)
	})
}

func TestStatusNamesWhatIsWrong(t *testing.T) {
	h := newHost(t)
	list := h.fakeList("test")
	noDir := filepath.Join(h.dir, "not-there")
	for name, c := range map[string]struct {
		arrange func()
		class   func(error) bool
		says    []string
	}{
		"no directory":    {func() { h.cfg.ConfDir = noDir }, errdefs.IsUnavailable, []string{noDir, "does not exist"}},
		"empty directory": {func() {}, errdefs.IsUnavailable, []string{h.conf, "no network configuration"}},
		"bad JSON":        {func() { h.write("7.conflist", `{"name": "x",}`) }, errdefs.IsFailedPrecondition, []string{h.conf + "/7.conflist", "invalid character '}'"}},
		"missing binary":  {func() { h.write("7.conf", `{"name":"x","type":"absent"}`) }, errdefs.IsFailedPrecondition, []string{"7.conf", `"absent" is missing`, h.cfg.BinDirs[0]}},
		"STATUS fails":    {func() { h.write("7.conflist", list); h.order("STATUS", "fail 50 the agent is not up") }, errdefs.IsUnavailable, []string{"7.conflist", "CNI STATUS", `network "test"`, "plugin fake", "the agent is not up", "code 50"}},
		"STATUS dies":     {func() { h.write("7.conflist", list); h.order("STATUS", "signal 9") }, errdefs.IsUnavailable, []string{"plugin fake ended with signal: killed"}},
		"STATUS unknown":  {func() { h.write("7.conflist", list); h.order("STATUS", "fail 4 unknown CNI_COMMAND: STATUS") }, nil, nil},
		"STATUS well":     {func() { h.write("7.conflist", list) }, nil, nil},
		"no STATUS in 1.0": {func() {
			h.write("7.conflist", strings.Replace(list, "1.1.0", "1.0.0", 1))
			h.order("STATUS", "fail 50 x")
		}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_ = os.RemoveAll(h.conf)
			_ = os.Remove(filepath.Join(h.control, "STATUS"))
			h.cfg.ConfDir = h.conf
			if err := os.Mkdir(h.conf, 0o755); err != nil {
				t.Fatal(err)
			}
			c.arrange()
			n, err := New(h.cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			<-n.status.first
			err = n.Status(t.Context())
			if c.class == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			contains(t, err, c.class, c.says...)
		})
	}
}

func TestStatusFollowsTheDirectories(t *testing.T) {
	h := newHost(t)
	plugins := filepath.Join(h.dir, "bin")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	good := h.cfg.BinDirs[0]
	h.cfg.BinDirs = []string{plugins}
	n := h.network()
	started := time.Now()
	becomes(t, n, "no network configuration")
	h.fake()
	becomes(t, n, `"fake" is missing`)
	if err := os.Symlink(filepath.Join(good, "fake"), filepath.Join(plugins, "fake")); err != nil {
		t.Fatal(err)
	}
	becomes(t, n, "")
	h.write("10-test.conflist", "{")
	becomes(t, n, "unexpected end of JSON input")
	_ = os.Remove(filepath.Join(h.conf, "10-test.conflist"))
	becomes(t, n, "no network configuration")
	// By the watch; the poll alone would take 10 seconds for each.
	if d := time.Since(started); d > 2*usualPace.poll {
		t.Errorf("five changes took %s", d)
	}
}

func TestStatusFindsADirectoryThatComesLater(t *testing.T) {
	h := newHost(t)
	_ = os.Remove(h.conf)
	n := h.paced(pace{poll: 200 * time.Millisecond, timeout: time.Minute})
	becomes(t, n, "does not exist")
	if err := os.Mkdir(h.conf, 0o755); err != nil {
		t.Fatal(err)
	}
	h.fake()
	becomes(t, n, "") // by the poll: nothing could be watched
}

func TestStatusNeverWaitsForAHungPlugin(t *testing.T) {
	h := newHost(t)
	h.fake()
	h.order("STATUS", "fork-hang")
	n := h.paced(pace{poll: time.Hour, timeout: 3 * time.Second})
	eventually(t, "the plugin hangs", h.forked)
	started := time.Now()
	err := n.Status(t.Context())
	contains(t, err, errdefs.IsUnavailable, "not known yet")
	if d := time.Since(started); d > 2*firstWait {
		t.Errorf("the first Status took %s", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	started = time.Now()
	if err := n.Status(ctx); err == nil || time.Since(started) > firstWait/2 {
		t.Errorf("%v after %s", err, time.Since(started))
	}
	becomes(t, n, "plugin fake had not answered after 3.")
	contains(t, n.Status(t.Context()), errdefs.IsDeadlineExceeded, "CNI STATUS")
	h.order("STATUS", "")
	n.status.recheck()
	becomes(t, n, "")
}

func TestCloseEndsAStatusCheck(t *testing.T) {
	h := newHost(t)
	h.fake()
	h.order("STATUS", "fork-hang")
	n := h.network()
	eventually(t, "the plugin hangs", h.forked)
	for range 2 {
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	h.assertQuiet()
}

func TestFailedAttachHasTheStatusCheckedAgain(t *testing.T) {
	h := newHost(t)
	h.fake()
	n := h.network()
	becomes(t, n, "")
	h.order("ADD", "fail 11 agent away")
	h.order("STATUS", "fail 50 agent away")
	r := h.request()
	a := plan(t, n, r)
	started := time.Now()
	if err := n.Attach(t.Context(), a); err == nil {
		t.Fatal("no error")
	}
	becomes(t, n, "agent away")
	if d := time.Since(started); d > usualPace.poll/2 {
		t.Errorf("it took %s", d)
	}
	if err := n.Detach(t.Context(), a, r.NetNS); err != nil {
		t.Fatal(err)
	}
}

func TestDaemonKilledDuringSTATUSIsCleanedUpByTheNext(t *testing.T) {
	h := newHost(t)
	h.fake()
	h.order("STATUS", "fork-hang")
	// The process that a dead daemon left behind, at the place where it would be. A dead one does not look again, and
	// so does not end the plugins of the next.
	once := usualPace
	once.poll = time.Hour
	old := start(h.cfg, discard(), mustCgroups(t, h), once)
	eventually(t, "the plugin hangs", h.forked)
	pids := h.alive("children")
	h.order("STATUS", "")
	n := h.network() // same CacheDir, so the same instance
	becomes(t, n, "")
	for _, p := range h.alive("children") {
		t.Errorf("process %d of %v is left", p, pids)
	}
	_ = old.Close()
}

// paced is a Network that checks its status at another pace.
func (h *host) paced(p pace) *Network {
	n := start(h.cfg, h.cfg.Log, mustCgroups(h.t, h), p)
	h.t.Cleanup(func() { _ = n.Close() })
	return n
}

func mustCgroups(t *testing.T, h *host) *cgroups {
	t.Helper()
	g, err := newCgroups(h.cfg.CgroupParent)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestOtherDirectoriesCountAtOnceAndTheirChangesAreSeen(t *testing.T) {
	h := newHost(t)
	n := h.network()
	becomes(t, n, "no network configuration")
	other := filepath.Join(h.dir, "other-conf")
	n.SetDirs(other, h.cfg.BinDirs)
	becomes(t, n, other+" does not exist")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "7.conflist"), []byte(h.fakeList("test")), 0o600); err != nil {
		t.Fatal(err)
	}
	n.status.recheck()
	becomes(t, n, "")
	none := filepath.Join(h.dir, "no-plugins")
	n.SetDirs(other, []string{none})
	becomes(t, n, none)
	n.SetDirs(other, h.cfg.BinDirs)
	becomes(t, n, "")
}
