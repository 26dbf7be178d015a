package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// runtimeVariable names the OCI runtime of the tests: runc, the default, or crun.
const runtimeVariable = "PINFOLD_OCI_RUNTIME"

// alsoWithCrun are the tests that also run with crun, if it is installed, in groups. They depend
// most on the OCI runtime. `make test-crun` runs all tests with it.
var alsoWithCrun = map[string]string{
	"life cycles": "^Test(Scenarios|AContainersStopSignalIs.*|AStop.*|SeveralRuntimeHandlers.*|PodsOfAHandlerThatIsGone.*|APodThatHasLost.*)$",
	"sessions":    "^Test(ExecPassesStreams.*|ExecWithATerminal.*|EveryAttacher.*|ExecSyncEndsAll.*)$",
	"streams":     "^Test(AProcessMayOpenItsStandardStreams.*|StandardInputThatIsNotWanted.*|NoDescriptorOfAContainer.*|NoStandardStreamOfARuntimes.*)$",
	"security": "^Test(PIDNamespaces.*|TheOtherNamespaces.*|APodOfItsOwnUserNamespace.*|Capabilities.*|UsersAndGroups.*|" +
		"AContainerIsFencedIn.*|PinfoldRunConfines.*|APodsNamespaces.*|ResourceLimitsHold.*|ASeccompProfile.*|TheUserFilesOf.*|AnImageWhoseUserFiles.*|DevicesAre.*|IdmappedVolumes.*|ReadOnlyIsRecursive.*|VolumesThatAnImageDeclares.*|AMountOfTheRequest.*)$",
	"mounts":    "^Test(DeviceNodesThat.*|WhatIsMountedReadOnly.*|OtherRestrictions.*|TheProgramOfAPods.*|NewMountsOfTheNode.*|AFileSystemThatCannot.*|AFileIsMounted.*|AVolumesMissing.*|AMountOfTheNode.*)$",
	"walls":     "^Test(TheNodesUsersReach.*|ContainersInherit.*|WhateverAContainerMade.*|GroupsOfAnyDepth.*)$",
	"resources": "^Test(ResourcesAreApplied.*|OOMKilledIs.*|ACheckpointWithoutCRIU.*)$",
}

// TestTheSamePassesWithCrun runs each group in another process of this program, in its own
// namespaces.
func TestTheSamePassesWithCrun(t *testing.T) {
	if binaries.handler != "runc" {
		t.Skip("this run has another runtime than runc from the start")
	}
	path, err := ociRuntime("crun")
	if err != nil {
		t.Skipf("not with crun: %v", err)
	}
	t.Parallel()
	for name, tests := range alsoWithCrun {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sameTests(t, tests, runtimeVariable+"=crun", "PINFOLD_CRUN="+path)
		})
	}
}

// sameTests runs tests of this program in a new process with other variables.
func sameTests(t *testing.T, tests string, env ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.v", "-test.timeout", slow(5*time.Minute).String(), "-test.run", tests)
	outside := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, insideVariable+"=") })
	cmd.Env = append(append(outside, prebuiltVariable+"="+binaries.dir), env...)
	out, err := cmd.CombinedOutput()
	results := regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): .*$`).FindAllString(string(out), -1)
	if err != nil || len(results) == 0 {
		t.Fatalf("%v:\n%s", cmp.Or(err, errors.New("no test ran")), out)
	}
	t.Log(strings.Join(results, "\n"))
}

// ociRuntime finds a runtime that works here: one that a variable names ($PINFOLD_RUNC,
// $PINFOLD_CRUN), the one of make tools, or one in $PATH.
func ociRuntime(name string) (string, error) {
	variable, ok := map[string]string{"runc": "PINFOLD_RUNC", "crun": "PINFOLD_CRUN"}[name]
	if !ok {
		return "", fmt.Errorf("$%s is %q; the tests know runc and crun", runtimeVariable, name)
	}
	path := os.Getenv(variable)
	if built, err := filepath.Abs(filepath.Join("../build/tools", name)); path == "" && err == nil && exists(built) {
		path = built
	}
	if path == "" {
		var err error
		if path, err = exec.LookPath(name); err != nil {
			return "", fmt.Errorf("%w (make tools builds it)", err)
		}
	}
	// Debian 12's crun has neither this command nor what Pinfold needs.
	if out, err := exec.Command(path, "features").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s features: %w: %s", path, err, out)
	}
	return path, refusesCgroups(name)
}

// refusesCgroups is why the runtime runs nothing on this machine.
func refusesCgroups(name string) error {
	const unified = "/sys/fs/cgroup/unified/cgroup.controllers"
	controllers, err := os.ReadFile(unified)
	if name != "crun" || err != nil || len(controllers) == 0 {
		return nil
	}
	return fmt.Errorf("crun refuses hybrid cgroups where v2 has controllers; %s: %s", unified, controllers)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
