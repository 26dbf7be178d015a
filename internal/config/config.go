// Package config is pinfoldd's configuration. Every key is a flag and a key of one TOML file. A
// flag overrides the file. There are few keys on purpose: the daemon probes what it can find out.
package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// Config has all keys. Its tags are the keys of the file. The flags have the same names, with
// dashes for underscores.
//
// wide: one field for each key.
type Config struct {
	Root              string            `toml:"root"`
	State             string            `toml:"state"`
	Socket            string            `toml:"socket"`
	NetNSDir          string            `toml:"netns_dir"`
	CNIConfDir        string            `toml:"cni_conf_dir"`
	CNIBinDir         string            `toml:"cni_bin_dir"`
	RegistryConfigDir string            `toml:"registry_config_dir"`
	Runtimes          map[string]string `toml:"runtimes"`
	DefaultRuntime    string            `toml:"default_runtime"`
	CgroupDriver      string            `toml:"cgroup_driver"`
	Pinder            string            `toml:"pinder"`
	LogLevel          slog.Level        `toml:"log_level"`
	NRISocket         string            `toml:"nri_socket"`
}

// DefaultFile is read if --config is not given.
const DefaultFile = "/etc/pinfold/config.toml"

// DefaultRegistryConfigDir is where registries are configured; it need not exist.
const DefaultRegistryConfigDir = "/etc/pinfold/certs.d"

// The cgroup drivers. Auto is systemd where it is the node's init, else cgroupfs.
const (
	Auto     = "auto"
	Systemd  = "systemd"
	Cgroupfs = "cgroupfs"
)

func defaults() *Config {
	return &Config{
		Root:              "/var/lib/pinfold",
		State:             "/run/pinfold",
		Socket:            "/run/pinfold/pinfold.sock",
		NetNSDir:          "/run/netns",
		CNIConfDir:        "/etc/cni/net.d",
		CNIBinDir:         "/opt/cni/bin",
		RegistryConfigDir: DefaultRegistryConfigDir,
		DefaultRuntime:    "runc",
		CgroupDriver:      Auto,
		NRISocket:         "nri.sock",
	}
}

// Parse reads arguments and file. For -h it writes help to the flag set's output and returns
// flag.ErrHelp.
func Parse(flags *flag.FlagSet, args []string) (*Config, error) {
	file := flags.String("config", "", "configuration file (TOML); default "+DefaultFile+" if it exists")
	given := defaults()
	register(flags, given)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	c, err := load(*file)
	if err != nil {
		return nil, err
	}
	// A second pass sets the flags that were given, on top of the file.
	again := newSilentSet()
	register(again, c)
	var failed error
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "config" {
			return
		}
		for _, value := range values(f) {
			failed = errors.Join(failed, again.Set(f.Name, value))
		}
	})
	if failed != nil {
		return nil, failed
	}
	return c, c.check()
}

func newSilentSet() *flag.FlagSet {
	set := flag.NewFlagSet("pinfoldd", flag.ContinueOnError)
	set.SetOutput(new(bytes.Buffer))
	return set
}

func register(flags *flag.FlagSet, c *Config) {
	flags.StringVar(&c.Root, "root", c.Root, "durable state: records and images")
	flags.StringVar(&c.State, "state", c.State, "volatile state: mounts, bundles, pinder's socket")
	flags.StringVar(&c.Socket, "socket", c.Socket, "Unix socket on which CRI is served")
	flags.StringVar(&c.NetNSDir, "netns-dir", c.NetNSDir, "where network namespaces are pinned")
	flags.StringVar(&c.CNIConfDir, "cni-conf-dir", c.CNIConfDir, "network configurations; the first by name is used")
	flags.StringVar(&c.CNIBinDir, "cni-bin-dir", c.CNIBinDir, "network plugins; several directories are separated by colons")
	flags.StringVar(&c.RegistryConfigDir, "registry-config-dir", c.RegistryConfigDir, "HOST/hosts.toml for each registry; several directories are separated by colons")
	flags.Var(runtimes{&c.Runtimes}, "runtime", "OCI runtime as `NAME=PATH`; may be repeated; default runc and crun as found in $PATH")
	flags.StringVar(&c.DefaultRuntime, "default-runtime", c.DefaultRuntime, "handler for pods that name none")
	flags.StringVar(&c.CgroupDriver, "cgroup-driver", c.CgroupDriver, "auto, systemd or cgroupfs")
	flags.StringVar(&c.Pinder, "pinder", c.Pinder, "pinder binary; default beside pinfoldd, then $PATH")
	flags.StringVar(&c.NRISocket, "nri-socket", c.NRISocket, "where NRI plugins connect; a relative path is below the state directory, an empty one turns NRI off")
	flags.TextVar(&c.LogLevel, "log-level", c.LogLevel, "DEBUG, INFO, WARN or ERROR")
}

