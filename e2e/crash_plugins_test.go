package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// shortWait is the deadline of a request that gets no answer in time.
const shortWait = 300 * time.Millisecond

func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), shortWait)
	t.Cleanup(cancel)
	return ctx
}

// debts is the number of objects with debts in "pinfold status".
func (n *crashNode) debts() int {
	n.t.Helper()
	// A node whose network has no plugin is not ready: the exit code is 1, and standard error says why.
	var why strings.Builder
	asked := exec.Command(binaries.pinfold, "--socket", n.socket(), "status", "--output", "json")
	asked.Stderr = &why
	out, _ := asked.Output()
	var said struct {
		Info struct {
			Debts int `json:"debts"`
		} `json:"info"`
	}
	if err := json.Unmarshal(out, &said); err != nil {
		n.t.Fatalf("pinfold status: %v\n%s%s", err, out, why.String())
	}
	return said.Info.Debts
}

func (n *crashNode) awaitNoDebts() {
	n.t.Helper()
	if err := n.until("the debts to be paid", func() bool { return n.debts() == 0 }); err != nil {
		n.t.Error(err)
	}
}

// newSubject makes a subject on its own node.
func newSubject(t *testing.T, options ...string) *subject {
	n := newCrashNode(t)
	n.addBystander(true)
	return n.subject(operation{options: options})
}

// unharmed removes the subject and checks that nothing of it is left, and that the bystander is
// unharmed.
func (s *subject) unharmed() {
	s.t.Helper()
	if err := s.removePods(); err != nil {
		s.t.Error(err)
	}
	if left := s.disarm(); len(left) > 0 {
		s.t.Errorf("orders were not obeyed: %v", left)
	}
	if err := s.clean(); err != nil {
		s.t.Error(err)
	}
	if err := s.bystanderUnharmed(); err != nil {
		s.t.Error(err)
	}
}

// TestAPluginThatFailsAtADDFailsThePodAndNoOther tries all the ways in which a plugin can fail at
// once.
func TestAPluginThatFailsAtADDFailsThePodAndNoOther(t *testing.T) {
	s := newSubject(t, "userns")
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		for _, fault := range []string{"rubbish", "signal 9", "signal 11", "fail out of luck", "after signal 9", "after fail out of luck"} {
			s.order(plugin+":ADD", fault)
			err := s.runPod()
			if err == nil {
				t.Errorf("%s, %s: the pod was made all the same", plugin, fault)
			} else if text := messageOf(err); !strings.Contains(text, "step network") || !strings.Contains(text, "ADD") {
				t.Errorf("%s, %s: the error does not say where: %s", plugin, fault, text)
			}
			if err := s.clean(); err != nil {
				t.Errorf("%s, %s: %v", plugin, fault, err)
			}
		}
	}
	if err := s.runPod(); err != nil {
		t.Errorf("after all faults: %v", err)
	}
	s.unharmed()
}

// TestAPluginThatHangsAtADD: the request ends at its deadline and names the step. A repeated
// request joins. A restart of the daemon kills the plugin and all that it started.
func TestAPluginThatHangsAtADD(t *testing.T) {
	s := newSubject(t, "userns")
	for _, plugin := range []string{"bridge", "host-local"} {
		for _, fault := range []string{"hang", "fork", "after hang", "after fork"} {
			s.order(plugin+":ADD", fault)
			request := &runtimeapi.RunPodSandboxRequest{Config: s.podConfig(s.name, "userns")}
			for range 2 {
				_, err := s.runtime.RunPodSandbox(shortly(t), request)
				if status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("%s, %s: %v", plugin, fault, err)
				}
			}
			if out, _ := s.pinfold("why"); !strings.Contains(out, "network") || !strings.Contains(out, s.name) {
				t.Errorf("pinfold why does not say what it waits for:\n%s", out)
			}
			if err := s.bystanderUnharmed(); err != nil {
				t.Error(err)
			}
			s.kill()
			s.launch()
			if err := s.clean(); err != nil {
				t.Errorf("%s, %s: %v", plugin, fault, err)
			}
		}
	}
	if err := s.runPod(); err != nil {
		t.Errorf("after all faults: %v", err)
	}
	s.unharmed()
}

