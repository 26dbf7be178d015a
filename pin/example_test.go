package pin_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/pinfold-run/pinfold/pin"
)

// A sandbox's namespaces are made, the network is pinned, and everything is
// found again through the pin alone, as after a restart. (Needs root.)
func Example() {
	dir, err := os.MkdirTemp("", "pin")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(dir)
	path := filepath.Join(dir, "net")

	ids := []pin.IDMap{{ContainerID: 0, HostID: 100000, Length: 65536}}
	set, err := pin.Create(&pin.Mappings{UIDs: ids, GIDs: ids}, pin.Net|pin.IPC|pin.UTS)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()
	if err := set.Net.Pin(path); err != nil {
		fmt.Println(err)
		return
	}
	defer func() {
		if err := pin.Unpin(path); err != nil {
			fmt.Println(err)
		}
	}()

	found, err := pin.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer found.Close()
	owner, err := found.Owner()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer owner.Close()
	fmt.Println("kind:", found.Kind())
	fmt.Println("same network:", found.Same(set.Net))
	fmt.Println("owned by the new user namespace:", owner.Same(set.User))
	// Output:
	// kind: net
	// same network: true
	// owned by the new user namespace: true
}

// Without mappings the namespaces belong to the caller's user namespace.
// (Needs root.)
func ExampleCreate_hostOwned() {
	set, err := pin.Create(nil, pin.Net|pin.UTS)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()
	owner, err := set.Net.Owner()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer owner.Close()
	host, err := pin.Open("/proc/self/ns/user")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer host.Close()
	fmt.Println("user namespace made:", set.User != nil)
	fmt.Println("owned by the host:", owner.Same(host))
	// Output:
	// user namespace made: false
	// owned by the host: true
}

// Do runs a function inside, here to see the first device of a new network
// namespace. (Needs root.)
func ExampleNamespace_Do() {
	set, err := pin.Create(nil, pin.Net)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer set.Close()
	err = set.Net.Do(func() error {
		devices, err := net.Interfaces()
		if err != nil {
			return err
		}
		fmt.Println(devices[0].Name, devices[0].Flags)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// lo loopback
}

// A file that is no pin, left by a crash or a reboot, is told apart from a
// missing one.
func ExampleOpen() {
	file, err := os.CreateTemp("", "pin")
	if err != nil {
		fmt.Println(err)
		return
	}
	file.Close()
	_, err = pin.Open(file.Name())
	fmt.Println(errors.Is(err, pin.ErrNotNamespace))
	os.Remove(file.Name())
	_, err = pin.Open(file.Name())
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output:
	// true
	// true
}

func ExampleMappings_Validate() {
	m := pin.Mappings{
		UIDs: []pin.IDMap{{ContainerID: 0, HostID: 100000, Length: 65536}, {ContainerID: 65536, HostID: 165535, Length: 10}},
		GIDs: []pin.IDMap{{ContainerID: 0, HostID: 100000, Length: 65536}},
	}
	fmt.Println(m.Validate())
	m.UIDs[1].HostID = 200000
	fmt.Println(m.Validate())
	// Output:
	// uid mapping, line 2: host_id 165535: is also in line 1
	// <nil>
}

func ExampleMappings_HostUID() {
	ids := []pin.IDMap{{ContainerID: 0, HostID: 100000, Length: 65536}}
	m := pin.Mappings{UIDs: ids, GIDs: ids}
	fmt.Println(m.HostUID(1000))
	fmt.Println(m.HostUID(70000))
	// Output:
	// 101000 true
	// 0 false
}
