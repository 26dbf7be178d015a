package pod

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Whiteouts in the form of image layers (OCI image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	opaqueXattr    = "trusted.overlay.opaque"
)

// archiveLayer writes a writable layer as an image's layer: what an overlay keeps as device 0/0 and extended
// attributes becomes whiteouts. Owners are those on the node's disk. Sockets are left out.
func archiveLayer(upper, location string) error {
	return writeArchive(location, func(t *tar.Writer) error {
		return filepath.WalkDir(upper, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && path != upper {
				return nil // the container goes on and has removed it
			}
			if err != nil || path == upper {
				return err
			}
			return addEntry(t, upper, path, d)
		})
	})
}

func addEntry(t *tar.Writer, upper, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name, err := filepath.Rel(upper, path)
	if err != nil || info.Mode()&fs.ModeSocket != 0 {
		return err
	}
	var link string
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	header.Name = name
	switch {
	case info.Mode()&fs.ModeCharDevice != 0 && header.Devmajor == 0 && header.Devminor == 0:
		return t.WriteHeader(marker(filepath.Join(filepath.Dir(name), whiteoutPrefix+filepath.Base(name))))
	case info.IsDir():
		header.Name += "/"
		if err := t.WriteHeader(header); err != nil || !opaque(path) {
			return err
		}
		return t.WriteHeader(marker(filepath.Join(name, opaqueMarker)))
	case info.Mode().IsRegular():
		return addFile(t, header, path)
	}
	return t.WriteHeader(header)
}

func marker(name string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600}
}

func opaque(dir string) bool {
	value := make([]byte, 1)
	n, err := unix.Lgetxattr(dir, opaqueXattr, value)
	return err == nil && n == 1 && value[0] == 'y'
}

// addFile writes as much of a file as its header says, padded if the container has cut it meanwhile.
func addFile(t *tar.Writer, header *tar.Header, path string) error {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(t, io.MultiReader(file, zeros{}), header.Size)
	return err
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