// runtimes is the value of the repeatable flag NAME=PATH.
type runtimes struct{ all *map[string]string }

// String implements flag.Value.
func (r runtimes) String() string {
	if r.all == nil {
		return ""
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(*r.all)) {
		list = append(list, name+"="+(*r.all)[name])
	}
	return strings.Join(list, ",")
}

// Set implements flag.Value.
func (r runtimes) Set(value string) error {
	name, path, ok := strings.Cut(value, "=")
	if !ok || name == "" || path == "" {
		return fmt.Errorf("%q is not NAME=PATH", value)
	}
	if strings.ContainsFunc(path, splits) {
		return fmt.Errorf("%q: a path must not contain commas, colons, backslashes, quotes or control characters", value)
	}
	if *r.all == nil {
		*r.all = map[string]string{}
	}
	(*r.all)[name] = path
	return nil
}

// values are the values of a flag, one entry for each time it was given.
func values(f *flag.Flag) []string {
	if _, ok := f.Value.(runtimes); ok {
		return strings.Split(f.Value.String(), ",")
	}
	return []string{f.Value.String()}
}

func load(file string) (*Config, error) {
	c := defaults()
	path := file
	if path == "" {
		path = DefaultFile
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && file == "" {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	decoder := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := decoder.Decode(c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("configuration %s: unknown key: %w\n%s", path, err, strict.String())
		}
		var syntax *toml.DecodeError
		if errors.As(err, &syntax) {
			row, column := syntax.Position()
			return nil, fmt.Errorf("configuration %s:%d:%d: %w", path, row, column, err)
		}
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

func (c *Config) check() error {
	if err := c.checkPaths(); err != nil {
		return err
	}
	if len(c.Socket) > maxSocketPath {
		return fmt.Errorf("--socket %s is longer than the kernel's limit of %d bytes (unix(7))", c.Socket, maxSocketPath)
	}
	if c.NRISocket != "" && !filepath.IsAbs(c.NRISocket) {
		c.NRISocket = filepath.Join(c.State, c.NRISocket)
	}
	if len(c.NRISocket) > maxSocketPath {
		return fmt.Errorf("--nri-socket %s is longer than the kernel's limit of %d bytes (unix(7))", c.NRISocket, maxSocketPath)
	}
	if !slices.Contains([]string{Auto, Systemd, Cgroupfs}, c.CgroupDriver) {
		return fmt.Errorf("--cgroup-driver must be auto, systemd or cgroupfs, not %q", c.CgroupDriver)
	}
	return nil
}

// checkPaths checks every key that is a path, in a fixed order.
func (c *Config) checkPaths() error {
	type key struct{ name, path string }
	must := []key{
		{"root", c.Root}, {"state", c.State}, {"socket", c.Socket}, {"netns-dir", c.NetNSDir}, {"cni-conf-dir", c.CNIConfDir},
	}
	for dir := range strings.SplitSeq(c.CNIBinDir, ":") {
		must = append(must, key{"cni-bin-dir", dir})
	}
	for _, dir := range filepath.SplitList(c.RegistryConfigDir) { // an empty list: registries have no configuration
		must = append(must, key{"registry-config-dir", dir})
	}
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		must = append(must, key{"runtime", c.Runtimes[name]})
	}
	for _, k := range must {
		if !filepath.IsAbs(k.path) {
			return fmt.Errorf("--%s must be an absolute path, not %q", k.name, k.path)
		}
	}
	for _, k := range append(must, key{"pinder", c.Pinder}, key{"nri-socket", c.NRISocket}) {
		if at := strings.IndexFunc(k.path, splits); at >= 0 {
			return fmt.Errorf("--%s: a path must not contain %q: %q", k.name, k.path[at], k.path)
		}
	}
	return nil
}

// splits reports whether a character ends a path, or has a meaning, where the path is one part of a
// text: options of overlay mounts, lists of directories, plugins' environment, lines of files.
func splits(r rune) bool {
	return strings.ContainsRune(",:\\\"", r) || unicode.IsControl(r) || r == utf8.RuneError
}

// maxSocketPath is sizeof(sun_path) minus the closing zero, unix(7).
const maxSocketPath = 107
