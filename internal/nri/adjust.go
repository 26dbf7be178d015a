package nri

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// adjust changes a container's configuration as plugins ask. A name that is marked for removal
// (api.IsMarkedForRemoval) is removed. Any other name is added, or replaces the element of that
// name.
func (p *Plugins) adjust(config *specs.Spec, a *api.ContainerAdjustment) error {
	if config.Process == nil {
		config.Process = &specs.Process{}
	}
	if config.Linux == nil {
		config.Linux = &specs.Linux{}
	}
	adjustMap(&config.Annotations, a.GetAnnotations())
	if args := a.GetArgs(); len(args) > 0 {
		config.Process.Args = slices.Clone(args)
	}
	adjustHooks(config, a.GetHooks())
	adjustMounts(config, a.GetMounts())
	for _, l := range a.GetRlimits() {
		replace(&config.Process.Rlimits, specs.POSIXRlimit{Type: l.GetType(), Hard: l.GetHard(), Soft: l.GetSoft()},
			func(x specs.POSIXRlimit) string { return x.Type })
	}
	if err := adjustLinux(config, a.GetLinux()); err != nil {
		return err
	}
	if len(a.GetCDIDevices()) == 0 {
		return nil
	}
	var names []string
	for _, d := range a.GetCDIDevices() {
		names = append(names, d.GetName())
	}
	return p.InjectCDI(config, names)
}

// replace overwrites the element with the same key, or appends the new one.
func replace[T any](list *[]T, element T, key func(T) string) {
	same := func(x T) bool { return key(x) == key(element) }
	if i := slices.IndexFunc(*list, same); i >= 0 {
		(*list)[i] = element
		return
	}
	*list = append(*list, element)
}

func remove[T any](list *[]T, name string, key func(T) string) {
	*list = slices.DeleteFunc(*list, func(x T) bool { return key(x) == name })
}

