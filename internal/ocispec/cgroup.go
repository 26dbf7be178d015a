package ocispec

import "github.com/pinfold-run/pinfold/internal/kernel/cgroup"

const cgroupParentField = "linux.cgroup_parent"

func checkCgroupParent(f *faults, h Host, config PodConfig) {
	parent := config.GetLinux().GetCgroupParent()
	if err := (cgroup.Layout{Systemd: h.SystemdCgroup}).Check(parent); err != nil {
		f.invalid(cgroupParentField, "%q %v", parent, err)
	}
}
