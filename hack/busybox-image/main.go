// Command busybox-image writes a small real image made from this machine's
// static busybox, for the demo and for trying things by hand:
//
//	go run ./hack/busybox-image -name docker.io/library/busybox:demo -o busybox.tar
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/pinfold-run/pinfold/internal/testimage"
)

func main() {
	var opts testimage.Options
	flag.StringVar(&opts.Name, "name", "docker.io/library/busybox:demo", "the image's full `reference`")
	flag.StringVar((*string)(&opts.Format), "format", string(testimage.OCI), "`kind` of archive: oci or docker")
	flag.StringVar(&opts.Busybox, "busybox", "/bin/busybox", "`path` of a static busybox")
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
