package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// deadServer mounts a file system whose server never answers, like a network volume whose server is
// down. Every access blocks. revive makes all of them fail.
func deadServer(t *testing.T, dir string) (revive func()) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// No process reads requests from this descriptor (fuse(4)). Closing it ends the connection.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("dead", dir, "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	revived := false
	revive = func() {
		if !revived {
			revived = true
			unix.Close(fd)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
		}
	}
	t.Cleanup(revive)
	return revive
}

func TestAVolumeOnADeadServerHoldsUpNothingElse(t *testing.T) {
	n := started(t)
	p := newPlayOn(n)
	p.must(p.runPod([]string{"hung", "userns"}))
	revive := deadServer(t, n.path("volumes/dead"))

	config := containerConfig("c", "true")
	config.Mounts = []*runtimeapi.Mount{{HostPath: n.path("volumes/dead"), ContainerPath: "/data"}}
	create := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		_, err := n.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: p.pods["hung"], Config: config})
		return err
	}
	began := time.Now()
	if err := create(2 * time.Second); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the request ended with %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the request took %s, its deadline was 2s", took)
	}
	// pinfold why shows which step the container is in, and since when.
	if out, code := n.pinfold("why"); code != 0 || !strings.Contains(out, `CreateContainer`) || !strings.Contains(out, `step "volumes"`) {
		t.Errorf("why says: %s", out)
	}
	// A repeated request joins the first. It is not refused, and its own deadline applies.
	if err := create(time.Second); status.Code(err) != codes.DeadlineExceeded || strings.Contains(err.Error(), "reserved") {
		t.Errorf("the repeat ended with %v", err)
	}
	// Everything else on the node works, also in the same pod.
	p.must(p.create([]string{"hung", "other", "--", "sleep", "1000"}))
	p.must(p.startContainer([]string{"other"}))
	p.must(p.runPod([]string{"free", "userns2"}))
	p.must(p.list(nil))
	p.must(p.removePod([]string{"free"}))

	revive()
	err := n.until("the end of the hung operation", func() bool {
		out, _ := n.pinfold("why")
		return strings.HasPrefix(out, "nothing")
	})
	if err != nil {
		t.Error(err)
	}
}
