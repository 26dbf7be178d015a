package config

// Key is one key of the configuration. In its texts, backquotes are around what is written
// literally.
type Key struct {
	// Name is the key in the files, Flag the flag without dashes.
	Name, Flag string
	// Value stands for the value in the help.
	Value string
	// Default is what the documents say about the default.
	Default string
	// Help is one line. More follows it in the manual page.
	Help, More string
	// Reload: SIGHUP makes a new value count. Otherwise it needs a restart.
	Reload bool

	value  func(*Config) value
	finish func(*Config) error
}

// Keys is the table of all keys, in the order of the documents.
var Keys = []Key{
	{
		Name: "root", Flag: "root", Value: "DIR", Default: "`/var/lib/pinfold`",
		Help:  "data that must survive a reboot: records, images",
		More:  "It also has the writable layers. The file system must support overlay and, for pods with user namespaces, idmapped mounts.",
		value: func(c *Config) value { return text{&c.Root} }, finish: func(c *Config) error { return directory(c.Root) },
	},
	{
		Name: "state", Flag: "state", Value: "DIR", Default: "`/run/pinfold`",
		Help:  "other data: mounts, bundles, pinder's socket",
		More:  "It also has the pins of IPC, UTS and user namespaces.",
		value: func(c *Config) value { return text{&c.State} }, finish: func(c *Config) error { return directory(c.State) },
	},
	{
		Name: "socket", Flag: "socket", Value: "PATH", Default: "`/run/pinfold/pinfold.sock`",
		Help:  "where CRI is served",
		More:  "A path of a socket has 107 bytes at most.",
		value: func(c *Config) value { return text{&c.Socket} }, finish: func(c *Config) error { return socket(c.Socket) },
	},
	{
		Name: "netns_dir", Flag: "netns-dir", Value: "DIR", Default: "`/run/netns`",
		Help: "where network namespaces are pinned, so that `ip netns` lists them",
		More: "Their names are `pinfold-` and the ID of the pod. The directory becomes a shared mount, as with the first `ip netns add`. " +
			"When a daemon without pods ends and the directory is empty, the mount is removed.",
		value: func(c *Config) value { return text{&c.NetNSDir} }, finish: func(c *Config) error { return directory(c.NetNSDir) },
	},
	{
		Name: "cni_conf_dir", Flag: "cni-conf-dir", Value: "DIR", Default: "`/etc/cni/net.d`", Reload: true,
		Help:  "network configurations; the first by name is used",
		More:  "Their names end in `.conflist`, `.conf` or `.json`. New pods get a changed one at once, without a signal.",
		value: func(c *Config) value { return text{&c.CNIConfDir} }, finish: func(c *Config) error { return directory(c.CNIConfDir) },
	},
	{
		Name: "cni_bin_dir", Flag: "cni-bin-dir", Value: "DIR[:DIR...]", Default: "`/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni`", Reload: true,
		Help:  "network plugins; several directories are separated by colons",
		More:  "The first that has a plugin counts. The defaults are where add-ons of Kubernetes, Debian and Fedora install plugins.",
		value: func(c *Config) value { return text{&c.CNIBinDir} }, finish: func(c *Config) error { return directories(c.CNIBinDir) },
	},
	{
		Name: "cni_in_process", Flag: "cni-in-process", Value: "true|false", Default: "`true`",
		Help: "do what known network plugins would do without starting them",
		More: "Only files that are the plugins that the CNI project published count, and only configurations that Pinfold knows completely. " +
			"The result is the same, and can change at any restart. `false` starts every plugin.",
		value: func(c *Config) value { return truth{&c.CNIInProcess} },
	},
	{
		Name: "registry_config_dir", Flag: "registry-config-dir", Value: "DIR[:DIR...]", Default: "`/etc/pinfold/certs.d`", Reload: true,
		Help: "`HOST/hosts.toml` for each registry; several directories are separated by colons",
		More: "The files have containerd's format: mirrors, certificates, headers, plain HTTP. Every pull reads them. The first directory counts " +
			"that has `HOST_PORT_`, `HOST:PORT` or `_default`. If a value in a file is wrong, pulls from that registry fail and name file " +
			"and line; they never go past the mirror. The log warns about unknown keys, and about missing directories.",
		value: func(c *Config) value { return text{&c.RegistryConfigDir} }, finish: checkRegistries,
	},
	{
		Name: "pinned_images", Flag: "pinned-image", Value: "PATTERN", Default: "none", Reload: true,
		Help: "images that are never removed to free space; a `*` at the beginning or the end stands for any text; the flag is repeatable",
		More: "A pattern is compared with each name of an image as the node lists it, such as `registry.example/app:1`. The kubelet sees these images as " +
			"pinned. The flag replaces the list of the files.",
		value: func(c *Config) value { return list{&c.PinnedImages} }, finish: checkPinned,
	},
	{
		Name: "exec_through_runtime", Flag: "exec-through-runtime", Value: "true|false", Default: "`false`",
		Help: "have the OCI runtime start every command in a container",
		More: "By default pinder starts commands itself where the result is the same: execs and probes then cost a tenth. " +
			"What it does not know goes through the runtime in any case.",
		value: func(c *Config) value { return truth{&c.ExecThroughRuntime} },
	},
	{
		Name: "runtimes", Flag: "runtime", Value: "NAME=PATH", Default: "`runc` and `crun` as found in `$PATH`", Reload: true,
		Help: "OCI runtimes, name and path; the flag is `--runtime NAME=PATH`, repeatable",
		More: "A RuntimeClass can name one as its handler. In a file it is a table. In place of a path, a runtime may have a table with `path`, " +
			"`pod_annotations` and `container_annotations`. The last two are lists of patterns: the runtime gets the annotations of the pod, or of the " +
			"container, whose keys match. The files and flags add to the table; the last one counts for each name. " +
			"crun starts nothing on hybrid cgroups whose version 2 part has controllers.",
		value: func(c *Config) value { return runtimes{&c.Runtimes} }, finish: checkRuntimes,
	},
	{
		Name: "default_runtime", Flag: "default-runtime", Value: "NAME", Default: "`runc`; `crun` if only that is in `$PATH`", Reload: true,
		Help:  "the runtime for pods that name none",
		value: func(c *Config) value { return text{&c.DefaultRuntime} }, finish: checkDefaultRuntime,
	},
	{
		Name: "cgroup_driver", Flag: "cgroup-driver", Value: "DRIVER", Default: "`auto`",
		Help:  "`systemd`, `cgroupfs`, or `auto`: systemd where it is the node's init",
		More:  "It is how cgroups are named and made. The kubelet asks pinfoldd for it.",
		value: func(c *Config) value { return text{&c.CgroupDriver} }, finish: func(c *Config) error { return oneOf(c.CgroupDriver, Auto, Systemd, Cgroupfs) },
	},
	{
		Name: "pinder", Flag: "pinder", Value: "PATH", Default: "beside `pinfoldd`, then `$PATH`",
		Help:  "pinder's binary",
		value: func(c *Config) value { return text{&c.Pinder} }, finish: func(c *Config) error { return plain(c.Pinder) },
	},
	{
		Name: "nri_socket", Flag: "nri-socket", Value: "PATH", Default: "`/run/nri/nri.sock`; with another `state`, `nri.sock` in it",
		Help: "where NRI plugins connect; empty turns NRI off",
		More: "Plugins of the Node Resource Interface see and adjust pods and containers. A relative path is below the state directory. " +
			"pinfoldd starts the plugins in `ROOT/nri/plugins`, with configuration from `ROOT/nri/conf.d`. If an executable there does not have " +
			"a name that NRI accepts (`10-name`), no plugin runs on the node, and the log says so. A plugin that does not answer is dropped and the " +
			"pod goes on. The pod fails if the plugin demands that when it connects, or if the pod's annotation " +
			"`required-plugins.noderesource.dev` names it.",
		value: func(c *Config) value { return text{&c.NRISocket} }, finish: func(c *Config) error { return below(c.State, &c.NRISocket) },
	},
	{
		Name: "admin_socket", Flag: "admin-socket", Value: "PATH", Default: "`admin.sock` in `state`",
		Help:  "where root reads metrics, health and profiles over HTTP; empty turns it off",
		More:  "A relative path is below the state directory.",
		value: func(c *Config) value { return text{&c.AdminSocket} }, finish: func(c *Config) error { return below(c.State, &c.AdminSocket) },
	},
	{
		Name: "metrics_address", Flag: "metrics-address", Value: "HOST:PORT", Default: "none: off",
		Help:  "where metrics are served to anyone who can connect; without a host only the node itself can",
		More:  "The host is an IP address or `localhost`. Without one it is 127.0.0.1.",
		value: func(c *Config) value { return text{&c.MetricsAddress} }, finish: checkMetrics,
	},
	{
		Name: "containerd_socket", Flag: "containerd-socket", Value: "PATH", Default: "none: off",
		Help:  "where agents that know only containerd find the node's containers",
		More:  "pinfoldd serves the part of containerd's API there that such agents read; nothing can be changed through it. A relative path is below the state directory.",
		value: func(c *Config) value { return text{&c.ContainerdSocket} }, finish: func(c *Config) error { return below(c.State, &c.ContainerdSocket) },
	},
	{
		Name: "log_level", Flag: "log-level", Value: "LEVEL", Default: "`INFO`", Reload: true,
		Help:  "`DEBUG`, `INFO`, `WARN`, `ERROR`",
		value: func(c *Config) value { return level{&c.LogLevel} },
	},
	{
		Name: "log_format", Flag: "log-format", Value: "FORMAT", Default: "`text`", Reload: true,
		Help:  "`text` or `json`",
		value: func(c *Config) value { return text{&c.LogFormat} }, finish: func(c *Config) error { return oneOf(c.LogFormat, Text, JSON) },
	},
}
