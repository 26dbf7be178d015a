package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// reachVariable makes this program print which of the files on its standard input it can access as
// the user and group in the variable, "UID:GID".
const reachVariable = "PINFOLD_E2E_REACH"

// reach prints "rights path" for each path on which the user has any right.
func reach(who string) int {
	var uid, gid int
	_, err := fmt.Sscanf(who, "%d:%d", &uid, &gid)
	for _, drop := range []func() error{
		func() error { return unix.Setgroups(nil) },
		func() error { return unix.Setresgid(gid, gid, gid) },
		func() error { return unix.Setresuid(uid, uid, uid) },
	} {
		if err == nil {
			err = drop()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		rights := ""
		for _, right := range []struct {
			name string
			mode uint32
		}{{"r", unix.R_OK}, {"w", unix.W_OK}, {"x", unix.X_OK}} {
			if unix.Access(in.Text(), right.mode) == nil {
				rights += right.name
			}
		}
		if rights != "" {
			fmt.Println(rights, in.Text())
		}
	}
	return 0
}

// reached are the rights of a user of the node on all files in the node's directories.
func (n *node) reached(who string) map[string]string {
	n.t.Helper()
	var all bytes.Buffer
	for _, top := range []string{"root", "state"} {
		n.check(filepath.WalkDir(n.path(top), func(path string, _ fs.DirEntry, err error) error {
			fmt.Fprintln(&all, path)
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}))
	}
	self, err := os.Executable()
	n.check(err)
	cmd := exec.Command(self)
	cmd.Env, cmd.Stdin, cmd.Stderr = append(os.Environ(), reachVariable+"="+who), &all, os.Stderr
	out, err := cmd.Output()
	n.check(err)
	found := map[string]string{}
	for line := range strings.Lines(string(out)) {
		rights, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		found[strings.TrimPrefix(path, n.dir+"/")] = rights
	}
	return found
}

// reachable are the directories that any user of the node may enter, with the reason: the root of a
// pod with a user namespace is a user without rights on the node, and the OCI runtime opens files
// as that user.
var reachable = map[string]string{
	"state":         "the way to the next two",
	"state/mnt":     "the way to a pod's root file system",
	"state/bundles": "the way to the root file system of the PID 1 of a pod that shares its PID namespace",
}

// passed reports whether the group of a pod's root may enter the directory.
func passed(path string) bool {
	dir := filepath.Dir(path)
	return dir == "state/mnt" || dir == "state/bundles"
}

// otherRange is the first id of a range that no other pod of the test has.
const otherRange = 400000

// podsOfEveryKind runs pods that write set-user-ID programs, and returns the IDs of those with the usual user namespace.
func (n *node) podsOfEveryKind() (mapped []string) {
	n.t.Helper()
	image := n.withVolumes("declares", nil, "/declared")
	model := n.loadModel()
	for _, options := range [][]string{nil, {"shared-pid"}, {"userns"}, {"userns", "shared-pid"}, {"userns", "other"}} {
		userns := len(options) > 0 && options[0] == "userns"
		config := n.podConfig("p"+strings.Join(options, ""), strings.Fields(strings.TrimSuffix(strings.Join(options, " "), "other"))...)
		config.Linux.SecurityContext.Privileged = true
		if options != nil && options[len(options)-1] == "other" {
			for _, m := range []*runtimeapi.IDMapping{namespaces(config).UsernsOptions.Uids[0], namespaces(config).UsernsOptions.Gids[0]} {
				m.HostId = otherRange
			}
		}
		pod := n.runPodOf(config)
		for _, privileged := range []bool{false, true} {
			c := sleeper(fmt.Sprint("c", privileged), imageMount(model, ""))
			c.Image.Image = image
			securityContext(c).Privileged = privileged
			if userns {
				securityContext(c).NamespaceOptions = &runtimeapi.NamespaceOption{UsernsOptions: namespaces(config).UsernsOptions}
			}
			id := n.runContainerOf(pod, c)
			n.says(id, "cp /bin/busybox /s; cp /bin/busybox /declared/s; chmod 4755 /s /declared/s; chmod 777 / /declared", "")
			if userns && options[len(options)-1] != "other" {
				mapped = append(mapped, id)
			}
		}
		if userns && options[len(options)-1] != "other" {
			mapped = append(mapped, pod)
		}
	}
	return mapped
}

func TestTheNodesUsersReachNothingThatPodsWrite(t *testing.T) {
	for name, umask := range map[string]string{"umask 022": "022", "umask 0": "0", "umask 077": "077"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.shell = "umask " + umask
			// An operator or an older version may have made them like this.
			for _, dir := range []string{"root", "root/pods", "root/images", "state", "state/ns", "state/bundles", "state/runtime"} {
				n.check(os.Mkdir(n.path(dir), 0o755))
				n.check(os.Chmod(n.path(dir), 0o777))
			}
			n.launch()
			n.loadImage()
			mapped := n.podsOfEveryKind()
			for _, who := range []string{"65534:65534", "1000:0", fmt.Sprintf("65534:%d", otherRange), fmt.Sprintf("%d:%d", otherRange, otherRange)} {
				n.reachesOnlyItsOwn(who, mapped)
			}
		})
	}
}

// reachesOnlyItsOwn checks that a user of the node cannot access anything of the pods and
// containers in others.
func (n *node) reachesOnlyItsOwn(who string, others []string) {
	n.t.Helper()
	found := n.reached(who)
	for path := range reachable {
		if found[path] != "x" {
			n.t.Errorf("%s has the rights %q on %s", who, found[path], path)
		}
	}
	own := strings.HasSuffix(who, fmt.Sprint(":", otherRange))
	for path, rights := range found {
		if reachable[path] != "" {
			continue
		}
		foreign := !own
		for _, id := range others {
			foreign = foreign || strings.Contains(path, id)
		}
		top := strings.Split(path, "/")
		if foreign || len(top) < 3 || !passed(strings.Join(top[:3], "/")) {
			n.t.Errorf("%s has the rights %q on %s", who, rights, path)
		}
	}
}