func adjustMap(to *map[string]string, changes map[string]string) {
	for name, value := range changes {
		if key, marked := api.IsMarkedForRemoval(name); marked {
			delete(*to, key)
			continue
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[name] = value
	}
}

func adjustHooks(config *specs.Spec, h *api.Hooks) {
	if h == nil {
		return
	}
	if config.Hooks == nil {
		config.Hooks = &specs.Hooks{}
	}
	add := func(to *[]specs.Hook, list []*api.Hook) {
		for _, hook := range list {
			*to = append(*to, hook.ToOCI())
		}
	}
	add(&config.Hooks.Prestart, h.GetPrestart()) //nolint:staticcheck // plugins may still ask for it
	add(&config.Hooks.CreateRuntime, h.GetCreateRuntime())
	add(&config.Hooks.CreateContainer, h.GetCreateContainer())
	add(&config.Hooks.StartContainer, h.GetStartContainer())
	add(&config.Hooks.Poststart, h.GetPoststart())
	add(&config.Hooks.Poststop, h.GetPoststop())
}

// adjustMounts sorts the mounts, so that a parent comes before what is mounted below it.
func adjustMounts(config *specs.Spec, changes []*api.Mount) {
	destination := func(m specs.Mount) string { return path.Clean(m.Destination) }
	for _, m := range changes {
		if name, marked := m.IsMarkedForRemoval(); marked {
			remove(&config.Mounts, path.Clean(name), destination)
			continue
		}
		var propagation string
		mount := m.ToOCI(&propagation)
		replace(&config.Mounts, mount, destination)
		if propagation == "rshared" || propagation == "rslave" && config.Linux.RootfsPropagation != "rshared" {
			config.Linux.RootfsPropagation = propagation
		}
	}
	if len(changes) > 0 {
		slices.SortStableFunc(config.Mounts, func(a, b specs.Mount) int {
			return cmp.Compare(strings.Count(destination(a), "/"), strings.Count(destination(b), "/"))
		})
	}
}

func adjustLinux(config *specs.Spec, l *api.LinuxContainerAdjustment) error {
	if l == nil {
		return nil
	}
	adjustDevices(config.Linux, l.GetDevices())
	if p := l.GetCgroupsPath(); p != "" {
		config.Linux.CgroupsPath = p
	}
	if adj := l.GetOomScoreAdj(); adj != nil {
		score := int(adj.GetValue())
		config.Process.OOMScoreAdj = &score
	}
	if io := l.GetIoPriority(); io != nil {
		config.Process.IOPriority = nil
		if io.GetClass() != api.IOPrioClass_IOPRIO_CLASS_NONE {
			config.Process.IOPriority = io.ToOCI()
		}
	}
	if s := l.GetScheduler(); s != nil {
		config.Process.Scheduler = s.ToOCI()
	}
	if m := l.GetMemoryPolicy(); m != nil {
		config.Linux.MemoryPolicy = m.ToOCI()
	}
	if policy := l.GetSeccompPolicy(); policy != nil {
		config.Linux.Seccomp = seccomp(policy)
	}
	adjustMap(&config.Linux.Sysctl, l.GetSysctl())
	adjustNetDevices(config.Linux, l.GetNetDevices())
	adjustRDT(config.Linux, l.GetRdt())
	if err := adjustNamespaces(config.Linux, l.GetNamespaces()); err != nil {
		return err
	}
	return adjustResources(config.Linux, l.GetResources())
}

func adjustDevices(l *specs.Linux, changes []*api.LinuxDevice) {
	key := func(d specs.LinuxDevice) string { return d.Path }
	for _, d := range changes {
		if name, marked := d.IsMarkedForRemoval(); marked {
			remove(&l.Devices, name, key)
			continue
		}
		replace(&l.Devices, d.ToOCI(), key)
		major, minor := d.GetMajor(), d.GetMinor()
		resources(l).Devices = append(resources(l).Devices, specs.LinuxDeviceCgroup{
			Allow: true, Type: d.GetType(), Major: &major, Minor: &minor, Access: d.AccessString(),
		})
	}
}

func adjustNetDevices(l *specs.Linux, changes map[string]*api.LinuxNetDevice) {
	for name, device := range changes {
		if key, marked := api.IsMarkedForRemoval(name); marked {
			delete(l.NetDevices, key)
			continue
		}
		if l.NetDevices == nil {
			l.NetDevices = map[string]specs.LinuxNetDevice{}
		}
		l.NetDevices[name] = device.ToOCI()
	}
}

func adjustNamespaces(l *specs.Linux, changes []*api.LinuxNamespace) error {
	key := func(n specs.LinuxNamespace) string { return string(n.Type) }
	known := slices.Sorted(maps.Values(namespaceTypes))
	known = append(known, specs.MountNamespace, specs.CgroupNamespace, specs.TimeNamespace)
	for _, n := range changes {
		name, marked := n.IsMarkedForRemoval()
		if !slices.Contains(known, specs.LinuxNamespaceType(name)) {
			return fmt.Errorf("%q is not a kind of namespace", name)
		}
		if marked {
			remove(&l.Namespaces, name, key)
			continue
		}
		replace(&l.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(name), Path: n.GetPath()}, key)
	}
	return nil
}

func adjustRDT(l *specs.Linux, rdt *api.LinuxRdt) {
	if rdt == nil {
		return
	}
	if rdt.GetRemove() || l.IntelRdt == nil {
		l.IntelRdt = nil
		if rdt.GetClosId() == nil && rdt.GetSchemata() == nil && rdt.GetEnableMonitoring() == nil {
			return
		}
		l.IntelRdt = &specs.LinuxIntelRdt{}
	}
	if id := rdt.GetClosId().Get(); id != nil {
		l.IntelRdt.ClosID = *id
	}
	if schemata := rdt.GetSchemata().Get(); schemata != nil {
		l.IntelRdt.Schemata = slices.Clone(*schemata)
	}
	if monitor := rdt.GetEnableMonitoring().Get(); monitor != nil {
		l.IntelRdt.EnableMonitoring = *monitor
	}
}

