// Package config is pinfoldd's configuration. Each key stands once, in the table of keys: from it
// come the flag, the default, the help, the check, README's table and the manual page. A flag
// overrides the files. There are few keys on purpose: the daemon probes what it can find out.
package config

import (
	"errors"
	"log/slog"
)

// Config has the values of all keys, checked and complete.
//
// wide: one field for each key.
type Config struct {
	Root         string
	State        string
	Socket       string
	NetNSDir     string
	CNIConfDir   string
	CNIBinDir    string
	CNIInProcess bool
	// ExecThroughRuntime: every exec is a call of the OCI runtime.
	ExecThroughRuntime bool
	RegistryConfigDir  string
	Runtimes           map[string]Runtime
	DefaultRuntime     string
	CgroupDriver       string
	Pinder             string
	PinnedImages       []string
	NRISocket          string
	AdminSocket        string
	MetricsAddress     string
	ContainerdSocket   string
	LogLevel           slog.Level
	LogFormat          string
}

// Runtime is an OCI runtime of the table runtimes.
type Runtime struct {
	// Path is the binary.
	Path string
	// PodAnnotations and ContainerAnnotations are patterns (path.Match) of the keys of those annotations of the pod and
	// of the container that the runtime gets.
	PodAnnotations, ContainerAnnotations []string
}

// DefaultFile is read if --config is not given.
const DefaultFile = "/etc/pinfold/config.toml"

// NodeNRISocket is where NRI plugins connect if nothing else is said to them. It is the default of
// the instance with the default state directory.
const NodeNRISocket = "/run/nri/nri.sock"

const defaultState = "/run/pinfold"

// DefaultRegistryConfigDir is where registries are configured; it need not exist.
const DefaultRegistryConfigDir = "/etc/pinfold/certs.d"

// The cgroup drivers. Auto is systemd where it is the node's init, else cgroupfs.
const (
	Auto     = "auto"
	Systemd  = "systemd"
	Cgroupfs = "cgroupfs"
)

// The formats of the log.
const (
	Text = "text"
	JSON = "json"
)

func defaults() *Config {
	return &Config{
		Root:              "/var/lib/pinfold",
		State:             defaultState,
		Socket:            "/run/pinfold/pinfold.sock",
		NetNSDir:          "/run/netns",
		CNIConfDir:        "/etc/cni/net.d",
		CNIBinDir:         "/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni",
		CNIInProcess:      true,
		RegistryConfigDir: DefaultRegistryConfigDir,
		DefaultRuntime:    "runc",
		CgroupDriver:      Auto,
		NRISocket:         NodeNRISocket,
		AdminSocket:       "admin.sock",
		LogFormat:         Text,
	}
}

// Effective is a configuration and where each value comes from.
type Effective struct {
	*Config
	// Files are those that were read, in this order.
	Files   []string
	sources map[string]source
}

// Source says where the value of a key comes from: a flag, a place in a file, or "default". For one
// runtime, the key is runtimes.NAME.
func (e *Effective) Source(key string) string {
	if s, ok := e.sources[key]; ok {
		return s.String()
	}
	return "default"
}

// Load reads the files, sets the flags on top, and checks all. It can be called again, when the
// files have changed.
func (f *Flags) Load() (*Effective, error) {
	e := &Effective{Config: defaults(), sources: map[string]source{}}
	if err := e.readFiles(f.file); err != nil {
		return nil, err
	}
	for i := range Keys {
		k := &Keys[i]
		for n, value := range f.given[k.Flag] {
			s := source{flag: "--" + k.Flag}
			if err := k.value(e.Config).set(value, n == 0); err != nil {
				return nil, s.name(k, err)
			}
			e.note(k, s, value)
		}
	}
	return e, e.check()
}

// check checks all keys, in the order of the table, and makes relative paths absolute.
func (e *Effective) check() error {
	if _, given := e.sources["nri_socket"]; !given && e.State != defaultState {
		e.NRISocket = "nri.sock"
	}
	for i := range Keys {
		k := &Keys[i]
		if k.finish == nil {
			continue
		}
		if err := k.finish(e.Config); err != nil {
			s := e.sources[k.Name]
			if below := (belowError{}); errors.As(err, &below) {
				s = e.sources[k.Name+"."+below.path[0]]
			}
			return s.name(k, err)
		}
	}
	return e.distinctSockets()
}
