package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func BenchmarkMountRoot(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		for _, mapped := range []bool{false, true} {
			for m := byFD; m < byString; m++ {
				b.Run(fmt.Sprintf("layers=%d/mapped=%v/%s", n, mapped, m), func(b *testing.B) {
					a := newArea(b)
					a.overlays.without[byFD] = m != byFD
					o := overlayOf(b, makeLayers(b, n), nil)
					if mapped {
						o.UserNS = newUserNS(b)
					}
					for b.Loop() {
						mountRoot(b, a, "c", o)
						b.StopTimer()
						must(b, a.Unmount("c"))
						must(b, os.RemoveAll(o.Upper))
						must(b, os.RemoveAll(o.Work))
						b.StartTimer()
					}
				})
			}
		}
	}
}

func BenchmarkIDMapVolume(b *testing.B) {
	a, ns, source := newArea(b), newUserNS(b), b.TempDir()
	for b.Loop() {
		_, err := a.IDMapVolume("c", 0, Volume{Source: source, UserNS: ns})
		must(b, err)
		b.StopTimer()
		must(b, a.Unmount("c"))
		b.StartTimer()
	}
}

func BenchmarkUnmount(b *testing.B) {
	a := newArea(b)
	o := overlayOf(b, makeLayers(b, 10), newUserNS(b))
	for b.Loop() {
		b.StopTimer()
		mountRoot(b, a, "c", o)
		b.StartTimer()
		must(b, a.Unmount("c"))
		b.StopTimer()
		must(b, os.RemoveAll(o.Upper))
		must(b, os.RemoveAll(o.Work))
		b.StartTimer()
	}
}

// withOverlay runs the benchmark on an overlay that is volatile and on one that is not.
func withOverlay(b *testing.B, run func(b *testing.B, dir, options string)) {
	needRoot(b)
	for _, volatile := range []string{"", ",volatile"} {
		b.Run("volatile="+fmt.Sprint(volatile != ""), func(b *testing.B) {
			dir := b.TempDir()
			run(b, dir, fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w%[2]s", dir, volatile))
		})
	}
}

func freshOverlay(b *testing.B, dir, options string) {
	for _, d := range []string{"l", "u", "w", "m"} {
		must(b, os.RemoveAll(filepath.Join(dir, d)))
		must(b, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(b, unix.Mount("overlay", dir+"/m", "overlay", 0, options))
}

// BenchmarkUnmountWithDirtyPages is a reason for volatile: without it, the end of one container
// writes out what everyone has written to the file system of its upper directory.
func BenchmarkUnmountWithDirtyPages(b *testing.B) {
	withOverlay(b, func(b *testing.B, dir, options string) {
		noise := make([]byte, 256<<20)
		for b.Loop() {
			b.StopTimer()
			freshOverlay(b, dir, options)
			must(b, os.WriteFile(dir+"/other", noise, 0o600))
			b.StartTimer()
			must(b, unix.Unmount(dir+"/m", 0))
		}
	})
}

// BenchmarkFsyncInContainer is the other one.
func BenchmarkFsyncInContainer(b *testing.B) {
	withOverlay(b, func(b *testing.B, dir, options string) {
		freshOverlay(b, dir, options)
		defer func() { _ = unix.Unmount(dir+"/m", unix.MNT_DETACH) }()
		f, err := os.Create(dir + "/m/file")
		must(b, err)
		defer func() { _ = f.Close() }()
		block := make([]byte, 4096)
		for b.Loop() {
			_, err := f.Write(block)
			must(b, err)
			must(b, f.Sync())
		}
	})
}
