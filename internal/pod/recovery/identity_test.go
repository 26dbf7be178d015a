package recovery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/pod"
)

// claimant is a pair of directories, and what is in them.
type claimant struct {
	t *testing.T
	pod.Paths
}

func newClaimant(t *testing.T) *claimant {
	return &claimant{t, pod.Paths{Root: t.TempDir(), State: t.TempDir()}}
}

// at is the same with other directories.
func (c *claimant) at(root, state string) *claimant {
	return &claimant{c.t, pod.Paths{Root: root, State: state}}
}

func (c *claimant) mkdir(path string) {
	c.t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		c.t.Fatal(err)
	}
}

// run makes a pod with a record.
func (c *claimant) run(id string) {
	c.t.Helper()
	c.mkdir(c.Sandbox(id))
	c.mkdir(filepath.Join(c.Pins(), id))
}

func (c *claimant) isTaken(boot string) {
	c.t.Helper()
	if err := Claim(c.Paths, boot, func(err error) { c.t.Error(err) }); err != nil {
		c.t.Errorf("not taken: %v", err)
	}
}

func (c *claimant) isRefused(boot string, says ...string) {
	c.t.Helper()
	before := readAll(c.t, c.Root, c.State)
	err := Claim(c.Paths, boot, func(err error) { c.t.Error(err) })
	if !errdefs.IsFailedPrecondition(err) || strings.Contains(err.Error(), "\n") {
		c.t.Fatalf("got %v, want one line of the class FailedPrecondition", err)
	}
	for _, part := range says {
		if !strings.Contains(err.Error(), part) {
			c.t.Errorf("%q does not say %q", err, part)
		}
	}
	if after := readAll(c.t, c.Root, c.State); after != before {
		c.t.Errorf("a refusal changed something:\n%s\nbefore:\n%s", after, before)
	}
}

func readAll(t *testing.T, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range dirs {
		err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			all.WriteString(path + "\n")
			if err == nil && info.Mode().IsRegular() {
				data, _ := os.ReadFile(path)
				all.Write(data)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

func TestARootThatIsNotTheStateDirectorysOwnIsRefused(t *testing.T) {
	c := newClaimant(t)
	c.isTaken("1")
	c.run("a")
	c.isTaken("1")
	empty := c.at(t.TempDir(), c.State)
	empty.isRefused("1", c.Root, empty.Root, c.State, "identity", ">"+filepath.Join(c.State, identityFile))
	other := c.at(t.TempDir(), t.TempDir())
	other.isTaken("1")
	c.at(other.Root, c.State).isRefused("1", c.Root, other.Root)
	c.isTaken("1") // the disk is mounted again
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(c.Root, moved); err != nil {
		t.Fatal(err)
	}
	c.at(moved, c.State).isTaken("1")
}

func TestAStateDirectoryInWhichNothingIsAliveGoesToAnyRoot(t *testing.T) {
	c := newClaimant(t)
	c.isTaken("1")
	empty := c.at(t.TempDir(), c.State)
	empty.isTaken("1")
	c.isTaken("1")
	c.run("a")
	// A reboot that does not empty the directory.
	empty.isTaken("2")
}

func TestAStateDirectoryThatIsGivenUpGoesToAnyRoot(t *testing.T) {
	c := newClaimant(t)
	c.isTaken("1")
	c.run("a")
	empty := c.at(t.TempDir(), c.State)
	empty.isRefused("1")
	if err := os.WriteFile(filepath.Join(c.State, identityFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty.isTaken("1")
	c.isRefused("1", empty.Root)
}

func TestDirectoriesOfTheVersionBeforeAreTakenWhereTheRecordsKnowWhatIsAlive(t *testing.T) {
	c := newClaimant(t)
	c.run("a")
	c.mkdir(c.Bundle("c"))
	c.at(t.TempDir(), c.State).isRefused("1", "has no record of them", c.State)
	c.isTaken("1")

	only := newClaimant(t)
	only.mkdir(only.Containers("host-network"))
	only.mkdir(only.Bundle("c"))
	if err := os.WriteFile(filepath.Join(only.Containers("host-network"), "c.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	only.isTaken("1")
}

func TestARootWhosePodsAreAliveInAnotherStateDirectoryIsRefused(t *testing.T) {
	c := newClaimant(t)
	c.isTaken("1")
	c.run("a")
	elsewhere := c.at(c.Root, t.TempDir())
	elsewhere.isRefused("1", "--state "+c.State, elsewhere.State)
	// A link to the same directory is the same.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(c.State, link); err != nil {
		t.Fatal(err)
	}
	c.at(c.Root, link).isTaken("1")
	c.isTaken("1")
	// Without pods, or after a reboot, it may be another.
	elsewhere.isTaken("2")
	c.isTaken("3")
	if err := os.RemoveAll(c.Pins()); err != nil {
		t.Fatal(err)
	}
	elsewhere.isTaken("3")
}

func TestAnIdentityThatAPowerCutToreIsMadeAnew(t *testing.T) {
	for _, text := range []string{"", "{\"id\":\"ab", "\x00\x00"} {
		c := newClaimant(t)
		c.isTaken("1")
		if err := os.WriteFile(filepath.Join(c.Root, identityFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(c.State); err != nil {
			t.Fatal(err)
		}
		c.mkdir(c.State)
		c.isTaken("2")
		if found, err := readIdentity(c.Root); err != nil || found.ID == "" {
			t.Errorf("after %q: %v, %v", text, found, err)
		}
	}
}
