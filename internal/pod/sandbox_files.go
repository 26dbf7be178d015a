package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/ocispec"
	"github.com/pinfold-run/pinfold/internal/regular"
)

// files are the host paths of what a sandbox lends to its containers.
func (n *Node) files(r *SandboxRecord) ocispec.Files {
	dir := n.Paths.files(r.ID)
	f := ocispec.Files{
		Hostname:   filepath.Join(dir, "hostname"),
		Hosts:      filepath.Join(dir, "hosts"),
		ResolvConf: filepath.Join(dir, "resolv.conf"),
		Shm:        n.Mounts.ShmPath(r.ID),
	}
	if r.namespaceOptions().GetIpc() == runtimeapi.NamespaceMode_NODE {
		f.Shm = "/dev/shm"
	}
	return f
}

// hostname is the pod's: the configured one, or the node's with host network.
func (r *SandboxRecord) hostname() string {
	if name := r.Config.GetHostname(); name != "" {
		return name
	}
	if r.HostNetwork() {
		name, _ := os.Hostname()
		return name
	}
	return truncate(r.Config.GetMetadata().GetName(), maxHostname)
}

// maxHostname is the kernel's __NEW_UTS_LEN less one, as Kubernetes has it.
const maxHostname = 63

func truncate(s string, n int) string {
	if len(s) > n {
		s = strings.TrimRight(s[:n], "-.")
	}
	return s
}

func (s *Sandboxes) writeFiles(_ context.Context, box *Sandbox) error {
	rec := box.Record()
	files := s.node.files(rec)
	if err := os.MkdirAll(s.node.Paths.files(box.ID), 0o700); err != nil {
		return err
	}
	resolv, err := resolvConf(rec.Config.GetDnsConfig())
	if err != nil {
		return err
	}
	if err := rec.write(files.Hostname, rec.hostname()+"\n"); err != nil {
		return err
	}
	if err := rec.write(files.ResolvConf, resolv); err != nil {
		return err
	}
	if err := s.writeHosts(box); err != nil {
		return err
	}
	if err := s.node.labelFiles(rec, files.Hostname, files.ResolvConf, files.Hosts); err != nil {
		return err
	}
	if rec.namespaceOptions().GetIpc() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	_, label := s.node.selinuxLabels(rec, nil)
	_, err = s.node.Mounts.Shm(box.ID, shmSize, rec.rootOwner(), label)
	return err
}

// shmSize is the size of a pod's /dev/shm in bytes, as every runtime of the field has it.
const shmSize = 64 << 20

// writeHosts writes the pod's /etc/hosts: again after the network is attached, with the addresses.
func (s *Sandboxes) writeHosts(box *Sandbox) error {
	rec := box.Record()
	var ips []netip.Addr
	if rec.Network != nil {
		ips = rec.Network.IPs()
	}
	return rec.write(s.node.files(rec).Hosts, hosts(rec.hostname(), rec.HostNetwork(), ips))
}

// maxNodeFile bounds what is taken from a file of the node's for a pod, in bytes.
const maxNodeFile = 4 << 20

func hosts(hostname string, hostNetwork bool, ips []netip.Addr) string {
	if hostNetwork {
		if own, err := regular.Read("/etc/hosts", maxNodeFile); err == nil {
			return string(own)
		}
	}
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
	for _, ip := range ips {
		fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
	}
	return b.String()
}

// resolvConf is resolv.conf(5) from CRI's DNS configuration, or the node's own where there is none. One that is empty
// asks for an empty file.
func resolvConf(dns *runtimeapi.DNSConfig) (string, error) {
	if dns == nil {
		own, err := regular.Read("/etc/resolv.conf", maxNodeFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		return string(own), nil
	}
	var b strings.Builder
	if searches := dns.GetSearches(); len(searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(searches, " "))
	}
	for _, server := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if options := dns.GetOptions(); len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String(), nil
}

// write makes a file that the pod's root owns. It is written in place, not renamed: containers have
// it mounted.
func (r *SandboxRecord) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return err
	}
	root := r.rootOwner()
	return errors.Join(os.Chown(path, int(root.UID), int(root.GID)), os.Chmod(path, 0o644)) // whatever the umask: all users of the pod read it
}

func (s *Sandboxes) removeFiles(_ context.Context, box *Sandbox) error {
	if err := s.node.Mounts.Unmount(box.ID); err != nil {
		return err
	}
	return os.RemoveAll(s.node.Paths.files(box.ID))
}
