package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/pod"
)

// identityFile is in the root directory and, until a reboot, in the state directory. If the ID in both is the same, what
// is alive in the one is recorded in the other.
const identityFile = "identity"

// rootIdentity is the content of an identity file.
type rootIdentity struct {
	ID string `json:"id"`
	// Root and State are the paths of both directories, as the last daemon had them.
	Root  string `json:"root"`
	State string `json:"state"`
	// Boot is the boot in which the file was written. Nothing is alive in the state directory of an older boot.
	Boot string `json:"boot"`
	// givenUp: the file is empty. So an operator says that another root may have the state directory.
	givenUp bool
}

// readIdentity returns a zero identity if the file is missing, or damaged by a power cut.
func readIdentity(dir string) (rootIdentity, error) {
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return rootIdentity{}, nil
	}
	if err != nil {
		return rootIdentity{}, err
	}
	if len(data) == 0 {
		return rootIdentity{givenUp: true}, nil
	}
	var found rootIdentity
	if json.Unmarshal(data, &found) != nil {
		return rootIdentity{}, nil
	}
	return found, nil
}

func (i rootIdentity) String() string {
	if i.ID == "" {
		return "no identity yet"
	}
	return "identity " + i.ID
}

// Claim makes sure that root and state directory belong together, and writes that into both. If they do not, nothing in
// the state directory may be changed: what is alive there has its records in another root. Directories of the version
// before have no identity. They belong together if the root has a record of something that the state directory has. boot
// identifies the running boot.
//
// Errors: ErrFailedPrecondition, which names both and what can be done, before anything is changed. The caller has
// locked both directories. A root without space for its identity can be used; then warn is called.
func Claim(p pod.Paths, boot string, warn func(error)) error {
	root, err := readIdentity(p.Root)
	if err != nil {
		return fmt.Errorf("identity of the root: %w", err)
	}
	state, err := readIdentity(p.State)
	if err != nil {
		return fmt.Errorf("identity of the state directory: %w", err)
	}
	if err := agree(p, root, state, boot); err != nil {
		return err
	}
	if err := elsewhere(p, root, boot); err != nil {
		return err
	}
	claimed := rootIdentity{ID: root.ID, Root: p.Root, State: p.State, Boot: boot}
	if claimed.ID == "" {
		claimed.ID = pod.NewID()
	}
	// The root first: a state directory must not name a root that has no identity.
	err = writeIdentity(p.Root, root, claimed)
	if err == nil {
		err = writeIdentity(p.State, state, claimed)
	}
	if err != nil {
		warn(fmt.Errorf("identity of root and state directory not written: %w", err))
	}
	return nil
}

// agree compares the root with the identity in the state directory.
func agree(p pod.Paths, root, state rootIdentity, boot string) error {
	if state.ID != "" && (state.ID == root.ID || state.Boot != boot) || state.givenUp {
		return nil
	}
	held := held(p)
	if len(held) == 0 {
		return nil // there is nothing that could belong to another root
	}
	giveUp := "; to give up their records and leave them running: >" + filepath.Join(p.State, identityFile)
	if state.ID != "" {
		return fmt.Errorf("the state directory %s holds %d pods and containers of the root %s (%s), and this root is %s (%s): "+
			"is a disk not mounted, or is --root or --state not the same as before? Nothing was changed%s: %w",
			p.State, len(held), state.Root, state, p.Root, root, giveUp, errdefs.ErrFailedPrecondition)
	}
	if slices.ContainsFunc(held, p.HasRecord) {
		return nil
	}
	return fmt.Errorf("the state directory %s holds %d pods and containers, and the root %s (%s) has no record of them: "+
		"is a disk not mounted, or is --root or --state not the same as before? Nothing was changed%s: %w",
		p.State, len(held), p.Root, root, giveUp, errdefs.ErrFailedPrecondition)
}

// elsewhere refuses a root whose pods are alive in another state directory than this one.
func elsewhere(p pod.Paths, root rootIdentity, boot string) error {
	if root.ID == "" || root.State == "" || root.Boot != boot || sameDirectory(root.State, p.State) {
		return nil
	}
	other := p
	other.State = root.State
	if there, err := readIdentity(root.State); err != nil || there.ID != root.ID {
		return nil // there is none, or it is another root's
	}
	held := held(other)
	if len(held) == 0 {
		return nil
	}
	return fmt.Errorf("the root %s (%s) has %d pods and containers in the state directory %s, and this one is %s: "+
		"start with --state %s, or remove them first; to give them up: >%s: %w",
		p.Root, root, len(held), root.State, p.State, root.State, filepath.Join(root.State, identityFile), errdefs.ErrFailedPrecondition)
}

func sameDirectory(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// held are the IDs of which there are pins, bundles or mounts in the state directory.
func held(p pod.Paths) []string {
	var ids []string
	for _, dir := range []string{p.Pins(), p.Bundles(), p.Mounts()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			ids = append(ids, e.Name())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// writeIdentity replaces the file where it says something else, and makes it durable.
func writeIdentity(dir string, before, after rootIdentity) error {
	if before == after {
		return nil
	}
	data, err := json.Marshal(after)
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, identityFile), append(data, '\n'))
}
