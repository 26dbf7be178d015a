package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/pinfold-run/pinfold/internal/regular"
)

// maxConfSize is the largest size of a configuration file, in bytes.
const maxConfSize = 1 << 20

// configuration is the network as it is configured now.
type configuration struct {
	file string
	list *libcni.NetworkConfigList // Bytes is self-contained, see inline
}

// load reads the first configuration in dir by name. If that file cannot be used, load fails and does not take the next
// one: another network than the operator meant is worse than none. Errors name the directory or file.
func load(dir string) (*configuration, error) {
	file, err := firstConf(dir)
	if err != nil {
		return nil, err
	}
	list, err := readConf(file)
	if err != nil {
		return nil, classed(errdefs.ErrFailedPrecondition, "network configuration %s: %v", file, err)
	}
	return &configuration{file: file, list: list}, nil
}

func firstConf(dir string) (string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return "", classed(errdefs.ErrUnavailable, "network configuration directory %s does not exist", dir)
	}
	if err != nil {
		return "", classed(errdefs.ErrUnavailable, "network configuration directory: %v", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".conflist", ".conf", ".json":
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", classed(errdefs.ErrUnavailable, "no network configuration (*.conflist, *.conf or *.json) in directory %s", dir)
}

// readConf reads a list, or a single plugin's configuration, which it makes a list of. The content decides which it is,
// not the name.
func readConf(file string) (*libcni.NetworkConfigList, error) {
	data, err := regular.Read(file, maxConfSize)
	if err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	if raw == nil {
		return nil, errors.New("it is null")
	}
	if _, single := raw["type"]; single && raw["plugins"] == nil {
		return singleConf(data, raw)
	}
	list, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		return nil, err
	}
	if !list.LoadOnlyInlinedPlugins {
		if err := utils.ValidateNetworkName(list.Name); err != nil {
			return nil, err
		}
		more, err := libcni.NetworkPluginConfsFromFiles(filepath.Dir(file), list.Name)
		if err != nil {
			return nil, err
		}
		if len(more) > 0 {
			return inline(raw, list, more)
		}
	}
	return parseList(data)
}

// singleConf makes a list of one plugin's configuration.
func singleConf(data []byte, raw map[string]json.RawMessage) (*libcni.NetworkConfigList, error) {
	list := map[string]any{"plugins": []json.RawMessage{data}, "name": ""}
	for _, key := range []string{"name", "cniVersion"} {
		if v, ok := raw[key]; ok {
			list[key] = v
		}
	}
	out, err := json.Marshal(list)
	if err != nil {
		return nil, err
	}
	return parseList(out)
}

// inline writes the plugins of the network's plugin directory into the list. Then its bytes are complete.
func inline(raw map[string]json.RawMessage, list *libcni.NetworkConfigList, more []*libcni.PluginConfig) (*libcni.NetworkConfigList, error) {
	var plugins []json.RawMessage
	for _, p := range append(slices.Clone(list.Plugins), more...) {
		plugins = append(plugins, p.Bytes)
	}
	all, err := json.Marshal(plugins)
	if err != nil {
		return nil, err
	}
	raw["plugins"] = all
	raw["loadOnlyInlinedPlugins"] = json.RawMessage("true")
	data, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	return parseList(data)
}

// parseList reads a complete list, and checks what libcni would only check at the first plugin call.
func parseList(data []byte) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(data)
	if err != nil {
		return nil, err
	}
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, err
	}
	if list.CNIVersion != "" {
		if _, _, _, err := version.ParseVersion(list.CNIVersion); err != nil {
			return nil, fmt.Errorf("cniVersion %q: %w", list.CNIVersion, err)
		}
	}
	if len(list.Plugins) == 0 {
		return nil, errors.New("no plugins in it")
	}
	return list, nil
}

// since11 reports whether the list's version of the specification has the verbs
// STATUS and GC.
func since11(list *libcni.NetworkConfigList) bool {
	ok, err := version.GreaterThanOrEqualTo(list.CNIVersion, "1.1.0")
	return err == nil && ok
}

// pluginNames are those of the list, in its order.
func pluginNames(list *libcni.NetworkConfigList) string {
	var names []string
	for _, p := range list.Plugins {
		names = append(names, p.Network.Type)
	}
	return strings.Join(names, ", ")
}

// only is the list with one of its plugins.
func only(list *libcni.NetworkConfigList, p *libcni.PluginConfig) *libcni.NetworkConfigList {
	return &libcni.NetworkConfigList{
		Name:       list.Name,
		CNIVersion: list.CNIVersion,
		Plugins:    []*libcni.PluginConfig{p},
		Bytes:      list.Bytes,
	}
}

// findPlugin returns the path of a plugin binary. The error is ErrFailedPrecondition, and names the file and the
// directories that were searched.
func findPlugin(name string, dirs []string) (string, error) {
	if name == "" || strings.ContainsRune(name, '/') || name == "." || name == ".." {
		return "", classed(errdefs.ErrFailedPrecondition, "%q is no name of a CNI plugin", name)
	}
	var found string
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		fi, err := os.Stat(path)
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		if fi.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
		found = path
	}
	if found != "" {
		return "", classed(errdefs.ErrFailedPrecondition, "CNI plugin %s is not executable", found)
	}
	return "", classed(errdefs.ErrFailedPrecondition, "CNI plugin %q is missing: searched in %s", name, strings.Join(dirs, ", "))
}

// requirePlugins checks that every plugin of the list exists. It does not look for the plugins that these call (IPAM):
// some are elsewhere.
func requirePlugins(list *libcni.NetworkConfigList, dirs []string) error {
	for _, p := range list.Plugins {
		if _, err := findPlugin(p.Network.Type, dirs); err != nil {
			return fmt.Errorf("network %q: %w", list.Name, err)
		}
	}
	return nil
}
