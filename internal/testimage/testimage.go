// Package testimage makes a small real container image from a static busybox:
// two layers, a configuration, a manifest and an index, as an OCI archive or as
// a Docker archive. Tests and the demo load it, so neither needs a registry nor
// a binary in the repository.
//
// The same busybox and the same [Options] give the same bytes, and so the same
// digests, every time (with one release of Go: its gzip may change with another). Only the standard library is used, so that what reads
// images in Pinfold is tested against something that does not share its code.
//
// The content, beyond busybox and a link to it for each of its applets:
//
//	/etc/passwd, /etc/group        root, and user (uid and gid 1000)
//	/tmp                           mode 1777
//	/home/user/hello               owned by 1000:1000, in the second layer
//	/etc/removed                   in the first layer, whited out by the second
//	/var/opaque/old                hidden by the second layer's opaque directory,
//	/var/opaque/new                which has this file
package testimage

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
)

// Format is the kind of archive that [Write] makes.
type Format string

const (
	// OCI is an OCI image layout in a tar archive, its layers compressed with gzip.
	OCI Format = "oci"
	// Docker is what `docker save` wrote before it wrote OCI layouts: manifest.json,
	// the configuration, and the layers as plain tar.
	Docker Format = "docker"
)

// Options says what image to make. Only Name is required.
type Options struct {
	// Name is the image's full reference, with domain and tag,
	// such as docker.io/library/busybox:demo.
	Name string
	// Format is OCI if empty.
	Format Format
	// Busybox is the path of a static busybox; /bin/busybox if empty.
	Busybox string
	// Architecture is what the configuration says, in Go's words; that of this
	// machine if empty. It does not change the content.
	Architecture string
	// Config is the image's runtime configuration; Cmd is sh if both Cmd and
	// Entrypoint are empty, and PATH is set if Env is empty.
	Config Config
	// Files are added to the second layer, in this order. A file's parent
	// directories are not made.
	Files []File
	// OnlyFiles leaves busybox and all else out: an image of one layer, with Files.
	OnlyFiles bool
}

// Config is the part of an image's configuration that says how to run it, with
// the names that both the OCI and the Docker format use.
type Config struct {
	User       string              `json:",omitempty"`
	Env        []string            `json:",omitempty"`
	Entrypoint []string            `json:",omitempty"`
	Cmd        []string            `json:",omitempty"`
	Volumes    map[string]struct{} `json:",omitempty"`
	WorkingDir string              `json:",omitempty"`
	StopSignal string              `json:",omitempty"`
	Labels     map[string]string   `json:",omitempty"`
}

// File is one regular file or symbolic link of an image.
type File struct {
	// Path is relative to the image's root, without a leading slash.
	Path string
	// Mode holds the permission bits, set-user-id and the like included.
	Mode int64
	// UID and GID own the file.
	UID, GID int
	// Content is the whole of it.
	Content string
	// Link makes it a symbolic link to this target; only Path counts then.
	Link string
	// Type is one of archive/tar's types for what is neither file nor link; 0 is a file.
	Type byte
	// Major and Minor say which device a device node is.
	Major, Minor int64
}

// Write writes the image's archive to w. What it wrote is of no use after an
// error. Errors name the step; a missing or dynamically linked busybox, a name
// without a tag and an unknown format are refused before anything is written.
func Write(w io.Writer, opts Options) error {
	opts, err := opts.complete()
	if err != nil {
		return err
	}
	image, err := build(opts)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	if opts.Format == Docker {
		err = image.writeDocker(archive, opts.Name)
	} else {
		err = image.writeOCI(archive, opts.Name)
	}
	if err != nil {
		return fmt.Errorf("testimage: write %s archive: %w", opts.Format, err)
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("testimage: finish %s archive: %w", opts.Format, err)
	}
	return nil
}

func (o Options) complete() (Options, error) {
	if o.Format == "" {
		o.Format = OCI
	}
	if o.Format != OCI && o.Format != Docker {
		return o, fmt.Errorf("testimage: unknown format %q", o.Format)
	}
	if slash := strings.LastIndexByte(o.Name, '/'); slash < 0 || !strings.Contains(o.Name[slash:], ":") {
		return o, fmt.Errorf("testimage: name %q is not domain/repository:tag", o.Name)
	}
	if o.Busybox == "" {
		o.Busybox = "/bin/busybox"
	}
	if o.Architecture == "" {
		o.Architecture = runtime.GOARCH
	}
	if len(o.Config.Cmd)+len(o.Config.Entrypoint) == 0 {
		o.Config.Cmd = []string{"sh"}
	}
	if len(o.Config.Env) == 0 {
		o.Config.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	}
	return o, nil
}

// image is the finished content, ready to be put into either kind of archive.
type image struct {
	config []byte
	layers []layer
}

// imageConfig is the image configuration document, the same in both formats.
type imageConfig struct {
	Created      string  `json:"created"`
	Architecture string  `json:"architecture"`
	OS           string  `json:"os"`
	Config       Config  `json:"config"`
	RootFS       rootFS  `json:"rootfs"`
	History      []event `json:"history"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type event struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// created is the time of everything in the image: a fixed one, for equal bytes.
const created = "2026-01-01T00:00:00Z"

func (o Options) makeLayers() ([]layer, error) {
	if o.OnlyFiles {
		only, err := filesLayer(o.Files)
		return []layer{only}, err
	}
	base, err := baseLayer(o.Busybox)
	if err != nil {
		return nil, err
	}
	upper, err := upperLayer(o.Files)
	return []layer{base, upper}, err
}

func build(opts Options) (image, error) {
	layers, err := opts.makeLayers()
	if err != nil {
		return image{}, err
	}
	img := image{layers: layers}
	doc := imageConfig{
		Created: created, Architecture: opts.Architecture, OS: "linux", Config: opts.Config,
		RootFS: rootFS{Type: "layers"},
	}
	for _, l := range img.layers {
		doc.RootFS.DiffIDs = append(doc.RootFS.DiffIDs, digest(l.plain))
		doc.History = append(doc.History, event{Created: created, CreatedBy: "pinfold testimage: " + l.what})
	}
	img.config, err = json.Marshal(doc)
	if err != nil {
		return image{}, errors.Join(errors.New("testimage: encode configuration"), err)
	}
	return img, nil
}
