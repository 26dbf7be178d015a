package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxSocketPath is sizeof(sun_path) minus the closing zero, unix(7).
	maxSocketPath = 107
	// maxPatterns and maxPattern limit lists of patterns.
	maxPatterns, maxPattern = 256, 512
)

// plain refuses a path with characters that have a meaning where the path is one part of a text.
func plain(path string) error {
	if at := strings.IndexFunc(path, splits); at >= 0 {
		return fmt.Errorf(": a path must not contain %q: %q", path[at], path)
	}
	return nil
}

// splits reports whether a character ends a path, or has a meaning, where the path is one part of a
// text: options of overlay mounts, lists of directories, plugins' environment, lines of files.
func splits(r rune) bool {
	return strings.ContainsRune(",:\\\"", r) || unicode.IsControl(r) || r == utf8.RuneError
}

func directory(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf(" must be an absolute path, not %q", path)
	}
	return plain(path)
}

func directories(list string) error {
	for dir := range strings.SplitSeq(list, ":") {
		if err := directory(dir); err != nil {
			return err
		}
	}
	return nil
}

func checkRegistries(c *Config) error {
	if c.RegistryConfigDir == "" { // registries have no configuration
		return nil
	}
	return directories(c.RegistryConfigDir)
}

func socket(path string) error {
	if err := directory(path); err != nil {
		return err
	}
	if len(path) > maxSocketPath {
		return fmt.Errorf(" %s is longer than the kernel's limit of %d bytes (unix(7))", path, maxSocketPath)
	}
	return nil
}

// below makes a relative path of a socket one in the state directory. An empty path stays empty.
func below(state string, path *string) error {
	if *path == "" {
		return nil
	}
	if err := plain(*path); err != nil {
		return err
	}
	if !filepath.IsAbs(*path) {
		*path = filepath.Join(state, *path)
	}
	return socket(*path)
}

// distinctSockets refuses one path for two sockets: the second would replace the first.
func (e *Effective) distinctSockets() error {
	seen := map[string]string{}
	for _, s := range []struct{ name, path string }{
		{"socket", e.Socket}, {"nri_socket", e.NRISocket}, {"admin_socket", e.AdminSocket}, {"containerd_socket", e.ContainerdSocket},
	} {
		at := filepath.Clean(s.path)
		if other, ok := seen[at]; ok && s.path != "" {
			return fmt.Errorf("configuration: %s (%s) and %s (%s) are the same path %s", other, e.Source(other), s.name, e.Source(s.name), at)
		}
		seen[at] = s.name
	}
	return nil
}

func oneOf(value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	last := len(allowed) - 1
	return fmt.Errorf(" must be %s or %s, not %q", strings.Join(allowed[:last], ", "), allowed[last], value)
}

func checkRuntimes(c *Config) error {
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		r := c.Runtimes[name]
		err := directory(r.Path)
		for _, patterns := range [][]string{r.PodAnnotations, r.ContainerAnnotations} {
			err = cmp.Or(err, globs(patterns))
		}
		if err != nil {
			return belowError{[]string{name}, fmt.Errorf(" %s%w", name, err)}
		}
	}
	return nil
}

func globs(patterns []string) error {
	if len(patterns) > maxPatterns {
		return fmt.Errorf(": %d patterns; %d are the most", len(patterns), maxPatterns)
	}
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil || p == "" || len(p) > maxPattern || strings.ContainsFunc(p, unicode.IsControl) {
			return fmt.Errorf(": %q is not a pattern of annotations", p)
		}
	}
	return nil
}

// checkDefaultRuntime refuses a default that is not in the table. Without a table the daemon looks
// for the runtime in $PATH.
func checkDefaultRuntime(c *Config) error {
	if _, ok := c.Runtimes[c.DefaultRuntime]; !ok && len(c.Runtimes) > 0 || c.DefaultRuntime == "" {
		return fmt.Errorf(" %q is not one of the configured runtimes", c.DefaultRuntime)
	}
	return nil
}

func checkPinned(c *Config) error {
	if len(c.PinnedImages) > maxPatterns {
		return fmt.Errorf(": %d patterns; %d are the most", len(c.PinnedImages), maxPatterns)
	}
	for _, p := range c.PinnedImages {
		inner := strings.TrimSuffix(strings.TrimPrefix(p, "*"), "*")
		odd := func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError || r == '*' }
		if p == "" || len(p) > maxPattern || strings.ContainsFunc(inner, odd) {
			return fmt.Errorf(": %q is not the name of an image with * at its beginning or end at most", p)
		}
	}
	return nil
}

// checkMetrics completes the address. A name other than localhost would have to be looked up, and
// might be another machine's.
func checkMetrics(c *Config) error {
	if c.MetricsAddress == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(c.MetricsAddress)
	if err != nil {
		return fmt.Errorf(" must be HOST:PORT, not %q", c.MetricsAddress)
	}
	if err := number(port); err != nil {
		return err
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		return fmt.Errorf(": %q is neither an IP address nor localhost", host)
	}
	c.MetricsAddress = net.JoinHostPort(host, port)
	return nil
}
