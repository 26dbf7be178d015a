package cri

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/stats"
)

// toStats is CRI's form. layersDir names the file system of the writable layer.
func (c containerUsage) toStats(layersDir string) *runtimeapi.ContainerStats {
	out := &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{
		Id:          c.rec.ID,
		Metadata:    c.rec.Config.GetMetadata(),
		Labels:      c.rec.Config.GetLabels(),
		Annotations: c.rec.Config.GetAnnotations(),
	}}
	u := c.usage
	if u == nil {
		return out
	}
	out.Cpu, out.Memory, out.Swap, out.Io = cpuUsage(u), memoryUsage(u), swapUsage(u), ioUsage(u)
	if l := u.Layer; l != nil {
		out.WritableLayer = &runtimeapi.FilesystemUsage{
			Timestamp:  l.At.UnixNano(),
			FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: layersDir},
			UsedBytes:  value(&l.Bytes),
			InodesUsed: value(&l.Inodes),
		}
	}
	return out
}

func (p podUsage) toStats(layersDir string) *runtimeapi.PodSandboxStats {
	u := p.usage
	linux := &runtimeapi.LinuxPodSandboxStats{Cpu: cpuUsage(u), Memory: memoryUsage(u), Io: ioUsage(u)}
	if u.Tasks != nil {
		linux.Process = &runtimeapi.ProcessUsage{Timestamp: u.At.UnixNano(), ProcessCount: value(u.Tasks.Processes)}
	}
	linux.Network = networkUsage(u.At, p.network)
	for _, c := range p.containers {
		linux.Containers = append(linux.Containers, c.toStats(layersDir))
	}
	return &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id:          p.rec.ID,
			Metadata:    p.rec.Config.GetMetadata(),
			Labels:      p.rec.Config.GetLabels(),
			Annotations: p.rec.Config.GetAnnotations(),
		},
		Linux: linux,
	}
}

// value is CRI's form of a number that may be missing.
func value(n *uint64) *runtimeapi.UInt64Value {
	if n == nil {
		return nil
	}
	return &runtimeapi.UInt64Value{Value: *n}
}

func cpuUsage(u *stats.Usage) *runtimeapi.CpuUsage {
	if u.CPU == nil {
		return nil
	}
	return &runtimeapi.CpuUsage{
		Timestamp:            u.At.UnixNano(),
		UsageCoreNanoSeconds: value(u.CPU.Usage),
		UsageNanoCores:       value(u.CPU.Rate),
		Psi:                  pressure(u.CPU.Pressure),
	}
}

func memoryUsage(u *stats.Usage) *runtimeapi.MemoryUsage {
	m := u.Memory
	if m == nil {
		return nil
	}
	out := &runtimeapi.MemoryUsage{
		Timestamp:       u.At.UnixNano(),
		WorkingSetBytes: value(m.WorkingSet()),
		AvailableBytes:  value(m.Available()),
		UsageBytes:      value(m.Usage),
		Psi:             pressure(m.Pressure),
	}
	if m.Stat != nil {
		out.RssBytes = value(&m.Stat.Anonymous)
		out.PageFaults, out.MajorPageFaults = value(&m.Stat.PageFaults), value(&m.Stat.MajorFaults)
	}
	return out
}

func swapUsage(u *stats.Usage) *runtimeapi.SwapUsage {
	if u.Swap == nil {
		return nil
	}
	return &runtimeapi.SwapUsage{
		Timestamp:          u.At.UnixNano(),
		SwapUsageBytes:     value(u.Swap.Usage),
		SwapAvailableBytes: value(u.Swap.Available()),
	}
}

func ioUsage(u *stats.Usage) *runtimeapi.IoUsage {
	if u.IO == nil {
		return nil
	}
	return &runtimeapi.IoUsage{Timestamp: u.At.UnixNano(), Psi: pressure(u.IO.Pressure)}
}

func pressure(p *stats.Pressure) *runtimeapi.PsiStats {
	if p == nil {
		return nil
	}
	data := func(s stats.Stall) *runtimeapi.PsiData {
		return &runtimeapi.PsiData{Total: uint64(s.Total), Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
	}
	return &runtimeapi.PsiStats{Full: data(p.Full), Some: data(p.Some)}
}

// networkUsage takes the first interface as the default one. The list has it, too. According to CRI
// the list has only the others, but the kubelet's summary shows only the list, and containerd lists
// all.
func networkUsage(at time.Time, list []stats.Interface) *runtimeapi.NetworkUsage {
	if len(list) == 0 {
		return nil
	}
	out := &runtimeapi.NetworkUsage{Timestamp: at.UnixNano()}
	for i, one := range list {
		usage := &runtimeapi.NetworkInterfaceUsage{
			Name:     one.Name,
			RxBytes:  value(&one.Received.Bytes),
			RxErrors: value(&one.Received.Errors),
			TxBytes:  value(&one.Sent.Bytes),
			TxErrors: value(&one.Sent.Errors),
		}
		if i == 0 {
			out.DefaultInterface = usage
		}
		out.Interfaces = append(out.Interfaces, usage)
	}
	return out
}
