package stats

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pinfold-run/pinfold/pin"
)

// Interface is the traffic of one network interface of a pod, in the pod's directions.
type Interface struct {
	Name           string
	Received, Sent Traffic
}

// Traffic is one direction.
type Traffic struct{ Bytes, Packets, Errors, Dropped uint64 }

// defaultInterface is the pod's main interface for Kubernetes and its network plugins.
const defaultInterface = "eth0"

// Network counts the traffic of the interfaces of the network namespace with that pin, without loopback. The pod's main
// interface comes first. The error wraps fs.ErrNotExist if there is no pin.
func Network(pinned string) ([]Interface, error) {
	var list []Interface
	var failed error
	err := networks([]string{pinned}, func(_ int, found []Interface, err error) { list, failed = found, err })
	return list, errors.Join(err, failed)
}

// Networks is Network for many pods. It is nil for a pod without a pin.
func Networks(pins []string) [][]Interface {
	all := make([][]Interface, len(pins))
	_ = networks(pins, func(i int, found []Interface, _ error) { all[i] = found })
	return all
}

func networks(pins []string, found func(i int, list []Interface, err error)) error {
	file := look{buf: make([]byte, firstBuffer)}
	return pin.Tour(pin.Net, pins, func(i int, err error) {
		if err != nil {
			found(i, nil, err)
			return
		}
		// Not /proc/net, which shows the namespace of the process's first thread. Unlike a request by netlink, a read
		// takes no lock that a driver which hangs may hold.
		data, _ := file.readAt(unix.AT_FDCWD, "/proc/thread-self/net/dev")
		found(i, parseInterfaces(data), nil)
	})
}

// parseInterfaces reads /proc/net/dev: two lines of headings, then "eth0: " and sixteen counters.
func parseInterfaces(data []byte) []Interface {
	var list []Interface
	for line := range strings.Lines(string(data)) {
		// The name of an interface may contain a colon. A counter does not.
		colon := strings.LastIndexByte(line, ':')
		if colon < 0 {
			continue
		}
		name, fields := strings.TrimSpace(line[:colon]), strings.Fields(line[colon+1:])
		var n [16]uint64
		if name == "" || name == "lo" || len(fields) < len(n) {
			continue
		}
		for i := range n {
			n[i], _ = strconv.ParseUint(fields[i], 10, 64)
		}
		list = append(list, Interface{
			Name:     name,
			Received: Traffic{Bytes: n[0], Packets: n[1], Errors: n[2], Dropped: n[3]},
			Sent:     Traffic{Bytes: n[8], Packets: n[9], Errors: n[10], Dropped: n[11]},
		})
	}
	if i := slices.IndexFunc(list, func(i Interface) bool { return i.Name == defaultInterface }); i > 0 {
		list = slices.Insert(slices.Delete(slices.Clone(list), i, i+1), 0, list[i])
	}
	return list
}
