package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pinfold-run/pinfold/internal/kernel/durable"
	"github.com/pinfold-run/pinfold/internal/regular"
)

// Kubelet is the kubelet's configuration on a node.
type Kubelet struct {
	// Config is its configuration file.
	Config string
	// dir is where kubeadm keeps its files.
	dir string
}

// kubeletDir is where kubeadm keeps the kubelet's files.
const kubeletDir = "/var/lib/kubelet"

// NewKubelet returns the kubelet with that configuration file; empty: that of kubeadm.
func NewKubelet(config string) Kubelet {
	if config == "" {
		config = filepath.Join(kubeletDir, "config.yaml")
	}
	return Kubelet{Config: config, dir: kubeletDir}
}

// backup ends the name of the copy of a file as it was before.
const backup = ".before-pinfold"

// maxFile limits a file of the kubelet, in bytes.
const maxFile = 1 << 20

var (
	// endpointKey is the key in the kubelet's configuration, at the beginning of a line.
	endpointKey = regexp.MustCompile(`(?m)^containerRuntimeEndpoint:.*$`)
	// endpointLine is the whole line.
	endpointLine = regexp.MustCompile(`(?m)^containerRuntimeEndpoint:.*\n?`)
	// endpointFlag is the flag in kubeadm's file of flags, which counts more than the key.
	endpointFlag = regexp.MustCompile(`--container-runtime-endpoint[= ][^ "']*`)
)

// change is a new content of one file.
type change struct {
	file     string
	old, new []byte
}

// changes finds what has to be written so that the kubelet uses the runtime at that endpoint.
func (k Kubelet) changes(endpoint string) ([]change, error) {
	data, err := regular.Read(k.Config, maxFile)
	if err != nil {
		return nil, fmt.Errorf("the kubelet's configuration: %w", err)
	}
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return nil, fmt.Errorf("the kubelet's configuration %s is JSON: write \"containerRuntimeEndpoint\": %q into it by hand", k.Config, endpoint)
	}
	line := []byte("containerRuntimeEndpoint: " + endpoint)
	changed := endpointKey.ReplaceAll(data, line)
	if !endpointKey.Match(data) {
		changed = append(bytes.TrimRight(bytes.Clone(data), "\n"), append(append([]byte("\n"), line...), '\n')...)
	}
	all := []change{{k.Config, data, changed}}
	// kubeadm before 1.32 wrote a flag, later ones a patch of the instance: both count more.
	flags := filepath.Join(k.dir, "kubeadm-flags.env")
	if data, err := regular.Read(flags, maxFile); err == nil {
		all = append(all, change{flags, data, endpointFlag.ReplaceAll(data, []byte("--container-runtime-endpoint="+endpoint))})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	instance := filepath.Join(k.dir, "instance-config.yaml")
	if data, err := regular.Read(instance, maxFile); err == nil {
		all = append(all, change{instance, data, endpointKey.ReplaceAll(data, line)})
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return all, nil
}

// Set makes the kubelet use the runtime at that endpoint ("unix:///run/pinfold/pinfold.sock") from its next start. Each
// file that it changes is copied beforehand. It returns the changed files; none if all was so already. Nothing is
// written if one of the files cannot be read.
func (k Kubelet) Set(endpoint string) ([]string, error) {
	if strings.ContainsAny(endpoint, " \"'\n$\\") {
		return nil, fmt.Errorf("the endpoint %q cannot be written into the kubelet's files", endpoint)
	}
	all, err := k.changes(endpoint)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, c := range all {
		if bytes.Equal(c.old, c.new) {
			continue
		}
		if err := c.write(); err != nil {
			return files, fmt.Errorf("%s: %w", c.file, err)
		}
		files = append(files, c.file)
	}
	return files, nil
}

// write replaces the file. Its first copy stays: it is from before the first change.
func (c change) write() error {
	info, err := os.Stat(c.file)
	if err != nil {
		return err
	}
	copied := c.file + backup
	if _, err := os.Lstat(copied); errors.Is(err, fs.ErrNotExist) {
		if err := replace(copied, c.old, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return replace(c.file, c.new, info.Mode().Perm())
}

func replace(path string, data []byte, mode fs.FileMode) error {
	return durable.Fill(path, func(f *os.File) error {
		_, err := f.Write(data)
		return errors.Join(err, f.Chmod(mode))
	})
}

// Undo puts the kubelet's files back as they were before Set, and removes the copies. Of a file that was edited since, by an
// operator or an upgrade of kubeadm, only the runtime is put back. It returns the files that it put back; none if there are
// no copies.
func (k Kubelet) Undo() ([]string, error) {
	var files []string
	for _, f := range []struct {
		path    string
		runtime *regexp.Regexp
	}{
		{k.Config, endpointKey},
		{filepath.Join(k.dir, "kubeadm-flags.env"), endpointFlag},
		{filepath.Join(k.dir, "instance-config.yaml"), endpointKey},
	} {
		err := undo(f.path, f.runtime)
		switch {
		case err == nil:
			files = append(files, f.path)
		case !errors.Is(err, fs.ErrNotExist):
			return files, fmt.Errorf("%s: %w", f.path, err)
		}
	}
	return files, nil
}

// undo puts one file back. The error is fs.ErrNotExist if it has no copy.
func undo(file string, runtime *regexp.Regexp) error {
	before, err := regular.Read(file+backup, maxFile)
	if err != nil {
		return err
	}
	now, err := regular.Read(file, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Rename(file+backup, file)
	}
	if err != nil {
		return err
	}
	back := endpointLine.ReplaceAll(now, nil)
	if was := runtime.Find(before); was != nil {
		back = runtime.ReplaceAllLiteral(now, was)
	}
	if bytes.Equal(bytes.TrimRight(back, "\n"), bytes.TrimRight(before, "\n")) {
		return os.Rename(file+backup, file)
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if err := replace(file, back, info.Mode().Perm()); err != nil {
		return err
	}
	return os.Remove(file + backup)
}