// TestALatePluginIsWaitedFor: a plugin may be slow, and may leave a child that keeps its output
// open. (If an IPAM plugin leaves such a child, the bridge plugin waits for ever: see the test
// above.)
func TestALatePluginIsWaitedFor(t *testing.T) {
	s := newSubject(t, "userns")
	for _, fault := range []string{"late 200ms", "after late 200ms", "leak", "after leak"} {
		for _, verb := range []string{"ADD", "DEL"} {
			s.order("bridge:"+verb, fault)
		}
		if err := s.runPod(); err != nil {
			t.Errorf("%s: %v", fault, err)
		}
		s.unharmed()
	}
}

// TestAPluginThatFailsAtDELIsAskedAgain: for all clients the pod is removed. The debt is in the
// record, survives a restart, and is paid when the plugin works again.
func TestAPluginThatFailsAtDELIsAskedAgain(t *testing.T) {
	s := newSubject(t, "userns")
	for _, plugin := range []string{"bridge", "host-local", "portmap"} {
		for _, fault := range []string{"fail out of luck", "signal 9", "after signal 9", "after fail out of luck"} {
			if err := s.runPod(); err != nil {
				t.Fatalf("%s, %s: %v", plugin, fault, err)
			}
			s.order(plugin+":DEL", fault)
			if err := s.removePod(); err != nil {
				t.Errorf("%s, %s: %v", plugin, fault, err)
			}
			if err := s.noPod(); err != nil {
				t.Errorf("%s, %s: %v", plugin, fault, err)
			}
			if fault == "signal 9" {
				s.kill()
				s.launch()
			}
			if err := s.clean(); err != nil {
				t.Errorf("%s, %s: %v", plugin, fault, err)
			}
			s.awaitNoDebts()
		}
	}
	s.unharmed()
}

