package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/internal/pod"
	"github.com/pinfold-run/pinfold/internal/regular"
	"github.com/pinfold-run/pinfold/internal/rootfs"
)

// sandboxFiles is the step "files": what the pod lends to its containers, hostname, hosts, resolv.conf and shared memory.
type sandboxFiles struct {
	places *pod.Places
	view   view
	mounts shmMounts
	labels labels
	hosts  hostsFile
}

// owners gives files to users of pods.
type owners interface {
	// Own gives a file or directory to an owner.
	Own(path string, owner rootfs.Owner) error
}

type shmMounts interface {
	owners
	// Shm mounts the shared memory of a sandbox, ShmPath says where.
	Shm(id string, size int64, owner rootfs.Owner, context string) (string, error)
	ShmPath(id string) string
	// Unmount removes all mounts of a sandbox or container.
	Unmount(id string) error
}

// Do writes the files and mounts the shared memory.
func (s sandboxFiles) Do(_ context.Context, box *pod.Sandbox) error {
	rec := box.Record()
	files := s.view.files(rec)
	if err := os.MkdirAll(s.places.Files(box.ID), 0o700); err != nil {
		return err
	}
	resolv, err := resolvConf(rec.Config.GetDnsConfig())
	if err != nil {
		return err
	}
	if err := write(s.mounts, rec, files.Hostname, rec.Hostname()+"\n"); err != nil {
		return err
	}
	if err := write(s.mounts, rec, files.ResolvConf, resolv); err != nil {
		return err
	}
	if err := s.hosts.write(rec); err != nil {
		return err
	}
	if err := s.labels.set(rec, files.Hostname, files.ResolvConf, files.Hosts); err != nil {
		return err
	}
	if rec.NamespaceOptions().GetIpc() == runtimeapi.NamespaceMode_NODE {
		return nil
	}
	_, label := s.labels.of(rec, nil)
	_, err = s.mounts.Shm(box.ID, shmSize, rec.RootOwner(), label)
	return err
}

// Undo reads the ID alone.
func (s sandboxFiles) Undo(_ context.Context, box *pod.Sandbox) error {
	if err := s.mounts.Unmount(box.ID); err != nil {
		return err
	}
	return os.RemoveAll(s.places.Files(box.ID))
}

// shmSize is the size of a pod's /dev/shm in bytes, as every runtime of the field has it.
const shmSize = 64 << 20

// hostsFile writes the pod's /etc/hosts: in step files, and again with the addresses when the network is attached.
type hostsFile struct {
	view   view
	owners owners
}

func (h hostsFile) write(rec *pod.SandboxRecord) error {
	var ips []netip.Addr
	if rec.Network != nil {
		ips = rec.Network.IPs()
	}
	return write(h.owners, rec, h.view.files(rec).Hosts, hosts(rec.Hostname(), rec.HostNetwork(), ips))
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

// write makes a file that the pod's root owns. It is written in place, not renamed: containers have it mounted.
func write(owners owners, rec *pod.SandboxRecord, path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return err
	}
	return errors.Join(owners.Own(path, rec.RootOwner()), os.Chmod(path, 0o644)) // whatever the umask: all users of the pod read it
}
