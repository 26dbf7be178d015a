package recovery

import (
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
)

const (
	sameBoot  = "boot 1"
	otherBoot = "boot 2"
)

func TestWhatTheRecordOfASandboxIsTakenForAtAStart(t *testing.T) {
	for name, c := range map[string]struct {
		state, want pod.State
		boot        string
		torn, alive bool
		reason      string
		lost        bool
	}{
		"ready":                                 {state: pod.Ready, boot: sameBoot, want: pod.Ready},
		"ready before a reboot":                 {state: pod.Ready, boot: otherBoot, want: pod.Stopped, reason: "the node was rebooted"},
		"stopped before a reboot":               {state: pod.Stopped, boot: otherBoot, want: pod.Stopped},
		"being made":                            {state: pod.Creating, boot: sameBoot, want: pod.Creating},
		"an intent alone":                       {state: pod.Creating, boot: sameBoot, torn: true, want: pod.Creating},
		"an intent alone of what is alive":      {state: pod.Creating, boot: sameBoot, torn: true, alive: true, want: pod.Stopped, reason: "its record could not be read", lost: true},
		"an intent alone of what a boot before": {state: pod.Creating, boot: otherBoot, torn: true, alive: true, want: pod.Creating},
	} {
		n := newNode(t)
		rec := n.sandbox("p", c.state, nil)
		rec.Pins = map[string]uint64{"ipc": 7}
		n.put(rec)
		if c.torn {
			n.write(filepath.Join(n.paths.Sandbox("p"), "pod.json"), "{")
		}
		n.mounts["p"] = c.alive
		got := boxOf(t, n.load(c.boot), "p").Record()
		if got.State != c.want || got.Lost != c.lost || !strings.HasPrefix(got.Reason, c.reason) || (c.reason == "") != (got.Reason == "") {
			t.Errorf("%s: %s, lost %t, %q", name, got.State, got.Lost, got.Reason)
		}
		if kept := got.Pins != nil; kept != (c.boot == sameBoot) {
			t.Errorf("%s: namespaces of the boot before are known: %t", name, kept)
		}
	}
}

func TestARecordThatCannotBeReadIsMovedAsideAndStoodInFor(t *testing.T) {
	n := newNode(t)
	n.put(n.sandbox("p", pod.Ready, nil))
	for _, file := range []string{"pod.json", "pod.intent"} {
		n.write(filepath.Join(n.paths.Sandbox("p"), file), "{")
	}
	r := n.load(sameBoot)
	got := boxOf(t, r, "p").Record()
	if got.State != pod.Stopped || !got.Lost || got.Handler != "runc" || got.Config.GetMetadata().GetName() != "unreadable-p" {
		t.Errorf("got %+v", got)
	}
	if where := filepath.Join(n.paths.Root, "quarantine"); !n.exists(where) || !strings.Contains(got.Reason, where) {
		t.Errorf("%q does not say where it was moved to", got.Reason)
	}
	// Which plugins attached it is not known any more, so those of today are asked for a DEL.
	if !got.OwesNetwork() || got.Network.NetNS != n.paths.NetNSPin("p") {
		t.Errorf("the network: %+v", got.Network)
	}
	// The next start reads what stands in.
	if again := boxOf(t, n.load(sameBoot), "p").Record(); again.Reason != got.Reason || !again.Lost {
		t.Errorf("after another start: %+v", again)
	}
}

func TestADirectoryWithoutARecord(t *testing.T) {
	for name, c := range map[string]struct {
		alive, container, kept bool
	}{
		"is what a creation or a removal left": {false, false, false},
		"stays while something is alive":       {true, false, true},
		"stays with a container's record":      {false, true, true},
	} {
		n := newNode(t)
		n.mkdir(n.paths.Files("p"))
		n.mounts["p"] = c.alive
		if c.container {
			n.mkdir(n.paths.Containers("p"))
			n.put(n.container("c", pod.Exited))
		}
		r := n.load(sameBoot)
		_, err := r.Book.Sandbox("p")
		if there := n.exists(n.paths.Sandbox("p")); there != c.kept || (err == nil) != c.kept {
			t.Errorf("%s: it is there: %t; in the book: %v", name, there, err)
		}
	}
}

func TestWhatTheRecordOfAContainerIsTakenForAtAStart(t *testing.T) {
	for name, c := range map[string]struct {
		state    pod.State
		boot     string
		exitFile string
		want     pod.State
		exit     pod.ExitStatus
	}{
		"it runs":                  {pod.Running, sameBoot, "", pod.Running, pod.ExitStatus{}},
		"it was being made":        {pod.Creating, otherBoot, "", pod.Creating, pod.ExitStatus{}},
		"it had ended":             {pod.Exited, otherBoot, "", pod.Exited, pod.ExitStatus{}},
		"it ran before a reboot":   {pod.Running, otherBoot, "", pod.Exited, pod.ExitStatus{Code: 255, Reason: "Unknown", Message: "the node was rebooted while the container ran"}},
		"pinder still saw its end": {pod.Running, otherBoot, `{"id":"c","code":3,"at":5}`, pod.Exited, pod.ExitStatus{Code: 3, Reason: "Error"}},
	} {
		n := newNode(t)
		n.put(n.sandbox("p", pod.Ready, nil), n.container("c", c.state))
		if c.exitFile != "" {
			n.write(n.paths.Exit("p", "c"), c.exitFile)
		}
		if got := containerOf(t, n.load(c.boot), "c").Record(); got.State != c.want || got.Exit != c.exit {
			t.Errorf("%s: %s, %+v", name, got.State, got.Exit)
		}
	}
}

func TestAContainerWhoseRecordCannotBeReadIsRemoved(t *testing.T) {
	n := newNode(t)
	n.put(n.sandbox("p", pod.Ready, nil))
	n.write(filepath.Join(n.paths.Containers("p"), "c.json"), "{")
	r := n.load(sameBoot)
	got := containerOf(t, r, "c").Record()
	if got.State != pod.Removing || got.Sandbox != "p" || got.Config.GetMetadata().GetName() != "unreadable-c" {
		t.Errorf("got %+v", got)
	}
	if box := boxOf(t, r, "p").Record(); box.State != pod.Ready || box.Reason != "" {
		t.Errorf("it is no fault of its pod: %+v", box)
	}
}

func TestOneDamagedPodStopsNoOther(t *testing.T) {
	n := newNode(t)
	n.put(n.sandbox("bad", pod.Ready, nil), n.sandbox("good", pod.Ready, &runtimeapi.NamespaceOption{}))
	n.write(filepath.Join(n.paths.Sandbox("bad"), "pod.json"), "{")
	n.write(filepath.Join(n.paths.Sandbox("bad"), "pod.intent"), "{")
	if r := n.load(sameBoot); boxOf(t, r, "good").Record().State != pod.Ready || !boxOf(t, r, "bad").Record().Lost {
		t.Error("the good one is not ready, or the bad one is not lost")
	}
}