// TestADebtIsInTheBooksUntilItCanBePaid: both the plugin and the configuration are missing.
func TestADebtIsInTheBooksUntilItCanBePaid(t *testing.T) {
	s := newSubject(t, "userns")
	if err := s.runPod(); err != nil {
		t.Fatal(err)
	}
	hide := func(hidden bool) {
		for _, file := range []string{s.fault("portmap"), s.path("cni/10-test.conflist")} {
			from, to := file, file+".away"
			if !hidden {
				from, to = to, from
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	hide(true)
	if err := s.removePod(); err != nil {
		t.Error(err)
	}
	for _, restart := range []bool{false, true} {
		if restart {
			s.kill()
			s.launch()
		}
		if err := s.noPod(); err != nil {
			t.Error(err)
		}
		if got := s.debts(); got != 1 {
			t.Errorf("debts: %d (restarted: %t)", got, restart)
		}
		if leases := s.leases(); len(leases) != 4 {
			t.Errorf("addresses in the store, two of them the bystander's: %v", leases)
		}
	}
	hide(false)
	s.awaitNoDebts()
	s.unharmed()
}

func (n *crashNode) leases() []string {
	entries, err := os.ReadDir(n.path("ipam/pinfold-test"))
	if err != nil {
		n.t.Error(err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "lock" && !strings.HasPrefix(e.Name(), "last_reserved_ip") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestAPluginThatHangsAtDEL: the stop ends at its deadline, also the second time, and names the
// step. When the plugin ends, the debt is paid.
func TestAPluginThatHangsAtDEL(t *testing.T) {
	s := newSubject(t, "userns")
	for _, restart := range []bool{false, true} {
		if err := s.runPod(); err != nil {
			t.Fatal(err)
		}
		stop := s.armed()
		s.order("host-local:DEL", "pause")
		request := &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.pod}
		for range 2 {
			_, err := s.runtime.StopPodSandbox(shortly(t), request)
			if status.Code(err) != codes.DeadlineExceeded || !strings.Contains(messageOf(err), "step network") {
				// The client's own deadline may be earlier than the server's answer.
				if status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("%v", err)
				}
			}
		}
		pid := <-stop.pid
		if restart {
			s.kill()
			s.launch()
		} else if err := s.killVictim(pluginVictim, pid); err != nil {
			t.Error(err)
		}
		stop.close()
		s.awaitNoDebts()
		s.unharmed()
	}
}

// TestFiftyEqualRequestsMakeOnePod, and one container in it.
func TestFiftyEqualRequestsMakeOnePod(t *testing.T) {
	s := newSubject(t, "userns")
	before := len(s.calls())
	s.order("bridge:ADD", "late 200ms")
	pods := fifty(t, func() (string, error) {
		resp, err := s.runtime.RunPodSandbox(s.ctx(), &runtimeapi.RunPodSandboxRequest{Config: s.podConfig(s.name, "userns")})
		return resp.GetPodSandboxId(), err
	})
	s.pod = pods[0]
	s.order("runc:create", "late 200ms")
	containers := fifty(t, func() (string, error) {
		resp, err := s.runtime.CreateContainer(s.ctx(), &runtimeapi.CreateContainerRequest{
			PodSandboxId: s.pod, Config: containerConfig("c", "sh", "-c", script),
		})
		return resp.GetContainerId(), err
	})
	s.container = containers[0]
	fifty(t, func() (string, error) { return "", s.start() })
	if err := s.talks(); err != nil {
		t.Error(err)
	}
	fifty(t, func() (string, error) { return "", s.stop() })
	fifty(t, func() (string, error) { return "", s.stopPod() })
	fifty(t, func() (string, error) { return "", s.removePod() })
	s.unharmed()
	calls := s.calls()[before:]
	for _, once := range []string{"bridge:ADD", "runc:create", "runc:start", "bridge:DEL"} {
		if got := len(slices.DeleteFunc(slices.Clone(calls), func(c string) bool { return c != once })); got != 1 {
			t.Errorf("%s was called %d times", once, got)
		}
	}
}

// fifty makes a request fifty times at the same time. All must get the same answer.
func fifty(t *testing.T, request func() (string, error)) []string {
	t.Helper()
	var all sync.WaitGroup
	answers, errs := make([]string, 50), make([]error, 50)
	for i := range answers {
		all.Go(func() { answers[i], errs[i] = request() })
	}
	all.Wait()
	for i := range answers {
		if errs[i] != nil || answers[i] != answers[0] {
			t.Fatalf("request %d: %q %v, request 0: %q %v", i, answers[i], errs[i], answers[0], errs[0])
		}
	}
	return answers
}

// long: one request after the other, in the order of a pod's life.
//
// TestACancelledRequestGoesOn: the work is done once, and the same request again gets its result.
func TestACancelledRequestGoesOn(t *testing.T) {
	s := newSubject(t, "userns")
	cut := func(order string, request func(ctx context.Context) error) {
		t.Helper()
		stop := s.armed()
		t.Cleanup(stop.close) // not before the waiting process reads
		s.order(order, "pause")
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-stop.pid
			cancel()
		}()
		if err := request(ctx); status.Code(err) != codes.Canceled {
			t.Errorf("%s: a cancelled request returns %v", order, err)
		}
		stop.release()
	}
	before := len(s.calls())
	cut("host-local:ADD", func(ctx context.Context) error {
		_, err := s.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: s.podConfig(s.name, "userns")})
		return err
	})
	if err := s.runPod(); err != nil {
		t.Fatal(err)
	}
	cut("runc:create", func(ctx context.Context) error {
		_, err := s.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: s.pod, Config: containerConfig("c", "sh", "-c", script),
		})
		return err
	})
	if err := s.create(); err != nil {
		t.Fatal(err)
	}
	cut("runc:start", func(ctx context.Context) error {
		_, err := s.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: s.container})
		return err
	})
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if err := s.talks(); err != nil {
		t.Error(err)
	}
	cut("bridge:DEL", func(ctx context.Context) error {
		_, err := s.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.pod})
		return err
	})
	if err := s.removePod(); err != nil {
		t.Error(err)
	}
	s.unharmed()
	want := fmt.Sprint([]string{"bridge:ADD", "bridge:DEL", "runc:create", "runc:start"})
	var got []string
	for _, call := range s.calls()[before:] {
		if strings.Contains(want, call) {
			got = append(got, call)
		}
	}
	slices.Sort(got)
	if fmt.Sprint(got) != want {
		t.Errorf("calls: %v, want each once: %s", got, want)
	}
}
