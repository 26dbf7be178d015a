#!/usr/bin/env bash
# kubeadm.sh: in the VM, makes the machine that docs/guides/kubeadm.md begins with, without internet: packages are
# files of build/, images are loaded beforehand. Then it carries the guide out and looks at what is left.
set -euo pipefail
cd "$(dirname "$0")/../.."
source hack/guides/machine.sh
fresh_machine
for program in kubelet kubeadm kubectl; do ln -sf "$PWD/build/tools/kubernetes/$program" /usr/bin/; done

# As the packages of Kubernetes have it.
cat >/etc/systemd/system/kubelet.service <<'UNIT'
[Unit]
Description=kubelet
Wants=network-online.target
After=network-online.target
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS
Restart=always
StartLimitInterval=0
RestartSec=10
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable kubelet
load_images
ip link add uplink type dummy
ip addr add 192.0.2.10/24 dev uplink
ip link set uplink up
ip route add default via 192.0.2.1
hostname vm
# kubeadm looks in it for what Kubernetes needs.
cp "$(dirname "$PINFOLD_E2E_BIN")/kernel-config" "/boot/config-$(uname -r)"
grep -q ' vm$' /etc/hosts || echo 192.0.2.10 vm >>/etc/hosts

status=0
hack/guides/run.sh docs/guides/kubeadm.md || status=$?
if ((status)); then
	journalctl --no-pager -u kubelet | tail -n 40
	journalctl --no-pager -u pinfold | tail -n 40
	exit "$status"
fi
nothing_left
