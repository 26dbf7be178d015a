package doctor

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/internal/config"
	"github.com/pinfold-run/pinfold/internal/regular"
)

// Node is what is examined.
type Node struct {
	// Config is the daemon's configuration as it is written now, nil if it cannot be read;
	// ConfigError is why.
	Config      *config.Effective
	ConfigError error
	// Daemon asks the daemon; its error says why it does not answer.
	Daemon func(context.Context) (Daemon, error)
	// KubeletConfig is the kubelet's configuration file; empty: that of the kubelet that runs, or
	// kubeadm's.
	KubeletConfig string

	// root is put before the paths of files; "" for the node itself.
	root string
	// probe are the questions that files do not answer.
	probe probes
}

// Daemon is what a daemon says of itself.
type Daemon struct {
	Version string
	// Problems are why it is not ready.
	Problems []string
	// Debts are how many undos are retried.
	Debts int
}

// probes ask the kernel and the programs of the node.
type probes struct {
	euid     func() int
	lookPath func(string) (string, error)
	userns   func(scratch string) error
	idmapped func(path string) error
	statfs   func(path string) (unix.Statfs_t, error)
	clock    func() (synchronized bool, err error)
}

// ThisNode is the node that the program runs on. It has no configuration yet.
func ThisNode() *Node {
	return &Node{probe: probes{
		euid: os.Geteuid, lookPath: exec.LookPath, userns: probeUserNamespaces, idmapped: probeIDMapped, statfs: statfs, clock: probeClock,
	}}
}

// maxFile limits a file that a check reads, in bytes.
const maxFile = 1 << 20

// path is where a file of the node is.
func (n *Node) path(path string) string { return filepath.Join(n.root, path) }

// read returns a file's text without space around it; "" if it cannot be read.
func (n *Node) read(path string) string {
	data, _ := os.ReadFile(n.path(path)) // files of proc and sys: their size is not known before
	return strings.TrimSpace(string(data[:min(len(data), maxFile)]))
}

// text reads a file of an operator.
func (n *Node) text(path string) (string, error) {
	data, err := regular.Read(n.path(path), maxFile)
	return string(data), err
}

// number reads a file with one number; false if there is none.
func (n *Node) number(path string) (uint64, bool) {
	value, err := strconv.ParseUint(n.read(path), 10, 64)
	return value, err == nil
}

func (n *Node) exists(path string) bool {
	_, err := os.Lstat(n.path(path))
	return err == nil
}

// list returns the names in a directory; none if it cannot be read.
func (n *Node) list(dir string) []string {
	entries, _ := os.ReadDir(n.path(dir))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// nearest is the path itself, or the nearest directory above it that exists.
func (n *Node) nearest(path string) string {
	for !n.exists(path) && path != "/" && path != "." {
		path = filepath.Dir(path)
	}
	return path
}

// process is a process of the node.
type process struct {
	pid  string
	args []string
}

// processes returns those whose program has that name.
func (n *Node) processes(name string) []process {
	var found []process
	for _, pid := range n.list("/proc") {
		if strings.Trim(pid, "0123456789") != "" {
			continue
		}
		args := strings.Split(strings.TrimRight(n.read("/proc/"+pid+"/cmdline"), "\x00"), "\x00")
		if filepath.Base(args[0]) == name {
			found = append(found, process{pid, args})
		}
	}
	return found
}

// flag is the value of a flag --name=value or --name value of the process.
func (p process) flag(name string) string {
	for i, arg := range p.args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
		if arg == "--"+name && i+1 < len(p.args) {
			return p.args[i+1]
		}
	}
	return ""
}