func seccomp(policy *api.LinuxSeccomp) *specs.LinuxSeccomp {
	out := &specs.LinuxSeccomp{
		DefaultAction:    specs.LinuxSeccompAction(policy.GetDefaultAction()),
		ListenerPath:     policy.GetListenerPath(),
		ListenerMetadata: policy.GetListenerMetadata(),
		Syscalls:         api.ToOCILinuxSyscalls(policy.GetSyscalls()),
	}
	if policy.GetDefaultErrno() != nil {
		errno := uint(policy.GetDefaultErrno().GetValue())
		out.DefaultErrnoRet = &errno
	}
	for _, arch := range policy.GetArchitectures() {
		out.Architectures = append(out.Architectures, specs.Arch(arch))
	}
	for _, flag := range policy.GetFlags() {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(flag))
	}
	return out
}

func resources(l *specs.Linux) *specs.LinuxResources {
	if l.Resources == nil {
		l.Resources = &specs.LinuxResources{}
	}
	return l.Resources
}

// adjustResources refuses classes of resources (block I/O, RDT). They need tables of the node that
// Pinfold does not have. Without the error, a container would run without its class and nothing
// would say so.
func adjustResources(l *specs.Linux, r *api.LinuxResources) error {
	if r == nil {
		return nil
	}
	if class := r.GetBlockioClass().GetValue(); class != "" {
		return fmt.Errorf("block I/O class %q: Pinfold does not support block I/O classes", class)
	}
	if class := r.GetRdtClass().GetValue(); class != "" {
		return fmt.Errorf("RDT class %q: Pinfold does not support RDT classes", class)
	}
	to, from := resources(l), r.ToOCI()
	adjustCPU(to, from.CPU)
	adjustMemory(to, from.Memory)
	for _, h := range from.HugepageLimits {
		replace(&to.HugepageLimits, h, func(x specs.LinuxHugepageLimit) string { return x.Pagesize })
	}
	adjustMap(&to.Unified, from.Unified)
	to.Devices = append(to.Devices, from.Devices...)
	set(&to.Pids, from.Pids)
	return nil
}

func set[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

func adjustCPU(to *specs.LinuxResources, from *specs.LinuxCPU) {
	if from == nil {
		return
	}
	if to.CPU == nil {
		to.CPU = &specs.LinuxCPU{}
	}
	set(&to.CPU.Shares, from.Shares)
	set(&to.CPU.Quota, from.Quota)
	set(&to.CPU.Period, from.Period)
	set(&to.CPU.RealtimeRuntime, from.RealtimeRuntime)
	set(&to.CPU.RealtimePeriod, from.RealtimePeriod)
	to.CPU.Cpus = cmp.Or(from.Cpus, to.CPU.Cpus)
	to.CPU.Mems = cmp.Or(from.Mems, to.CPU.Mems)
}

// adjustMemory sets the swap limit to the memory limit if a plugin sets only the latter. Containers
// of Pinfold never get swap beyond their memory limit.
func adjustMemory(to *specs.LinuxResources, from *specs.LinuxMemory) {
	if from == nil {
		return
	}
	if to.Memory == nil {
		to.Memory = &specs.LinuxMemory{}
	}
	hadSwap := to.Memory.Swap != nil
	set(&to.Memory.Limit, from.Limit)
	set(&to.Memory.Reservation, from.Reservation)
	set(&to.Memory.Swap, from.Swap)
	set(&to.Memory.Swappiness, from.Swappiness)
	set(&to.Memory.DisableOOMKiller, from.DisableOOMKiller)
	if from.Swap == nil && from.Limit != nil && hadSwap {
		to.Memory.Swap = from.Limit
	}
}
