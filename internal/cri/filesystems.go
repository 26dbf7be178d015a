package cri

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// filesystems names the file systems of the images and of the containers' writable layers, by a
// directory in each: see "On disk" in ARCHITECTURE.md. A kubelet compares these paths, not devices,
// to decide whether the node has one file system for both. So the paths differ only if the devices
// differ.
func filesystems(root string) (images, layers string) {
	images, layers = filepath.Join(root, "images"), filepath.Join(root, "pods")
	switch imagesDev := device(images); {
	case imagesDev != device(layers):
		return images, layers
	case imagesDev != device(root):
		return images, images
	}
	return root, root
}

func device(path string) uint64 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0
	}
	return st.Dev
}

func layersFS(root string) string {
	_, layers := filesystems(root)
	return layers
}

func filesystemUsage(mountpoint string, bytes, inodes uint64) *runtimeapi.FilesystemUsage {
	return &runtimeapi.FilesystemUsage{
		Timestamp:  time.Now().UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: mountpoint},
		UsedBytes:  &runtimeapi.UInt64Value{Value: bytes},
		InodesUsed: &runtimeapi.UInt64Value{Value: inodes},
	}
}

// layersUsage adds up the last measurements of the writable layers. A container that does not run
// has no layer, or one that nothing was written to.
func (i *Images) layersUsage(ctx context.Context) (bytes, inodes uint64) {
	containers := running(i.Book, i.Paths)
	i.Stats.Expect(ctx, containers)
	for _, c := range containers {
		if l := i.Stats.Layer(c); l != nil {
			bytes += l.Bytes
			inodes += l.Inodes
		}
	}
	return bytes, inodes
}
