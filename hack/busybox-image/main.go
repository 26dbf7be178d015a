// Command busybox-image writes a small real image made from this machine's
// static busybox, for the demo, for guides and for trying things by hand:
//
//	go run ./hack/busybox-image -name docker.io/library/busybox:demo -o busybox.tar
//
// With -file it adds files of this machine, so that a program built here becomes an image.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

func main() {
	var opts testimage.Options
	flag.StringVar(&opts.Name, "name", "docker.io/library/busybox:demo", "the image's full `reference`")
	flag.StringVar((*string)(&opts.Format), "format", string(testimage.OCI), "`kind` of archive: oci or docker")
	flag.StringVar(&opts.Busybox, "busybox", "/bin/busybox", "`path` of a static busybox")
	flag.Func("file", "`SOURCE=PATH` adds a file of this machine at a path of the image; may be repeated", func(value string) error {
		file, err := readFile(value)
		opts.Files = append(opts.Files, file)
		return err
	})
	flag.Func("link", "`PATH=TARGET` adds a symbolic link; may be repeated", func(value string) error {
		name, target, _ := strings.Cut(value, "=")
		opts.Files = append(opts.Files, testimage.File{Path: strings.TrimPrefix(name, "/"), Link: target})
		return nil
	})
	flag.Func("entrypoint", "`word` of the entry point; may be repeated", func(value string) error {
		opts.Config.Entrypoint = append(opts.Config.Entrypoint, value)
		return nil
	})
	output := flag.String("o", "", "archive `file` to write (required)")
	flag.Parse()
	if *output == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*output, opts); err != nil {
		fmt.Fprintln(os.Stderr, "busybox-image:", err)
		os.Exit(1)
	}
}

// readFile reads SOURCE=PATH, with the permissions that the source has.
func readFile(value string) (testimage.File, error) {
	source, into, ok := strings.Cut(value, "=")
	if !ok || into == "" {
		return testimage.File{}, fmt.Errorf("%q is not SOURCE=PATH", value)
	}
	info, err := os.Stat(source)
	if err != nil {
		return testimage.File{}, err
	}
	content, err := os.ReadFile(source)
	if err != nil {
		return testimage.File{}, err
	}
	return testimage.File{
		Path: strings.TrimPrefix(path.Clean(into), "/"), Mode: int64(info.Mode().Perm()), Content: string(content),
	}, nil
}

func run(path string, opts testimage.Options) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := testimage.Write(file, opts); err != nil {
		file.Close()
		return errors.Join(err, os.Remove(path))
	}
	return file.Close()
}
