package network

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxReferences limits how many files are remembered. A node has about twenty.
const maxReferences = 64

// references remembers which files are plugins of the CNI project as it published them. It asks a file once: its build
// information, which the go command writes into it, and, if that has no version, the file itself. A file that was replaced
// or changed is asked again.
type references struct {
	mu    sync.Mutex
	known map[fileID]answer
}

// fileID tells a file, and each change of its content, from others.
type fileID struct {
	dev, ino         uint64
	size             int64
	modified, status unix.Timespec
}

// answer is what a file is: a release, or the reason why it is none.
type answer struct {
	release release
	err     error
}

// release is a published version of a plugin.
type release struct{ major, minor, patch int }

func (r release) String() string { return fmt.Sprintf("v%d.%d.%d", r.major, r.minor, r.patch) }

// sources say where the project keeps the plugins that Pinfold knows, as their build information names it.
var sources = map[string]string{
	"bridge":     "github.com/containernetworking/plugins/plugins/main/bridge",
	"ptp":        "github.com/containernetworking/plugins/plugins/main/ptp",
	"loopback":   "github.com/containernetworking/plugins/plugins/main/loopback",
	"host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
	"portmap":    "github.com/containernetworking/plugins/plugins/meta/portmap",
	"firewall":   "github.com/containernetworking/plugins/plugins/meta/firewall",
	"bandwidth":  "github.com/containernetworking/plugins/plugins/meta/bandwidth",
	"tuning":     "github.com/containernetworking/plugins/plugins/meta/tuning",
	"flannel":    "github.com/flannel-io/cni-plugin",
}

// of returns which release of the plugin the file is. about starts a file to ask what it is.
func (r *references) of(ctx context.Context, plugin, path string, about func(context.Context, string) (string, error)) (release, error) {
	if sources[plugin] == "" {
		return release{}, errors.New("it is not a plugin that Pinfold knows")
	}
	f, err := os.Open(path)
	if err != nil {
		return release{}, err
	}
	defer f.Close()
	id, err := identify(f)
	if err != nil {
		return release{}, err
	}
	r.mu.Lock()
	known, ok := r.known[id]
	r.mu.Unlock()
	if ok {
		return known.release, known.err
	}
	known.release, known.err = examine(f, plugin, func() (string, error) { return about(ctx, path) })
	if ctx.Err() != nil {
		return release{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= maxReferences {
		r.known = make(map[fileID]answer)
	}
	r.known[id] = known
	return known.release, known.err
}

func identify(f *os.File) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileID{}, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return fileID{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// examine reads the build information. A program that is not written in Go, a script for example, is never the plugin, also
// if it starts the plugin. A build outside of a module has no more information than that it is Go, and a build from a
// checkout of the sources has no version: then the program tells.
func examine(f *os.File, plugin string, about func() (string, error)) (release, error) {
	info, err := buildinfo.Read(f)
	if err != nil {
		return release{}, errors.New("its file is not the CNI project's: it has no build information")
	}
	source := sources[plugin]
	switch {
	case info.Path != source && info.Path != "":
		return release{}, fmt.Errorf("its file is not the CNI project's: it is built from %.100s", info.Path)
	case info.Main.Replace != nil || info.Path != "" && !strings.HasPrefix(source, info.Main.Path):
		return release{}, errors.New("its file is not the CNI project's: another module is in its place")
	}
	if published, ok := parseRelease(info.Main.Version); ok {
		return published, nil
	}
	said, err := about()
	if err != nil {
		return release{}, fmt.Errorf("its file has no version in its build information, and does not tell it: %w", err)
	}
	return parseAbout(said, plugin)
}

var (
	releaseText = regexp.MustCompile(`^v([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(?:-flannel[0-9]+)?$`)
	aboutText   = regexp.MustCompile(`^CNI (?:([a-z-]+) plugin|Plugin ([a-z-]+) version) (v[0-9.]+(?:-flannel[0-9]+)?)(?: \(|$)`)
)

// parseRelease reads "v1.9.1", and nothing that has more: a version with more is somebody's own. Only flannel's have more.
func parseRelease(text string) (release, bool) {
	m := releaseText.FindStringSubmatch(text)
	if m == nil {
		return release{}, false
	}
	var r release
	for i, to := range []*int{&r.major, &r.minor, &r.patch} {
		*to, _ = strconv.Atoi(m[i+1]) // the expression allows nothing else
	}
	return r, true
}

// parseAbout reads the line that a plugin prints if it is started without a command.
func parseAbout(said, plugin string) (release, error) {
	line, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	line = strings.TrimSpace(line)
	if m := aboutText.FindStringSubmatch(line); m != nil && m[1]+m[2] == plugin {
		if published, ok := parseRelease(m[3]); ok {
			return published, nil
		}
	}
	return release{}, fmt.Errorf("its file says that it is %.100q, which is no release that Pinfold knows", line)
}
