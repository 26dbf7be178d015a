package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

// scribe is an NRI plugin: this test binary, when the daemon starts it (see TestMain). It writes
// the pods that it is told of to the file that its configuration names.
type scribe struct{ file string }

func (s *scribe) Configure(_ context.Context, config, _, _ string) (api.EventMask, error) {
	s.file = strings.TrimSpace(config)
	s.note("configured", fmt.Sprint(os.Getpid()))
	return 0, nil
}

func (s *scribe) Synchronize(_ context.Context, pods []*api.PodSandbox, _ []*api.Container) ([]*api.ContainerUpdate, error) {
	for _, pod := range pods {
		s.note("synchronized", pod.GetId())
	}
	return nil, nil
}

func (s *scribe) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	s.note("run", pod.GetId())
	return nil
}

func (s *scribe) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	s.note("removed", pod.GetId())
	return nil
}

func (s *scribe) note(event, id string) {
	f, err := os.OpenFile(s.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, event, id)
}

// launchedPlugin serves until the daemon ends.
func launchedPlugin() int {
	s, err := stub.New(&scribe{}, stub.WithLogger(quiet{}), stub.WithOnClose(func() { os.Exit(0) }))
	if err == nil {
		err = s.Run(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// installPlugin copies this binary to where the daemon looks for plugins. notes reads what it has
// written.
func (n *node) installPlugin(name string) (notes func() []string) {
	n.t.Helper()
	for _, dir := range []string{"root/nri/plugins", "root/nri/conf.d"} {
		n.check(os.MkdirAll(n.path(dir), 0o700))
	}
	self, err := os.Executable()
	n.check(err)
	copyFile(n.t, self, n.path("root/nri/plugins", name))
	n.write(filepath.Join("root/nri/conf.d", name+".conf"), n.path("notes"))
	return func() []string {
		data, _ := os.ReadFile(n.path("notes"))
		return strings.Split(strings.TrimSpace(string(data)), "\n")
	}
}

func TestAnInstalledNRIPluginIsStartedAndEndsWithTheDaemon(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	notes := n.installPlugin("10-scribe")
	n.launch()
	n.loadImage()
	first := n.runPodOf(n.podConfig("first"))
	n.noted(notes, "run "+first)
	n.kill()
	n.launch()
	n.noted(notes, "synchronized "+first)
	n.endPod(first)
	n.noted(notes, "removed "+first)
	n.signal(syscall.SIGTERM)
	for _, note := range notes() {
		var pid int
		if _, err := fmt.Sscanf(note, "configured %d", &pid); err == nil {
			n.check(n.until("the plugin's end", func() bool {
				exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
				return !strings.HasPrefix(exe, n.dir)
			}))
		}
	}
}

func (n *node) noted(notes func() []string, want string) {
	n.t.Helper()
	if err := n.until(want, func() bool { return slices.Contains(notes(), want) }); err != nil {
		n.t.Errorf("the plugin noted %q, not %q", notes(), want)
	}
}

func TestAFileThatIsNoNRIPluginKeepsNoPodFromRunning(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.installPlugin("misnamed")
	n.launch()
	n.loadImage()
	n.endPod(n.runPodOf(n.podConfig("p")))
	if !strings.Contains(n.log.String(), "misnamed") {
		t.Error("the log does not name the file")
	}
}
