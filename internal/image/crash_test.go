package image_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/image"
	"github.com/pinfold-run/pinfold/internal/testroot"
)

const victim = "PINFOLD_TEST_IMAGE_VICTIM"

// TestMain turns the test binary into a process that pulls and removes until it is killed.
func TestMain(m *testing.M) {
	root, refs, ok := strings.Cut(os.Getenv(victim), " ")
	if !ok {
		os.Exit(m.Run())
	}
	s, err := image.Open(context.Background(), image.Config{Root: root})
	if err == nil {
		err = s.RemoveUnused(context.Background())
	}
	for err == nil {
		for _, ref := range strings.Fields(refs) {
			if _, err = s.Pull(context.Background(), ref, nil); err != nil {
				break
			}
		}
		if err == nil {
			err = s.Remove(context.Background(), strings.Fields(refs)[0])
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestKilledAtAnyMomentNothingIsLostAndNothingLeft(t *testing.T) {
	h := newHub(t)
	base := layerOf(t, reg("base", strings.Repeat("b", 1<<18)))
	refs := []string{
		h.push(t, "a:1", imageOf(t, "a", base, layerOf(t, reg("a", strings.Repeat("a", 1<<18))))),
		h.push(t, "b:1", imageOf(t, "b", base, layerOf(t, reg("b", "")))),
	}
	root := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range 25 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), victim+"="+root+" "+strings.Join(refs, " "))
		cmd.Stderr = os.Stderr
		must(t, cmd.Start())
		time.Sleep(time.Duration(20+random.IntN(150)) * time.Millisecond) // when the process is killed
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if status, ok := cmd.ProcessState.Sys().(interface{ Signaled() bool }); !ok || !status.Signaled() {
			t.Fatalf("round %d: the victim ended by itself: %v", round, cmd.ProcessState)
		}
		s := open(t, image.Config{Root: root})
		if q := s.Quarantined(); len(q) > 0 {
			t.Fatalf("round %d: %v", round, q)
		}
		for _, img := range s.List() {
			for i, dir := range trees(t, s, img.ID) {
				if len(names(t, dir)) != 1 {
					t.Fatalf("round %d: layer %d of %v is not whole", round, i, img.Tags)
				}
			}
		}
		equal(t, "records", inventory(t, root)["records"], len(s.List()))
		equal(t, "temporary", inventory(t, root)["temporary"], 0)
		s.Close()
	}
	s := open(t, image.Config{Root: root})
	for _, ref := range refs {
		pull(t, s, ref)
	}
	expectInventory(t, root, map[string]int{"layers": 3, "records": 2, "blobs": 4})
	for _, ref := range refs {
		must(t, s.Remove(t.Context(), ref))
	}
	expectInventory(t, root, map[string]int{})
}

func TestPullsRemovalsAndHoldsAtOnce(t *testing.T) {
	h := newHub(t)
	base := layerOf(t, reg("base", "b"))
	var refs []string
	for _, n := range []string{"a", "b", "c"} {
		refs = append(refs, h.push(t, n+":1", imageOf(t, n, base, layerOf(t, reg(n, n)))))
	}
	root := t.TempDir()
	s := open(t, image.Config{Root: root})
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(worker), 0))
			holder := fmt.Sprint(worker)
			for range 30 {
				ref := refs[random.IntN(len(refs))]
				img, err := s.Pull(t.Context(), ref, nil)
				if err != nil {
					t.Error(err)
					return
				}
				dirs, _, err := s.Hold(img.ID, holder)
				if errdefs.IsNotFound(err) {
					continue // another worker has removed it
				}
				if random.IntN(2) == 0 {
					if err := s.Remove(t.Context(), img.ID); err != nil {
						t.Error(err)
					}
				}
				for _, dir := range dirs {
					if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
						t.Errorf("held layer %s: %v, %v", dir, entries, err)
					}
				}
				s.Release(img.ID, holder)
			}
		})
	}
	wg.Wait()
	for _, img := range s.List() {
		must(t, s.Remove(t.Context(), img.ID))
	}
	expectInventory(t, root, map[string]int{})
}

func TestFullDiskIsSaidAndNothingIsLeftOnIt(t *testing.T) {
	testroot.Need(t)
	h := newHub(t)
	compressible := layerOf(t, reg("big", strings.Repeat("x", 8<<20)))
	large, _ := bigLayer(t)
	for name, l := range map[string]builtLayer{"while downloading": large, "while unpacking": compressible} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "images")
			must(t, os.Mkdir(root, 0o700))
			must(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=2m"))
			t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
			s := open(t, image.Config{Root: root})
			ref := h.push(t, "app:1", imageOf(t, name, layerOf(t, reg("small", "")), l))
			_, err := s.Pull(t.Context(), ref, nil)
			expectError(t, err, errdefs.IsResourceExhausted, ref, "no space left")
			expectInventory(t, root, map[string]int{})
			pull(t, s, h.push(t, "small:1", imageOf(t, "small", layerOf(t, reg("small", "")))))
		})
	}
}
