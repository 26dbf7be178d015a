package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/pinfold-run/pinfold/pin"
)

func TestThePodsNameServersAreThoseAskedForOrTheNodes(t *testing.T) {
	t.Parallel()
	n := started(t)
	nodes, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dns  *runtimeapi.DNSConfig
		want string
	}{
		"all": {
			&runtimeapi.DNSConfig{
				Servers: []string{"10.0.0.10", "fd00::10"}, Searches: []string{"e2e.svc.cluster.local", "cluster.local"},
				Options: []string{"ndots:5", "edns0"},
			},
			"search e2e.svc.cluster.local cluster.local\nnameserver 10.0.0.10\nnameserver fd00::10\noptions ndots:5 edns0",
		},
		"servers": {&runtimeapi.DNSConfig{Servers: []string{"10.0.0.10"}}, "nameserver 10.0.0.10"},
		"empty":   {&runtimeapi.DNSConfig{}, ""},
		"none":    {nil, strings.TrimSpace(string(nodes))},
	} {
		config := n.podConfig("p"+name, "userns")
		config.DnsConfig = c.dns
		id := n.runContainerOf(n.runPodOf(config), sleeper("c"))
		n.says(id, "cat /etc/resolv.conf", c.want)
	}
}

func TestHostsNamesThePodByEachOfItsAddresses(t *testing.T) {
	t.Parallel()
	n := started(t)
	pod := n.runPodOf(n.podConfig("web", "userns"))
	resp, err := n.runtime.PodSandboxStatus(n.ctx(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
	n.check(err)
	network := resp.GetStatus().GetNetwork()
	if len(network.GetAdditionalIps()) != 1 {
		t.Fatalf("addresses: %v", network)
	}
	c := n.runContainerOf(pod, sleeper("c"))
	n.says(c, "grep web /etc/hosts | tr '\\t' ' '", network.Ip+" web\n"+network.AdditionalIps[0].Ip+" web")
	n.says(c, "grep -c localhost /etc/hosts; cat /etc/hostname; hostname", "2\nweb\nweb")
	nodes, err := os.ReadFile("/etc/hosts")
	n.check(err)
	c = n.runContainerOf(n.runPodOf(n.podConfig("host", "host-network")), sleeper("c"))
	n.says(c, "cat /etc/hosts", strings.TrimSpace(string(nodes)))
}

func TestOfTwoMountsAtOnePathTheLaterIsSeen(t *testing.T) {
	t.Parallel()
	n := started(t)
	for _, name := range []string{"one", "two"} {
		n.check(os.Mkdir(n.path("volumes", name), 0o755))
		n.write("volumes/"+name+"/name", name+"\n")
	}
	eachKindOfPod(t, n, func(pod string, userns bool) {
		c := n.runContainerOf(pod, sleeper("c",
			idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes/one"), ContainerPath: "/data"}),
			idmapped(userns, &runtimeapi.Mount{HostPath: n.path("volumes/two"), ContainerPath: "/data/"})))
		n.says(c, "cat /data/name", "two")
	})
}

// echo serves port 7 of a pod, TCP and UDP, IPv4.
func (n *node) echo(pod string) {
	n.t.Helper()
	var stream net.Listener
	var packets net.PacketConn
	ns, err := pin.Open(n.path("netns", "pinfold-"+pod))
	n.check(err)
	defer ns.Close()
	n.check(ns.Do(func() (err error) { // sockets that are made here stay in the namespace
		if stream, err = net.Listen("tcp4", ":7"); err == nil {
			packets, err = net.ListenPacket("udp4", ":7")
		}
		return err
	}))
	n.t.Cleanup(func() { stream.Close(); packets.Close() })
	go func() {
		for {
			conn, err := stream.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	go func() {
		buffer := make([]byte, 100)
		for {
			size, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buffer[:size], from)
		}
	}()
}

// answers returns nil if an echo server answers at the address.
func answers(network, address string) error {
	conn, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("echo")); err != nil {
		return err
	}
	buffer := make([]byte, 4)
	_, err = io.ReadFull(conn, buffer)
	return err
}

func TestPortsOfTheHostLeadToThePodByProtocolAndAddress(t *testing.T) {
	t.Parallel()
	n := started(t)
	gateway := fmt.Sprintf("10.77.%d.1", n.number)
	port := func(offset int) int32 { return int32(20000 + 10*n.number + offset) }
	at := func(host string, offset int) string { return net.JoinHostPort(host, fmt.Sprint(port(offset))) }
	config := n.podConfig("p", "userns")
	config.PortMappings = []*runtimeapi.PortMapping{
		{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 7, HostPort: port(0)},
		{Protocol: runtimeapi.Protocol_UDP, ContainerPort: 7, HostPort: port(1)},
		{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 7, HostPort: port(2), HostIp: gateway},
		{Protocol: runtimeapi.Protocol_TCP, ContainerPort: 9}, // no port of the host
	}
	pod := n.runPodOf(config)
	n.echo(pod)
	for _, c := range []struct{ network, address string }{
		{"tcp4", at(gateway, 0)}, {"tcp4", at("127.0.0.1", 0)}, {"udp4", at(gateway, 1)}, {"tcp4", at(gateway, 2)},
	} {
		n.check(n.until(c.network+" at "+c.address, func() bool { return answers(c.network, c.address) == nil }))
	}
	for _, c := range []struct{ network, address string }{
		{"tcp4", at("127.0.0.1", 2)}, {"tcp4", at(gateway, 1)}, {"udp4", at(gateway, 0)},
	} {
		if answers(c.network, c.address) == nil {
			t.Errorf("%s at %s leads to the pod", c.network, c.address)
		}
	}
	n.endPod(pod)
	if answers("tcp4", at(gateway, 0)) == nil {
		t.Error("a port of the host leads to a pod that is gone")
	}
	if left := slices.DeleteFunc(n.rules(), func(r string) bool { return !strings.Contains(r, fmt.Sprint(port(0))) }); len(left) > 0 {
		t.Errorf("rules of its ports are left: %v", left)
	}
}
