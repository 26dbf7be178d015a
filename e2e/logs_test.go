package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (n *node) reopenLog(id string) error {
	_, err := n.runtime.ReopenContainerLog(n.ctx(), &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	return err
}

func TestALogIsRotatedWhileTheContainerWritesAndNoLineIsLostOrDoubled(t *testing.T) {
	t.Parallel()
	n := started(t)
	const rotations = 5
	c := n.runContainerOf(n.runPodOf(n.podConfig("p")), containerConfig("c", "sh", "-c",
		"i=0; while [ ! -e /stop ]; do seq $((i+1)) $((i+500)); i=$((i+500)); done; echo all $i"))
	log := n.path("logs/p/c.log")
	// As a kubelet does it: the file is moved away, and the container's log goes on in a new one.
	rotated := []string{}
	for i := range rotations {
		n.check(n.until("something in the log", func() bool {
			info, err := os.Stat(log)
			return err == nil && info.Size() > 0
		}))
		name := fmt.Sprintf("%s.%d", log, i)
		n.check(os.Rename(log, name))
		rotated = append(rotated, name)
		n.check(n.reopenLog(c))
		if _, err := os.Stat(log); err != nil {
			t.Fatalf("after ReopenContainerLog: %v", err)
		}
	}
	n.inside(c, "touch /stop") // whose own end the container's may be
	if s := n.ended(c); s.ExitCode != 0 {
		t.Fatalf("the container ended with %d", s.ExitCode)
	}
	next, begun, all := 1, "", ""
	for _, name := range append(rotated, log) {
		data, err := os.ReadFile(name)
		n.check(err)
		if len(data) > 0 && data[len(data)-1] != '\n' {
			t.Errorf("%s ends in the middle of a record", name)
		}
		for line := range strings.Lines(string(data)) {
			_, record, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if part, cut := strings.CutPrefix(record, "stdout P "); cut {
				begun += part // a line that was not written at once
				continue
			}
			last, whole := strings.CutPrefix(record, "stdout F ")
			if all = begun + last; !whole || all != fmt.Sprint(next) && all != fmt.Sprint("all ", next-1) {
				t.Fatalf("%s has %q where line %d belongs", name, line, next)
			}
			next, begun = next+1, ""
		}
	}
	if !strings.HasPrefix(all, "all ") || next < rotations {
		t.Errorf("the last line, after %d numbers, is %q", next-1, all)
	}
}

func TestTheLogOfAnEndedContainerIsNotReopened(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("p"))
	c := n.runContainerOf(pod, containerConfig("c", "echo", "all"))
	n.ended(c)
	log := n.path("logs/p/c.log")
	n.check(os.Rename(log, log+".1"))
	if err := n.reopenLog(c); status.Code(err) != codes.FailedPrecondition || !strings.Contains(messageOf(err), c) {
		t.Errorf("of an ended container: %v", err)
	}
	if _, err := os.Stat(log); !os.IsNotExist(err) {
		t.Errorf("there is a new log of an ended container: %v", err)
	}
	if text := readLog(log + ".1"); text != "stdout F all\n" && text != "stdout F all" {
		t.Errorf("the old log has %q", text)
	}
	if err := n.reopenLog(strings.Repeat("0", 32)); status.Code(err) != codes.NotFound {
		t.Errorf("of no container: %v", err)
	}
}
